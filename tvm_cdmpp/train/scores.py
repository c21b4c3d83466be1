"""How good predicted latencies are: their errors, and how they order the programs of a task.

A **group** is a task on a device: programs that may be compared with each other. Everything is
brought into a table with a row per group first, so that groups can be resampled without looking at
the programs again.

**Errors** are absolute and relative to the measured latency, |predicted - measured| / measured, in
percent; 0 is best. A group of thousands of programs weighs as much as thousands of small ones in a
mean over programs, so there is a mean over groups as well. What remains of the error when the
predictions of each group are scaled to have no error in the median says how much of it is a matter
of level.

**Order** is told by groups whose programs differ in latency at all. Programs that are predicted to
be equal come in a random order, not in that of the rows: rows are often sorted by latency. A model
that predicts one latency for all has a tau of 0 and a pairwise accuracy of 0.5.

- top-k: latency of the best program / that of the best among the k that are predicted to be the
  fastest; in (0, 1], 1 is best. The plain figure is the mean over groups. The weighted one is a
  ratio of sums, as TenSet and TLP have it (Zheng et al., NeurIPS'21; Zhai et al., ASPLOS'23):
  long-running groups count more.
- pairwise accuracy: share of the pairs that differ in latency that are predicted in the right
  order; an equal prediction is half right. In [0, 1], 0.5 is chance; mean over groups.
- Kendall's tau-b (Kendall, 1945), in [-1, 1]; mean over groups. Of large groups, this and the
  pairwise accuracy are those of `RANKED_PROGRAMS` programs drawn at random.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models import SIGMAS_90

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Ints: TypeAlias = npt.NDArray[np.int64]

RANKED_PROGRAMS = 500
"""Programs of a group whose pairs are compared: 125,000 pairs."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Figures of predictions; see the module for their definitions.

    Those of order are None where no group has programs of different latency.
    """

    programs: int
    """With a measured latency; the others are in no other figure."""
    failed: int
    """Without one."""
    tasks: int
    """Groups: tasks on a device."""
    ranked_tasks: int
    """Groups that have an order; the figures of order are theirs."""
    mape: float
    """Mean absolute percentage error, over programs."""
    mape_by_task: float
    """Mean over groups of their mean absolute percentage errors."""
    median_ape: float
    """Median absolute percentage error, over programs; the lower one of two."""
    within_10_percent: float
    """Share of programs with an error of 10 % at most, in [0, 1]."""
    within_task: float | None
    """Mean absolute percentage error, over programs of groups with an order, after each group's
    median of log(predicted / measured) is taken off its predictions."""
    top1: float | None
    top5: float | None
    top1_weighted: float | None
    top5_weighted: float | None
    pairwise_accuracy: float | None
    tau: float | None
    coverage90: float | None
    """Share of measured latencies within predicted * exp(±1.645 spread), in [0, 1]; 0.9 is right.
    None where the model has no idea of its error."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def score(
    measured_s: Floats,
    predicted_s: Floats,
    groups: Ints,
    *,
    spread: Floats | None = None,
    order_s: Floats | None = None,
    weights: Floats | None = None,
    seed: int = 0,
) -> Scores:
    """Compare predicted latencies with measured ones.

    Parameters
    ----------
    measured_s
        Seconds; infinite or NaN for programs that failed, which are left out; (n,).
    predicted_s
        Seconds, finite and positive; (n,).
    groups
        Task on a device of each program, as `TrainingRows.groups` has it; (n,).
    spread
        Standard deviations of log(latency), as `Prediction.spread` has them; (n,).
    order_s
        Seconds that the model orders programs by, as `Prediction.order_s`, for the figures of
        order; `predicted_s` by default; (n,).
    weights
        What a program's group weighs in the weighted figures of order, such as how often it occurs
        in a network; (n,), equal within a group. All weigh the same by default.
    seed
        Chooses the programs whose pairs are compared, and the order of equal predictions.

    Raises
    ------
    ConfigError
        Shapes differ, a value is out of its range, or no program has a measured latency.
    """
    table = _Table.of(_Programs.of(measured_s, predicted_s, groups, spread, order_s, weights, seed))
    figures = table.figures(np.ones(len(table.programs), np.int64))
    known = {name: None if np.isnan(value) else value for name, value in figures.items()}
    return Scores(
        programs=int(table.programs.sum()),
        failed=len(measured_s) - int(table.programs.sum()),
        tasks=len(table.programs),
        ranked_tasks=int(table.ranked.sum()),
        **known,  # type: ignore[arg-type]  # errors are never NaN
    )


