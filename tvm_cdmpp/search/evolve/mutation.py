"""Other numbers for programs, all programs of a generation at once.

A factor of one part of a split goes to another part, an unroll limit becomes another one (TVM's
`MutateTileSize` and `MutateAutoUnroll`), and a child of two parents has some splits of each. What a
split may be is TVM's to say: parts divide the extent, the innermost is at most 64.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.search.evolve.programs import Family, Ints

Mask = npt.NDArray[np.bool_]

MAX_INNERMOST = 64
"""TVM's `max_innermost_split_factor`."""
UNROLL_LIMITS = {"cpu": (0, 16, 64, 512), "gpu": (0, 16, 64, 512, 1024)}
"""TVM's choices, by kind of device."""


class NumberMutation:
    """Mutates the numbers of programs of one family.

    Parameters
    ----------
    family
        Where the numbers are.
    unroll_limits
        To choose from.
    generator
        Where chance comes from.
    """

    def __init__(
        self, family: Family, unroll_limits: tuple[int, ...], generator: np.random.Generator
    ) -> None:
        self._family, self._generator = family, generator
        self._limits = np.array(unroll_limits)
        self._first = np.array([split.first for split in family.splits], np.int64)
        self._parts = np.array([split.parts for split in family.splits], np.int64)
        self._units = _units_of(family)

    def move_factors(self, numbers: Ints) -> Mask:
        """Move a factor within a split of each program, in place; tell where there is one."""
        splits, can = self._choose_splits(numbers)
        rows = np.flatnonzero(can)
        if not rows.size:
            return can
        lengths = lengths_of(numbers[rows], self._first[splits[rows]], self._parts[splits[rows]])
        last = self._parts[splits[rows]]
        source = _choose(self._generator, lengths > 1)
        exists = np.arange(lengths.shape[1]) <= last[:, None]
        target = _choose(self._generator, exists & (np.arange(lengths.shape[1]) != source[:, None]))
        every = np.arange(len(rows))
        from_length, to_length = lengths[every, source], lengths[every, target]
        most = np.where(target == last, MAX_INNERMOST // to_length, from_length)
        factor = self._choose_factors(from_length, most)
        lengths[every, source] //= factor
        lengths[every, target] *= factor
        for part in range(1, lengths.shape[1]):
            has = part <= last
            columns = self._first[splits[rows]] + part
            numbers[rows[has], columns[has]] = lengths[has, part]
        can[rows] = factor > 1
        return can

    def change_unrolling(self, numbers: Ints) -> Mask:
        """Give one pragma of each program any limit, in place; tell where there is one."""
        count = len(self._family.unrolls)
        if count:
            columns = np.array(self._family.unrolls)[
                self._generator.integers(count, size=len(numbers))
            ]
            chosen = self._generator.integers(len(self._limits), size=len(numbers))
            numbers[np.arange(len(numbers)), columns] = self._limits[chosen]
        return np.full(len(numbers), count > 0)

    def cross(self, numbers: Ints, others: Ints) -> None:
        """Take half of what belongs together from other programs of the family, in place."""
        flips = self._generator.random((len(numbers), int(self._units.max(initial=0)) + 1)) < 0.5
        width = self._family.width
        taken = flips[:, self._units]
        numbers[:, :width] = np.where(taken, others[:, :width], numbers[:, :width])

    def _choose_splits(self, numbers: Ints) -> tuple[Ints, Mask]:
        """Choose a split that can change for each program."""
        if not self._first.size:
            return np.zeros(len(numbers), np.int64), np.zeros(len(numbers), bool)
        changeable = numbers[:, self._first] > 1
        changeable &= numbers[:, self._first + self._parts] <= MAX_INNERMOST
        # A split whose lengths do not divide what it was taken for.
        for n, (first, parts) in enumerate(zip(self._first, self._parts, strict=True)):
            inner = numbers[:, first + 1 : first + parts + 1].prod(axis=1)
            changeable[:, n] &= numbers[:, first] % np.maximum(inner, 1) == 0
        return _choose(self._generator, changeable), np.asarray(changeable.any(axis=1))

    def _choose_factors(self, lengths: Ints, most: Ints) -> Ints:
        """Choose a divisor above 1 of each length, at most so large; 1 if there is none."""
        unique, of_row = np.unique(lengths, return_inverse=True)
        table = [divisors(int(length)) for length in unique]
        counts = np.array([len(row) for row in table])
        padded = np.full((len(table), counts.max(initial=1)), np.iinfo(np.int64).max)
        for row, found in zip(padded, table, strict=True):
            row[: len(found)] = found
        allowed = (padded[of_row] <= most[:, None]).sum(axis=1)
        chosen = 1 + (self._generator.random(len(lengths)) * (allowed - 1)).astype(np.int64)
        return np.where(allowed > 1, padded[of_row, np.minimum(chosen, counts[of_row] - 1)], 1)


def lengths_of(numbers: Ints, firsts: Ints, parts: Ints) -> Ints:
    """Return all lengths of one split of each program, that of the loop left over first.

    Returns
    -------
    lengths
        Of shape (n, 1 + most parts), 1 where a split has fewer.
    """
    most = int(parts.max(initial=0))
    columns = firsts[:, None] + np.minimum(np.arange(1, most + 1), parts[:, None])
    rows = np.arange(len(numbers))
    given = np.where(np.arange(1, most + 1) <= parts[:, None], numbers[rows[:, None], columns], 1)
    outermost = numbers[rows, firsts] // np.maximum(given.prod(axis=1), 1)
    return np.concatenate([outermost[:, None], given], axis=1)


@lru_cache(maxsize=4096)
def divisors(number: int) -> tuple[int, ...]:
    """Return the divisors of a number, ascending."""
    small = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return tuple(sorted({*small, *(number // n for n in small)}))


def _choose(generator: np.random.Generator, allowed: Mask) -> Ints:
    """Choose a column of each row that is allowed; the first if none is."""
    chosen: Ints = np.argmax(generator.random(allowed.shape) * allowed, axis=1)
    return chosen


def _units_of(family: Family) -> Ints:
    """Return one number per column for what stays together when programs cross.

    This is the splits of a stage, a split by itself if all are of one stage, or an unroll limit.
    """
    stages = sorted({split.stage for split in family.splits})
    units = np.zeros(family.width, np.int64)
    number = 0
    for n, split in enumerate(family.splits):
        unit: Any = stages.index(split.stage) if len(stages) > 1 else n
        units[split.first : split.first + split.parts + 1] = unit
        number = max(number, int(unit) + 1)
    for column in family.unrolls:
        units[column] = number
        number += 1
    return units
