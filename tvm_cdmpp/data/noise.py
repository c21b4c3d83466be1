"""How far measurements of one program are apart, and the error that this leaves to a predictor.

**Two measurements** of a program, y_fast <= y_slow, differ by 1 - y_fast / y_slow: below 1 however
slow a disturbed measurement was, and the same in either order. Every program that was measured in
several logs gives one pair *between logs*, its first and its last measurement there; every program
that was measured repeatedly in one log gives one pair *within a log* for each such log. A log may
hold several runs, but what differs between machines, set-ups and months is only seen between logs.

**The noise floor** is the mean absolute percentage error of a predictor that knows the true latency
of every program, against labels of one measurement each. From d = log(y_slow / y_fast) it is
estimated as the mean of (1 - exp(-sqrt(2) d)) / 2. For small d that is d / sqrt(2), as for normal
errors, which are either way; for large d it is half the difference, since then one of the two is
right and the other was disturbed. It is a little low for normal errors (by 1 % of itself at 1 % of
noise, by 6 % at 5 %), and right where a few measurements are far off, which a plain d / sqrt(2)
overstates. Half the mean difference is a bound without any assumption: on these pairs no predictor
whatever has a smaller error. Merging k measurements divides the floor by about sqrt(k).

**Its basis** is the first of these that there is enough of:

- pairs between logs;
- pairs within a log: what differs between logs is not in them, so a lower bound;
- repeats within measurements: with a coefficient of variation c of r repeats, the error of their
  mean is c sqrt(2 / pi / r) in the mean. Nothing that lasts longer than a measurement is in it, so
  it is a lower bound as well, further below.

Measurements of contended times count: a program that was measured once in such a time cannot be
told from others, and has that noise.

**Programs that look alike** to a predictor are one program to it, so the spread of their latencies
is noise and whatever the features do not show: an upper bound of the noise between these
measurements. Most of these are of one run, so what differs between runs is hardly in it. It is
never the basis of a noise floor, but where every program was measured once it is all there is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.data.quality import Floats, Ints, Mask, Measurements
from tvm_cdmpp.data.store import RecordStore

LEAST_PAIRS = 20
"""Pairs that a noise floor needs."""


@dataclass(frozen=True, kw_only=True)
class Differences:
    """How far pairs of measurements are apart; relative figures, None where there is no pair.

    The floors are None below `LEAST_PAIRS` pairs as well.
    """

    pairs: int
    difference_median: float | None
    """Median of 1 - y_fast / y_slow."""
    difference_mean: float | None
    """Its mean; half of it is an error that no predictor can be below."""
    floor_mape: float | None
    """Mean absolute percentage error of a perfect predictor; see the module."""
    floor_median_ape: float | None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Noise of a group of measurements; relative figures, None where the data does not tell."""

    between_logs: Differences
    within_a_log: Differences
    variation_median: float | None
    """Median coefficient of variation of the repeats of a measurement (sample deviation)."""
    variation_p90: float | None
    floor_mape: float | None
    """Mean absolute percentage error of a perfect predictor, from the basis."""
    floor_median_ape: float | None
    basis: str
    """`between logs`, `within a log`, `repeats` or `unknown`; the second and third give lower
    bounds."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def estimate_noise(measured: Measurements, chosen: Mask) -> Noise:
    """Estimate the noise of some measurements.

    Parameters
    ----------
    measured
        All measurements, in any order; those of one program and log in the order of time.
    chosen
        Those of the group, of shape (m,).
    """
    order = np.lexsort((measured.log[chosen], measured.row[chosen]))
    row, log = measured.row[chosen][order], measured.log[chosen][order]
    mean_s = measured.mean_s[chosen][order]
    first, last = _ends(row)
    several = log[first] != log[last]
    between = _compare(mean_s, first[several], last[several])
    within = _compare(mean_s, *_ends(row, log))
    variation = measured.variation[chosen]
    repeated = ~np.isnan(variation)
    error = variation[repeated] * np.sqrt(2 / np.pi / measured.repeats[chosen][repeated])
    bases = {
        "between logs": (between.floor_mape, between.floor_median_ape),
        "within a log": (within.floor_mape, within.floor_median_ape),
        "repeats": (_figure(np.mean, error), _figure(np.median, error)),
        "unknown": (None, None),
    }
    basis = next((name for name, floors in bases.items() if floors[0] is not None), "unknown")
    return Noise(
        between_logs=between,
        within_a_log=within,
        variation_median=_figure(np.median, variation[repeated]),
        variation_p90=_figure(lambda values: np.quantile(values, 0.9), variation[repeated]),
        floor_mape=bases[basis][0],
        floor_median_ape=bases[basis][1],
        basis=basis,
    )


def compare_alike(measured: Measurements, chosen: Mask, alike: Ints) -> Differences:
    """Compare programs that look alike: of every such group, the first and the last one.

    Parameters
    ----------
    measured, chosen
        As for `estimate_noise`. Of each program, its first measurement counts.
    alike
        A number per program of the store that it shares with those it looks like, of shape
        (records,); see `tvm_cdmpp.train.features.group_alike`.
    """
    row, place = np.unique(measured.row[chosen], return_index=True)
    order = np.argsort(alike[row], kind="stable")
    return _compare(measured.mean_s[chosen][place[order]], *_ends(alike[row[order]]))


def noise_by(
    store: RecordStore, measured: Measurements, *fields: str
) -> dict[tuple[str, ...], Noise]:
    """Estimate the noise per group of logs.

    Parameters
    ----------
    store, measured
        The records, and their measurements.
    fields
        Of `RecordStore.inputs`, such as `device` and `source`.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, log in enumerate(store.inputs):
        groups.setdefault(tuple(str(log[field]) for field in fields), []).append(number)
    return {
        group: estimate_noise(measured, np.isin(measured.log, logs))
        for group, logs in groups.items()
    }


def _ends(*keys: Ints) -> tuple[Ints, Ints]:
    """Return where each run of several equal entries begins and ends."""
    changes = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    edges = np.flatnonzero(np.concatenate([[True], changes, [True]]))
    first, last = edges[:-1], edges[1:] - 1
    return first[last > first], last[last > first]


def _compare(mean_s: Floats, first: Ints, last: Ints) -> Differences:
    distance = np.abs(np.log(mean_s[last] / mean_s[first]))
    difference = 1 - np.exp(-distance)
    error = (1 - np.exp(-np.sqrt(2) * distance)) / 2
    enough = error if len(error) >= LEAST_PAIRS else error[:0]
    return Differences(
        pairs=len(distance),
        difference_median=_figure(np.median, difference),
        difference_mean=_figure(np.mean, difference),
        floor_mape=_figure(np.mean, enough),
        floor_median_ape=_figure(np.median, enough),
    )


def _figure(of: Any, values: npt.NDArray[np.float64]) -> float | None:
    return float(of(values)) if len(values) else None
