"""How the error on a device that a predictor has not seen falls with the programs measured there.

    python -m benchmarks.adaptation STORE PREDICTOR

takes the devices that the official split `devices` holds out, one after the other, and writes
`results/adaptation.json` after every step, so a stopped run goes on where it was.

- Half of a device's tasks, drawn by each seed, may be measured; programs of them are chosen by one
  of the methods of `tvm_cdmpp.train.select_programs`. "measured" below means the tasks with a
  program among these; "never" the other half, which is the same for all budgets and methods.
- Scored are all programs that were not chosen. Those that failed, and those whose latency cannot be
  true, are left out throughout; of each task some programs are drawn once, for all seeds.
- An adaptation turns the latencies of the chosen programs into predictions for all. Another, such
  as fine-tuning, is one more function in `ADAPTATIONS`.
"""

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from benchmarks.provenance import RESULTS, provenance, write_json
from benchmarks.tables import adaptation_table
from tvm_cdmpp.data import RecordStore, make_labels, official_split
from tvm_cdmpp.models import CostPredictor, TrainingRows, load_weights
from tvm_cdmpp.train import (
    LastLayer,
    LevelCorrection,
    SelectionMethod,
    load_features,
    operator_of_tasks,
    principal_components,
    program_features,
    rows_of_store,
    select_programs,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SPLIT = "devices"
BUDGETS = (0, 10, 50, 200, 1000, 5000)
METHODS: tuple[SelectionMethod, ...] = ("random", "kmeans", "center", "uncertain")
_LAST_LAYER_WIDTH = 32
_FEATURE_LIMIT = 4.0
"""Standard deviations; beyond, a line through a few tasks says nothing of others."""
_LAST_LAYER_PRECISION = 10.0
_LAST_LAYER_NOISE = 1.0
"""More than programs vary around their task: those of one task are not independent."""
_MIN_FOR_TAU = 5
METRICS = {
    "mape": "mean absolute percentage error over programs, as a fraction",
    "mape_by_task": "the same, every task weighing the same",
    "median_ape": "median absolute percentage error over programs, as a fraction",
    "kendall_tau": f"Kendall's tau within a task, mean over tasks of {_MIN_FOR_TAU} programs",
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """Programs of a device that the predictor has not seen, and what it says of them.

    Attributes
    ----------
    device
        As the store calls it.
    rows
        n programs, all with a finite latency.
    operators
        The operator of each program; (n,).
    log_predicted
        ln of the predicted seconds; (n,).
    spread
        Standard deviation of that, where the predictor has one; (n,).
    features
        From `program_features`; (n, d).
    last_layer
        What the last layer learns from: a constant and the leading directions of `features`,
        scaled to a mean square of 1 in all; (n, at most `_LAST_LAYER_WIDTH`).
    """

    device: str
    rows: TrainingRows
    operators: npt.NDArray[np.str_]
    log_predicted: Floats
    spread: npt.NDArray[np.floating[Any]] | None
    features: npt.NDArray[np.float32]
    last_layer: Floats

    @property
    def log_measured(self) -> Floats:
        """Ln of the measured seconds; (n,)."""
        return np.log(self.rows.latencies_s)


Adaptation = Callable[[Target, Ints], Floats]
"""Predict ln of the seconds of all programs, knowing the latencies of the given rows; (n,)."""


def unchanged(target: Target, measured: Ints) -> Floats:
    """Predict what the predictor says."""
    return target.log_predicted


def with_levels(target: Target, measured: Ints) -> Floats:
    """Correct the levels of the device, its operators and tasks."""
    operators, tasks = target.operators, target.rows.tasks
    residuals = (target.log_measured - target.log_predicted)[measured]
    levels = LevelCorrection.fit(residuals, operators[measured], tasks[measured])
    return target.log_predicted + levels.apply(operators, tasks)


def with_last_layer(target: Target, measured: Ints) -> Floats:
    """Learn the residuals from features of programs."""
    return _last_layer(target, measured, target.log_predicted)


def with_both(target: Target, measured: Ints) -> Floats:
    """Correct the levels, then learn what is left."""
    return _last_layer(target, measured, with_levels(target, measured))


def _last_layer(target: Target, measured: Ints, log_predicted: Floats) -> Floats:
    features = target.last_layer
    precision = np.full(features.shape[1], _LAST_LAYER_PRECISION)
    layer = LastLayer.of_prior(precision, noise_variance=_LAST_LAYER_NOISE)
    residuals = (target.log_measured - log_predicted)[measured]
    mean, _ = layer.update(features[measured], residuals).predict(features)
    return log_predicted + mean


ADAPTATIONS: Mapping[str, Adaptation] = {
    "none": unchanged,
    "levels": with_levels,
    "last layer": with_last_layer,
    "levels + last layer": with_both,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a result depends on, besides the commit."""

    store: str
    """Content hash."""
    predictor: str
    """SHA-256 of its file."""
    per_task: int
    seeds: int
    budgets: Sequence[int] = BUDGETS


def load_targets(
    store: RecordStore, predictor: CostPredictor, per_task: int
) -> Iterator[tuple[Target, dict[str, int]]]:
    """Yield each held-out device, and how many of its programs are not used, by reason."""
    labels, features = make_labels(store), load_features(store)
    operators = np.array(operator_of_tasks(store), str)
    test = official_split(store, SPLIT).test
    task_of = store.columns("task")["task"].to_numpy()[test]
    device_of_task = np.array(store.tasks["device"].to_pylist(), str)
    usable = np.isfinite(labels.latency_s) & ~labels.impossible & (features.leaf_counts > 0)
    for device in np.unique(device_of_task[task_of]).tolist():
        of_device = test[device_of_task[task_of] == device]
        kept = of_device[usable[of_device]]
        drawn = _draw_per_task(kept, task_of[np.searchsorted(test, kept)], per_task)
        rows, _ = rows_of_store(store, features, drawn, labels=labels)
        not_used = {"failed": len(of_device) - len(kept), "not drawn": len(kept) - len(drawn)}
        yield make_target(device, rows, operators[rows.tasks], predictor), not_used


def make_target(
    device: str,
    rows: TrainingRows,
    operators: npt.NDArray[np.str_],
    predictor: CostPredictor,
) -> Target:
    """Predict the programs of a device, and describe them."""
    batch = rows.batch()
    log_predicted, spread = np.empty(len(rows)), np.full(len(rows), np.nan)
    for place, spec in enumerate(rows.devices):
        programs = np.flatnonzero(rows.machine_of == place)
        found = predictor.predict(batch.take(programs), spec)
        log_predicted[programs] = np.log(found.latency_s)
        if found.spread is not None:
            spread[programs] = found.spread
    features = program_features(batch)
    limited = np.clip(features, -_FEATURE_LIMIT, _FEATURE_LIMIT)
    leading = principal_components(limited, _LAST_LAYER_WIDTH - 1)
    leading /= np.sqrt((leading**2).sum(axis=1).mean()) or 1.0
    return Target(
        device=device,
        rows=rows,
        operators=operators,
        log_predicted=log_predicted,
        spread=None if np.isnan(spread).any() else spread,
        features=features,
        last_layer=np.hstack([np.ones((len(rows), 1)), leading]),
    )


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
    path: Path,
    adaptations: Mapping[str, Adaptation] = ADAPTATIONS,
) -> dict[str, Any]:
    """Measure what is missing from the result file, and return its content."""
    result = _resume(settings, path)
    keys = ("device", "seed", "method", "budget", "adaptation")
    done = {tuple(outcome[key] for key in keys) for outcome in result["runs"]}
    for target, not_used in targets:
        result["devices"][target.device] = {
            "programs": len(target.rows),
            "tasks": len(np.unique(target.rows.tasks)),
            "not_used": not_used,
        }
        for seed, method, budget in _steps(target, settings):
            wanted = [
                name
                for name in adaptations
                if (target.device, seed, method, budget, name) not in done
            ]
            if not wanted:
                continue
            begin = time.perf_counter()
            closed = _half_of_tasks(target.rows.tasks, seed)
            measured = _choose(target, ~closed, method, budget, seed)
            chose_s = time.perf_counter() - begin
            for name in wanted:
                begin = time.perf_counter()
                log_predicted = adaptations[name](target, measured)
                outcome: dict[str, Any] = dict(
                    zip(keys, (target.device, seed, method, budget, name), strict=True)
                )
                outcome |= {
                    "measured_programs": len(measured),
                    "measured_tasks": len(np.unique(target.rows.tasks[measured])),
                    "choosing_s": chose_s,
                    "adapting_s": time.perf_counter() - begin,
                    "scores": _scores(target, log_predicted, measured, closed),
                }
                result["runs"].append(outcome)
            result["summary"] = summarise(result["runs"])
            write_json(path, result)
        print(f"{target.device}: {len(target.rows)} programs", flush=True)
    return result


def _steps(target: Target, settings: Settings) -> Iterator[tuple[int, SelectionMethod, int]]:
    methods = [m for m in METHODS if m != "uncertain" or target.spread is not None]
    for seed in range(settings.seeds):
        for budget in settings.budgets:
            # Without a budget there is nothing to choose.
            for method in methods if budget else methods[:1]:
                yield seed, method, budget


def _half_of_tasks(tasks: Ints, seed: int) -> npt.NDArray[np.bool_]:
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


def _scores(
    target: Target, log_predicted: Floats, measured: Ints, closed: npt.NDArray[np.bool_]
) -> dict[str, dict[str, float] | None]:
    """Score all programs that were not measured, and some of them apart."""
    tasks = target.rows.tasks
    scored = np.ones(len(tasks), bool)
    scored[measured] = False
    parts = {
        "all": scored,
        "measured": scored & np.isin(tasks, tasks[measured]),
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
        "mape": float(ape.mean()),
        "mape_by_task": float((np.bincount(task_of, ape) / counts).mean()),
        "median_ape": float(np.median(ape)),
        # Tau does not exist where all predictions are equal; such a model ranks nothing.
        "kendall_tau": float(np.mean(np.nan_to_num(taus))) if taus else 0.0,
    }


def summarise(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over devices of each metric, and its spread over seeds."""
    by_step: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for outcome in runs:
        key = (outcome["adaptation"], outcome["method"], outcome["budget"])
        by_step.setdefault(key, []).append(outcome)
    rows = []
    for (adaptation, method, budget), outcomes in sorted(by_step.items()):
        row: dict[str, Any] = {"adaptation": adaptation, "method": method, "budget": budget}
        for part in ("all", "measured", "never"):
            for metric in METRICS:
                by_seed: dict[int, list[float]] = {}
                for outcome in outcomes:
                    if outcome["scores"][part]:
                        value = outcome["scores"][part][metric]
                        by_seed.setdefault(outcome["seed"], []).append(value)
                means = [statistics.fmean(values) for values in by_seed.values()]
                if means:
                    spread = statistics.stdev(means) if len(means) > 1 else 0.0
                    row[f"{part}_{metric}"] = {"mean": statistics.fmean(means), "spread": spread}
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of the record store")
    parser.add_argument("predictor", type=Path, help="file of a trained predictor")
    parser.add_argument("--per-task", type=int, default=200, help="programs at most")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    args = parser.parse_args(arguments)
    store = RecordStore.open(args.store)
    settings = Settings(
        store=store.content_hash,
        predictor=hashlib.sha256(args.predictor.read_bytes()).hexdigest(),
        per_task=args.per_task,
        seeds=args.seeds,
    )
    targets = load_targets(store, load_weights(args.predictor), args.per_task)
    result = run(targets, settings, args.out / "adaptation.json")
    print("\n".join(adaptation_table(result["summary"])))
    return 0


def _resume(settings: Settings, path: Path) -> dict[str, Any]:
    """Return the content of the result file, or a new one if it has other settings."""
    fresh: dict[str, Any] = {
        **provenance("numpy", "torch", "scipy"),
        "settings": json.loads(json.dumps(asdict(settings))),
        "metrics": METRICS,
        "devices": {},
        "runs": [],
        "summary": [],
    }
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found.get("settings") == fresh["settings"]:
            return found
        print(f"{path.name} is of other settings; starting anew", flush=True)
    return fresh


if __name__ == "__main__":
    sys.exit(main())
