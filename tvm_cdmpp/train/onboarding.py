"""Onboarding a device: what to measure on it, batch by batch, what that taught, when to stop.

- What the whole budget should buy is chosen first, from all candidates, and each batch from that in
  the same way (see `MeasurePlan`).
- Every fifth task, in the order in which tasks are first measured, is kept back: its programs teach
  nothing until the end, and tell how large the error is on tasks that were not measured. Where
  there are fewer than five tasks, it is every fifth program. So is every fifth function.
- After each batch the weights learn from all that was measured so far, from where they started:
  with programs of other devices beside them, or anchored to what was known (see `Learner`). Where
  programs that a search keeps are to be predicted, it is the fastest ones of each task: among those
  that a model says are fast are its mistakes, which a search measures as well and drops.
- It ends when two batches in a row have each brought the error down by less than 2 %, the weights
  before and after a batch being compared on the same programs; if so wanted, not before each task
  that was chosen has a record. What is returned then has learned from the programs that were kept
  back too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.models import Ints, TrainedPredictor, TrainingRows, round_weights
from tvm_cdmpp.train.evaluation import evaluate
from tvm_cdmpp.train.learner import Learned, Learner
from tvm_cdmpp.train.plan import Bench, Mask, MeasurePlan, OnboardSettings
from tvm_cdmpp.train.scores import Scores, bootstrap, score

_KEPT_BACK = 5
"""One in so many tasks, or programs, is kept back."""
_LEAST_GAIN = 0.02
"""By which share a batch must bring the error down to count as a gain."""
_PATIENCE = 2
"""Batches in a row without a gain after which it ends."""
_RESAMPLES = 400
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """A point of the learning curve; errors are None where nothing is kept back yet."""

    records: int
    """Measured so far, failures and those kept back among them."""
    failed: int
    tasks: int
    """Tasks with a record."""
    kept_back: int
    """Programs that count and that these weights have not learned from."""
    mape: float | None
    """Mean absolute percentage error on those, in percent."""
    low: float | None
    """Bounds of its 90 % interval, tasks being resampled; None where one program is kept back."""
    high: float | None
    median: float | None
    """Median of the absolute percentage errors: a few programs of microseconds may dominate the
    mean."""
    start_mape: float | None
    """Error of the weights that it started from, on the same programs."""
    gain: float | None
    """Share by which the last batch brought the mean of |ln(predicted / measured)| down, on the
    same programs: a percentage may be that of a single program of a microsecond. None also where an
    earlier run was killed after that batch."""

    @property
    def is_better(self) -> bool | None:
        """Whether the error is below that of the start; None where nothing is kept back yet."""
        if self.mape is None or self.start_mape is None:
            return None
        return self.mape < self.start_mape


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
    earlier
        The points of earlier runs that measured the bench's records.

    Attributes
    ----------
    curve
        The points so far, those of earlier runs among them.
    ended
        Why no more is measured, in words; empty before the end.
    stopping
        Whether `stop` was called.

    Raises
    ------
    RecordError
        There is no candidate.
    """

    def __init__(
        self,
        bench: Bench,
        learner: Learner,
        settings: OnboardSettings,
        earlier: Sequence[CurvePoint] = (),
    ) -> None:
        if not len(bench.candidates):
            raise RecordError("there is no program to measure on the device")
        self.curve = [point for point in earlier if point.records <= len(bench.measured)]
        self.ended = ""
        self.stopping = False
        self._bench, self._learner, self._settings = bench, learner, settings
        self._now: TrainedPredictor | None = None if len(bench.measured) else learner.start
        """What learned from what was measured so far; None before that."""
        self._plan = MeasurePlan(bench, learner.start, settings)
        self._by_task = self._plan.num_searched >= _KEPT_BACK

    @property
    def num_counted(self) -> int:
        """Of the measured programs, those that ran and are learned from."""
        measured = self._bench.measured
        return int(np.isfinite(measured.latencies_s[self._counted(measured)]).sum())

    def steps(self) -> Iterator[CurvePoint]:
        """Measure batch by batch to the end; yield the curve's point after each.

        The first point is that of the records of earlier runs, where there are any. Where these
        runs ended before a point of all of them, what the last batch brought is not known.
        """
        if len(self._bench.measured):
            yield self._look()
        self._end_if_flat()
        while not (self.ended or self.stopping) and (chosen := self._next_batch()).size:
            before = len(self._bench.measured)
            self._bench.measure(chosen)
            if len(self._bench.measured) > before:
                yield self._look()
            self._end_if_flat()
        if self.stopping:
            self.ended = "it was asked to stop"

    def stop(self) -> None:
        """End after the batch in flight."""
        self.stopping = True
        self._bench.stop()

    def result(self) -> Learned:
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
        found, how = self._learner.learn(measured.take(self._counted(measured)), self._unlabelled())
        for kind, expert in found.experts.items():
            if expert is not self._learner.start.experts[kind]:
                round_weights(expert.network)
                expert.ahead = None
        return Learned(TrainedPredictor(found.experts), how)

    def _next_batch(self) -> Ints:
        bench, settings = self._bench, self._settings
        left = settings.budget - len(bench.measured)
        pool = np.flatnonzero(bench.open & self._plan.planned)
        if not len(pool):  # the log has programs that were not planned for
            pool = np.flatnonzero(bench.open)
        if left < 0:
            self.ended = (
                f"there were {len(bench.measured)} records already, which count although the "
                f"budget is {settings.budget}"
            )
        elif left == 0:
            self.ended = "the budget is spent"
        elif not len(pool):
            self.ended = "there are no more programs to measure"
        else:
            seed = settings.seed + len(bench.measured)
            return self._plan.choose(pool, min(settings.batch, left), seed)
        return np.zeros(0, np.int64)

    def _unlabelled(self) -> TrainingRows:
        return self._bench.candidates.take(np.flatnonzero(self._bench.open))

    def _counted(self, measured: TrainingRows) -> Ints:
        """Return places of the programs to learn from, and of those that failed."""
        return fastest(measured, self._settings.fastest_share)

    def _look(self) -> CurvePoint:
        """Learn from all that is not kept back, and compare with the weights before."""
        measured = self._bench.measured
        kept, own = np.zeros(len(measured), bool), np.isin(measured.tasks, self._plan.own_tasks)
        # Apart, as a run that goes on reads them from two files.
        kept[~own] = keep_back(measured.tasks[~own], by_task=self._by_task)
        kept[own] = keep_back(measured.tasks[own], by_task=False)
        counted = np.isin(np.arange(len(measured)), self._counted(measured))
        before, rows = self._now, measured.take(np.flatnonzero(kept & counted))
        taught = measured.take(np.flatnonzero(~kept & counted))
        now = self._now = self._learner.learn(taught, self._unlabelled()).weights
        if self.curve and self.curve[-1].records == len(measured):
            return self.curve[-1]  # an earlier run looked at these
        ran = int(np.isfinite(rows.latencies_s).sum())
        point = CurvePoint(
            records=len(measured),
            failed=int(np.isinf(measured.latencies_s).sum()),
            tasks=len(np.unique(measured.tasks)),
            kept_back=ran,
            **(self._errors(rows, before, now) if ran else _NO_ERRORS),
        )
        self.curve.append(point)
        return point

    def _errors(
        self, rows: TrainingRows, before: TrainedPredictor | None, now: TrainedPredictor
    ) -> dict[str, float | None]:
        measured_s, tasks = rows.latencies_s, rows.tasks
        several = self._by_task and len(np.unique(tasks[np.isfinite(measured_s)])) > 1
        groups = tasks if several else np.arange(len(rows))

        def scores(predicted_s: Floats) -> Scores:
            return score(measured_s, predicted_s, groups)

        def log_error(predicted_s: Floats) -> float:
            off = np.abs(np.log(predicted_s) - np.log(measured_s))
            return float(off[np.isfinite(measured_s)].mean())

        first_s, predicted_s = (
            evaluate(each, rows).latency_s for each in (self._learner.start, now)
        )
        low = high = None
        if np.isfinite(measured_s).sum() > 1:
            low, high = bootstrap(measured_s, predicted_s, groups, resamples=_RESAMPLES)["mape"]
        gain = None
        if before is not None:
            error_before = log_error(evaluate(before, rows).latency_s)
            gain = 1.0 - log_error(predicted_s) / error_before if error_before else 0.0
        return {
            "mape": scores(predicted_s).mape,
            "low": low,
            "high": high,
            "median": scores(predicted_s).median_ape,
            "start_mape": scores(first_s).mape,
            "gain": gain,
        }

    def _end_if_flat(self) -> None:
        planned = self._bench.candidates.tasks[self._plan.planned]
        if self._settings.whole_plan and not np.isin(planned, self._bench.measured.tasks).all():
            return
        last = [point.gain for point in self.curve[-_PATIENCE:]]
        known = [gain for gain in last if gain is not None]
        if len(known) == _PATIENCE and max(known) < _LEAST_GAIN:
            self.ended = (
                f"the last {_PATIENCE} batches brought the error down by less than "
                f"{_LEAST_GAIN:.0%} each"
            )


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


def fastest(rows: TrainingRows, share: float) -> Ints:
    """Return places of the programs that are among the fastest of their task, and that failed.

    Parameters
    ----------
    rows
        Measured programs.
    share
        Of those of each task that ran, rounded up; above 0.

    Returns
    -------
    places
        Ascending.
    """
    chosen = [np.flatnonzero(np.isinf(rows.latencies_s))]
    for task in np.unique(rows.tasks):
        ran = np.flatnonzero((rows.tasks == task) & np.isfinite(rows.latencies_s))
        order = np.argsort(rows.latencies_s[ran], kind="stable")
        chosen.append(ran[order[: math.ceil(share * len(ran))]])
    return np.sort(np.concatenate(chosen))
