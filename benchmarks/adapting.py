"""What `benchmarks.adaptation` compares: ways to turn few measurements into predictions for all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.data import RecordStore, make_labels, official_split
from tvm_cdmpp.models import CostPredictor, TrainedPredictor, TrainingRows
from tvm_cdmpp.train import (
    KINDS,
    LastLayer,
    Learner,
    LevelCorrection,
    evaluate,
    finetune,
    load_features,
    principal_components,
    program_features,
    rows_of_store,
    sample_tasks,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SPLIT = "devices"
_LAST_LAYER_WIDTH = 32
_FEATURE_LIMIT = 4.0
"""Standard deviations; beyond, a line through a few tasks says nothing of others."""
_LAST_LAYER_PRECISION = 10.0
_LAST_LAYER_NOISE = 1.0
"""More than programs vary around their task: those of one task are not independent."""
_SOURCES_PER_TASK = 20
_VALIDATION_PER_TASK = 10


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


Adapted = tuple[Floats, float | None]
"""Ln of the predicted seconds of all programs, (n,); and the median error on the validation part of
the sources, as a fraction, where the predictor was changed."""
Adaptation = Callable[[Target, Ints], Adapted]
"""Predicts all programs, knowing the latencies of the given rows."""


def unchanged(target: Target, measured: Ints) -> Adapted:
    """Predict what the predictor says."""
    return target.log_predicted, None


def with_levels(target: Target, measured: Ints) -> Adapted:
    """Correct the levels of the device, its operators and tasks."""
    operators, tasks = target.operators, target.rows.tasks
    residuals = (target.log_measured - target.log_predicted)[measured]
    levels = LevelCorrection.fit(residuals, operators[measured], tasks[measured])
    return target.log_predicted + levels.apply(operators, tasks), None


def with_last_layer(target: Target, measured: Ints) -> Adapted:
    """Correct the levels, then learn what is left from features of programs."""
    log_predicted, _ = with_levels(target, measured)
    features = target.last_layer
    precision = np.full(features.shape[1], _LAST_LAYER_PRECISION)
    layer = LastLayer.of_prior(precision, noise_variance=_LAST_LAYER_NOISE)
    residuals = (target.log_measured - log_predicted)[measured]
    mean, _ = layer.update(features[measured], residuals).predict(features)
    return log_predicted + mean, None


def with_perfect_levels(target: Target, measured: Ints) -> Adapted:
    """Correct the level of each task by the median of all of its programs: no records can do so."""
    off = target.log_measured - target.log_predicted
    _, task_of = np.unique(target.rows.tasks, return_inverse=True)
    levels = [np.median(off[task_of == task]) for task in range(int(task_of.max()) + 1)]
    return target.log_predicted + np.array(levels)[task_of], None


CLOSED_FORM: Mapping[str, Adaptation] = {
    "none": unchanged,
    "levels": with_levels,
    "levels + last layer": with_last_layer,
}


@dataclass(frozen=True)
class Adapting:
    """An adaptation: that of `tvm-cdmpp adapt` without sources."""

    predictor: TrainedPredictor

    def __call__(self, target: Target, measured: Ints) -> Adapted:
        """Predict with the weights that learned from the measured programs."""
        known, rest = target.rows.take(measured), np.zeros(0, np.int64)
        tuned = Learner(start=self.predictor).learn(known, target.rows.take(rest)).weights
        return np.log(evaluate(tuned, target.rows).latency_s), None


@dataclass(frozen=True)
class FineTuning:
    """An adaptation: trains the predictor on.

    Attributes
    ----------
    predictor
        Where it starts.
    sources, validation
        Rows of the training part and of the validation part, by kind of device.
    """

    predictor: TrainedPredictor
    sources: Mapping[str, TrainingRows]
    validation: Mapping[str, TrainingRows]

    def __call__(self, target: Target, measured: Ints) -> Adapted:
        """Predict with the weights that learned from the measured programs."""
        kind = "cpu" if target.rows.devices[0].kind == "cpu" else "gpu"
        tuned = self.predictor
        if len(measured):
            expert = tuned.experts[kind]
            found = finetune(expert, target.rows.take(measured), self.sources[kind])
            tuned = TrainedPredictor({**tuned.experts, kind: found})
        rows = self.validation[kind]
        off = np.abs(evaluate(tuned, rows).latency_s / rows.latencies_s - 1.0)
        return np.log(evaluate(tuned, target.rows).latency_s), float(np.median(off))

    @staticmethod
    def of_store(
        store: RecordStore, predictor: TrainedPredictor, split_name: str = SPLIT
    ) -> "FineTuning":
        """Take some rows of the split."""
        labels, features = make_labels(store), load_features(store)
        usable = (features.leaf_counts > 0) & ~(labels.impossible | labels.contended | labels.noisy)
        split = official_split(store, split_name)
        task_of = store.columns("task")["task"].to_numpy()
        targets = [str(target).split()[0] for target in store.tasks["target"].to_pylist()]
        on_cpu = np.isin(targets, ("llvm", "c"))[task_of]

        def rows(part: Ints, kind: str, per_task: int) -> TrainingRows:
            chosen = sample_tasks(
                store, part[(on_cpu == (kind == "cpu"))[part] & usable[part]], per_task
            )
            found, _ = rows_of_store(store, features, chosen, labels=labels)
            return found.take(np.arange(len(found)))

        measured = np.isfinite(labels.latency_s)[split.validation]
        return FineTuning(
            predictor,
            {kind: rows(split.train, kind, _SOURCES_PER_TASK) for kind in KINDS},
            {kind: rows(split.validation[measured], kind, _VALIDATION_PER_TASK) for kind in KINDS},
        )
