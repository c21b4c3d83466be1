"""Index expressions: how one buffer dimension is addressed by a stage's axes.

An `Index` is a linear combination of atoms plus a constant. An atom is an axis of the stage, a
floor division or floor modulo of another index by a constant, or something unknown
(data-dependent, non-affine), which conservatively reaches the whole dimension. The one question
asked of an index is its *span*: the length of the interval it covers while each axis runs over an
interval of known length. That is what TVM's bound inference computes too, so spans give buffer
regions, loop extents and touched memory alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]


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

    def substitute(self, axes: Sequence[Index]) -> Index:
        """Replace every axis `a` by `axes[a]` (used to inline a producer into its consumer)."""
        result = Index((), self.constant)
        for atom, coefficient in self.terms:
            if isinstance(atom, Axis):
                inner = axes[atom.number]
            elif isinstance(atom, FloorDiv):
                inner = atom.inner.substitute(axes).floordiv(atom.divisor)
            elif isinstance(atom, FloorMod):
                inner = atom.inner.substitute(axes).floormod(atom.divisor)
            else:
                inner = Index(((atom, 1),))
            result = result + inner.scaled(coefficient)
        return result

    def span(self, axis_span: Callable[[int], FloatArray | float]) -> Any:
        """Length of the interval covered while axis `a` runs over `axis_span(a)` values.

        Opaque atoms give infinity; callers clip by the buffer's shape.
        """
        total: Any = 1.0
        for atom, coefficient in self.terms:
            if isinstance(atom, Axis):
                length: Any = axis_span(atom.number)
            elif isinstance(atom, FloorDiv):
                # An interval of n values meets at most ceil((n - 1) / d) + 1 quotients; blocks
                # produced by splits are aligned, where ceil(n / d) is exact.
                length = np.ceil(atom.inner.span(axis_span) / atom.divisor)
            elif isinstance(atom, FloorMod):
                length = np.minimum(atom.inner.span(axis_span), float(atom.divisor))
            else:
                return np.inf
            total = total + abs(coefficient) * (length - 1.0)
        return total

    def step(self, axis_step: Callable[[int], FloatArray | float]) -> Any:
        """Return how far the index moves when axis `a` moves from 0 to `axis_step(a)`.

        Opaque atoms do not move.
        """
        return self._value(axis_step) - self._value(lambda _: 0.0)

    def _value(self, axis_value: Callable[[int], FloatArray | float]) -> Any:
        """Value where axis `a` is `axis_value(a)`, opaque atoms being zero."""
        total: Any = float(self.constant)
        for atom, coefficient in self.terms:
            if isinstance(atom, Axis):
                value: Any = axis_value(atom.number)
            elif isinstance(atom, FloorDiv):
                value = np.floor(atom.inner._value(axis_value) / atom.divisor)
            elif isinstance(atom, FloorMod):
                value = np.mod(atom.inner._value(axis_value), atom.divisor)
            else:
                continue
            total = total + coefficient * value
        return total


def axis_index(number: int) -> Index:
    """Return the index that is just one axis."""
    return Index(((Axis(number), 1),))
