"""Predicted latencies of whole networks against measured ones, on this machine.

    python -m benchmarks.network_latency --networks mlp,resnet-18,model.onnx --batches 1,4 \
        --logs tuned --out benchmarks/results/network-latency.json

Each network is compiled with TVM's own schedules and, where the folder of logs has a
`NETWORK.bBATCH.json`, with that log; the two are timed in turns, and the median of the rounds is
what counts. Next to each: every operator timed by itself, and

- replayed: the replayer with the measured operators, which is the replayer's own error;
- predicted: the whole, nothing measured;
- rooflines: each operator at its peak or at the memory's bandwidth, whichever is slower;
- FLOPs: all operations at the rate that one matrix product was measured at;
- scaled: what the operators took on another device, scaled as Habitat scales kernels (Yu et al.,
  ATC 2021, wave scaling). `--source FILE --source-device NAME` gives a result file of this program
  from there; operators that it does not have take as long as the rooflines say, and are counted.

What is in the result file is not measured again, so a run that was killed goes on; `--again` starts
anew. Run it on a machine that does nothing else.
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latency_tables import summary
from benchmarks.provenance import provenance, write_json
from tvm_cdmpp.bridge import default_target, device_of, load_tvm, quiet_tvm
from tvm_cdmpp.devices import DeviceSpec, find_device
from tvm_cdmpp.networks import Deployed, Network, deploy, load_network, random_inputs
from tvm_cdmpp.replay import NetworkForecast, QueueConfig, read_graph, replay

tvm = load_tvm()

_ROUNDS = 7
_LEAST_MS = 300
_MATRIX = 512


@dataclass
class Timed:
    """A compiled network, ready to be timed here."""

    deployed: Deployed

    def __post_init__(self) -> None:
        """Load it and set its inputs."""
        factory, self.device = self.deployed.factory, tvm.cpu(0)
        self.inputs = random_inputs(self.deployed.network, seed=0)
        module = tvm.contrib.graph_executor.GraphModule(factory["default"](self.device))
        for name, array in self.inputs.items():
            module.set_input(name, array)
        self.module = module

    def latency_s(self) -> float:
        """Time the whole network once, over at least `_LEAST_MS`."""
        found = self.module.benchmark(self.device, repeat=1, number=1, min_repeat_ms=_LEAST_MS)
        return float(found.mean)

    def operators_s(self) -> dict[str, float]:
        """Time every operator by itself; the mean over the calls of each function."""
        factory = self.deployed.factory
        graph = json.loads(factory.get_graph_json())
        debugger = tvm.contrib.debugger.debug_executor.create(
            factory.get_graph_json(), factory.get_lib(), self.device
        )
        debugger.set_input(**factory.get_params())
        debugger.set_input(**self.inputs)
        rows = debugger.run_individual(number=10, repeat=3, min_repeat_ms=10)
        samples: dict[str, list[float]] = {}
        for node, times_s in zip(graph["nodes"], rows, strict=True):
            if node["op"] != "null":
                median_s = statistics.median(map(float, times_s))
                samples.setdefault(node["attrs"]["func_name"], []).append(median_s)
        return {name: statistics.fmean(found) for name, found in samples.items()}


def main() -> None:
    """Measure what is missing, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", required=True)
    parser.add_argument("--batches", default="1")
    parser.add_argument("--logs", type=Path, default=Path("tuned"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--source", type=Path, help="result file of another device")
    parser.add_argument("--source-device", help="that device, as `device show` lists it")
    args = parser.parse_args()
    if (args.source is None) != (args.source_device is None):
        parser.error("--source and --source-device belong together")
    source = None if args.source is None else Source.read(args.source, args.source_device)
    rows: list[dict[str, Any]] = []
    if args.out.exists() and not args.again:
        rows = json.loads(args.out.read_bytes())["rows"]
    known = {(row["network"], row["batch"]) for row in rows}
    for name in args.networks.split(","):
        for batch in map(int, args.batches.split(",")):
            network = load_network(name, batch=batch)
            if (network.name, batch) not in known:
                log = args.logs / f"{network.name}.b{batch}.json"
                rows += _measure(network, batch, log if log.exists() else None)
                write_json(args.out, {**provenance("numpy", "torch"), "rows": rows})
    if source is not None:
        here = device_of(default_target())
        rows = [{**row, **source.scale(row, here)} for row in rows]
        write_json(args.out, {**provenance("numpy", "torch"), "rows": rows})
    print("\n".join(summary(rows)))


@dataclass(frozen=True)
class Source:
    """What was measured on another device."""

    device: DeviceSpec
    rows: Mapping[tuple[str, int, str], dict[str, Any]]
    """By network, batch and schedules."""

    @staticmethod
    def read(file: Path, device: str) -> "Source":
        """Read a result file of this program."""
        rows = json.loads(file.read_bytes())["rows"]
        found = {(row["network"], row["batch"], row["schedules"]): row for row in rows}
        return Source(find_device(device), found)

    def scale(self, row: dict[str, Any], here: DeviceSpec) -> dict[str, Any]:
        """Return the estimate for a network, and how many operators it lacked; none without it."""
        there = self.rows.get((row["network"], row["batch"], row["schedules"]))
        if there is None:
            return {}
        total_s, missing = 0.0, 0
        for function, figures in row["functions"].items():
            measured_s = there["operators_s"].get(function)
            if measured_s is None:
                missing += 1
                one_s = roofline_s(figures, here)
            else:
                one_s = measured_s * wave_scaling(figures, self.device, here)
            total_s += figures["count"] * one_s
        return {"scaled_s": total_s, "scaled_without_source": missing}


def roofline_s(figures: Mapping[str, float], device: DeviceSpec) -> float:
    """Return the least that an operator can take on a device."""
    return max(
        figures["flops"] / device.peak_flops,
        figures["moved_bytes"] / device.bandwidth_bytes_per_s,
    )


def wave_scaling(figures: Mapping[str, float], there: DeviceSpec, here: DeviceSpec) -> float:
    """Return by what an operator's latency changes from one device to another.

    Habitat's equations 2 and 3: the ratio of bandwidths to the power of g, times that of what all
    cores do at a time (width and clock, together the peak) to the power of 1 - g. With x the
    operations per byte and R those at which the device's peak and its bandwidth are in balance,
    g = 1 - x / (2 R) where x < R, else R / (2 x).
    """
    intensity = figures["flops"] / max(figures["moved_bytes"], 1.0)
    balance = here.peak_flops / here.bandwidth_bytes_per_s
    memory = 1.0 - intensity / (2 * balance) if intensity < balance else balance / (2 * intensity)
    bandwidth = there.bandwidth_bytes_per_s / here.bandwidth_bytes_per_s
    peak = there.peak_flops / here.peak_flops
    return float(bandwidth**memory * peak ** (1.0 - memory))


def _measure(network: Network, batch: int, log: Path | None) -> list[dict[str, Any]]:
    """Time a network untuned and, where there is a log, tuned, in turns."""
    target = default_target()
    logs = [None] if log is None else [None, log]
    with quiet_tvm():
        timed = [Timed(deploy(network, target, own)) for own in logs]
    rounds = [[network_.latency_s() for network_ in timed] for _ in range(_ROUNDS)]
    rate = _matrix_flops_per_s()
    rows = []
    for place, (own, compiled) in enumerate(zip(logs, timed, strict=True)):
        factory = compiled.deployed.factory
        graph = read_graph(factory.get_graph_json(), list(factory.get_params()))
        device = device_of(target)
        found = NetworkForecast(network, log=own).on(device)
        moved = {operator.function: operator.moved_bytes for operator in graph.operators}
        operators_s = compiled.operators_s()
        functions = {
            task.function: {
                "count": task.count, "flops": task.flops, "moved_bytes": moved[task.function]
            }
            for task in found.tasks
        }  # fmt: skip
        rows.append(
            {
                "network": network.name,
                "batch": batch,
                "schedules": "TVM's own" if own is None else "log",
                "measured_s": statistics.median(row[place] for row in rounds),
                "rounds_s": [row[place] for row in rounds],
                "replayed_s": replay(graph, operators_s, QueueConfig()).latency_s,
                "predicted_s": found.latency_s,
                "interval_s": found.interval_s,
                "rooflines_s": sum(f["count"] * roofline_s(f, device) for f in functions.values()),
                "flops_s": sum(task.count * task.flops for task in found.tasks) / rate,
                "operators": len(graph.operators),
                "operators_s": operators_s,
                "functions": functions,
                "without_record": found.num_tasks_without_record,
            }
        )
    return rows


def _matrix_flops_per_s() -> float:
    """Return the rate of one large matrix product in NumPy's library, with all its threads."""
    import timeit

    a = np.ones((_MATRIX, _MATRIX), np.float32)
    best_s = min(timeit.repeat(lambda: a @ a, number=5, repeat=5)) / 5
    return float(2 * _MATRIX**3 / best_s)


if __name__ == "__main__":
    main()
