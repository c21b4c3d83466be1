"""Networks that have a name: with random weights, and a batch of 1 unless another is asked for.

Weights are scaled so that activations neither fade nor overflow: outputs of a wrongly compiled
network must differ visibly.
"""

import contextlib
import importlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.networks.imported import Imported
from tvm_cdmpp.networks.torch_files import torch_reference, trace_module
from tvm_cdmpp.networks.zoo import ZOO, build_module

tvm = load_tvm()
relay = tvm.relay

IRModule: TypeAlias = Any
RelayFunction: TypeAlias = Any
NDArray: TypeAlias = Any

_SEED = 0
_PRODUCTS = ("nn.conv", "nn.dense")


@dataclass(frozen=True, slots=True)
class _Stock:
    """A network of `tvm.relay.testing`."""

    module: str
    """Module of `tvm.relay.testing` that defines it."""
    options: dict[str, Any]
    """Arguments of its `get_workload`, besides the batch size."""
    gain: float = 2.0
    """Variance of a weight times its fan-in; 2 keeps the signal's size through ReLUs."""


# In residual networks the signal grows with every block, hence the smaller gain.
_STOCK = {
    "resnet-18": _Stock(
        "resnet", {"num_layers": 18, "image_shape": (224, 224, 3), "layout": "NHWC"}, 1.0
    ),
    "resnet-50": _Stock(
        "resnet", {"num_layers": 50, "image_shape": (224, 224, 3), "layout": "NHWC"}, 1.0
    ),
    "mobilenet": _Stock("mobilenet", {"image_shape": (224, 224, 3), "layout": "NHWC"}),
    "squeezenet": _Stock("squeezenet", {}),
    "vgg-16": _Stock("vgg", {"num_layers": 16}),
    "inception-v3": _Stock("inception_v3", {}),
    "densenet-121": _Stock("densenet", {"densenet_size": 121}),
    "mlp": _Stock("mlp", {}),
    "dcgan": _Stock("dcgan", {"layout": "NHWC"}),
    "resnet3d-18": _Stock(
        "resnet_3d", {"num_layers": 18, "image_shape": (16, 112, 112, 3), "layout": "NDHWC"}, 1.0
    ),
}


def build_named(name: str, batch: int = 1) -> Imported:
    """Build one of `names.NETWORKS` for a size of the batch."""
    if name in ZOO:
        entry = ZOO[name]
        inputs = {entry.input_name: ((batch, *entry.shape[1:]), entry.dtype)}
        module = build_module(name, seed=_SEED)
        return Imported(*trace_module(module, inputs), inputs, torch_reference(module, inputs))
    stock = _STOCK[name]
    mod, params = _get_workload(stock, batch)
    main = mod["main"]
    inputs = {
        str(var.name_hint): (
            tuple(int(size) for size in var.checked_type.shape),
            str(var.checked_type.dtype),
        )
        for var in main.params
        if var.name_hint not in params
    }
    return Imported(mod, _random_weights(main, params, stock.gain), inputs)


def _get_workload(stock: _Stock, batch: int) -> tuple[IRModule, dict[str, NDArray]]:
    importlib.import_module("tvm.relay.testing")
    definition = importlib.import_module(f"tvm.relay.testing.{stock.module}")
    with _global_numpy_state():
        mod, params = definition.get_workload(batch_size=batch, **stock.options)
    return mod, dict(params)


@contextlib.contextmanager
def _global_numpy_state() -> Iterator[None]:
    """Undo what `tvm.relay.testing` does to NumPy's global generator."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _random_weights(
    main: RelayFunction, params: dict[str, NDArray], gain: float
) -> dict[str, NDArray]:
    """Redraw the weights of products; the stock ones let the signal fade in channels-last layout.

    Parameters
    ----------
    main
        Relay function of the network.
    params
        Its parameters.
    gain
        Variance of a weight times its fan-in.
    """
    fan_ins: dict[str, float] = {}

    def visit(node: Any) -> None:
        if not isinstance(node, relay.Call) or not str(node.op.name).startswith(_PRODUCTS):
            return
        kernel = node.args[1]
        if isinstance(kernel, relay.Var):
            shape = params[kernel.name_hint].shape
            # A dense kernel has no layout: its first axis is the output.
            layout = str(getattr(node.attrs, "kernel_layout", "O"))
            strides = node.attrs.strides if "transpose" in node.op.name else ()
            # Of a transposed convolution's taps, only one in so many meets an input.
            taps_skipped = math.prod(int(stride) for stride in strides)
            fan_ins[kernel.name_hint] = math.prod(shape) / shape[layout.index("O")] / taps_skipped

    relay.analysis.post_order_visit(main, visit)
    rng = np.random.default_rng(_SEED)
    redrawn = dict(params)
    for name, fan_in in fan_ins.items():
        weight = rng.standard_normal(params[name].shape, dtype=np.float32)
        redrawn[name] = tvm.nd.array(weight * np.float32(math.sqrt(gain / fan_in)))
    return redrawn
