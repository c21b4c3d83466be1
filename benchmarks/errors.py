"""What the errors of the predictor are made of, and which programs they are worst for.

`python -m benchmarks.errors STORE` predicts the test part of a split with the weights `evaluation`,
or others, and writes `results/errors.json` and a page of plots, `results/errors.png`.

**Parts.** An error is one of the level of a task and one of the order within it. What the others
would leave if one part were perfect is computed, not guessed:

- level known: each task's predictions are scaled to have no error in the median;
- order known: each task's predicted latencies are dealt to its programs in the measured order;
- latencies known: the measured latencies with Laplace-distributed errors of the size of the noise
  floor, as a predictor that knows every true latency would differ from single measurements. Where
  the noise of a device is not known, nothing is said.

**Reasons** of the worst programs on devices of the training part, the first that holds: a program
that looks alike was measured half as far off or nearer to the prediction (label); the median error
of the task is more than half of the error (level of the task); no task of the training part has
that operator on that device (operator not trained on); else its place within the task, as a
multiple of the task's best.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.error_plots import plot_errors
from benchmarks.provenance import RESULTS, provenance, write_json
from tvm_cdmpp.data import RecordStore, noise_by, official_split, read_measurements
from tvm_cdmpp.models import TrainingRows, load_weights
from tvm_cdmpp.train import (
    evaluate,
    load_features,
    operator_of_tasks,
    rows_of_store,
    sample_tasks,
    score,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

WORST = 50
_LATENCY_EDGES_US = (0, 10, 30, 100, 300, 1_000, 10_000, np.inf)
_LEAST_PROGRAMS = 20
_FIGURES = ("programs", "tasks", "mape", "median_ape", "within_task", "top1", "top5", "tau")
"""What is kept of the scores."""


class Compared:
    """Predictions beside measurements, and what each program is."""

    def __init__(self, store: RecordStore, rows: TrainingRows, predicted_s: Floats) -> None:
        self.rows, self.predicted_s, self.measured_s = rows, predicted_s, rows.latencies_s
        self.log_error: Floats = np.log(predicted_s / rows.latencies_s)
        _, self.group = np.unique(rows.groups, return_inverse=True)
        self.devices = np.array(store.tasks["device"].to_pylist())[rows.tasks]
        self.operators = np.array(operator_of_tasks(store))[rows.tasks]
        self.level: Floats = np.empty(len(rows))
        self.order_known_s: Floats = np.empty(len(rows))
        self.over_best: Floats = np.empty(len(rows))
        for programs in self.groups():
            self.level[programs] = np.median(self.log_error[programs])
            ranked = programs[np.argsort(self.measured_s[programs], kind="stable")]
            self.order_known_s[ranked] = np.sort(predicted_s[programs])
            self.over_best[programs] = self.measured_s[programs] / self.measured_s[ranked[0]]

    @property
    def error(self) -> Floats:
        """Relative error of each program."""
        error: Floats = np.abs(np.expm1(self.log_error))
        return error

    def groups(self) -> Iterator[Ints]:
        """Yield the programs of each task on a device."""
        order = np.argsort(self.group, kind="stable")
        yield from np.split(order, np.flatnonzero(np.diff(self.group[order])) + 1)

    def figures(self, some: npt.NDArray[np.bool_], predicted_s: Floats) -> dict[str, Any]:
        """Score some of the programs."""
        found = asdict(score(self.measured_s[some], predicted_s[some], self.group[some]))
        return {name: found[name] for name in _FIGURES}


def parts_of_error(compared: Compared, floors: dict[str, float | None]) -> list[dict[str, Any]]:
    """Return, by device, the figures of the predictions and of better ones; see the module."""
    generator = np.random.default_rng(0)
    noise = generator.laplace(size=len(compared.rows))
    levelled = compared.predicted_s * np.exp(-compared.level)
    found = []
    for device in np.unique(compared.devices).tolist():
        some = compared.devices == device
        if np.count_nonzero(some) < _LEAST_PROGRAMS:
            continue
        floor = floors.get(device)
        known = None
        if floor is not None:
            known = compared.figures(some, compared.measured_s * np.exp(floor * noise))
        found.append(
            {
                "device": device,
                "noise_floor_mape": None if floor is None else 100 * floor,
                "predicted": compared.figures(some, compared.predicted_s),
                "level_known": compared.figures(some, levelled),
                "order_known": compared.figures(some, compared.order_known_s),
                "latencies_known": known,
            }
        )
    return found


def by_class(compared: Compared) -> dict[str, list[dict[str, Any]]]:
    """Return the error by device and operator, by latency, and by leaf count."""
    error, level = compared.error, np.abs(np.expm1(compared.level))
    latency = np.digitize(1e6 * compared.measured_s, _LATENCY_EDGES_US) - 1
    leaves = compared.rows.asts.leaf_counts
    pairs = np.char.add(np.char.add(compared.devices, " "), compared.operators)
    classes: dict[str, tuple[npt.NDArray[Any], Any]] = {
        "operators": (pairs, str),
        "latencies": (latency, lambda n: [float(e) for e in _LATENCY_EDGES_US[n : n + 2]]),
        "leaf_counts": (leaves, int),
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for name, (values, label) in classes.items():
        found[name] = []
        for value in np.unique(values):
            some = values == value
            if np.count_nonzero(some) >= _LEAST_PROGRAMS:
                found[name].append(
                    {
                        "class": label(value),
                        "programs": int(np.count_nonzero(some)),
                        "mape": 100 * float(error[some].mean()),
                        "median_ape": 100 * float(np.median(error[some])),
                        "level_ape": 100 * float(level[some].mean()),
                        "bias": float(compared.log_error[some].mean()),
                    }
                )
    return found


def worst_programs(
    store: RecordStore, compared: Compared, used: Ints, trained: set[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Return the programs with the largest errors of the logarithm, one of each task at most."""
    order = np.argsort(-np.abs(compared.log_error), kind="stable")
    order = order[np.isin(compared.devices[order], [device for device, _ in trained])]
    _, first = np.unique(compared.group[order], return_index=True)
    chosen = order[np.sort(first)[:WORST]]
    names = [", ".join(each or ()) for each in store.workloads["networks"].to_pylist()]
    workloads = store.tasks["workload"].to_numpy()
    return [
        {
            "record": int(used[at]),
            "device": str(compared.devices[at]),
            "operator": str(compared.operators[at]),
            "networks": names[workloads[compared.rows.tasks[at]]],
            "measured_s": float(compared.measured_s[at]),
            "predicted_s": float(compared.predicted_s[at]),
            "over_best": float(compared.over_best[at]),
            "reason": _reason(compared, int(at), trained),
        }
        for at in chosen
    ]


