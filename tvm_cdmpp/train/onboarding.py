"""Onboarding a device: what to measure on it, batch by batch, what that taught, when to stop.

- What the whole budget should buy is chosen first, from all candidates, and each batch from that in
  the same way: tasks that stand for the others, and programs of each (see `select_programs`).
  Functions with TVM's own schedules have a share of their own, by how many tasks and how many
  functions there are.
- Every fifth task, in the order in which tasks are first measured, is kept back: its programs teach
  nothing until the end, and tell how large the error is on tasks that were not measured. Where
  there are fewer than five tasks, it is every fifth program. So is every fifth function.
- After each batch the weights learn from all that was measured so far, from where they started:
  with programs of other devices beside them, or anchored to what was known (see `Learner`).
- It ends when two batches in a row have each brought the error down by less than 2 %, the weights
  before and after a batch being compared on the same programs. What is returned then has learned
  from the programs that were kept back as well.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.models import (
    AdaptConfig,
    Expert,
    Ints,
    Neighbours,
    TrainedPredictor,
    TrainingRows,
    adapt,
    round_weights,
)
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.evaluation import evaluate
from tvm_cdmpp.train.finetuning import FINETUNE_CONFIG, finetune
from tvm_cdmpp.train.scores import Scores, bootstrap, score
from tvm_cdmpp.train.selection import program_features, select_programs

_KEPT_BACK = 5
"""One in so many tasks, or programs, is kept back."""
_LEAST_GAIN = 0.02
"""By which share a batch must bring the error down to count as a gain."""
_PATIENCE = 2
"""Batches in a row without a gain after which it ends."""
_RESAMPLES = 400

_SHARES = (0.0, 0.5, 1.0)
"""Of the way from the weights of the start to those that were trained on."""
_FOLDS = 3
_LEAST_TO_TRAIN = 12
"""Programs that ran; fewer cannot tell whether training pays."""

Floats = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]


class Bench(Protocol):
    """What programs of a device can be measured with."""

    @property
    def candidates(self) -> TrainingRows:
        """Programs to choose from; their latencies are not to be looked at."""

    @property
    def open(self) -> Mask:
        """Which candidates have not been measured; (candidates,)."""

    @property
    def own(self) -> Mask:
        """Which candidates have TVM's own schedules, each a task of its own; (candidates,)."""

    @property
    def measured(self) -> TrainingRows:
        """All that was measured, in that order, earlier runs first; tasks as in `candidates`."""

    def measure(self, programs: Ints) -> None:
        """Measure some candidates and keep the records; none when it was asked to stop."""

    def stop(self) -> None:
        """Do not wait for a quieter machine; called from a signal handler."""


