"""How the error on a device that a predictor has not seen falls with the programs measured there.

    python -m benchmarks.adaptation STORE --weights FILE

takes the devices that the official split `devices` holds out, one after the other, and writes
`results/adaptation/<device>.json` of each after every step, so a stopped run goes on where it was,
and processes with different `--devices` run side by side. The weights are to be those of
`tvm-cdmpp train STORE --split devices`.

- Half of a device's tasks, drawn by each seed, may be measured; programs of them are chosen by one
  of the methods of `tvm_cdmpp.train.select_programs`. "never" below means the other half, which is
  the same for all budgets and methods; "all" every program that was not chosen.
- Programs that failed, and those whose latency cannot be true, are left out throughout; of each
  task some programs are drawn once, for all seeds.
- An adaptation turns the latencies of the chosen programs into predictions for all; see
  `benchmarks.adapting`. Fine-tuning is `tvm_cdmpp.train.finetune` with its defaults and rows of the
  split's training part; what it forgets is told by the error on the validation part.
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from benchmarks.adaptation_tables import adaptation_section
from benchmarks.adapting import (
    CLOSED_FORM,
    SPLIT,
    Adaptation,
    FineTuning,
    Floats,
    Ints,
    Target,
    make_target,
)
from benchmarks.provenance import RESULTS, provenance, resume, write_json
from tvm_cdmpp.data import RecordStore, make_labels, official_split
from tvm_cdmpp.models import CostPredictor, TrainedPredictor, load_weights
from tvm_cdmpp.train import (
    SelectionMethod,
    load_features,
    operator_of_tasks,
    rows_of_store,
    select_programs,
)

OUT = RESULTS / "adaptation"
BUDGETS = (0, 10, 50, 200, 1000, 5000)
METHODS: tuple[SelectionMethod, ...] = ("random", "kmeans", "center", "uncertain")
_MIN_FOR_TAU = 5
METRICS = {
    "mape": "mean absolute percentage error over programs, as a fraction",
    "mape_by_task": "the same, every task weighing the same",
    "median_ape": "median absolute percentage error over programs, as a fraction",
    "kendall_tau": f"Kendall's tau within a task, mean over tasks of {_MIN_FOR_TAU} programs",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a result depends on, besides the commit."""

    store: str
    """Content hash."""
    weights: str
    """SHA-256 of their file."""
    per_task: int
    seeds: int
    budgets: Sequence[int] = BUDGETS


def load_targets(
    store: RecordStore,
    predictor: CostPredictor,
    per_task: int,
    devices: Sequence[str] = (),
    split: str = SPLIT,
) -> Iterator[tuple[Target, dict[str, int]]]:
    """Yield each device of a split's test part, or those named, and how many programs are not used.

    Raises
    ------
    SystemExit
        A named device is not held out, or has no programs.
    """
    labels, features = make_labels(store), load_features(store)
    operators = np.array(operator_of_tasks(store), str)
    test = official_split(store, split).test
    task_of = store.columns("task")["task"].to_numpy()[test]
    device_of_task = np.array(store.tasks["device"].to_pylist(), str)
    usable = np.isfinite(labels.latency_s) & ~labels.impossible & (features.leaf_counts > 0)
    known = np.unique(device_of_task[task_of]).tolist()
    if unknown := sorted({*devices} - {*known}):
        raise SystemExit(f"--devices takes {', '.join(known)}; got {', '.join(unknown)}")
    for device in devices or known:
        of_device = test[device_of_task[task_of] == device]
        kept = of_device[usable[of_device]]
        drawn = _draw_per_task(kept, task_of[np.searchsorted(test, kept)], per_task)
        found, _ = rows_of_store(store, features, drawn, labels=labels)
        rows = found.take(np.arange(len(found)))
        not_used = {"failed": len(of_device) - len(kept), "not drawn": len(kept) - len(drawn)}
        yield make_target(device, rows, operators[rows.tasks], predictor), not_used


def _draw_per_task(rows: Ints, tasks: Ints, per_task: int) -> Ints:
    """Draw at most so many rows of each task, ascending."""
    shuffled = np.random.default_rng(0).permutation(len(rows))
    order = shuffled[np.argsort(tasks[shuffled], kind="stable")]
    _, firsts, counts = np.unique(tasks[order], return_index=True, return_counts=True)
    place_in_task = np.arange(len(rows)) - np.repeat(firsts, counts)
    return np.sort(rows[order[place_in_task < per_task]])


