"""Does the prediction choose the right one of two devices? On recorded operators and networks.

    python -m benchmarks.device_choice STORE

takes all pairs of devices that share workloads in a record store. Of each workload on each device
some programs are drawn; the fastest of them as measured is what a search would have come to, the
fastest as predicted what the prediction says that it comes to. Next to the predictor:

- estimate: the analytic estimate of the same programs, a roofline of each leaf;
- peak: the device with more float32 operations per second, for everything.

A network is the sum over those of its workloads that both devices have, each as often as it occurs
where that is known. Operators, and networks, that take within 5 % of the same on both devices tell
nothing about the order and are left out of its share; regret is by how much what was chosen is
slower than the better one, mean over all. "held out": workloads in the test part of the split
`networks`, which the weights `evaluation` have not been trained on.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.choice_tables import choice_section
from benchmarks.provenance import RESULTS, provenance, write_json
from tvm_cdmpp.data import RecordStore, make_labels, official_split
from tvm_cdmpp.models import CostPredictor, load_weights, make_baseline
from tvm_cdmpp.train import evaluate, load_features, rows_of_store, sample_tasks

ESTIMATES = ("predicted", "estimate", "peak")
_LEAST_DIFFERENCE = 0.05
_LEAST_SHARED = 5
"""Workloads that a pair of devices must share."""
_LEAST_OF_NETWORK = 3
"""Of them that a network must have."""


@dataclass(frozen=True)
class Best:
    """Seconds of one workload on one device; by `ESTIMATES`, and as measured."""

    measured: float
    predicted: float
    estimate: float
    peak: float
    """1 / peak FLOP/s: not seconds, but it orders devices."""
    held_out: bool


def find_best(
    store: RecordStore, predictor: CostPredictor, per_task: int
) -> dict[str, dict[int, Best]]:
    """Return the fastest programs by device and workload, of so many of each task."""
    labels, features = make_labels(store), load_features(store)
    usable = np.isfinite(labels.latency_s) & ~labels.impossible & (features.leaf_counts > 0)
    tasks = store.tasks.to_pydict()
    devices_of = defaultdict[int, set[str]](set)
    for workload, device in zip(tasks["workload"], tasks["device"], strict=True):
        devices_of[workload].add(device)
    shared = np.array([len(devices_of[workload]) > 1 for workload in tasks["workload"]])
    task_of = store.columns("task")["task"].to_numpy()
    chosen = sample_tasks(store, np.flatnonzero(usable & shared[task_of]), per_task)
    rows, used = rows_of_store(store, features, chosen, labels=labels)
    predicted_s = evaluate(predictor, rows).latency_s
    estimated_s = evaluate(make_baseline("roofline", seed=0), rows).latency_s
    is_test = np.isin(used, official_split(store, "networks").test)
    peaks = np.array([1.0 / device.peak_flops for device in rows.devices])[rows.machine_of]
    found: dict[str, dict[int, Best]] = defaultdict(dict)
    places = defaultdict[tuple[str, int], list[int]](list)
    for place, task in enumerate(task_of[used].tolist()):
        places[tasks["device"][task], tasks["workload"][task]].append(place)
    for (name, workload), own in places.items():
        found[name][workload] = Best(
            measured=float(rows.latencies_s[own].min()),
            predicted=float(predicted_s[own].min()),
            estimate=float(estimated_s[own].min()),
            peak=float(peaks[own].min()),
            held_out=bool(is_test[own].all()),
        )
    return found


def compare(
    best: Mapping[str, Mapping[int, Best]], networks: Mapping[str, Mapping[int, float]]
) -> list[dict[str, Any]]:
    """Return a row per pair of devices.

    Parameters
    ----------
    best
        By device and workload.
    networks
        By name: how often each workload occurs.
    """
    rows = []
    for first, second in combinations(sorted(best), 2):
        shared = sorted(best[first].keys() & best[second].keys())
        if len(shared) < _LEAST_SHARED:
            continue
        sides = best[first], best[second]
        operators = [(sides[0][w], sides[1][w]) for w in shared]
        held_out = [pair for pair in operators if pair[0].held_out and pair[1].held_out]
        of_networks = {
            name: [workload for workload in shared if workload in counts]
            for name, counts in networks.items()
        }
        sums = [
            tuple(_sum([(side[w], networks[name][w]) for w in found]) for side in sides)
            for name, found in of_networks.items()
            if len(found) >= _LEAST_OF_NETWORK
        ]
        rows.append(
            {
                "devices": [first, second],
                "first_is_faster": float(np.mean([a.measured < b.measured for a, b in operators])),
                "operators": judge(operators),
                "held_out": judge(held_out),
                "networks": judge(sums),
            }
        )
    return rows


def _sum(parts: Sequence[tuple[Best, float]]) -> Best:
    """Return the sum of workloads, each as often as it occurs."""
    return Best(
        measured=sum(best.measured * count for best, count in parts),
        predicted=sum(best.predicted * count for best, count in parts),
        estimate=sum(best.estimate * count for best, count in parts),
        peak=parts[0][0].peak,
        held_out=all(best.held_out for best, _ in parts),
    )


def judge(pairs: Sequence[tuple[Best, ...]]) -> dict[str, Any]:
    """Return the share of right orders, and the regret, of each estimate.

    Parameters
    ----------
    pairs
        The same work on two devices.
    """
    measured = np.array([[side.measured for side in pair] for pair in pairs]).reshape(-1, 2)
    ratio = measured.max(axis=1) / measured.min(axis=1)
    differ = ratio > 1.0 + _LEAST_DIFFERENCE
    result: dict[str, Any] = {"compared": len(pairs), "differ": int(differ.sum())}
    for name in ESTIMATES:
        said = np.array([[getattr(side, name) for side in pair] for pair in pairs]).reshape(-1, 2)
        right = (said[:, 0] < said[:, 1]) == (measured[:, 0] < measured[:, 1])
        result[name] = {
            "right": float(right[differ].mean()) if differ.any() else None,
            "regret": float(np.where(right, 0.0, ratio - 1.0).mean()) if len(pairs) else None,
        }
    return result


def overall(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return shares and regrets over all pairs of devices, every comparison weighing the same."""
    result: dict[str, Any] = {}
    for part in ("operators", "held_out", "networks"):
        found = [row[part] for row in rows]
        result[part] = {
            "compared": sum(each["compared"] for each in found),
            "differ": sum(each["differ"] for each in found),
        }
        for name in ESTIMATES:
            result[part][name] = {
                figure: _weighted([(each[name][figure], each[count]) for each in found])
                for figure, count in (("right", "differ"), ("regret", "compared"))
            }
    return result


