"""Operations of a stored expression, counted by class, and the reads in it.

Bodies of te operations and values stored by TIR are made of the same expressions, but for their
reads (`ProducerLoad`, `BufferLoad`), so one counter serves both extractors.

- Index arithmetic is not counted: indices of reads, and integer arithmetic on loop variables in a
  condition. Integer arithmetic counts when it works on values read from a buffer.
- Every comparison counts, also that of a padding condition: it is executed.
- A choice among constants (the transform matrices of a Winograd convolution) is a table that
  unrolling folds away, so it counts as the constant that Ansor puts in its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tvm_cdmpp.ast import OP_CLASSES
from tvm_cdmpp.bridge import load_tvm

tvm = load_tvm()
tir = tvm.tir

_BINARY = {
    tir.Add: "add",
    tir.Sub: "add",
    tir.Mul: "mul",
    tir.Div: "div",
    tir.Mod: "div",
    tir.FloorDiv: "div",
    tir.FloorMod: "div",
    tir.Min: "compare",
    tir.Max: "compare",
    tir.EQ: "compare",
    tir.NE: "compare",
    tir.LT: "compare",
    tir.LE: "compare",
    tir.GT: "compare",
    tir.GE: "compare",
}
_READS = (tir.BufferLoad, tir.ProducerLoad)


def element_bytes(dtype: str) -> int:
    """Return the bytes that one value takes; types of less than a byte take one."""
    return max(1, int(tvm.DataType(dtype).bits) // 8)


class OperationCounter:
    """Counts what one execution of the visited expressions does.

    Parameters
    ----------
    values
        Variables that stand for values read from a buffer, as those of a reduction's combiner do.
    """

    def __init__(self, values: Iterable[Any] = ()) -> None:
        self.float_bytes = 0
        """Of the widest floats computed with."""
        self.int_bytes = 0
        """Of the widest integers computed with, loop variables left out."""
        self.reads: list[Any] = []
        """Nodes that read, in order of appearance, those inside indices after their read."""
        self._values = set(values)
        self._counts = dict.fromkeys(OP_CLASSES, 0)

    @property
    def compute_bytes(self) -> int:
        """Bytes of the widest type computed with, as `Leaf.compute_bytes` defines it."""
        return self.float_bytes or self.int_bytes

    @property
    def counts(self) -> tuple[int, ...]:
        """Operations, one count for each of `OP_CLASSES`."""
        return tuple(self._counts.values())

    def visit(self, expr: Any) -> bool:
        """Count an expression; tell whether its value depends on a buffer."""
        kind = type(expr)
        if kind in _READS:
            self._read(expr)
            return True
        if isinstance(expr, tir.Var):
            return expr in self._values
        if kind in _BINARY:
            reads = self._visit_all([expr.a, expr.b])
            # The result of a comparison is a boolean; what counts is what it compares.
            self._count(_BINARY[kind], expr.a.dtype, reads)
            return reads
        if kind in (tir.And, tir.Or, tir.Not):
            self._counts["bool"] += 1
            return self._visit_all([expr.a] if kind is tir.Not else [expr.a, expr.b])
        if kind is tir.Cast:
            reads = self.visit(expr.value)
            self._counts["cast"] += reads
            return reads
        if kind is tir.Let:
            if self.visit(expr.value):
                self._values.add(expr.var)
            return self.visit(expr.body)
        if kind in (tir.Select, tir.Call):
            return self._visit_call(expr)
        return False

    def _visit_call(self, expr: Any) -> bool:
        choice = as_choice(expr)
        if choice is not None:
            if _is_constant(expr):
                return False
            self._counts["select"] += 1
            return self._visit_all(choice)
        reads = self._visit_all(expr.args)
        if getattr(expr.op, "name", "") != "tir.likely":
            self._count("math", expr.dtype, reads)
        return reads

    def _visit_all(self, exprs: Iterable[Any]) -> bool:
        reads = [self.visit(expr) for expr in exprs]
        return any(reads)

    def _count(self, suffix: str, dtype: str, reads: bool) -> None:
        if "float" in dtype:
            self._counts[f"float_{suffix}"] += 1
            self.float_bytes = max(self.float_bytes, element_bytes(dtype))
        elif reads or suffix == "compare":
            self._counts[f"int_{suffix}"] += 1
            if reads:
                self.int_bytes = max(self.int_bytes, element_bytes(dtype))

    def _read(self, read: Any) -> None:
        self.reads.append(read)
        for index in read.indices:
            tir.stmt_functor.post_order_visit(
                index, lambda node: self.reads.append(node) if type(node) in _READS else None
            )


def as_choice(expr: Any) -> tuple[Any, Any, Any] | None:
    """Return condition and both values of a `Select` or an `if_then_else`."""
    if type(expr) is tir.Select:
        return expr.condition, expr.true_value, expr.false_value
    if type(expr) is tir.Call and getattr(expr.op, "name", "") == "tir.if_then_else":
        return tuple(expr.args)
    return None


def _is_constant(expr: Any) -> bool:
    choice = as_choice(expr)
    if choice is not None:
        return _is_constant(choice[1]) and _is_constant(choice[2])
    return type(expr) in (tir.IntImm, tir.FloatImm)