@dataclass(frozen=True, kw_only=True)
class OnboardSettings:
    """How much is measured."""

    budget: int
    """Records in all, those of earlier runs among them."""
    batch: int = 64
    """Programs measured before the weights learn again."""
    seed: int = 0
    programs_per_task: int = 4
    """Measured of a task at least before one of another is, where tasks stand for others. 1 where
    what they are a part of is to be predicted: then each of them counts."""

    def __post_init__(self) -> None:
        """Reject a budget without a batch."""
        if self.batch < 1:
            raise ConfigError(f"a batch must be at least 1 program; got {self.batch}.")
        if self.programs_per_task < 1:
            raise ConfigError(f"programs_per_task must be at least 1; got {self.programs_per_task}")
        if self.budget < self.batch:
            raise ConfigError(
                f"the budget must be at least one batch of {self.batch} programs; got "
                f"{self.budget}. Give more, or smaller batches."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """A point of the learning curve; errors are None where nothing is kept back yet."""

    records: int
    """Measured so far, failures and those kept back among them."""
    failed: int
    tasks: int
    """Tasks with a record."""
    kept_back: int
    """Programs that ran and that these weights have not learned from."""
    mape: float | None
    """Mean absolute percentage error on those, in percent."""
    low: float | None
    """Bounds of its 90 % interval, tasks being resampled."""
    high: float | None
    median: float | None
    """Median of the absolute percentage errors: a few programs of microseconds may dominate the
    mean."""
    start_mape: float | None
    """Error of the weights that it started from, on the same programs."""
    gain: float | None
    """Share by which the last batch brought the error down, on the same programs."""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """Turns measured programs of one device into weights, always from the same start.

    The levels of a device that was calibrated are taken from its latencies, and count on top of
    what is learned. The level of what is left comes first, in closed form. With `sources`, their
    programs are trained on as well, and CMD keeps the latent vectors of programs that were not
    measured near theirs (`finetune`); so the weights stay good elsewhere. Without, an anchor keeps
    the weights near the start, as in a search, and the level of this device is theirs for all
    devices of its kind.
    """

    start: TrainedPredictor
    sources: TrainingRows | None = None
    config: TrainConfig = field(default_factory=lambda: replace(FINETUNE_CONFIG, domain="cmd"))
    anchored: AdaptConfig = field(
        default_factory=lambda: AdaptConfig(
            steps=200, steps_per_program=1.0, least_steps=60, programs=16, programs_per_task=4
        )
    )
    """Small steps: with all of a few dozen programs in each, what one of them says is overrated."""
    seed: int = 0

    def learn(self, measured: TrainingRows, unlabelled: TrainingRows) -> TrainedPredictor:
        """Return weights that learned from some programs; the start where none of these ran.

        The levels that devices have for the start count for them, too.

        Parameters
        ----------
        measured
            Programs of one kind of device.
        unlabelled
            Others of that device; their latencies are not looked at.
        """
        if not np.isfinite(measured.latencies_s).any():
            return self.start
        kind = "cpu" if measured.devices[0].kind == "cpu" else "gpu"
        expert = self.start.experts[kind]
        rest = self.start.without_levels(measured)
        if self.sources is None:
            found = self._anchored(expert, rest)
            found.neighbours = (*expert.neighbours, *found.neighbours)
        else:
            found = finetune(
                expert, rest, self.sources, config=self.config,
                unlabelled=unlabelled.uncalibrated(), seed=self.seed,
            )  # fmt: skip
            found.neighbours = expert.neighbours  # what they add was taken out
        found.ahead = expert.network.state_dict() if expert.ahead is None else expert.ahead
        return TrainedPredictor({**self.start.experts, kind: found}, self.start.about)

    def _anchored(self, expert: Expert, measured: TrainingRows) -> Expert:
        """Train as far as that pays, and interpolate what is left.

        The weights are between those of the start and those after all steps, at the share at which
        programs that were left out are predicted best (Wortsman et al., Robust Fine-Tuning of
        Zero-Shot Models, CVPR 2022): all of the way on a device that was not known, often none of
        it on one that was.
        """
        ran = np.flatnonzero(np.isfinite(measured.latencies_s))
        share = _SHARES[0]
        if len(ran) >= _LEAST_TO_TRAIN:
            off = np.zeros(len(_SHARES))
            fold_of = np.random.default_rng(self.seed).permutation(len(ran)) % _FOLDS
            for fold in range(_FOLDS):
                left_out = measured.take(ran[fold_of == fold])
                others = measured.take(np.setdiff1d(np.arange(len(measured)), ran[fold_of == fold]))
                each = self._between(expert, others, _SHARES)
                off += [np.abs(_log_residuals(one, left_out)).sum() for one in each]
            share = _SHARES[int(off.argmin())]
        (found,) = self._between(expert, measured, [share])
        return found

    def _between(
        self, expert: Expert, measured: TrainingRows, shares: Sequence[float]
    ) -> list[Expert]:
        """Return what learned from programs, at shares of the way from the start."""
        start = expert.network.state_dict()
        trained = copy.deepcopy(expert.network)
        if max(shares) > 0.0:
            adapt(trained, start, measured, self.anchored, self.seed, len(measured))
        ran = measured.take(np.flatnonzero(np.isfinite(measured.latencies_s)))
        found = []
        for share in shares:
            network = copy.deepcopy(trained)
            with torch.no_grad():
                for name, weight in network.named_parameters():
                    weight.copy_(torch.lerp(start[name], weight, share))
            round_weights(network)
            learned = Expert(
                network, expert.spread_factor, expert.predicts_failure or len(ran) < len(measured)
            )
            interpolated = Neighbours.fit(ran.batch(), _log_residuals(learned, ran))
            found.append(replace(learned, neighbours=(interpolated,)))
        return found


def _log_residuals(expert: Expert, rows: TrainingRows) -> Floats:
    """Return ln(measured / predicted) of programs of one kind of device; (n,)."""
    kind = "cpu" if rows.devices[0].kind == "cpu" else "gpu"
    predicted_s = evaluate(TrainedPredictor({kind: expert}), rows).latency_s
    found: Floats = np.log(rows.latencies_s) - np.log(predicted_s)
    return found


class Onboarding:
    """Measures and learns; `steps` does the work.

    Parameters
    ----------
    bench
        Measures; records that it has already count.
    learner
        Learns.
    settings
        How much.

    Attributes
    ----------
    curve
        The points so far.
    ended
        Why no more is measured, in words; empty before the end.
    stopping
        Whether `stop` was called.

    Raises
    ------
    RecordError
        There is no candidate.
    """

    def __init__(self, bench: Bench, learner: Learner, settings: OnboardSettings) -> None:
        if not len(bench.candidates):
            raise RecordError("there is no program to measure on the device")
        self.curve: list[CurvePoint] = []
        self.ended = ""
        self.stopping = False
        self._bench, self._learner, self._settings = bench, learner, settings
        self._now = learner.start
        candidates = bench.candidates
        self._features = program_features(candidates.batch())
        self._own_tasks = np.unique(candidates.tasks[bench.own])
        tasks = np.setdiff1d(candidates.tasks, self._own_tasks)
        self._by_task = len(tasks) >= _KEPT_BACK
        self._own_share = len(self._own_tasks) / (len(self._own_tasks) + len(tasks))
        # By the seed alone, so that a run that goes on has the same plan.
        chosen = self._select(np.arange(len(candidates)), settings.budget, settings.seed)
        self._planned = np.isin(np.arange(len(candidates)), chosen)

    def steps(self) -> Iterator[CurvePoint]:
        """Measure batch by batch to the end; yield the curve's point after each.

        The first point is that of the records of earlier runs, where there are any.
        """
        if len(self._bench.measured):
            yield self._look()
        while not (self.ended or self.stopping) and (chosen := self._next_batch()).size:
            before = len(self._bench.measured)
            self._bench.measure(chosen)
            if len(self._bench.measured) > before:
                yield self._look()
            if self._is_flat():
                self.ended = (
                    f"the last {_PATIENCE} batches brought the error down by less than "
                    f"{_LEAST_GAIN:.0%} each"
                )
        if self.stopping:
            self.ended = "it was asked to stop"

    def stop(self) -> None:
        """End after the batch in flight."""
        self.stopping = True
        self._bench.stop()

    def result(self) -> TrainedPredictor:
        """Return weights that learned from everything, what was kept back included.

        They stand for themselves: what they started from is not in them, and the levels that a
        device has for the start do not count for them before they are kept for them as well.

        Raises
        ------
        RecordError
            No program ran.
        """
        measured = self._bench.measured
        if not np.isfinite(measured.latencies_s).any():
            raise RecordError(
                f"none of {len(measured)} measured programs ran, so there is nothing to learn from"
            )
        found = self._learner.learn(measured, self._unlabelled())
        for kind, expert in found.experts.items():
            if expert is not self._learner.start.experts[kind]:
                round_weights(expert.network)
                expert.ahead = None
        return TrainedPredictor(found.experts)

    def _next_batch(self) -> Ints:
        bench, settings = self._bench, self._settings
        left = settings.budget - len(bench.measured)
        pool = np.flatnonzero(bench.open & self._planned)
        if not len(pool):  # the log has programs that were not planned for
            pool = np.flatnonzero(bench.open)
        if left <= 0:
            self.ended = "the budget is spent"
        elif not len(pool):
            self.ended = "there are no more programs to measure"
        else:
            seed = settings.seed + len(bench.measured)
            return self._select(pool, min(settings.batch, left), seed)
        return np.zeros(0, np.int64)

    def _select(self, pool: Ints, number: int, seed: int) -> Ints:
        """Choose so many candidates of a pool; of those with TVM's own schedules, their share."""
        own = self._bench.own[pool]
        num_own = min(int(own.sum()), round(self._own_share * number))
        num_own = max(num_own, number - int((~own).sum()))
        chosen = [
            self._representative(pool[~own], number - num_own, seed),
            self._representative(pool[own], num_own, seed),
        ]
        return np.sort(np.concatenate(chosen))

    def _representative(self, pool: Ints, number: int, seed: int) -> Ints:
        tasks = self._bench.candidates.tasks[pool]
        found: Ints = pool[
            select_programs(
                self._features[pool], tasks, number, "kmeans", seed,
                programs_per_task=self._settings.programs_per_task,
            )
        ]  # fmt: skip
        return found

    def _unlabelled(self) -> TrainingRows:
        return self._bench.candidates.take(np.flatnonzero(self._bench.open))

    def _look(self) -> CurvePoint:
        """Learn from all that is not kept back, and compare with the weights before."""
        measured = self._bench.measured
        kept, own = np.zeros(len(measured), bool), np.isin(measured.tasks, self._own_tasks)
        # Apart, as a run that goes on reads them from two files.
        kept[~own] = keep_back(measured.tasks[~own], by_task=self._by_task)
        kept[own] = keep_back(measured.tasks[own], by_task=False)
        before, rows = self._now, measured.take(np.flatnonzero(kept))
        self._now = self._learner.learn(measured.take(np.flatnonzero(~kept)), self._unlabelled())
        ran = int(np.isfinite(rows.latencies_s).sum())
        point = CurvePoint(
            records=len(measured),
            failed=int(np.isinf(measured.latencies_s).sum()),
            tasks=len(np.unique(measured.tasks)),
            kept_back=ran,
            **(self._errors(rows, before) if ran else _NO_ERRORS),
        )
        self.curve.append(point)
        return point

    def _errors(self, rows: TrainingRows, before: TrainedPredictor) -> dict[str, float | None]:
        measured_s, tasks = rows.latencies_s, rows.tasks
        several = self._by_task and len(np.unique(tasks[np.isfinite(measured_s)])) > 1
        groups = tasks if several else np.arange(len(rows))

        def scores(predictor: TrainedPredictor) -> Scores:
            return score(measured_s, evaluate(predictor, rows).latency_s, groups)

        now, error_before = scores(self._now), scores(before).mape
        predicted_s = evaluate(self._now, rows).latency_s
        low, high = bootstrap(measured_s, predicted_s, groups, resamples=_RESAMPLES)["mape"]
        return {
            "mape": now.mape,
            "low": low,
            "high": high,
            "median": now.median_ape,
            "start_mape": scores(self._learner.start).mape,
            "gain": 1.0 - now.mape / error_before if error_before else 0.0,
        }

    def _is_flat(self) -> bool:
        last = [point.gain for point in self.curve[-_PATIENCE:]]
        known = [gain for gain in last if gain is not None]
        return len(known) == _PATIENCE and max(known) < _LEAST_GAIN


_NO_ERRORS: dict[str, float | None] = dict.fromkeys(
    ("mape", "low", "high", "median", "start_mape", "gain")
)


def keep_back(tasks: Ints, *, by_task: bool) -> Mask:
    """Mark the measured programs that are kept back; what follows them does not change that.

    Parameters
    ----------
    tasks
        Task of each program, in the order in which they were measured; (n,).
    by_task
        Keep back whole tasks, the second of every five; else the second of every five programs.
    """
    order = np.arange(len(tasks))
    if by_task:
        _, first, place = np.unique(tasks, return_index=True, return_inverse=True)
        order = np.argsort(np.argsort(first))[place]
    marked: Mask = order % _KEPT_BACK == 1
    return marked
