"""Covers and steps of index expressions, against values enumerated point by point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.extract import sampling
from tests.extract.layouts import AS_GIVEN, COPIED, REWRITTEN, with_layouts
from tvm_cdmpp.ast.leaf import Access, Leaf
from tvm_cdmpp.extract.tir import leaves_of, lower

tir = sampling.tvm.tir
CORES = 3
# One task of every kind of index, small enough to enumerate.
KINDS = (
    sampling.dense, sampling.conv2d_nchw, sampling.conv2d_dilated, sampling.conv2d_transposed,
    sampling.average_pool, sampling.softmax, sampling.norm, sampling.elementwise,
    sampling.transpose_reshape,
)  # fmt: skip
CASES = [
    *((builder, AS_GIVEN) for builder in KINDS),
    (sampling.conv2d_1x1, COPIED),
    (sampling.conv2d_1x1, REWRITTEN),
]
_POINTWISE = {
    tir.Add: np.add, tir.Sub: np.subtract, tir.Mul: np.multiply, tir.FloorDiv: np.floor_divide,
    tir.FloorMod: np.mod, tir.Min: np.minimum, tir.Max: np.maximum,
}  # fmt: skip


@pytest.mark.parametrize(
    ("builder", "option"), CASES, ids=lambda value: getattr(value, "__name__", value)
)
def test_covers_and_steps_are_those_of_enumeration(
    builder: Callable[[], list[Any]], option: int
) -> None:
    task = with_layouts(sampling.make_task(builder), option)
    for state in sampling.sample_states(task, 4, seed=2):
        primfunc = lower(task, state)
        leaves = leaves_of(primfunc, CORES)
        for (nest, store), leaf in zip(_stores(primfunc.body, ()), leaves, strict=True):
            nodes: list[Any] = []
            tir.stmt_functor.post_order_visit(store.value, nodes.append)
            reads = [node for node in nodes if isinstance(node, tir.BufferLoad)]
            assert _matches(nest, store, leaf, leaf.accesses[0]), store
            for read in reads:
                assert any(_matches(nest, read, leaf, access) for access in leaf.accesses), read
            for access in leaf.accesses[1:]:
                assert any(_matches(nest, read, leaf, access) for read in reads), access


def _matches(nest: tuple[Any, ...], node: Any, leaf: Leaf, access: Access) -> bool:
    if len(access.shape) != len(node.indices):
        return False
    extents = [loop.extent for loop in leaf.loops]

    def cover_of(running: list[int]) -> list[int]:
        values = _values(nest, node, np.indices(running, sparse=True))
        spans = [int(np.max(v) - np.min(v)) + 1 for v in values]
        return [min(s, d) for s, d in zip(spans, access.shape, strict=True)]

    cover = [
        cover_of([e if number >= level else 1 for number, e in enumerate(extents)])
        for level in range(len(extents) + 1)
    ]
    share = [cover_of(extents)] * 2
    shared = next((n for n, loop in enumerate(leaf.loops) if loop.kind == "parallel"), None)
    if shared is not None:
        of_core = -(-extents[shared] // CORES)
        share = [cover_of([*extents[:shared], e, *extents[shared + 1 :]]) for e in (2, of_core)]
    at_zero = _values(nest, node, np.zeros(len(extents), dtype=np.int64))
    sizes = np.cumprod([1, *access.shape[:0:-1]])[::-1]
    steps = []
    for number in range(len(extents)):
        at_one = _values(nest, node, np.eye(len(extents), dtype=np.int64)[number])
        moved = zip(at_one, at_zero, sizes, strict=True)
        steps.append(abs(sum(int((one - zero) * size) for one, zero, size in moved)))
    return (
        tuple(zip(*cover, strict=True)) == access.cover
        and tuple(steps) == access.steps
        and tuple(zip(*share, strict=True)) == access.share
    )


def _values(nest: tuple[Any, ...], node: Any, values: Any) -> list[Any]:
    bound = {loop.loop_var: value for loop, value in zip(nest, values, strict=True)}

    def evaluate(expr: Any) -> Any:
        if isinstance(expr, tir.IntImm):
            return np.int64(int(expr))
        if isinstance(expr, tir.Var):
            return bound[expr]
        return _POINTWISE[type(expr)](evaluate(expr.a), evaluate(expr.b))

    return [evaluate(index) for index in node.indices]


def _stores(stmt: Any, nest: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(stmt, tir.BufferStore):
        yield nest, stmt
    elif isinstance(stmt, tir.SeqStmt):
        for child in stmt.seq:
            yield from _stores(child, nest)
    elif isinstance(stmt, tir.For):
        yield from _stores(stmt.body, (*nest, stmt))
    else:
        body = stmt.then_case if isinstance(stmt, tir.IfThenElse) else stmt.body
        yield from _stores(body, nest)
