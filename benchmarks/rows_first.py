"""What products as PyTorch writes them take by TVM's own schedule, against predictions for them.

    python -m benchmarks.rows_first [--passes 5] [--out FILE]

The right one of two matrices has a row for each column of the left one, and TVM walks down its
columns. Products of many sizes, on this machine's CPU, with full caches as in a network; beside
them what the shipped weights say, as of any program, and as `networks.OwnFunction` tells them
what such columns cost. Its constants are from such a run, and from products inside of networks on
another CPU. A run of five passes takes two minutes on a quiet machine with two cores.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
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
    use_physical_cores,
)
from tvm_cdmpp.devices import DeviceSpec, Hardware
from tvm_cdmpp.extract import describe_programs
from tvm_cdmpp.measure.untuned import compile_function
from tvm_cdmpp.models import CostPredictor, load_weights
from tvm_cdmpp.networks import OwnFunction, network_of_layers, own_functions

tvm = load_tvm()
relay = tvm.relay

_ROWS, _DEPTHS = (64, 100, 128, 197, 256), (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_COLUMNS = (48, 72, 96, 160, 192, 256, 320, 384, 512, 640, 768, 1024, 1536, 2048)
_NUMBER, _MOST_WORK = 70, 2.5e8
"""Of the products, drawn by a fixed seed, and of the multiply-adds of one."""


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description="Products whose right matrix has its rows first.")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "rows-first.json")
    args = parser.parse_args()
    use_physical_cores()
    target = default_target()
    device = replace(device_of(target), calibration=None)
    hardware, weights = Hardware.of(hardware_params(target)), load_weights("shipped")
    rows, timers = [], []
    for sizes in _sizes():
        function = _function(sizes, target, hardware)
        rows.append(_row(sizes, function, device, hardware, weights))
        timers.append(_timer(function, target))
    found_s = []
    for number in range(args.passes):
        found_s.append([float(np.median(timer().results)) for timer in timers])
        print(f"pass {number + 1} of {args.passes}", flush=True)
    for row, seconds in zip(rows, np.median(found_s, axis=0).tolist(), strict=True):
        row["measured_s"] = seconds
    settings = {"passes": args.passes, "clock_hz": device.clock_hz, "cores": device.cores}
    write_json(args.out, {**provenance("numpy", "torch"), "settings": settings, "rows": rows})


def _sizes() -> Iterator[tuple[int, int, int, int]]:
    """Yield how many products, and rows, depth and columns of each."""
    rng = np.random.default_rng(0)
    for depth, columns in rng.permutation(list(product(_DEPTHS, _COLUMNS)))[:_NUMBER].tolist():
        batch, rows = int(rng.choice([1, 1, 2])), int(rng.choice(_ROWS))
        yield batch, (rows if rows * depth * columns <= _MOST_WORK else min(_ROWS)), depth, columns


def _function(sizes: tuple[int, int, int, int], target: Any, hardware: Hardware) -> OwnFunction:
    batch, rows, depth, columns = sizes
    network = network_of_layers(
        [
            lambda data: relay.nn.batch_matmul(
                data(batch, rows, depth), data(batch, depth, columns), transpose_b=False
            )
        ]
    )
    (function,) = own_functions(network, target, hardware.cores)
    return function


def _row(
    sizes: tuple[int, int, int, int],
    function: OwnFunction,
    device: DeviceSpec,
    hardware: Hardware,
    weights: CostPredictor,
) -> dict[str, Any]:
    described = describe_programs([function.leaves], hardware)
    told = (device, function.on(device))
    plain_s, predicted_s = (float(weights.predict(described, d).latency_s[0]) for d in told)
    return {"sizes": sizes, "plain_s": plain_s, "predicted_s": predicted_s}


def _timer(function: OwnFunction, target: Any) -> Any:
    """Return what times a function."""
    library, rng = compile_function(function, target), np.random.default_rng(0)
    buffers = [function.program.buffer_map[param] for param in function.program.params]
    arguments = [
        tvm.nd.array(rng.standard_normal(tuple(map(int, buffer.shape)), dtype=np.float32))
        for buffer in buffers
    ]
    timer = library.time_evaluator(library.entry_name, tvm.cpu(0), number=1, repeat=5)

    def time() -> Any:
        with off_worker_cores():
            return timer(*arguments)

    return time


if __name__ == "__main__":
    main()
