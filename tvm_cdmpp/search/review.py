"""What a finished search looks like from its log: progress, the model's word, what is left.

Latencies of the whole are sums over the tasks of the log, each once: a log does not say how often a
network has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.bridge import remark_on_calibration
from tvm_cdmpp.models import CostPredictor, TrainedPredictor, bound_shares
from tvm_cdmpp.search.explanation import roofline_basis, task_roofline, why_below_roofline
from tvm_cdmpp.search.measured_log import MeasuredLog, MeasuredTask

_LATE_SHARE = 1 / 3
_FEW_TRIALS = 16
"""Below that neither a best latency that stays nor one that falls says what more would do."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskReview:
    """One task of a search.

    Attributes
    ----------
    measured_s, predicted_s
        Of the programs that ran, in the order of the log; (n,).
    """

    name: str
    """After its number in the log, from 0."""
    trials: int
    failed: int
    spent_s: float
    """Seconds that building and running its programs took."""
    best_s: float | None
    """Of its fastest program; None where all failed."""
    bound: str
    """What holds the fastest program down most, by the analytic estimate."""
    roofline_s: float
    roofline_bound: str
    late_gain_s: float
    """How much the last third of its trials took off its best latency."""
    measured_s: npt.NDArray[np.float64]
    predicted_s: npt.NDArray[np.float64]
    concordance: float | None
    """Share of pairs of its programs that the model puts in the right order; None below two."""

    @property
    def has_too_few_trials(self) -> bool:
        """Tell whether some program ran, but too few to say what more would do."""
        return self.best_s is not None and self.trials < _FEW_TRIALS

    @property
    def advice(self) -> str:
        """Say whether more trials would pay: by their number, by late gains, by what is left."""
        if self.best_s is None:
            return "no program ran: see the failures"
        if self.has_too_few_trials:
            return f"fewer than {_FEW_TRIALS} trials, too few to tell"
        if self.late_gain_s > 0.01 * self.best_s:
            return "still falling: more trials pay"
        return f"flat: {self._standing[1]}"

    @property
    def next_to_roofline(self) -> str:
        """Say where the fastest program is next to the roofline."""
        return "-" if self.best_s is None else self._standing[0]

    @property
    def _standing(self) -> tuple[str, str]:
        """Where the fastest program is, and what is left once the search is flat."""
        assert self.best_s is not None
        if self.roofline_s <= self.best_s < 2 * self.roofline_s:
            return "near", "little is left"
        if self.bound == "start-up":
            return "most of it is its start", "little is left"
        if self.best_s < self.roofline_s:
            return f"below: {why_below_roofline(self.roofline_bound)}", "no word on what is left"
        return "far", "many more trials, or another sketch"


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchReview:
    """A whole search.

    Attributes
    ----------
    progress
        Programs measured, and the sum of the best latencies so far in seconds, from where every
        task that ever ran has one; (points, 2).
    """

    log: Path
    device: str
    memory: str
    """The bandwidth that rooflines are of, and its source."""
    weights: str
    """What predicted."""
    calibrated: bool
    """Whether that was multiplied by what `device calibrate` measured."""
    remarks: tuple[str, ...]
    """What a user may not expect of the predictions."""
    tasks: tuple[TaskReview, ...]
    """In the order of the log."""
    progress: npt.NDArray[np.float64]
    failures: Mapping[str, int]
    problems: Mapping[int, str]
    """Lines of the log that could not be used, and why."""

    @property
    def latency_s(self) -> float:
        """Sum of the best latencies of the tasks that ran."""
        return sum(task.best_s or 0.0 for task in self.tasks)


def review_search(log: MeasuredLog, predictor: CostPredictor, weights: str) -> SearchReview:
    """Review a search.

    Parameters
    ----------
    log
        What it measured.
    predictor
        Whose predictions are compared with the measurements.
    weights
        What to call it.
    """
    failures = sum((task.failures for task in log.tasks), Counter[str]())
    return SearchReview(
        log=log.path,
        device=", ".join(dict.fromkeys(task.machine.device.name for task in log.tasks)),
        memory="; ".join(
            dict.fromkeys(roofline_basis(task.machine.device)["memory"] for task in log.tasks)
        ),
        weights=weights,
        calibrated=isinstance(predictor, TrainedPredictor)
        and any(predictor.level(task.machine.device) for task in log.tasks),
        remarks=_remarks(log),
        tasks=tuple(_review_task(number, task, predictor) for number, task in enumerate(log.tasks)),
        progress=_progress(log),
        failures=dict(failures.most_common()),
        problems=log.problems,
    )


def _remarks(log: MeasuredLog) -> tuple[str, ...]:
    devices = {task.machine.device.name: task.machine.device for task in log.tasks}
    return tuple(filter(None, map(remark_on_calibration, devices.values())))


def _review_task(number: int, task: MeasuredTask, predictor: CostPredictor) -> TaskReview:
    ran = np.flatnonzero(np.isfinite(task.latencies_s))
    device = task.machine.device
    measured_s = task.latencies_s[ran]
    predicted_s = np.asarray(predictor.predict(task.asts.take(ran), device).latency_s, np.float64)
    roofline_s, roofline_bound = task_roofline(task.task, device)
    best = task.best
    shares = {} if best is None else bound_shares(task.asts.take([best]), device)
    return TaskReview(
        name=f"{number} {task.name}",
        trials=len(task.lines),
        failed=sum(task.failures.values()),
        spent_s=float(task.spent_s.sum()),
        best_s=None if best is None else float(task.latencies_s[best]),
        bound=max(shares, key=shares.__getitem__) if shares else "-",
        roofline_s=roofline_s,
        roofline_bound=roofline_bound,
        late_gain_s=_late_gain_s(task.latencies_s),
        measured_s=measured_s,
        predicted_s=predicted_s,
        concordance=_concordance(measured_s, predicted_s),
    )


def _late_gain_s(latencies_s: npt.NDArray[np.float64]) -> float:
    best = np.minimum.accumulate(latencies_s)
    before = best[max(0, int((1 - _LATE_SHARE) * len(best)) - 1)]
    return float(before - best[-1]) if np.isfinite(before) else 0.0


def _concordance(
    measured_s: npt.NDArray[np.float64], predicted_s: npt.NDArray[np.float64]
) -> float | None:
    """Return the share of pairs in the right order; pairs measured alike are left out."""
    order = np.sign(measured_s[:, None] - measured_s)
    said = np.sign(predicted_s[:, None] - predicted_s)
    pairs = np.triu(order != 0, 1)
    return float((order == said)[pairs].mean()) if pairs.any() else None


def _progress(log: MeasuredLog) -> npt.NDArray[np.float64]:
    ran = [task for task in log.tasks if task.best is not None]
    events = sorted(
        (int(line), number, float(latency_s))
        for number, task in enumerate(log.tasks)
        for line, latency_s in zip(task.lines, task.latencies_s, strict=True)
    )
    best: dict[int, float] = {}
    points = []
    for measured, (_, number, latency_s) in enumerate(events, start=1):
        if np.isfinite(latency_s):
            best[number] = min(latency_s, best.get(number, latency_s))
        if ran and len(best) == len(ran):
            points.append((measured, sum(best.values())))
    return np.array(points, np.float64).reshape(-1, 2)
