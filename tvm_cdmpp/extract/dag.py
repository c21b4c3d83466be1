"""Analyse a task's compute DAG once: stages, axes, affine reads and operation counts.

Works on any `te` DAG that Ansor accepts. An index that is neither affine nor a floor division or
modulo by a constant becomes `Opaque`: it is taken to touch its whole dimension, and the reads
concerned are counted in `TaskGraph.num_opaque_reads`. Loops whose extent depends on data are taken
to be of the length that `extents` assumes, and counted in `num_opaque_extents`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract.extents import assumed_extent
from tvm_cdmpp.extract.index import Axis, Index, Opaque, axis_index
from tvm_cdmpp.extract.operations import OperationCounter, as_choice, element_bytes
from tvm_cdmpp.extract.stage import Choice, Condition, Read, ReadLayout, StageSpec, TaskGraph

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
    num_readers = Counter(producer for op in ops for producer in {t.op for t in op.input_tensors})
    returned = {(tensor.op, int(tensor.value_index)) for tensor in compute_dag.tensors}
    stages = []
    for op in ops:
        stage = _returned(
            replace(_stage(op, numbers), is_output=num_readers[op] == 0), op, returned
        )
        layouts = {
            numbers[free]: num_readers[free] == 1 for free in _layout_free(op) if free in numbers
        }
        stages.append(_with_layouts(stage, layouts) if layouts else stage)
    opaque = sum(
        any(index.opaque for index in read.indices) for stage in stages for read in stage.reads
    )
    extents = [
        assumed_extent(axis.dom.extent, axis.var, op.body)
        for op in ops
        if isinstance(op, tvm.te.ComputeOp)
        for axis in op.reduce_axis
    ]
    return TaskGraph(tuple(stages), opaque, sum(extent is not None for extent in extents))


def load_dag(text: str) -> Any:
    """Return the `ComputeDAG` whose tensors `tvm.ir.save_json` wrote.

    Raises
    ------
    RecordError
        TVM cannot read it.
    """
    try:
        return tvm.auto_scheduler.ComputeDAG(list(tvm.ir.load_json(text)))
    except (tvm.TVMError, TypeError, ValueError, AttributeError, LookupError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise RecordError(f"TVM cannot read the DAG: {reason[-1].strip()}") from error


def _returned(stage: StageSpec, op: Any, returned: Set[tuple[Any, int]]) -> StageSpec:
    """Mark the results whose memory is the caller's."""
    if stage.is_placeholder:
        return stage
    outputs = tuple(
        replace(output, is_returned=(op, number) in returned)
        for number, output in enumerate(stage.outputs)
    )
    return replace(stage, outputs=outputs, is_returned=(op, 0) in returned)


def _layout_free(op: Any) -> set[Any]:
    """Return the operations of the constants whose layout an operation leaves to the search."""
    free = op.attrs.get("layout_free_placeholders", ()) if op.attrs is not None else ()
    return {tensor.op for tensor in free}


def _with_layouts(stage: StageSpec, is_only_reader: Mapping[int, bool]) -> StageSpec:
    """Mark the reads of constants whose layout is free, by whether no other stage reads them."""
    num_reads = Counter(read.stage for read in stage.reads)

    def layout(read: Read) -> ReadLayout:
        if read.stage not in is_only_reader:
            return ReadLayout.GIVEN
        fits = is_only_reader[read.stage] and num_reads[read.stage] == 1
        return ReadLayout.FREE if fits else ReadLayout.NOT_REWRITABLE

    def marked(spec: StageSpec) -> StageSpec:
        reads = tuple(replace(read, layout=layout(read)) for read in spec.reads)
        return replace(spec, reads=reads, outputs=tuple(marked(o) for o in spec.outputs))

    return marked(stage)


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
    assumed = assumed_extent(axis.dom.extent, axis.var, op.body)
    if assumed is not None:
        return assumed
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
    frame = StageSpec(
        op.name, shape, element_bytes(output.dtype), len(op.axis),
        tuple(_loop_extent(axis, analyzer, op) for axis in axes),
    )  # fmt: skip
    indices = _IndexBuilder({axis.var: n for n, axis in enumerate(axes)}, numbers)
    outputs = [_output(op, number, frame, indices, analyzer) for number in range(op.num_outputs)]
    if len(outputs) == 1:
        return outputs[0]
    reads = dict.fromkeys(read for spec in outputs for read in spec.reads)
    return replace(frame, reads=tuple(reads), outputs=tuple(outputs))