def _reason(compared: Compared, at: int, trained: set[tuple[str, str]]) -> str:
    off = compared.log_error[at]
    alike = _alike(compared, at)
    if alike.size and np.abs(compared.log_error[alike]).min() <= abs(off) / 2:
        return "label: one that looks alike was measured nearer to the prediction"
    if (compared.devices[at], compared.operators[at]) not in trained:
        return "operator not trained on"
    if abs(compared.level[at]) > abs(off) / 2 and compared.level[at] * off > 0:
        return "level of the task"
    return "order: slow for its task" if compared.over_best[at] > 2 else "order: fast for its task"


def _alike(compared: Compared, at: int) -> Ints:
    """Return the other programs of the task that the predictor cannot tell apart."""
    programs = np.flatnonzero(compared.group == compared.group[at])
    asts = compared.rows.asts.take(programs)
    digests = np.array(
        [
            hashlib.blake2b(asts.vectors_of(n).tobytes(), digest_size=16).hexdigest()
            for n in range(len(programs))
        ]
    )
    same: Ints = programs[digests == digests[programs == at]]
    return same[same != at]


def run(args: argparse.Namespace) -> None:
    """Predict, and write what was found."""
    store = RecordStore.open(args.store)
    split = official_split(store, args.split)
    chosen = sample_tasks(store, split.test, args.per_task)
    rows, used = rows_of_store(store, load_features(store), chosen)
    ran = np.flatnonzero(np.isfinite(rows.latencies_s))
    rows, used = rows.take(ran), used[ran]
    compared = Compared(
        store, rows, np.asarray(evaluate(load_weights(args.weights), rows).latency_s)
    )
    noise = noise_by(store, read_measurements(store), "device")
    floors = {device: found.floor_mape for (device,), found in noise.items()}
    operators = operator_of_tasks(store)
    names = store.tasks["device"].to_pylist()
    starts = store.tasks["first_record"].to_numpy()
    tasks = np.unique(np.searchsorted(starts, split.train, side="right") - 1)
    trained = {(names[task], operators[task]) for task in tasks}
    result = {
        **provenance("numpy", "torch"),
        "settings": {
            "store": store.content_hash,
            "weights": args.weights,
            "split": args.split,
            "per_task": args.per_task,
        },
        "devices": parts_of_error(compared, floors),
        **by_class(compared),
        "worst": worst_programs(store, compared, used, trained),
    }
    write_json(args.out / "errors.json", result)
    plot_errors(compared, args.out / "errors.png")
    print(json.dumps(result["devices"], indent=1))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of the record store")
    parser.add_argument("--weights", default="evaluation", help="a name, or a file")
    parser.add_argument("--split", default="networks")
    parser.add_argument("--per-task", type=int, default=200, help="test programs of a task")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    run(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
