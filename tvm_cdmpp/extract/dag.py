"""Analyse a task's compute DAG once: stages, axes, affine reads and operation counts.

Works on any `te` DAG that Ansor accepts. An index that is neither affine nor a floor division or
modulo by a constant becomes `Opaque`: it is taken to touch its whole dimension, and the reads
concerned are counted in `TaskGraph.num_opaque_reads`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract.index import Axis, Index, Opaque, axis_index
from tvm_cdmpp.extract.operations import OperationCounter, compute_bytes, element_bytes
from tvm_cdmpp.extract.stage import Read, StageSpec, TaskGraph
from tvm_cdmpp.tvm_runtime import load_tvm

tvm = load_tvm()
tir = tvm.tir


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


def _is_one(extent: Any) -> bool:
    return isinstance(extent, tir.IntImm) and int(extent.value) == 1


def _loop_extent(axis: Any, analyzer: Any, op: Any) -> int:
    """Extent of a loop; its largest value where it varies, as in uneven adaptive pooling."""
    extent = analyzer.simplify(axis.dom.extent)
    if not isinstance(extent, tir.IntImm):
        bound = analyzer.const_int_bound(extent).max_value
        extent = tir.IntImm("int64", bound) if bound < 2**31 else extent
    return _constant(extent, "A loop extent", op)


def _stage(op: Any, numbers: dict[Any, int]) -> StageSpec:
    output = op.output(0)
    shape = tuple(_constant(extent, "The shape", op) for extent in output.shape)
    if isinstance(op, tvm.te.PlaceholderOp):
        return StageSpec(
            op.name, shape, element_bytes(output.dtype), len(shape), shape,
            is_placeholder=True,
        )  # fmt: skip
    if not isinstance(op, tvm.te.ComputeOp):
        raise RecordError(
            f"Operation '{op.name}' is a {type(op).__name__}; expected te.compute or a "
            "placeholder, the only kinds that Ansor can schedule."
        )
    axes = [*op.axis, *op.reduce_axis]
    analyzer = tvm.arith.Analyzer()
    for axis in axes:
        # An axis of extent one stays in the indices: GPU threads may still run over it, guarded.
        if not _is_one(axis.dom.extent):
            analyzer.bind(axis.var, axis.dom)
    source, combiner = _count(op.body, analyzer)
    indices = _IndexBuilder({axis.var: n for n, axis in enumerate(axes)})
    return StageSpec(
        op.name, shape, element_bytes(output.dtype), len(op.axis),
        tuple(_loop_extent(axis, analyzer, op) for axis in axes),
        tuple(
            Read(numbers[read.producer.op], tuple(indices(index) for index in read.indices))
            for read in source.reads
        ),
        source.counts, combiner.counts,
        compute_bytes=compute_bytes(source, combiner),
    )  # fmt: skip


def _count(body: Any, analyzer: Any) -> tuple[OperationCounter, OperationCounter]:
    """Count the operations of a stage's source, and those of its combiner."""
    source, combiner = OperationCounter(), OperationCounter()
    for expr in body:
        if not isinstance(expr, tir.Reduce):
            source.visit(analyzer.simplify(expr))
            continue
        combiner = OperationCounter([*expr.combiner.lhs, *expr.combiner.rhs])
        combiner.visit(expr.combiner.result[expr.value_index])
        # Outputs of a multi-output reduction share one source; walk it once.
        if expr.value_index == 0:
            for value in expr.source:
                source.visit(analyzer.simplify(value))
    return source, combiner


class _IndexBuilder:
    """Turns index expressions into `Index`, axes being numbered as given."""

    def __init__(self, axes: dict[Any, int]) -> None:
        self._axes = axes

    def __call__(self, expr: Any) -> Index:
        """Turn one expression into an `Index`."""
        if isinstance(expr, tir.IntImm):
            return Index((), int(expr.value))
        if isinstance(expr, tir.Var) and expr in self._axes:
            return axis_index(self._axes[expr])
        if isinstance(expr, tir.Cast):
            return self(expr.value)
        if isinstance(expr, tir.Add | tir.Sub):
            sign = 1 if isinstance(expr, tir.Add) else -1
            return self(expr.a) + self(expr.b).scaled(sign)
        if isinstance(expr, tir.Mul | tir.FloorDiv | tir.FloorMod | tir.Div | tir.Mod):
            return self._product(expr)
        if isinstance(expr, tir.ProducerLoad):
            return self._opaque(f"data-dependent: {expr}", expr)
        return self._opaque(f"not affine: {expr}", expr)

    def _opaque(self, reason: str, expr: Any) -> Index:
        axes: dict[int, None] = {}

        def visit(node: Any) -> None:
            if isinstance(node, tir.Var) and node in self._axes:
                axes[self._axes[node]] = None

        tir.stmt_functor.post_order_visit(expr, visit)
        inner = Index(tuple((Axis(axis), 1) for axis in axes))
        return Index(((Opaque(reason, inner), 1),))

    def _product(self, expr: Any) -> Index:
        """Multiply or divide an index by a constant."""
        left, right = self(expr.a), self(expr.b)
        if isinstance(expr, tir.Mul) and not (left.terms and right.terms):
            return left.scaled(right.constant) if not right.terms else right.scaled(left.constant)
        if not isinstance(expr, tir.Mul) and not right.terms and right.constant > 0:
            if isinstance(expr, tir.FloorDiv | tir.Div):
                return left.floordiv(right.constant)
            return left.floormod(right.constant)
        return self._opaque(f"not affine: {expr}", expr)