def _output(
    op: Any, number: int, frame: StageSpec, indices: _IndexBuilder, analyzer: Any
) -> StageSpec:
    """Describe one result of an operation."""
    expr = op.body[number]
    combiner = OperationCounter()
    peers: list[int] = []
    sources: list[int] = []
    if isinstance(expr, tir.Reduce):
        lhs, rhs = list(expr.combiner.lhs), list(expr.combiner.rhs)
        result = expr.combiner.result[expr.value_index]
        combiner = OperationCounter([*lhs, *rhs])
        combiner.visit(result)
        used = _variables(result)
        peers = [n for n, var in enumerate(lhs) if n != number and var in used]
        sources = [n for n, var in enumerate(rhs) if var in used]
        values = [analyzer.simplify(value) for value in expr.source]
        # As often as the combiner uses them.
        expr = tir.stmt_functor.substitute(result, dict(zip(rhs, values, strict=True)))
        value = OperationCounter(lhs)
    else:
        expr = analyzer.simplify(expr)
        value = OperationCounter()
    value.visit(expr)
    guard, guarded_read = _guard(expr, value.reads)
    return replace(
        frame,
        element_bytes=element_bytes(op.output(number).dtype),
        reads=tuple(indices.read(read) for read in value.reads),
        ops=tuple(a - b for a, b in zip(value.counts, combiner.counts, strict=True)),
        combine_ops=combiner.counts,
        float_bytes=value.float_bytes,
        int_bytes=value.int_bytes,
        peers=tuple(peers),
        sources=tuple(sources),
        choices=_choices(expr, indices),
        guard=guard,
        guarded_read=guarded_read,
    )


def _variables(expr: Any) -> set[Any]:
    found: set[Any] = set()
    tir.stmt_functor.post_order_visit(
        expr, lambda node: found.add(node) if isinstance(node, tir.Var) else None
    )
    return found


def _guard(expr: Any, reads: list[Any]) -> tuple[str, int]:
    """Find the guard of an expression and the read it guards, as `StageSpec` defines them."""
    if not isinstance(expr, tir.Call) or expr.op.name != "tir.if_then_else":
        return "", -1
    _, value, otherwise = expr.args
    if not isinstance(otherwise, tir.IntImm | tir.FloatImm):
        return "", -1
    equal = tvm.ir.structural_equal
    guarded = next((n for n, read in enumerate(reads) if equal(read, value)), -1)
    return f"{otherwise} {expr.dtype}", guarded


def _choices(expr: Any, indices: _IndexBuilder) -> tuple[Choice, ...]:
    """Find all choices of an expression, and what their conditions say about indices."""
    found: list[Choice] = []

    def visit(node: Any) -> None:
        choice = as_choice(node)
        if choice is not None:
            parts = _conjuncts(choice[0])
            known = [_condition(part, indices) for part in parts]
            found.append(Choice(len(parts), tuple(part for part in known if part is not None)))

    tir.stmt_functor.post_order_visit(expr, visit)
    return tuple(reversed(found))


def _conjuncts(condition: Any) -> list[Any]:
    if isinstance(condition, tir.And):
        return [*_conjuncts(condition.a), *_conjuncts(condition.b)]
    if isinstance(condition, tir.Call) and condition.op.name == "tir.likely":
        return _conjuncts(condition.args[0])
    return [condition]


def _condition(part: Any, indices: _IndexBuilder) -> Condition | None:
    """Bring a comparison of indices to the form of a `Condition`."""
    if not isinstance(part, tir.LT | tir.LE | tir.GT | tir.GE | tir.EQ):
        return None
    if "int" not in part.a.dtype:
        return None
    index = indices(part.a) + indices(part.b).scaled(-1)
    if index.opaque:
        return None
    bounds: dict[Any, tuple[int | None, int | None]] = {
        tir.LT: (None, -1),
        tir.LE: (None, 0),
        tir.GT: (1, None),
        tir.GE: (0, None),
        tir.EQ: (0, 0),
    }
    return Condition(index, *bounds[type(part)])


class _IndexBuilder:
    """Turns index expressions into `Index`, axes being numbered as given."""

    def __init__(self, axes: dict[Any, int], numbers: dict[Any, int]) -> None:
        self._axes = axes
        self._numbers = numbers

    def read(self, read: Any) -> Read:
        """Turn a `ProducerLoad` into a `Read`."""
        indices = tuple(self(index) for index in read.indices)
        return Read(self._numbers[read.producer.op], indices, int(read.producer.value_index))

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