def bootstrap(
    measured_s: Floats,
    predicted_s: Floats,
    groups: Ints,
    *,
    spread: Floats | None = None,
    order_s: Floats | None = None,
    weights: Floats | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return 90 % intervals of the figures of `score`, by their names.

    Whole groups are drawn, with replacement, as programs of one task are alike: the percentile
    bootstrap over clusters (Efron and Tibshirani, 1993). Figures that are None have no interval.

    Parameters
    ----------
    measured_s, predicted_s, groups, spread, order_s, weights
        As for `score`.
    resamples
        How often groups are drawn.
    seed
        One seed, one result.

    Raises
    ------
    ConfigError
        As `score` does.
    """
    table = _Table.of(_Programs.of(measured_s, predicted_s, groups, spread, order_s, weights, seed))
    generator = np.random.default_rng(seed)
    size = len(table.programs)
    drawn = [
        table.figures(np.bincount(generator.integers(0, size, size), minlength=size))
        for _ in range(resamples)
    ]
    figures = {name: np.array([figures[name] for figures in drawn]) for name in drawn[0]}
    # A resample may have no group with an order where few have one.
    known = {name: values[~np.isnan(values)] for name, values in figures.items()}
    return {
        name: (float(np.quantile(values, 0.05)), float(np.quantile(values, 0.95)))
        for name, values in known.items()
        if len(values)
    }


@dataclass(frozen=True, kw_only=True)
class _Programs:
    """Measured programs, those of a group together and in random order; arrays (programs,)."""

    measured_s: Floats
    predicted_s: Floats
    order_s: Floats
    group: Ints
    """Number of each program's group, ascending."""
    starts: Ints
    """First program of each group, (groups,)."""
    counts: Ints
    spread: Floats | None
    weights: Floats | None

    @staticmethod
    def of(
        measured_s: Floats,
        predicted_s: Floats,
        groups: Ints,
        spread: Floats | None,
        order_s: Floats | None,
        weights: Floats | None,
        seed: int,
    ) -> _Programs:
        given = {"measured_s": measured_s, "predicted_s": predicted_s, "groups": groups}
        given |= {} if spread is None else {"spread": spread}
        given |= {} if order_s is None else {"order_s": order_s}
        given |= {} if weights is None else {"weights": weights}
        rows = np.flatnonzero(_check(given))
        shuffle = np.random.default_rng(seed).random(len(rows))
        rows = rows[np.lexsort((shuffle, groups[rows]))]
        _, starts, group, counts = np.unique(
            groups[rows], return_index=True, return_inverse=True, return_counts=True
        )
        return _Programs(
            measured_s=measured_s[rows],
            predicted_s=predicted_s[rows],
            order_s=(predicted_s if order_s is None else order_s)[rows],
            group=group,
            starts=starts,
            counts=counts,
            spread=None if spread is None else spread[rows],
            weights=None if weights is None else weights[rows],
        )

    def sums(self, values: npt.NDArray[Any]) -> Floats:
        """Return the sum of each group."""
        total: Floats = np.add.reduceat(values, self.starts, dtype=np.float64)
        return total

    def medians(self, values: Floats) -> Floats:
        """Return the median of each group."""
        ordered = values[np.lexsort((values, self.group))]
        low, high = ((self.counts - 1) // 2, self.counts // 2)
        middle: Floats = (ordered[self.starts + low] + ordered[self.starts + high]) / 2
        return middle

    def best_s(self, first: int | None = None) -> Floats:
        """Return each group's best latency, of so many that come first in the predicted order."""
        measured_s = self.measured_s
        if first is not None:
            place = np.arange(len(self.group)) - self.starts[self.group]
            ordered_s = measured_s[np.lexsort((self.order_s, self.group))]
            measured_s = np.where(place < first, ordered_s, np.inf)
        best_s: Floats = np.minimum.reduceat(measured_s, self.starts)
        return best_s

    def orders(self, groups: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Return pairwise accuracy and Kendall's tau-b of some groups, 0 for the others."""
        accuracy, tau = np.zeros((2, len(self.starts)))
        for number in np.flatnonzero(groups):
            count = min(self.counts[number], RANKED_PROGRAMS)
            some = slice(self.starts[number], self.starts[number] + count)
            accuracy[number], tau[number] = _order(self.measured_s[some], self.order_s[some])
        return accuracy, tau


@dataclass(frozen=True, kw_only=True)
class _Table:
    """What the figures need of each group; arrays of shape (groups,), but for the last two."""

    programs: Ints
    ranked: npt.NDArray[np.bool_]
    ape_sum: Floats
    within_10_sum: Floats
    within_task_sum: Floats
    covered_sum: Floats
    """NaN without a spread."""
    weight: Floats
    best_s: Floats
    top1_s: Floats
    """Latency of the program that is predicted to be the fastest."""
    top5_s: Floats
    """Best latency of the five that are predicted to be the fastest."""
    pairwise_accuracy: Floats
    tau: Floats
    sorted_ape: Floats
    """Of all programs, ascending."""
    group_of_ape: Ints

    @staticmethod
    def of(programs: _Programs) -> _Table:
        error = np.log(programs.predicted_s / programs.measured_s)
        ape = np.abs(np.expm1(error))
        by_ape = np.argsort(ape)
        level = programs.medians(error)[programs.group]
        best_s = programs.best_s()
        ranked = best_s < np.maximum.reduceat(programs.measured_s, programs.starts)
        accuracy, tau = programs.orders(ranked)
        spread, weights = programs.spread, programs.weights
        none = np.full(len(best_s), np.nan)
        return _Table(
            programs=programs.counts,
            ranked=ranked,
            ape_sum=programs.sums(ape),
            within_10_sum=programs.sums(ape <= 0.1),
            within_task_sum=programs.sums(np.abs(np.expm1(error - level))),
            covered_sum=none
            if spread is None
            else programs.sums(np.abs(error) <= SIGMAS_90 * spread),
            weight=np.ones(len(best_s)) if weights is None else weights[programs.starts],
            best_s=best_s,
            top1_s=programs.best_s(1),
            top5_s=programs.best_s(5),
            pairwise_accuracy=accuracy,
            tau=tau,
            sorted_ape=ape[by_ape],
            group_of_ape=programs.group[by_ape],
        )

    def figures(self, times: Ints) -> dict[str, float]:
        """Return the figures where each group is taken so many times; NaN where there are none.

        Parameters
        ----------
        times
            Of shape (groups,), with at least one above 0.
        """
        ranked = times * self.ranked
        weighted = ranked * self.weight
        best_s = weighted @ self.best_s
        at = np.cumsum(times[self.group_of_ape])
        programs = at[-1]
        median = self.sorted_ape[np.searchsorted(at, (programs + 1) // 2)]
        with np.errstate(invalid="ignore", divide="ignore"):
            num_ranked = np.float64(ranked.sum())
            figures = {
                "mape": 100 * (times @ self.ape_sum) / programs,
                "mape_by_task": 100 * (times @ (self.ape_sum / self.programs)) / times.sum(),
                "median_ape": 100 * median,
                "within_10_percent": (times @ self.within_10_sum) / programs,
                "within_task": 100 * (ranked @ self.within_task_sum) / (ranked @ self.programs),
                "top1": (ranked @ (self.best_s / self.top1_s)) / num_ranked,
                "top5": (ranked @ (self.best_s / self.top5_s)) / num_ranked,
                "top1_weighted": best_s / (weighted @ self.top1_s),
                "top5_weighted": best_s / (weighted @ self.top5_s),
                "pairwise_accuracy": (ranked @ self.pairwise_accuracy) / num_ranked,
                "tau": (ranked @ self.tau) / num_ranked,
                "coverage90": (times @ self.covered_sum) / programs,
            }
        return {name: float(value) for name, value in figures.items()}


def _check(given: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    """Check what is to be scored, and tell which programs have a measured latency."""
    shapes = {name: values.shape for name, values in given.items()}
    if len(set(shapes.values())) != 1 or len(shapes["groups"]) != 1:
        raise ConfigError(f"Scores need one value per program in each array; got shapes {shapes}.")
    measured_s, predicted_s = given["measured_s"], given["predicted_s"]
    known: npt.NDArray[np.bool_] = np.isfinite(measured_s)
    if not known.any():
        raise ConfigError(
            f"There is nothing to score: none of {len(known)} programs has a measured latency."
        )
    lowest = {"measured_s": measured_s > 0, "predicted_s": predicted_s > 0}
    if "order_s" in given:
        lowest["order_s"] = given["order_s"] > 0
    lowest |= {name: given[name] >= 0 for name in ("spread", "weights") if name in given}
    for name, is_right in lowest.items():
        wrong = np.flatnonzero(known & ~(is_right & np.isfinite(given[name])))
        if len(wrong):
            bound = "positive" if name.endswith("_s") else "at least 0"
            raise ConfigError(
                f"{name} must be finite and {bound}; got {given[name][wrong[0]]} for program "
                f"{wrong[0]}, and {len(wrong)} such values."
            )
    return known


def _order(measured_s: Floats, predicted_s: Floats) -> tuple[float, float]:
    """Return the pairwise accuracy and Kendall's tau-b of the programs of one group."""
    actual, said = (np.sign(np.subtract.outer(s, s)) for s in (measured_s, predicted_s))
    pairs, told_apart = np.count_nonzero(actual), np.count_nonzero(said)
    agreement = float(np.vdot(actual, said))
    return (
        (1 + agreement / pairs) / 2 if pairs else 0.5,
        agreement / np.sqrt(pairs * told_apart) if pairs and told_apart else 0.0,
    )
