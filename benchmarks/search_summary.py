"""What a comparison of searches comes to: ratios to the best XGBoost arm, with intervals.

All figures are geometric means over tasks, each the geometric mean over its seeds. Intervals hold
95 % of the means of resampled tasks and, within each, resampled seeds.

- The *reference* is the XGBoost arm with the lowest mean latency at `REFERENCE_TRIALS` trials, or
  at the end of shorter searches. Its searches are compared with those of the same task and seed.
- A latency is that of the best program so far, as it was measured in the search. A search that
  ended early keeps the latency that it had.
- A *goal* is the reference's latency at `REFERENCE_TRIALS` trials; `sooner` is the reference's
  seconds, or trials, to its goal over those of the arm. A search that never gets there is counted;
  it stands with its end, or with the reference's seconds or trials if that is more, so that giving
  up early does not count as being sooner: its true ratio is lower still.
- Where a search has no program that runs, its latency is in no mean, but counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

BUDGETS = (7, 16, 64, 128)
REFERENCE_TRIALS = 64
XGBOOST_ARMS = ("xgb", "xgb-warm", "xgb-adaptive")
PARTS = ("search_s", "predict_s", "update_s", "build_s", "run_s")
_RESAMPLES = 1000
_INTERVAL = (2.5, 97.5)

Ratios: TypeAlias = Mapping[str, Sequence[float]]
"""Of each task, those of its seeds."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One search of one task.

    Attributes
    ----------
    task, arm, seed
        Whose.
    latencies_s
        Of every program measured, in order; infinite for those that failed; (trials,).
    batches
        For every batch, the trials and the seconds at its end.
    split_s
        Seconds of the whole search, by `PARTS`.
    """

    task: str
    arm: str
    seed: int
    latencies_s: tuple[float, ...]
    batches: tuple[tuple[int, float], ...]
    split_s: dict[str, float]

    def latency_at(self, trials: int) -> float:
        """Return the best latency of the first trials; infinite while none ran."""
        return min(self.latencies_s[:trials], default=math.inf)

    def latency_after(self, seconds: float) -> float:
        """Return the best latency of the batches that had ended by then."""
        done = [trials for trials, elapsed_s in self.batches if elapsed_s <= seconds]
        return self.latency_at(max(done, default=0))

    def first_reaching(self, latency_s: float) -> tuple[int, float] | None:
        """Return the trials, and the seconds, until a program is as fast; None if none ever is."""
        for place, found_s in enumerate(self.latencies_s):
            if found_s <= latency_s:
                return place + 1, self._seconds_at(place + 1)
        return None

    @property
    def seconds(self) -> float:
        """Seconds of the whole search."""
        return sum(self.split_s.values())

    def _seconds_at(self, trials: int) -> float:
        return next(seconds for count, seconds in self.batches if count >= trials)

    @property
    def steps(self) -> list[dict[str, float]]:
        """Trials, seconds and latency wherever the best program changed, and at the end."""
        best, found = math.inf, []
        for place, latency_s in enumerate(self.latencies_s):
            if latency_s < best:
                best = latency_s
                seconds = self._seconds_at(place + 1)
                found.append({"trials": place + 1, "elapsed_s": seconds, "latency_s": best})
        return found


def summarise(curves: Sequence[Curve], budgets: Sequence[int] = BUDGETS) -> dict[str, Any]:
    """Return the figures of all arms; without an XGBoost arm only the split of time.

    Parameters
    ----------
    curves
        One per task, arm and seed, each at most once.
    budgets
        Trials at which latencies are compared; those beyond the longest search are left out.
    """
    arms = list(dict.fromkeys(curve.arm for curve in curves))
    of = {(curve.task, curve.arm, curve.seed): curve for curve in curves}
    longest = max((len(curve.latencies_s) for curve in curves), default=0)
    at = min(REFERENCE_TRIALS, longest)
    reference = best_arm(curves, [arm for arm in XGBOOST_ARMS if arm in arms], at)
    summary: dict[str, Any] = {
        "reference": reference,
        "reference_trials": at,
        "arms": {arm: {"split": _split([c for c in curves if c.arm == arm])} for arm in arms},
    }
    if reference is None:
        return summary
    for arm in arms:
        pairs = [
            (curve, of[curve.task, reference, curve.seed])
            for curve in curves
            if curve.arm == arm and (curve.task, reference, curve.seed) in of
        ]
        latency, to_goal = {}, {}
        for budget in (budget for budget in budgets if budget <= longest):
            own = [curve.latency_at(budget) for curve, _ in pairs]
            equal = [other.latency_at(budget) for _, other in pairs]
            goals = [other.latency_at(at) for _, other in pairs]
            latency[str(budget)] = _ratio(pairs, own, equal)
            to_goal[str(budget)] = _ratio(pairs, own, goals)
        summary["arms"][arm] |= {
            "searches": len(pairs),
            "latency": latency,
            "latency_to_goal": to_goal,
            "sooner": _sooner(pairs, at),
        }
    return summary


def best_arm(curves: Sequence[Curve], arms: Sequence[str], trials: int) -> str | None:
    """Return the arm with the lowest geometric mean latency after some trials.

    Only searches whose task and seed all of the arms have are looked at, and of these the ones
    where each found a program that runs; None if there are no arms or no such searches.
    """
    found: dict[tuple[str, int], dict[str, float]] = {}
    for curve in curves:
        if curve.arm in arms:
            found.setdefault((curve.task, curve.seed), {})[curve.arm] = curve.latency_at(trials)
    shared = [
        row
        for row in found.values()
        if len(row) == len(arms) and all(map(math.isfinite, row.values()))
    ]
    if not shared:
        return None
    return min(arms, key=lambda arm: float(np.mean([math.log(row[arm]) for row in shared])))


def geometric_mean(ratios: Ratios) -> dict[str, Any]:
    """Return the geometric mean over tasks, and an interval; see the module.

    Returns
    -------
    figures
        `mean`, `low` and `high`, None without a task; and the number of `tasks`.
    """
    logs = [np.log(np.asarray(of_task)) for of_task in ratios.values() if len(of_task)]
    if not logs:
        return {"mean": None, "low": None, "high": None, "tasks": 0}
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(logs), size=(_RESAMPLES, len(logs)))
    means = np.empty(drawn.shape)
    for task, of_task in enumerate(logs):
        places = drawn == task
        seeds = generator.integers(len(of_task), size=(np.count_nonzero(places), len(of_task)))
        means[places] = of_task[seeds].mean(axis=1)
    resampled = means.mean(axis=1)
    low, high = np.exp(np.percentile(resampled, _INTERVAL)).tolist()
    mean = math.exp(float(np.mean([of_task.mean() for of_task in logs])))
    return {"mean": mean, "low": low, "high": high, "tasks": len(logs)}


def _ratio(
    pairs: Sequence[tuple[Curve, Curve]], own: Sequence[float], other: Sequence[float]
) -> dict[str, Any]:
    """Return the mean ratio of what searches have to what the reference's have."""
    ratios: dict[str, list[float]] = {}
    for (curve, _), ours, theirs in zip(pairs, own, other, strict=True):
        if math.isfinite(ours) and math.isfinite(theirs):
            ratios.setdefault(curve.task, []).append(ours / theirs)
    return {
        **geometric_mean(ratios),
        "without_program": sum(map(math.isinf, own)),
        "reference_without_program": sum(map(math.isinf, other)),
    }