def run(
    targets: Iterator[tuple[Target, dict[str, int]]],
    settings: Settings,
    folder: Path,
    adaptations: Mapping[str, Adaptation] = CLOSED_FORM,
) -> None:
    """Measure what is missing from the result files, one for each device."""
    for target, not_used in targets:
        path = folder / f"{target.device}.json"
        result = resume(_fresh(settings), path) | {
            "device": target.device,
            "programs": len(target.rows),
            "tasks": len(np.unique(target.rows.tasks)),
            "not_used": not_used,
        }
        keys = ("seed", "method", "budget", "adaptation")
        done = {tuple(outcome[key] for key in keys) for outcome in result["runs"]}
        for step in _steps(target, settings):
            wanted = [name for name in adaptations if (*step, name) not in done]
            if not wanted:
                continue
            seed, method, budget = step
            begin = time.perf_counter()
            closed = half_of_tasks(target.rows.tasks, seed)
            measured = _choose(target, ~closed, method, budget, seed)
            chose_s = time.perf_counter() - begin
            for name in wanted:
                begin = time.perf_counter()
                log_predicted, forgotten = adaptations[name](target, measured)
                outcome: dict[str, Any] = dict(zip(keys, (*step, name), strict=True))
                outcome |= {
                    "measured_programs": len(measured),
                    "measured_tasks": len(np.unique(target.rows.tasks[measured])),
                    "choosing_s": round(chose_s, 3),
                    "adapting_s": round(time.perf_counter() - begin, 3),
                    "sources_median_ape": forgotten,
                    "scores": score_parts(target, log_predicted, measured, closed),
                }
                result["runs"].append(outcome)
            write_json(path, result)
        print(f"{target.device}: {len(target.rows)} programs", flush=True)


def _steps(target: Target, settings: Settings) -> Iterator[tuple[int, SelectionMethod, int]]:
    methods = [m for m in METHODS if m != "uncertain" or target.spread is not None]
    for seed in range(settings.seeds):
        for budget in settings.budgets:
            # Without a budget there is nothing to choose.
            for method in methods if budget else methods[:1]:
                yield seed, method, budget


def half_of_tasks(tasks: Ints, seed: int) -> npt.NDArray[np.bool_]:
    """Mark the programs of half of the tasks, rounded down."""
    numbers = np.unique(tasks)
    drawn = np.random.default_rng(seed).permutation(numbers)[: len(numbers) // 2]
    return np.isin(tasks, drawn)


def _choose(
    target: Target,
    may_be_measured: npt.NDArray[np.bool_],
    method: SelectionMethod,
    budget: int,
    seed: int,
) -> Ints:
    pool = np.flatnonzero(may_be_measured)
    spread = None if target.spread is None else target.spread[pool]
    features, tasks = target.features[pool], target.rows.tasks[pool]
    return pool[select_programs(features, tasks, budget, method, seed, spread)]


def score_parts(
    target: Target, log_predicted: Floats, measured: Ints, closed: npt.NDArray[np.bool_]
) -> dict[str, dict[str, float] | None]:
    """Score all programs that were not measured, and some of them apart."""
    tasks = target.rows.tasks
    scored = np.ones(len(tasks), bool)
    scored[measured] = False
    parts = {
        "all": scored,
        "never": scored & closed,
    }
    ape = np.abs(np.expm1(log_predicted - target.log_measured))
    return {
        name: _score(ape[part], log_predicted[part], target.log_measured[part], tasks[part])
        for name, part in parts.items()
    }


def _score(
    ape: Floats, log_predicted: Floats, log_measured: Floats, tasks: Ints
) -> dict[str, float] | None:
    if not len(ape):
        return None
    _, task_of, counts = np.unique(tasks, return_inverse=True, return_counts=True)
    order = np.split(np.argsort(task_of, kind="stable"), np.cumsum(counts)[:-1])
    taus = [
        kendalltau(log_predicted[rows], log_measured[rows]).statistic
        for rows in order
        if len(rows) >= _MIN_FOR_TAU
    ]
    return {
        "programs": len(ape),
        "tasks": len(counts),
        "mape": round(float(ape.mean()), 4),
        "mape_by_task": round(float((np.bincount(task_of, ape) / counts).mean()), 4),
        "median_ape": round(float(np.median(ape)), 4),
        # Tau does not exist where all predictions are equal; such a model ranks nothing.
        "kendall_tau": round(float(np.mean(np.nan_to_num(taus))), 4) if taus else 0.0,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of the record store")
    parser.add_argument("--weights", type=Path, required=True, help="file of trained weights")
    parser.add_argument("--devices", nargs="+", default=(), help="only these; a part of the run")
    parser.add_argument("--per-task", type=int, default=200, help="programs at most")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the result files")
    args = parser.parse_args(arguments)
    store, predictor = RecordStore.open(args.store), load_weights(args.weights)
    if not isinstance(predictor, TrainedPredictor) or predictor.about.get("split") != SPLIT:
        parser.error(f"--weights must be those of `tvm-cdmpp train STORE --split {SPLIT}`")
    settings = Settings(
        store=store.content_hash,
        weights=hashlib.sha256(args.weights.read_bytes()).hexdigest(),
        per_task=args.per_task,
        seeds=args.seeds,
    )
    targets = load_targets(store, predictor, args.per_task, args.devices)
    adaptations: dict[str, Adaptation] = {
        **CLOSED_FORM,
        "fine-tuned": FineTuning.of_store(store, predictor),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    run(targets, settings, args.out, adaptations)
    print("\n".join(adaptation_section(args.out)))
    return 0


def _fresh(settings: Settings) -> dict[str, Any]:
    return {
        **provenance("numpy", "torch", "scipy"),
        "settings": asdict(settings),
        "metrics": METRICS,
        "runs": [],
    }


if __name__ == "__main__":
    sys.exit(main())
