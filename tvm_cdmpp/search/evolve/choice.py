"""What to measure of the programs that were found, and whether another round would gain anything.

- A program is worth its predicted latency, not its place in the cautious order
  (`Prediction.order_s`): a search learns from what it did not know. Of programs that are nearly
  alike in that, those come first that take less time to build.
- No two of a batch are alike: they differ in more than one split or unroll limit, or in their
  skeleton, as far as there are enough that do.
- A few places go to programs drawn at random, from which the model learns what is not near its
  optimum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.search.evolve.programs import Programs, Skeletons

Floats = npt.NDArray[np.float64]

SAMPLED, ONE_GENERATION, BRED, NEAR_MEASURED = range(4)
"""The rungs, where a batch comes from: what TVM sampled, the best of one generation, the best that
was found, and what is one move from the fastest measured programs.

The farther candidates are bred towards what a model likes, the more of them are its mistakes. What
is near a program that was fast is mostly fast, whatever a model says.
"""
RUNGS = 4


@dataclass(frozen=True, kw_only=True)
class ChoiceConfig:
    """How a batch is chosen, and when a task is done."""

    explored: float = 0.12
    """Share of a batch that is drawn at random."""
    differences: int = 2
    """Splits and unroll limits in which two programs of a batch differ, at least."""
    least_gain: float = 0.01
    """A task is done when another round is expected to gain less than this share, twice."""
    patience: int = 2
    build_weight: float = 0.15
    """Of ln build time against ln latency: how much slower a program may be predicted that is built
    in a fraction of the time."""


def choose(
    programs: Programs,
    worth: Floats,
    count: int,
    skeletons: Skeletons,
    differences: int,
) -> list[int]:
    """Choose programs for a batch, those of most worth that are not alike.

    Parameters
    ----------
    programs
        To choose from; distinct.
    worth
        Of each; (n,).
    count
        How many.
    skeletons
        Of the programs' task.
    differences
        In how many splits and unroll limits two of them differ, at least; less where there are not
        enough such programs.

    Returns
    -------
    places
        Of the chosen ones, best first within each number of differences.
    """
    order = np.argsort(-worth, kind="stable").tolist()
    parts = {place: _parts(programs, place, skeletons) for place in order}
    chosen: list[int] = []
    for required in range(differences, -1, -1):
        for place in order:
            if len(chosen) == count:
                return chosen
            if place not in chosen and all(
                _difference(parts[place], parts[other]) >= required for other in chosen
            ):
                chosen.append(place)
    return chosen


def _parts(
    programs: Programs, place: int, skeletons: Skeletons
) -> tuple[int, tuple[tuple[int, ...], ...]]:
    """Return the family of a program; and its skeleton, lengths of its splits, and limits."""
    skeleton, numbers = int(programs.skeletons[place]), programs.numbers[place].tolist()
    family = skeletons.family[skeleton]
    layout = skeletons.families[family]
    splits = [tuple(numbers[s.first + 1 : s.first + 1 + s.parts]) for s in layout.splits]
    return family, ((skeleton,), *splits, *((numbers[column],) for column in layout.unrolls))


def _difference(
    one: tuple[int, tuple[tuple[int, ...], ...]], other: tuple[int, tuple[tuple[int, ...], ...]]
) -> int:
    if one[0] != other[0]:
        return len(one[1])
    return sum(a != b for a, b in zip(one[1], other[1], strict=True))


def expected_gain(
    log_ratio: Floats, spread: float, generator: np.random.Generator, draws: int = 512
) -> float:
    """Return the share of its latency that a task is expected to lose by one more batch.

    Parameters
    ----------
    log_ratio
        Of each program of the batch, ln of its predicted latency over that of the best measured
        one; (n,).
    spread
        Standard deviation of what predictions are off by within the task, as ln latency.
    generator
        Where chance comes from.
    draws
        Batches to draw.
    """
    if not len(log_ratio):
        return 0.0
    drawn = log_ratio + spread * generator.standard_normal((draws, len(log_ratio)))
    return float(np.mean(np.maximum(0.0, -np.expm1(drawn.min(axis=1)))))


def spread_within(residuals: list[float], expected: float, weight: float = 4.0) -> float:
    """Return the standard deviation of residuals about their mean, drawn to an expected one.

    Parameters
    ----------
    residuals
        ln of measured over predicted latency, of programs of one task.
    expected
        What it is without any.
    weight
        Programs that the expected one counts as.
    """
    squares = float(np.var(residuals)) * len(residuals) if residuals else 0.0
    return float(np.sqrt((squares + weight * expected**2) / (len(residuals) + weight)))


def rung_shares(count: int, favourite: int, round_number: int) -> list[int]:
    """Divide a batch among the rungs.

    Parameters
    ----------
    count
        Programs.
    favourite
        Rung that gets twice as much, and what cannot be divided; in the first round all get as
        much, but for the last one, as nothing is measured yet.
    round_number
        Says whose turn it is where there are fewer programs than rungs.

    Returns
    -------
    shares
        Adding up to `count`; (RUNGS,).
    """
    rungs = RUNGS if round_number else RUNGS - 1
    others = count // (rungs + 1 if round_number else rungs)
    shares = [others] * rungs + [0] * (RUNGS - rungs)
    if others == 0 and count > 1:
        shares[round_number % rungs] += 1
    shares[favourite] += count - sum(shares)
    return shares