def _sooner(pairs: Sequence[tuple[Curve, Curve]], trials: int) -> dict[str, Any]:
    """Return how many times sooner searches reach the reference's latency than the reference."""
    in_seconds: dict[str, list[float]] = {}
    in_trials: dict[str, list[float]] = {}
    never: dict[str, int] = {}
    for curve, other in pairs:
        goal_s = other.latency_at(trials)
        theirs = other.first_reaching(goal_s)
        if math.isinf(goal_s) or theirs is None:
            continue
        ours = curve.first_reaching(goal_s)
        if ours is None:
            never[curve.task] = never.get(curve.task, 0) + 1
            ours = max(len(curve.latencies_s), theirs[0]), max(curve.seconds, theirs[1])
        in_trials.setdefault(curve.task, []).append(theirs[0] / ours[0])
        in_seconds.setdefault(curve.task, []).append(theirs[1] / ours[1])
    return {
        "seconds": geometric_mean(in_seconds),
        "trials": geometric_mean(in_trials),
        "never": sum(never.values()),
        "goals": sum(map(len, in_seconds.values())),
        "tasks": {
            task: {
                "seconds": math.exp(float(np.mean(np.log(ratios)))),
                "trials": math.exp(float(np.mean(np.log(in_trials[task])))),
                "never": never.get(task, 0),
            }
            for task, ratios in in_seconds.items()
        },
    }


def _split(curves: Sequence[Curve]) -> dict[str, float]:
    """Return the share of each part of the time, and the seconds of a search."""
    total_s = sum(curve.seconds for curve in curves)
    shares = {
        part.removesuffix("_s"): sum(curve.split_s[part] for curve in curves) / (total_s or 1.0)
        for part in PARTS
    }
    return {**shares, "seconds": total_s / len(curves)}


def winners_summary(
    winners: Mapping[str, Mapping[str, Mapping[str, Any]]], reference: str | None
) -> dict[str, Any]:
    """Return how the arms' best programs, timed together, compare with the reference's.

    Parameters
    ----------
    winners
        By task, and by `ARM-SEED`, what `timed_winners` returns; seeds of a task are paired.
    reference
        The arm to compare with; without one there is nothing to say.
    """
    ratios: dict[str, dict[str, list[float]]] = {}
    for task, found in winners.items():
        for name, timed in found.items():
            arm, seed = name.rsplit("-", 1)
            other = found.get(f"{reference}-{seed}")
            if other is not None:
                of_arm = ratios.setdefault(arm, {})
                of_arm.setdefault(task, []).append(timed["latency_s"] / other["latency_s"])
    return {arm: geometric_mean(of_arm) for arm, of_arm in ratios.items()}
