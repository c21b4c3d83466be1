"""Integer index expressions of TIR: linear part, bounds of the rest, per loop level.

Level k means: the loops from number k inward run over their whole extent, the loops further out
stand at zero. All levels are evaluated at once as arrays of shape (loops + 1,).
Bounds of a sum of loops and of its floor division are exact; those of a modulo are exact unless
its operand skips values. An index read from a buffer is taken to reach anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_cdmpp.errors import LoweringError
from tvm_cdmpp.tvm_runtime import load_tvm

tvm = load_tvm()
tir = tvm.tir

_UNBOUNDED = 1 << 40
_DIVISIONS = (tir.FloorDiv, tir.Div)
_MODULOS = (tir.FloorMod, tir.Mod)


@dataclass(frozen=True)
class Binding:
    """What a variable stands for: a loop (by number), shifted by an expression; or that alone."""

    loop: int | None
    offset: Any


@dataclass(frozen=True, eq=False)
class LinearIndex:
    """`sum(coefficient * loop)` plus a rest known by its bounds at each level."""

    extents: NDArray[np.int64]
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
        """Return the smallest and the largest value at each level."""
        low, high = self.low.copy(), self.high.copy()
        for loop, coefficient in self.coefficients.items():
            reach = coefficient * (self.extents[loop] - 1)
            (high if reach > 0 else low)[: loop + 1] += reach
        return low, high

    def span(self) -> NDArray[np.int64]:
        """Return largest - smallest + 1 at each level."""
        low, high = self.bounds()
        return high - low + 1

    def plus(self, other: LinearIndex) -> LinearIndex:
        """Return the sum."""
        merged = dict(self.coefficients)
        for loop, coefficient in other.coefficients.items():
            merged[loop] = merged.get(loop, 0) + coefficient
        return LinearIndex(
            self.extents,
            self.low + other.low,
            self.high + other.high,
            merged,
            self.nonlinear_loops | other.nonlinear_loops,
        )

    def scaled(self, factor: int) -> LinearIndex:
        """Return the product with a constant."""
        ends = self.low * factor, self.high * factor
        return LinearIndex(
            self.extents,
            np.minimum(*ends),
            np.maximum(*ends),
            {loop: c * factor for loop, c in self.coefficients.items()},
            self.nonlinear_loops,
        )


class IndexEvaluator:
    """Evaluates index expressions inside a given nest of loops.

    Parameters
    ----------
    extents
        Extents of the enclosing loops, outer to inner.
    bindings
        Meaning of every variable in scope.
    """

    def __init__(self, extents: Sequence[int], bindings: Mapping[Any, Binding]) -> None:
        self._extents = np.array(extents, dtype=np.int64)
        self._bindings = bindings

    def maximum(self, expr: Any) -> int:
        """Return the largest value over all loops.

        Raises
        ------
        LoweringError
            If the expression has no bound.
        """
        largest = int(self(expr).bounds()[1][0])
        if largest >= _UNBOUNDED:
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
        return self._unknown(expr)

    def _constant(self, value: int) -> LinearIndex:
        values = np.full(len(self._extents) + 1, value, dtype=np.int64)
        return LinearIndex(self._extents, values, values)

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
        zero = self._constant(0)
        return offset.plus(LinearIndex(self._extents, zero.low, zero.high, {binding.loop: 1}))

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

    def _unknown(self, expr: Any) -> LinearIndex:
        """Evaluate something that no rule covers, such as an index read from a buffer."""
        loops: set[int] = set()

        def visit(node: Any) -> None:
            if isinstance(node, tir.Var) and node in self._bindings:
                loops.update(self._variable(node).loops)

        tir.stmt_functor.post_order_visit(expr, visit)
        return self._reaching_anything(frozenset(loops))

    def _reaching_anything(self, loops: frozenset[int]) -> LinearIndex:
        high = np.zeros(len(self._extents) + 1, dtype=np.int64)
        high[: max(loops, default=-1) + 1] = _UNBOUNDED
        return self._rest(np.zeros_like(high), high, loops)

    def _rest(
        self, low: NDArray[np.int64], high: NDArray[np.int64], loops: frozenset[int]
    ) -> LinearIndex:
        return LinearIndex(self._extents, low, high, {}, loops)
