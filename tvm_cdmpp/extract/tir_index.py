"""Integer index expressions of TIR: linear part and bounds of the rest, in many cases at once.

With n loops there are 2 n + 3 cases. Case k up to n: the loops from number k inward run over
their whole extent, the loops further out stand at zero. Case n + 1 + k: loop k stands at one, all
others at zero; that gives its first step. In the last two all loops run, the outermost parallel one
over its first two iterations, and over those of one core. Values are arrays of shape (cases,).
Bounds of a sum of loops and of its floor division are exact; those of a modulo are exact unless
its operand skips values. An index read from a buffer is taken to reach anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.errors import LoweringError

tvm = load_tvm()
tir = tvm.tir

UNBOUNDED = 1 << 40
"""Stands for the largest value of an index that is not known."""
_DIVISIONS = (tir.FloorDiv, tir.Div)
_MODULOS = (tir.FloorMod, tir.Mod)


@dataclass(frozen=True)
class Binding:
    """What a variable stands for: a loop (by number), shifted by an expression; or that alone."""

    loop: int | None
    offset: Any


@dataclass(frozen=True, eq=False)
class LinearIndex:
    """`sum(coefficient * loop)` plus a rest known by its bounds in each case."""

    largest: NDArray[np.int64]
    """Largest value of each loop in each case, of shape (loops, cases)."""
    smallest: NDArray[np.int64]
    """Smallest value of each loop in each case."""
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    coefficients: Mapping[int, int] = field(default_factory=dict)
    nonlinear_loops: frozenset[int] = frozenset()

    @property
    def loops(self) -> frozenset[int]:
        """Numbers of the loops that change the value."""
        return self.nonlinear_loops | {n for n, c in self.coefficients.items() if c}

    @property
    def constant(self) -> int | None:
        """The value, if no loop changes it and it is known."""
        return None if self.loops or self.low[0] != self.high[0] else int(self.low[0])

    def bounds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the smallest and the largest value in each case."""
        low, high = self.low, self.high
        for loop, coefficient in self.coefficients.items():
            ends = coefficient * self.smallest[loop], coefficient * self.largest[loop]
            low, high = low + np.minimum(*ends), high + np.maximum(*ends)
        return low, high

    def spans(self) -> NDArray[np.int64]:
        """Return largest - smallest + 1 with the loops from number k inward running.

        Returns
        -------
        spans
            Of shape (loops + 1,); the last is one, unless the value is unknown.
        """
        low, high = self.bounds()
        return (high - low + 1)[: len(self.largest) + 1]

    def first_steps(self) -> NDArray[np.int64]:
        """Return by how much the value changes when one loop goes from zero to one.

        Returns
        -------
        steps
            Of shape (loops,); beyond any sensible value where the index is unknown.
        """
        num_loops = len(self.largest)
        low, high = self.bounds()
        # Where the index is not one value at a fixed iteration, nothing is known of its steps.
        values = np.where(low == high, high, UNBOUNDED << 1)
        steps: NDArray[np.int64] = values[num_loops + 1 : -2] - values[num_loops]
        return steps

    def shares(self) -> NDArray[np.int64]:
        """Return spans during two iterations of the parallel loop, and those of one core; (2,)."""
        low, high = self.bounds()
        return (high - low + 1)[-2:]

    def plus(self, other: LinearIndex) -> LinearIndex:
        """Return the sum."""
        merged = dict(self.coefficients)
        for loop, coefficient in other.coefficients.items():
            merged[loop] = merged.get(loop, 0) + coefficient
        return replace(
            self,
            low=self.low + other.low,
            high=self.high + other.high,
            coefficients=merged,
            nonlinear_loops=self.nonlinear_loops | other.nonlinear_loops,
        )

    def scaled(self, factor: int) -> LinearIndex:
        """Return the product with a constant."""
        ends = self.low * factor, self.high * factor
        return replace(
            self,
            low=np.minimum(*ends),
            high=np.maximum(*ends),
            coefficients={loop: c * factor for loop, c in self.coefficients.items()},
        )


def memory_steps(
    indices: Sequence[LinearIndex], shape: Sequence[int], num_loops: int
) -> tuple[int, ...]:
    """Return how far in memory each loop's second iteration is from its first; 0 if not known."""
    total, unknown = np.zeros(num_loops, dtype=np.int64), np.zeros(num_loops, dtype=bool)
    neighbour = 1
    for index, extent in zip(reversed(indices), reversed(shape), strict=True):
        steps = index.first_steps()
        unknown |= abs(steps) >= UNBOUNDED
        total += steps * neighbour
        neighbour *= extent
    return tuple(np.where(unknown, 0, abs(total)).tolist())


