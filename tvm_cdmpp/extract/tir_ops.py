"""Operations of a stored TIR expression, counted by class, and the loads in it.

- Index arithmetic is not counted: indices of loads, and integer arithmetic on loop variables in a
  condition. Integer arithmetic counts when it works on values read from a buffer.
- Every comparison counts, also that of a padding condition: it is executed.
- A choice among constants (the transform matrices of a Winograd convolution) is a table that
  unrolling folds away, so it counts as the constant that Ansor puts in its place.
"""

from __future__ import annotations

from typing import Any

from tvm_cdmpp.tvm_runtime import load_tvm

tvm = load_tvm()
tir = tvm.tir

OPERATION_CLASSES = (
    "float_add", "float_mul", "float_div", "float_cmp", "float_math",
    "int_add", "int_mul", "int_div", "int_cmp", "int_math",
    "select", "bool",
)  # fmt: skip
"""`*_add` holds subtractions, `*_div` remainders, `*_cmp` min and max, `*_math` calls."""

_ARITHMETIC = {
    tir.Add: "add",
    tir.Sub: "add",
    tir.Mul: "mul",
    tir.Div: "div",
    tir.Mod: "div",
    tir.FloorDiv: "div",
    tir.FloorMod: "div",
    tir.Min: "cmp",
    tir.Max: "cmp",
}
_COMPARISONS = (tir.EQ, tir.NE, tir.LT, tir.LE, tir.GT, tir.GE)


def count_operations(expr: Any) -> tuple[dict[str, int], list[Any]]:
    """Count the operations of one execution of an expression.

    Returns
    -------
    op_counts
        Operations for each of `OPERATION_CLASSES`.
    loads
        The `BufferLoad` nodes in order of appearance, those inside indices after their load.
    """
    counter = _Counter()
    counter.visit(expr)
    return counter.counts, counter.loads


class _Counter:
    def __init__(self) -> None:
        self.counts = dict.fromkeys(OPERATION_CLASSES, 0)
        self.loads: list[Any] = []

    def visit(self, expr: Any) -> bool:
        """Count an expression; tell whether its value depends on a buffer."""
        kind = type(expr)
        if kind is tir.BufferLoad:
            self._load(expr)
            return True
        if kind in _ARITHMETIC:
            reads = self._visit_all([expr.a, expr.b])
            self._count(_ARITHMETIC[kind], expr.dtype, reads)
            return reads
        if kind in _COMPARISONS:
            reads = self._visit_all([expr.a, expr.b])
            self._count("cmp", expr.a.dtype, True)
            return reads
        if kind in (tir.And, tir.Or):
            self.counts["bool"] += 1
            return self._visit_all([expr.a, expr.b])
        if kind is tir.Not:
            self.counts["bool"] += 1
            return self.visit(expr.a)
        if kind is tir.Cast:
            return self.visit(expr.value)
        if kind is tir.Let:
            return self._visit_all([expr.value, expr.body])
        if kind in (tir.Select, tir.Call):
            return self._visit_call(expr)
        return False

    def _visit_call(self, expr: Any) -> bool:
        choice = _choice(expr)
        if choice is not None:
            if _is_constant(expr):
                return False
            self.counts["select"] += 1
            return self._visit_all(choice)
        reads = self._visit_all(expr.args)
        if getattr(expr.op, "name", "") != "tir.likely":
            self._count("math", expr.dtype, reads)
        return reads

    def _visit_all(self, exprs: Any) -> bool:
        reads = [self.visit(expr) for expr in exprs]
        return any(reads)

    def _count(self, suffix: str, dtype: str, reads: bool) -> None:
        if "float" in dtype:
            self.counts[f"float_{suffix}"] += 1
        elif reads:
            self.counts[f"int_{suffix}"] += 1

    def _load(self, load: Any) -> None:
        self.loads.append(load)
        for index in load.indices:
            inner: list[Any] = []
            tir.stmt_functor.post_order_visit(
                index, lambda n, found=inner: found.append(n) if type(n) is tir.BufferLoad else None
            )
            self.loads.extend(inner)


def _choice(expr: Any) -> tuple[Any, Any, Any] | None:
    """Return condition and both values of a `Select` or an `if_then_else`."""
    if type(expr) is tir.Select:
        return expr.condition, expr.true_value, expr.false_value
    if type(expr) is tir.Call and getattr(expr.op, "name", "") == "tir.if_then_else":
        return tuple(expr.args)
    return None


def _is_constant(expr: Any) -> bool:
    choice = _choice(expr)
    if choice is not None:
        return _is_constant(choice[1]) and _is_constant(choice[2])
    return type(expr) in (tir.IntImm, tir.FloatImm)
