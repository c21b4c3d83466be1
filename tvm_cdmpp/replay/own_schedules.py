"""How much slower than estimated TVM's own schedules run on a CPU, by kind of operator.

Predictors learn from Ansor's programs, and what TVM compiles without tuning is none of these. Of
one kind such programs are much alike: convolutions of any size run at about the same share of a
core's peak. So a small network of each kind is compiled and timed once, and the level over the
analytic estimate that this gives is what later ones of the kind are priced by.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tvm_cdmpp.bridge import hardware_params, load_tvm
from tvm_cdmpp.devices import DeviceSpec, Hardware
from tvm_cdmpp.errors import MeasureError, NetworkError
from tvm_cdmpp.networks import (
    Network,
    deploy,
    lower_network,
    network_of_relay,
    random_inputs,
)
from tvm_cdmpp.replay.graph import read_graph
from tvm_cdmpp.replay.own_pricing import OWN_KINDS, estimate_parts

tvm = load_tvm()
relay = tvm.relay

Expression: TypeAlias = Any
Target: TypeAlias = Any

_TIMES = 7
_LEAST_SHARE = 0.5
"""Of a network's time that is the work of its kind; of less, the difference says little."""


def measure_own_schedules(
    device: DeviceSpec,
    target: Target,
    kinds: Sequence[str] = OWN_KINDS,
    *,
    on_kind: Callable[[str, str], None] = lambda kind, problem: None,
) -> dict[str, float]:
    """Compile and time a network of each kind of operator, in this process.

    Parameters
    ----------
    device
        This machine's CPU.
    target
        What to compile for.
    kinds
        Some of `OWN_KINDS`.
    on_kind
        Told each kind that is done, and why it has no level; that is empty if it has one.

    Returns
    -------
    levels
        ln(measured / estimated) of the work of a kind's functions, by `OWN_KINDS`; without kinds
        that TVM cannot compile or run, and those that take little longer than their starts.
    """
    levels = {}
    for kind in kinds:
        problem = ""
        try:
            levels[kind] = _measure(kind, device, target)
        except (NetworkError, MeasureError) as error:
            problem = str(error)
        on_kind(kind, problem)
    return levels


def _measure(kind: str, device: DeviceSpec, target: Target) -> float:
    network = sample_network(kind)
    lowered = lower_network(network, target, None)
    graph = read_graph(lowered.graph_json, lowered.parameters)
    moved = {operator.function: operator.moved_bytes for operator in graph.operators}
    parameters = hardware_params(target)
    hardware = Hardware() if parameters is None else Hardware.of(parameters)
    rest_s = work_s = 0.0
    for name, parts in estimate_parts(
        lowered.programs, moved, device, hardware, graph.peak_bytes
    ).items():
        rest_s += graph.counts[name] * parts.start_s
        if parts.kind == kind:
            work_s += graph.counts[name] * parts.work_s
        else:
            rest_s += graph.counts[name] * parts.work_s
    inputs = random_inputs(network, seed=0)
    measured_s = statistics.median(deploy(network, target).time_s(inputs, _TIMES))
    if not work_s or measured_s - rest_s < _LEAST_SHARE * measured_s:
        raise MeasureError(
            f"a network of {kind} takes {1e6 * measured_s:.0f} us, and its starts and what is "
            f"between its operators are estimated at {1e6 * rest_s:.0f} us: too much of it"
        )
    return math.log((measured_s - rest_s) / work_s)


def sample_network(kind: str) -> Network:
    """Return a network of some operators of a kind, of sizes that networks have.

    Parameters
    ----------
    kind
        One of `OWN_KINDS`.
    """
    build, shape = _SAMPLES[kind]
    weights: dict[str, Any] = {}
    out = build(relay.var("x", shape=shape), _Weights(weights))
    module = tvm.IRModule.from_expr(relay.Function(relay.analysis.free_vars(out), out))
    return network_of_relay(kind, module, weights)


class _Weights:
    """Makes random weights and keeps them by name."""

    def __init__(self, kept: dict[str, Any]) -> None:
        self._kept, self._generator = kept, np.random.default_rng(0)

    def __call__(self, *shape: int) -> Expression:
        name = f"w{len(self._kept)}"
        values = self._generator.uniform(-0.1, 0.1, shape).astype(np.float32)
        self._kept[name] = tvm.nd.array(values)
        return relay.var(name, shape=shape)


def _conv2d(x: Expression, weights: _Weights) -> Expression:
    for inputs, outputs, size, stride in ((64, 64, 3, 1), (64, 256, 1, 1), (256, 128, 3, 2)):
        x = _convolution(x, weights(outputs, inputs, size, size), stride=stride)
    return x


def _depthwise(x: Expression, weights: _Weights) -> Expression:
    for stride in (1, 1, 1, 1, 2, 1):  # between two layout transforms
        x = _convolution(x, weights(192, 1, 3, 3), stride=stride, groups=192)
    return x


def _convolution(x: Expression, weight: Expression, *, stride: int, groups: int = 1) -> Expression:
    outputs, _, size, _ = map(int, weight.type_annotation.shape)
    return relay.nn.relu(
        relay.nn.conv2d(
            x, weight, strides=stride, padding=size // 2, groups=groups, channels=outputs,
            kernel_size=(size, size),
        )
    )  # fmt: skip


def _transposed(x: Expression, weights: _Weights) -> Expression:
    for inputs, outputs in ((128, 64), (64, 32)):
        x = relay.nn.conv2d_transpose(
            x, weights(inputs, outputs, 4, 4), strides=(2, 2), padding=(1, 1), channels=outputs,
            kernel_size=(4, 4),
        )  # fmt: skip
        x = relay.nn.relu(x)
    return x


def _dense(x: Expression, weights: _Weights) -> Expression:
    for inputs, outputs in ((512, 1000), (1000, 512)):
        x = relay.nn.relu(relay.nn.dense(x, weights(outputs, inputs)))
    return x


def _products(x: Expression, weights: _Weights) -> Expression:
    for inputs, outputs in ((256, 1024), (1024, 256)):
        x = relay.nn.batch_matmul(x, weights(1, inputs, outputs), transpose_b=False)
        x = relay.nn.relu(x)
    return x


def _transposed_products(x: Expression, weights: _Weights) -> Expression:
    for inputs, outputs in ((256, 1024), (1024, 256)):
        x = relay.nn.relu(relay.nn.batch_matmul(x, weights(1, outputs, inputs)))
    return x


def _pool(x: Expression, weights: _Weights) -> Expression:
    x = relay.nn.max_pool2d(x, pool_size=(3, 3), strides=(2, 2), padding=(1, 1))
    return relay.nn.avg_pool2d(x, pool_size=(3, 3), strides=(1, 1), padding=(1, 1))


def _softmax(x: Expression, weights: _Weights) -> Expression:
    return relay.nn.softmax(x)


_SAMPLES: Mapping[str, tuple[Callable[[Expression, _Weights], Expression], tuple[int, ...]]] = {
    "conv2d_transpose": (_transposed, (1, 128, 16, 16)),
    "depthwise_conv2d": (_depthwise, (1, 192, 56, 56)),
    "conv2d": (_conv2d, (1, 64, 56, 56)),
    "batch_matmul_NN": (_products, (1, 128, 256)),
    "batch_matmul_NT": (_transposed_products, (1, 128, 256)),
    "dense": (_dense, (1, 512)),
    "pool": (_pool, (1, 64, 112, 112)),
    "softmax": (_softmax, (12, 128, 128)),
}
