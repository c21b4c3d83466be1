"""Predicted latencies of the networks of recorded logs, all of whose tasks were measured there.

    python -m benchmarks.recorded_networks STORE --out benchmarks/results/recorded-networks.json

Of each log of a record store that is in the test part of the split `networks` as a whole, and has
five tasks or more: the fastest recorded program of each task, which is what `predict --log` would
price. Their sum, each task once, as logs do not say how often it occurs, stands for the network.
Beside the predictor, with the weights `evaluation`, stands the sum of the programs' rooflines. No
record tells what the network itself took, so nothing is said of the replayer here.

- Tasks none of whose programs ran are counted and left out, of measured and predicted alike.
- Some logs are of several networks, or of layers of some; their name is that of the log.
- A device is known where the weights were trained on programs of it, of other networks.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.provenance import RESULTS, provenance, write_json
from benchmarks.recorded_tables import recorded_section
from tvm_cdmpp.data import RecordStore, make_labels, official_split
from tvm_cdmpp.models import TrainedPredictor, interval, load_weights, make_baseline
from tvm_cdmpp.replay import joint_spread
from tvm_cdmpp.train import evaluate, load_features, rows_of_store

_LEAST_TASKS = 5

Ints = npt.NDArray[np.int64]


def networks_of(store: RecordStore) -> Iterator[tuple[dict[str, Any], Ints]]:
    """Yield the logs that nothing was trained on, and their rows."""
    column = store.columns("inputs")["inputs"].combine_chunks()
    counts = np.diff(column.offsets.to_numpy())
    rows, logs = np.repeat(np.arange(len(counts)), counts), column.values.to_numpy()
    is_test = np.zeros(len(counts), bool)
    is_test[official_split(store, "networks").test] = True
    for number, log in enumerate(store.inputs):
        own = rows[logs == number]
        if own.size and is_test[own].all():
            yield log, own


def fastest(store: RecordStore, usable: npt.NDArray[np.bool_], rows: Ints) -> tuple[Ints, int]:
    """Return the fastest row of each task, and how many tasks have none that ran."""
    latency_s = make_labels(store).latency_s
    task_of = store.columns("task")["task"].to_numpy()
    found, missing = [], 0
    for task in np.unique(task_of[rows]).tolist():
        own = rows[(task_of[rows] == task) & usable[rows]]
        missing += not own.size
        found += [int(own[latency_s[own].argmin()])] if own.size else []
    return np.array(found, np.int64), missing


def compare(store: RecordStore, predictor: TrainedPredictor) -> list[dict[str, Any]]:
    """Return a row per log."""
    labels, features = make_labels(store), load_features(store)
    usable = np.isfinite(labels.latency_s) & ~labels.impossible & (features.leaf_counts > 0)
    found = []
    for log, rows in networks_of(store):
        chosen, missing = fastest(store, usable, rows)
        if len(chosen) < _LEAST_TASKS:
            continue
        programs, _ = rows_of_store(store, features, np.sort(chosen), labels=labels)
        predicted = evaluate(predictor, programs)
        assert predicted.spread is not None
        devices = [programs.machines[number].device for number in programs.machine_of]
        levels = [predictor.level_spread(device) for device in devices]
        parts = zip(predicted.latency_s.tolist(), predicted.spread.tolist(), levels, strict=True)
        predicted_s = float(predicted.latency_s.sum())
        found.append(
            {
                "log": log["name"],
                "network": log["network"] or log["name"].removesuffix(".jsonl.xz"),
                "device": log["device"],
                "known": not any(levels),
                "tasks": len(chosen),
                "tasks_without_program": missing,
                "measured_s": float(programs.latencies_s.sum()),
                "predicted_s": predicted_s,
                "interval_s": interval(predicted_s, joint_spread(list(parts))),
                "roofline_s": float(
                    evaluate(make_baseline("roofline", seed=0), programs).latency_s.sum()
                ),
            }
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of the record store")
    parser.add_argument("--weights", default="evaluation", help="evaluation, shipped or a file")
    parser.add_argument("--out", type=Path, default=RESULTS / "recorded-networks.json")
    args = parser.parse_args(arguments)
    store, predictor = RecordStore.open(args.store), load_weights(args.weights)
    if not isinstance(predictor, TrainedPredictor):
        parser.error(f"{args.weights} were trained in a search alone")
    result = {
        **provenance("numpy", "torch"),
        "settings": {"store": store.content_hash, "weights": Path(args.weights).name},
        "rows": compare(store, predictor),
    }
    write_json(args.out, result)
    print("\n".join(recorded_section(args.out, result)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
