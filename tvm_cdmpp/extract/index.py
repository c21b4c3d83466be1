"""Index expressions: how one buffer dimension is addressed by a stage's axes.

An `Index` is a linear combination of atoms plus a constant. An atom is an axis of the stage, a
floor division or floor modulo of another index by a constant, or something unknown (data-dependent,
non-affine), which conservatively reaches the whole dimension. What is asked of an index, how far it
reaches and how it moves, is in the compiled code (`native/index.h`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True)
class Axis:
    """One axis of the stage, by its number (spatial axes first, then reduction axes)."""

    number: int


@dataclass(frozen=True)
class FloorDiv:
    """`inner // divisor`."""

    inner: Index
    divisor: int


@dataclass(frozen=True)
class FloorMod:
    """`inner % divisor`."""

    inner: Index
    divisor: int


@dataclass(frozen=True)
class Opaque:
    """An index that cannot be analysed; it may touch the whole dimension."""

    reason: str
    inner: Index
    """Sum of the axes that it depends on; it stands still where they do."""


Atom: TypeAlias = Axis | FloorDiv | FloorMod | Opaque


@dataclass(frozen=True)
class Index:
    """`constant + sum(coefficient * atom)`; the terms hold each atom once."""

    terms: tuple[tuple[Atom, int], ...] = ()
    constant: int = 0
    # Derived once, because spans are evaluated far more often than indices are built.
    opaque: bool = field(init=False, compare=False, default=False)

    def __post_init__(self) -> None:
        opaque = any(
            isinstance(atom, Opaque)
            or (isinstance(atom, FloorDiv | FloorMod) and atom.inner.opaque)
            for atom, _ in self.terms
        )
        object.__setattr__(self, "opaque", opaque)

    def __add__(self, other: Index) -> Index:
        """Return the sum, with equal atoms merged."""
        merged = dict(self.terms)
        for atom, coefficient in other.terms:
            merged[atom] = merged.get(atom, 0) + coefficient
        # One order of terms, so that equal indices compare equal however they came about.
        kept = [(atom, c) for atom, c in merged.items() if c != 0]
        terms = tuple(sorted(kept, key=lambda term: repr(term[0])) if len(kept) > 1 else kept)
        return Index(terms, self.constant + other.constant)

    def scaled(self, factor: int) -> Index:
        """Return the index times an integer."""
        if factor == 0:
            return Index()
        return Index(tuple((a, c * factor) for a, c in self.terms), self.constant * factor)

    def floordiv(self, divisor: int) -> Index:
        """Return `self // divisor`, exact where every coefficient divides."""
        if divisor == 1:
            return self
        if self.constant % divisor == 0 and all(c % divisor == 0 for _, c in self.terms):
            return Index(tuple((a, c // divisor) for a, c in self.terms), self.constant // divisor)
        return Index(((FloorDiv(self, divisor), 1),))

    def floormod(self, divisor: int) -> Index:
        """Return `self % divisor`, dropping terms that are multiples of the divisor."""
        kept = Index(
            tuple((a, c) for a, c in self.terms if c % divisor != 0), self.constant % divisor
        )
        if not kept.terms:
            return Index((), kept.constant)
        return Index(((FloorMod(kept, divisor), 1),))


def axis_index(number: int) -> Index:
    """Return the index that is just one axis."""
    return Index(((Axis(number), 1),))
