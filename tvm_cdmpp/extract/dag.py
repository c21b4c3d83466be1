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
_LOGIC = (tir.And, tir.Or, tir.Not, tir.Select)


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


def _loop_extent(axis: Any, analyzer: Any, op: Any) -> int:
    """Extent of a loop; its largest value where it varies, as in uneven adaptive pooling."""
    extent = analyzer.simplify(axis.dom.extent)
    if not isinstance(extent, tir.IntImm):
        bound = analyzer.const_int_bound(extent).max_value
        extent = tir.IntImm("int64", bound) if bound < 2**31 else extent
    return _constant(extent, "A loop extent", op)


def _element_bytes(dtype: str) -> int:
    bits = tvm.DataType(dtype).bits
    return max(1, int(bits) // 8)


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
    # A constant matrix (winograd's transforms) is folded when the loops over it are unrolled.
    ops = walker.ops if walker.reads else NO_OPS
    return StageSpec(
        op.name, shape, element_bytes, len(op.axis),
        tuple(_loop_extent(axis, analyzer, op) for axis in axes),
        tuple(walker.reads), ops, combine,
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
        if isinstance(expr, tir.ProducerLoad):
            indices = tuple(self.index(i) for i in expr.indices)
            self.reads.append(Read(self._numbers[expr.producer.op], indices))
            return
        reads_before = len(self.reads)
        for child in _children(expr):
            self.visit(child)
        name = _op_class(expr)
        # Integer arithmetic on loop variables alone is index arithmetic, unless it compares.
        of_indices = name == "integer" and len(self.reads) == reads_before
        if name and (isinstance(expr, _COMPARE) or not of_indices):
            self._count(name)

    def index(self, expr: Any) -> Index:
        """Turn an index expression into an `Index`."""
        if isinstance(expr, tir.IntImm):
            return Index((), int(expr.value))
        if isinstance(expr, tir.Var) and expr in self._axes:
            return axis_index(self._axes[expr])
        if isinstance(expr, tir.Cast):
            return self.index(expr.value)
        if isinstance(expr, tir.Add | tir.Sub):
            sign = 1 if isinstance(expr, tir.Add) else -1
            return self.index(expr.a) + self.index(expr.b).scaled(sign)
        if isinstance(expr, tir.Mul | tir.FloorDiv | tir.FloorMod | tir.Div | tir.Mod):
            return self._product(expr)
        if isinstance(expr, tir.ProducerLoad):
            self.visit(expr)
            return Index(((Opaque(f"data-dependent: {expr}"), 1),))
        return Index(((Opaque(f"not affine: {expr}"), 1),))

    def _product(self, expr: Any) -> Index:
        """Multiply or divide an index by a constant."""
        left, right = self.index(expr.a), self.index(expr.b)
        if isinstance(expr, tir.Mul) and not (left.terms and right.terms):
            return left.scaled(right.constant) if not right.terms else right.scaled(left.constant)
        if not isinstance(expr, tir.Mul) and not right.terms and right.constant > 0:
            if isinstance(expr, tir.FloorDiv | tir.Div):
                return left.floordiv(right.constant)
            return left.floormod(right.constant)
        return Index(((Opaque(f"not affine: {expr}"), 1),))


def _children(expr: Any) -> list[Any]:
    if isinstance(expr, tir.Call):
        return list(expr.args)
    if isinstance(expr, tir.Select):
        return [expr.condition, expr.true_value, expr.false_value]
    if isinstance(expr, tir.Let):
        return [expr.value, expr.body]
    if isinstance(expr, tir.Cast):
        return [expr.value]
    return [getattr(expr, name) for name in ("a", "b") if hasattr(expr, name)]


def _op_class(expr: Any) -> str | None:
    """Class of the operation an expression does itself; None if it does nothing."""
    if type(expr) in _ARITHMETIC:
        return _ARITHMETIC[type(expr)] if _is_float(expr) else "integer"
    if isinstance(expr, _COMPARE):
        return "float_compare" if _is_float(expr.a) else "integer"
    if isinstance(expr, _LOGIC):
        return "logic"
    return _call_class(expr) if isinstance(expr, tir.Call) else None


def _is_float(expr: Any) -> bool:
    return "float" in expr.dtype


def _call_class(call: Any) -> str:
    name = str(getattr(call.op, "name", ""))
    if name in ("tir.if_then_else", "tir.likely"):
        return "logic"
    return "float_math" if _is_float(call) else "integer"
