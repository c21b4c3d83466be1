"""Analyse a task's compute DAG once: stages, axes, affine reads and operation counts.

Works on any `te` DAG that Ansor accepts. An index that is neither affine nor a floor division or
modulo by a constant becomes `Opaque`: it is taken to touch its whole dimension, and the reads
concerned are counted in `TaskGraph.num_opaque_reads`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract.index import Index, Opaque, axis_index
from tvm_cdmpp.extract.stage import (
    NO_OPS,
    OP_CLASSES,
    OpCounts,
    Read,
    StageSpec,
    TaskGraph,
    add_ops,
)
from tvm_cdmpp.tvm_runtime import load_tvm

tvm = load_tvm()
tir = tvm.tir

_CLASS = {name: i for i, name in enumerate(OP_CLASSES)}
_ARITHMETIC = {
    tir.Add: "float_add",
    tir.Sub: "float_add",
    tir.Mul: "float_mul",
    tir.Div: "float_div",
    tir.Mod: "float_div",
    tir.FloorDiv: "float_div",
    tir.FloorMod: "float_div",
}
_COMPARE = (tir.Max, tir.Min, tir.EQ, tir.NE, tir.LT, tir.LE, tir.GT, tir.GE)
_LOGIC = (tir.And, tir.Or)


def analyse(compute_dag: Any) -> TaskGraph:
    """Analyse a `tvm.auto_scheduler.ComputeDAG`.

    Parameters
    ----------
    compute_dag
        The DAG of a search task.

    Returns
    -------
    graph
        Its stages in the order of the DAG's operations, which is the order of a state's stages.

    Raises
    ------
    RecordError
        If a shape or loop extent is not a constant, or an operation is of an unknown kind.
    """
    ops = list(compute_dag.ops)
    numbers = {op: number for number, op in enumerate(ops)}
    layout_free = {
        tensor.op
        for op in ops
        if op.attrs is not None and "layout_free_placeholders" in op.attrs
        for tensor in op.attrs["layout_free_placeholders"]
    }
    consumed = {tensor.op for op in ops for tensor in op.input_tensors}
    outputs = {op for op in ops if op not in consumed}
    outputs |= {t.op for t in compute_dag.tensors if not isinstance(t.op, tvm.te.PlaceholderOp)}
    stages = tuple(
        replace(_stage(op, numbers), layout_free=op in layout_free, is_output=op in outputs)
        for op in ops
    )
    opaque = sum(
        any(index.opaque for index in read.indices) for stage in stages for read in stage.reads
    )
    return TaskGraph(stages, opaque)


def _constant(value: Any, what: str, op: Any) -> int:
    if not isinstance(value, tir.IntImm):
        raise RecordError(
            f"{what} of operation '{op.name}' must be a constant; got {value}. "
            "Programs with dynamic shapes are not supported; fix the input shape."
        )
    return int(value.value)


def _element_bytes(dtype: str) -> int:
    bits = tvm.DataType(dtype).bits
    return max(1, bits // 8)


def _stage(op: Any, numbers: dict[Any, int]) -> StageSpec:
    output = op.output(0)
    shape = tuple(_constant(extent, "The shape", op) for extent in output.shape)
    element_bytes = _element_bytes(output.dtype)
    if isinstance(op, tvm.te.PlaceholderOp):
        return StageSpec(
            op.name, shape, element_bytes, len(shape), shape,
            is_placeholder=True,
        )  # fmt: skip
    if not isinstance(op, tvm.te.ComputeOp):
        raise RecordError(
            f"Operation '{op.name}' is a {type(op).__name__}; expected te.compute or a "
            "placeholder, the only kinds that Ansor can schedule."
        )
    axes = [*op.axis, *op.reduce_axis]
    walker = _BodyWalker({axis.var: n for n, axis in enumerate(axes)}, numbers)
    analyzer = tvm.arith.Analyzer()
    for axis in axes:
        analyzer.bind(axis.var, axis.dom)
    combine = NO_OPS
    for body in op.body:
        if isinstance(body, tir.Reduce):
            combine = walker.count_only(body.combiner.result[body.value_index])
            # Outputs of a multi-output reduction share one source; walk it once.
            if body.value_index == 0:
                for source in body.source:
                    walker.visit(analyzer.simplify(source))
        else:
            walker.visit(analyzer.simplify(body))
    return StageSpec(
        op.name, shape, element_bytes, len(op.axis),
        tuple(_constant(axis.dom.extent, "A loop extent", op) for axis in axes),
        tuple(walker.reads), walker.ops, combine,
    )  # fmt: skip


class _BodyWalker:
    """Walk a stored expression; collect reads and count operations."""

    def __init__(self, axes: dict[Any, int], numbers: dict[Any, int]) -> None:
        self._axes = axes
        self._numbers = numbers
        self.reads: list[Read] = []
        self.ops: OpCounts = NO_OPS

    def count_only(self, expr: Any) -> OpCounts:
        """Operation counts of an expression without reads (a reduction's combiner)."""
        other = _BodyWalker({}, {})
        other.visit(expr)
        return other.ops

    def _count(self, name: str) -> None:
        one = [0] * len(OP_CLASSES)
        one[_CLASS[name]] = 1
        self.ops = add_ops(self.ops, tuple(one))

    def visit(self, expr: Any) -> None:
        """Visit one expression and everything below it, except indices."""
        kind = type(expr)
        if kind is tir.ProducerLoad:
            indices = tuple(self.index(i) for i in expr.indices)
            self.reads.append(Read(self._numbers[expr.producer.op], indices))
            return
        if kind in _ARITHMETIC:
            self._count(_ARITHMETIC[kind] if _is_float(expr) else "integer")
            children = [expr.a, expr.b]
        elif kind in _COMPARE:
            self._count("float_compare" if _is_float(expr.a) else "integer")
            children = [expr.a, expr.b]
        elif kind in _LOGIC:
            self._count("logic")
            children = [expr.a, expr.b]
        elif kind is tir.Not:
            self._count("logic")
            children = [expr.a]
        elif kind is tir.Select:
            self._count("logic")
            children = [expr.condition, expr.true_value, expr.false_value]
        elif kind is tir.Call:
            self._count(_call_class(expr))
            children = list(expr.args)
        elif kind is tir.Cast:
            children = [expr.value]
        elif kind is tir.Let:
            children = [expr.value, expr.body]
        else:
            children = []
        for child in children:
            self.visit(child)

    def index(self, expr: Any) -> Index:
        """Turn an index expression into an `Index`."""
        kind = type(expr)
        if kind is tir.IntImm:
            return Index((), int(expr.value))
        if kind is tir.Var and expr in self._axes:
            return axis_index(self._axes[expr])
        if kind is tir.Cast:
            return self.index(expr.value)
        if kind in (tir.Add, tir.Sub, tir.Mul):
            left, right = self.index(expr.a), self.index(expr.b)
            if kind is tir.Add:
                return left + right
            if kind is tir.Sub:
                return left + right.scaled(-1)
            if not right.terms:
                return left.scaled(right.constant)
            if not left.terms:
                return right.scaled(left.constant)
        elif kind in (tir.FloorDiv, tir.FloorMod, tir.Div, tir.Mod):
            divisor = self.index(expr.b)
            if not divisor.terms and divisor.constant > 0:
                inner = self.index(expr.a)
                if kind in (tir.FloorDiv, tir.Div):
                    return inner.floordiv(divisor.constant)
                return inner.floormod(divisor.constant)
        if kind is tir.ProducerLoad:
            self.visit(expr)
            return Index(((Opaque(f"data-dependent: {expr}"), 1),))
        return Index(((Opaque(f"not affine: {expr}"), 1),))


def _is_float(expr: Any) -> bool:
    return "float" in expr.dtype


def _call_class(call: Any) -> str:
    name = str(getattr(call.op, "name", ""))
    if name in ("tir.if_then_else", "tir.likely"):
        return "logic"
    return "float_math" if _is_float(call) else "integer"