def _weighted(values: Sequence[tuple[float | None, int]]) -> float | None:
    known = [(value, weight) for value, weight in values if value is not None and weight]
    if not known:
        return None
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total


def networks_of(store: RecordStore) -> dict[str, dict[int, float]]:
    """Return how often each workload occurs in each network; once where nobody says."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    columns = store.workloads.select(["networks", "network_weights"]).to_pylist()
    for workload, row in enumerate(columns):
        weights = row["network_weights"] or ()
        for name, weight in zip(row["networks"] or (), weights, strict=True):
            found[name][workload] = 1.0 if weight is None else float(weight)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of the record store")
    parser.add_argument("--weights", default="evaluation", help="evaluation, shipped or a file")
    parser.add_argument("--per-task", type=int, default=200, help="programs of a task at most")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    args = parser.parse_args(arguments)
    store = RecordStore.open(args.store)
    best = find_best(store, load_weights(args.weights), args.per_task)
    rows = compare(best, networks_of(store))
    result = {
        **provenance("numpy", "torch"),
        "settings": {
            "store": store.content_hash,
            "weights": Path(args.weights).name,
            "per_task": args.per_task,
        },
        "overall": overall(rows),
        "pairs": rows,
    }
    file = args.out / "device-choice.json"
    write_json(file, result)
    print("\n".join(choice_section(file, result)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
