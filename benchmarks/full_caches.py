"""What functions take with full caches, against empty ones, and what `replay.kept` expects of that.

    python -m benchmarks.full_caches [--passes 5] [--out FILE]

Products of few rows, small convolutions and pools by TVM's own schedules, on this machine's CPU.
With full caches a function runs again and again; with empty ones everything but its first input is
flushed before each run, as Ansor measures programs. What waking the threads takes by
`replay.physics` counts in neither. The constants of `replay.kept` are from such a run.

A run of five passes takes a minute on a quiet machine with two cores.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.provenance import RESULTS, provenance, write_json
from tvm_cdmpp.bridge import (
    default_target,
    device_of,
    hardware_params,
    load_tvm,
    off_worker_cores,
    quiet_tvm,
    use_physical_cores,
)
from tvm_cdmpp.devices import DeviceSpec, Hardware
from tvm_cdmpp.extract import describe_programs, leaves_if_readable
from tvm_cdmpp.models import leaf_terms_s
from tvm_cdmpp.networks import lower_network, network_of_relay
from tvm_cdmpp.replay.kept import kept_work
from tvm_cdmpp.replay.physics import wake_s

tvm = load_tvm()
relay = tvm.relay

_ROWS, _WIDTHS, _OUTPUTS = (1, 4, 16), (128, 256, 512, 784, 1024, 2048), (64, 256, 512, 1024)
_LARGEST_BYTES = 6e6
"""Of weights, so that they fit into the last cache of most CPUs."""
_CONVOLUTIONS = (
    (64, 14, 64, 3), (128, 14, 128, 3), (64, 28, 64, 1), (256, 14, 64, 1), (256, 7, 256, 3),
    (32, 56, 32, 3), (512, 7, 128, 1), (16, 56, 64, 1),
)  # fmt: skip
"""Channels, height and width, channels of the result, and the kernel's."""
_POOLS = ((64, 56), (128, 28), (512, 14), (512, 7))
_FULL_RUNS, _EMPTY_RUNS = 20, 20
"""In a pass; of full ones at once, as reading a clock takes as long as some."""


@dataclass(frozen=True)
class _Case:
    kind: str
    name: str
    expression: Any
    weight_shape: tuple[int, ...] = ()


class _Function:
    """A compiled function with arguments, ready to be timed."""

    def __init__(self, case: _Case, device: DeviceSpec, hardware: Hardware) -> None:
        target = default_target()
        rng = np.random.default_rng(0)
        mod = tvm.IRModule.from_expr(case.expression)
        weights = {"w": rng.standard_normal(case.weight_shape, dtype=np.float32)}
        params = {name: tvm.nd.array(w) for name, w in weights.items() if case.weight_shape}
        lowered = lower_network(network_of_relay(case.name, mod, params), target, None)
        program = next(
            program
            for name, program in lowered.programs.items()
            if any(part in name for part in ("dense", "conv2d", "max_pool2d"))
        )
        shapes = [tuple(map(int, program.buffer_map[param].shape)) for param in program.params]
        leaves = list(leaves_if_readable(program, hardware.cores))
        compute_s = leaf_terms_s(describe_programs([leaves], hardware), device)[:2]
        self.case = case
        self.memory_bytes = 4 * sum(map(int, map(np.prod, shapes)))
        self.expected = kept_work(leaves, compute_s, device, self.memory_bytes).share
        self.wake_s = wake_s(leaves, device)
        self.passes_s: list[tuple[float, float]] = []
        self._arguments = [
            tvm.nd.array(rng.standard_normal(shape, dtype=np.float32)) for shape in shapes
        ]
        with quiet_tvm():
            self._library = tvm.build(program, target=target)

    def take_pass(self) -> None:
        """Time it both ways, and keep the medians."""
        name, cpu = self._library.entry_name, tvm.cpu(0)
        full = self._library.time_evaluator(name, cpu, number=_FULL_RUNS, repeat=5)
        empty = self._library.time_evaluator(
            name, cpu, number=1, repeat=_EMPTY_RUNS, f_preproc="cache_flush_cpu_non_first_arg"
        )
        with off_worker_cores():
            times = [timer(*self._arguments).results for timer in (full, empty)]
        full_s, empty_s = map(float, map(np.median, times))
        self.passes_s.append((full_s, empty_s))

    def row(self) -> dict[str, Any]:
        """Return what was found."""
        full_s, empty_s = np.median(self.passes_s, axis=0).tolist()
        return {
            "kind": self.case.kind,
            "name": self.case.name,
            "memory_bytes": self.memory_bytes,
            "full_s": full_s,
            "empty_s": empty_s,
            "wake_s": self.wake_s,
            "share": (full_s - self.wake_s) / (empty_s - self.wake_s),
            "expected": self.expected,
        }


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description="What functions take with full and empty caches.")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "full-caches.json")
    args = parser.parse_args()
    use_physical_cores()
    target = default_target()
    device, hardware = device_of(target), Hardware.of(hardware_params(target))
    functions = [_Function(case, device, hardware) for case in _cases()]
    for number in range(args.passes):
        for function in functions:
            function.take_pass()
        print(f"pass {number + 1} of {args.passes}", flush=True)
    rows = [function.row() for function in functions]
    write_json(args.out, {**provenance(), "settings": {"passes": args.passes}, "rows": rows})
    for row in rows:
        print(f"{row['name']:24} {row['share']:.2f}, expected {row['expected']:.2f}")


def _cases() -> Iterator[_Case]:
    for rows in _ROWS:
        for width in _WIDTHS:
            for outputs in _OUTPUTS:
                if 4 * width * outputs <= _LARGEST_BYTES:
                    yield _product(rows, width, outputs)
    for channels, size, outputs, kernel in _CONVOLUTIONS:
        yield _convolution(channels, size, outputs, kernel)
    for channels, size in _POOLS:
        x = relay.var("x", shape=(1, channels, size, size))
        value = relay.nn.max_pool2d(x, pool_size=(3, 3), strides=(2, 2))
        yield _Case("pool", f"pool {channels} x {size}", relay.Function([x], value))


def _product(rows: int, width: int, outputs: int) -> _Case:
    x, w = relay.var("x", shape=(rows, width)), relay.var("w", shape=(outputs, width))
    function = relay.Function([x, w], relay.nn.relu(relay.nn.dense(x, w)))
    kind = f"product, {rows} {'row' if rows == 1 else 'rows'}"
    return _Case(kind, f"{rows} x {width} x {outputs}", function, (outputs, width))


def _convolution(channels: int, size: int, outputs: int, kernel: int) -> _Case:
    shape = (outputs, channels, kernel, kernel)
    x, w = relay.var("x", shape=(1, channels, size, size)), relay.var("w", shape=shape)
    value = relay.nn.conv2d(
        x, w, padding=kernel // 2, kernel_size=(kernel, kernel), channels=outputs
    )
    name = f"{channels} x {size} to {outputs}, {kernel} x {kernel}"
    return _Case("convolution", name, relay.Function([x, w], relay.nn.relu(value)), shape)


if __name__ == "__main__":
    main()