class IndexEvaluator:
    """Evaluates index expressions inside a given nest of loops.

    Parameters
    ----------
    extents
        Extents of the enclosing loops, outer to inner.
    bindings
        Meaning of every variable in scope.
    shared
        Number of the loop that is shared out among cores, and how many of its iterations one core
        makes; None without such a loop.
    """

    def __init__(
        self,
        extents: Sequence[int],
        bindings: Mapping[Any, Binding],
        shared: tuple[int, int] | None = None,
    ) -> None:
        num_loops = len(extents)
        at_one = np.eye(num_loops, dtype=np.int64)
        running = np.tri(num_loops, num_loops + 1, dtype=np.int64)
        last = np.array(extents, dtype=np.int64)[:, None] - 1
        shares = np.repeat(last, 2, axis=1)
        if shared is not None:
            loop, iterations = shared
            shares[loop] = 1, iterations - 1
        self._largest = np.hstack([running * last, at_one, shares])
        self._smallest = np.hstack([np.zeros_like(running), at_one, np.zeros_like(shares)])
        self._bindings = bindings

    def maximum(self, expr: Any) -> int:
        """Return the largest value over all loops.

        Raises
        ------
        LoweringError
            If the expression has no bound.
        """
        largest = int(self(expr).bounds()[1][0])
        if largest >= UNBOUNDED:
            raise LoweringError(
                f"An extent must depend on loops only; got {expr}. Fix the program's shapes."
            )
        return largest

    def __call__(self, expr: Any) -> LinearIndex:
        """Evaluate one integer expression.

        Raises
        ------
        LoweringError
            If it holds a variable that nothing binds.
        """
        kind = type(expr)
        if kind is tir.IntImm:
            return self._constant(int(expr.value))
        if isinstance(expr, tir.Var):
            return self._variable(expr)
        if kind is tir.Cast:
            return self(expr.value)
        if kind in (tir.Add, tir.Sub, tir.Mul, tir.Min, tir.Max, *_DIVISIONS, *_MODULOS):
            return self._binary(kind, self(expr.a), self(expr.b))
        if kind is tir.Select:
            return self._hull(self(expr.true_value), self(expr.false_value))
        if kind is tir.Call and getattr(expr.op, "name", "") == "tir.if_then_else":
            return self._hull(self(expr.args[1]), self(expr.args[2]))
        if kind is tir.BufferLoad:
            return self._loaded(expr)
        return self._unknown(expr)

    def _constant(self, value: int) -> LinearIndex:
        values = np.full(self._largest.shape[1], value, dtype=np.int64)
        return self._rest(values, values, frozenset())

    def _variable(self, var: Any) -> LinearIndex:
        binding = self._bindings.get(var)
        if binding is None:
            raise LoweringError(
                f"Every variable of an index must be a loop or a constant; got '{var.name}'. "
                "Programs with dynamic shapes cannot be read; fix the input shape."
            )
        offset = self._constant(0) if binding.offset is None else self(binding.offset)
        if binding.loop is None:
            return offset
        return offset.plus(replace(self._constant(0), coefficients={binding.loop: 1}))

    def _binary(self, kind: Any, left: LinearIndex, right: LinearIndex) -> LinearIndex:
        if kind is tir.Add:
            return left.plus(right)
        if kind is tir.Sub:
            return left.plus(right.scaled(-1))
        if kind is tir.Mul and right.constant is not None:
            return left.scaled(right.constant)
        if kind is tir.Mul and left.constant is not None:
            return right.scaled(left.constant)
        loops = left.loops | right.loops
        (a, b), (c, d) = left.bounds(), right.bounds()
        if kind is tir.Mul:
            products = np.stack([a * c, a * d, b * c, b * d])
            return self._rest(products.min(axis=0), products.max(axis=0), loops)
        if kind is tir.Min:
            return self._rest(np.minimum(a, c), np.minimum(b, d), loops)
        if kind is tir.Max:
            return self._rest(np.maximum(a, c), np.maximum(b, d), loops)
        divisor = right.constant
        if divisor is None or divisor <= 0:
            return self._reaching_anything(loops)
        if kind in _DIVISIONS:
            return self._rest(a // divisor, b // divisor, loops)
        wraps = a // divisor != b // divisor
        low = np.where(wraps, 0, a % divisor)
        return self._rest(low, np.where(wraps, divisor - 1, b % divisor), loops)

    def _hull(self, left: LinearIndex, right: LinearIndex) -> LinearIndex:
        (a, b), (c, d) = left.bounds(), right.bounds()
        return self._rest(np.minimum(a, c), np.maximum(b, d), left.loops | right.loops)

    def _loaded(self, load: Any) -> LinearIndex:
        """Evaluate an index read from a buffer: anything, once another element is read."""
        indices = [self(index) for index in load.indices]
        moved = np.zeros(self._largest.shape[1], dtype=bool)
        for low, high in (index.bounds() for index in indices):
            at_first = low[len(self._largest)]
            moved |= (low != at_first) | (high != at_first)
        high = np.where(moved, UNBOUNDED, 0)
        loops = frozenset[int]().union(*(index.loops for index in indices))
        return self._rest(np.zeros_like(high), high, loops)

    def _unknown(self, expr: Any) -> LinearIndex:
        """Evaluate something that no rule covers, such as an index read from a buffer."""
        loops: set[int] = set()

        def visit(node: Any) -> None:
            if isinstance(node, tir.Var) and node in self._bindings:
                loops.update(self._variable(node).loops)

        tir.stmt_functor.post_order_visit(expr, visit)
        return self._reaching_anything(frozenset(loops))

    def _reaching_anything(self, loops: frozenset[int]) -> LinearIndex:
        moved = self._largest[sorted(loops)].any(axis=0)
        high = np.where(moved, UNBOUNDED, 0)
        return self._rest(np.zeros_like(high), high, loops)

    def _rest(
        self, low: NDArray[np.int64], high: NDArray[np.int64], loops: frozenset[int]
    ) -> LinearIndex:
        return LinearIndex(self._largest, self._smallest, low, high, {}, loops)
