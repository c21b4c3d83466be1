"""Programs of one task as skeletons and numbers.

The transform steps of a program are a *skeleton*, which says what is split, fused, cached and
annotated, and *numbers*: of each split the extent that the search takes it for and the lengths of
its parts, of each pragma its unroll limit. A skeleton has few of them, and a task few skeletons,
so that a population is two arrays.

Skeletons that split the same loops are of one *family*: numbers of one program fit all of them.
These are, mostly, the programs of one sketch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from tvm_cdmpp.models import Content

Ints: TypeAlias = npt.NDArray[np.int64]
Step: TypeAlias = list[Any]

UNROLL = "auto_unroll_max_step$"
# What says where and how loops run, but not which loops there are.
_PLACES = ("CA", "CI", "CR", "AN", "FU")


@dataclass(frozen=True)
class Split:
    """Where the numbers of a split are."""

    first: int
    """Column of the extent; those of the lengths follow."""
    parts: int
    """Lengths of a split; the loop that is left over has none."""
    stage: int


@dataclass(frozen=True)
class Family:
    """Where the numbers of skeletons that split the same loops are."""

    splits: tuple[Split, ...]
    unrolls: tuple[int, ...]
    """Columns of unroll limits."""
    width: int


@dataclass(frozen=True)
class Programs:
    """Some programs of one task.

    Attributes
    ----------
    skeletons
        Number of each program's skeleton; (n,).
    numbers
        The numbers of each, zero where a skeleton has fewer; (n, width).
    """

    skeletons: Ints
    numbers: Ints

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.skeletons)

    def take(self, places: Any) -> Programs:
        """Return those at the given places, or where a mask is true."""
        return Programs(self.skeletons[places], self.numbers[places])

    @staticmethod
    def join(parts: Sequence[Programs]) -> Programs:
        """Join some, in order."""
        width = max((part.numbers.shape[1] for part in parts), default=0)
        wide = [
            np.pad(part.numbers, ((0, 0), (0, width - part.numbers.shape[1]))) for part in parts
        ]
        none = np.zeros((0, width), np.int64)
        return Programs(
            np.concatenate([none[:, 0] if width else np.zeros(0, np.int64), *(
                part.skeletons for part in parts
            )]),
            np.concatenate([none, *wide]),
        )  # fmt: skip

    def content(self) -> Content:
        """Return what a checkpoint holds of them; their skeletons are the space's."""
        return Content({}, {"skeletons": self.skeletons, "numbers": self.numbers})

    @staticmethod
    def of_content(content: Content) -> Programs:
        """Make programs of what a checkpoint holds."""
        return Programs(content.arrays["skeletons"], content.arrays["numbers"])

    def keys(self) -> npt.NDArray[np.uint64]:
        """Return a hash of each program; (n,)."""
        width = self.numbers.shape[1]
        factors = np.random.default_rng(0).integers(1, 2**63, 256, np.uint64) | np.uint64(1)
        mixed = self.skeletons.astype(np.uint64) * factors[-1]
        for column in range(width):
            mixed ^= mixed >> np.uint64(29)
            mixed = (mixed + self.numbers[:, column].astype(np.uint64)) * factors[column % 255]
        keys: npt.NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(32))
        return keys


class Skeletons:
    """The skeletons of a task, numbered as they come."""

    def __init__(self) -> None:
        self.steps: list[list[Step]] = []
        """Of each skeleton, with the numbers of the program it was first seen in."""
        self.family: list[int] = []
        """Of each skeleton."""
        self.families: list[Family] = []
        self._numbers: dict[bytes, int] = {}
        self._family_numbers: dict[bytes, int] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.steps)

    def add(self, steps: Sequence[Step]) -> tuple[int, list[int]]:
        """Return the skeleton of a program, which may be new, and its numbers."""
        numbers = [value for step in steps for value in _numbers_of(step)]
        blank = [_blank(step) for step in steps]
        key = orjson.dumps(blank)
        known = self._numbers.get(key)
        if known is None:
            known = self._numbers[key] = len(self.steps)
            self.steps.append([list(step) for step in steps])
            self.family.append(self._family_of(steps, blank))
        return known, numbers

    def families_of(self, skeletons: Ints) -> Ints:
        """Return the family of each skeleton."""
        return np.array(self.family, np.int64)[skeletons]

    def steps_of(self, skeleton: int, numbers: Sequence[int]) -> list[Step]:
        """Return the steps of a program."""
        rest = iter(numbers)
        return [_filled(step, rest) for step in self.steps[skeleton]]

    def _family_of(self, steps: Sequence[Step], blank: list[Step]) -> int:
        last = max((n for n, step in enumerate(steps) if step[0] == "SP"), default=-1)
        later = [step[:2] for step in blank[last + 1 :] if _is_unroll(step)]
        others = [s for s in blank[last + 1 :] if s[0] not in _PLACES and not _is_unroll(s)]
        key = orjson.dumps([blank[: last + 1], later, others])
        known = self._family_numbers.get(key)
        if known is None:
            known = self._family_numbers[key] = len(self.families)
            self.families.append(_layout(steps))
        return known


def _layout(steps: Sequence[Step]) -> Family:
    splits, unrolls, column = [], [], 0
    for step in steps:
        if step[0] == "SP":
            splits.append(Split(column, len(step[4]), int(step[1])))
        elif _is_unroll(step):
            unrolls.append(column)
        column += len(_numbers_of(step))
    return Family(tuple(splits), tuple(unrolls), column)


def _is_unroll(step: Step) -> bool:
    return step[0] == "PR" and str(step[3]).startswith(UNROLL)


def _numbers_of(step: Step) -> list[int]:
    if step[0] == "SP":
        return [int(step[3] or 0), *map(int, step[4])]
    return [int(step[3].removeprefix(UNROLL))] if _is_unroll(step) else []


def _blank(step: Step) -> Step:
    if step[0] == "SP":
        return [*step[:3], 0, [0] * len(step[4]), *step[5:]]
    return [*step[:3], UNROLL] if _is_unroll(step) else step


def _filled(step: Step, numbers: Iterator[int]) -> Step:
    if step[0] == "SP":
        return [*step[:3], next(numbers), [next(numbers) for _ in step[4]], *step[5:]]
    return [*step[:3], f"{UNROLL}{next(numbers)}"] if _is_unroll(step) else step
