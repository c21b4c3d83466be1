"""Covers and steps of index expressions, against values enumerated point by point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.extract import sampling
from tvm_cdmpp.extract.tir import TirLeaf, leaves_of, lower

tir = sampling.tvm.tir
# One task of every kind of index, small enough to enumerate.
KINDS = (
    sampling.dense, sampling.conv2d_nchw, sampling.conv2d_dilated, sampling.conv2d_transposed,
    sampling.average_pool, sampling.softmax, sampling.norm, sampling.elementwise,
    sampling.transpose_reshape,
)  # fmt: skip
_POINTWISE = {
    tir.Add: np.add, tir.Sub: np.subtract, tir.Mul: np.multiply, tir.FloorDiv: np.floor_divide,
    tir.FloorMod: np.mod, tir.Min: np.minimum, tir.Max: np.maximum,
}  # fmt: skip


@pytest.mark.parametrize("builder", KINDS, ids=lambda builder: builder.__name__)
def test_covers_and_steps_are_those_of_enumeration(builder: Callable[[], list[Any]]) -> None:
    task = sampling.make_task(builder)
    for state in sampling.sample_states(task, 4, seed=2):
        primfunc = lower(task, state)
        leaves = leaves_of(primfunc)
        for (nest, store), leaf in zip(_stores(primfunc.body, ()), leaves, strict=True):
            _check_access(nest, store, leaf, leaf.accesses[:1])
            loads: list[Any] = []
            tir.stmt_functor.post_order_visit(store.value, loads.append)
            for load in loads:
                if isinstance(load, tir.BufferLoad):
                    _check_access(nest, load, leaf, leaf.accesses[1:])


def _check_access(nest: tuple[Any, ...], node: Any, leaf: TirLeaf, accesses: Any) -> None:
    extents = [loop.extent for loop in leaf.loops]
    same_buffer = [access for access in accesses if access.buffer == node.buffer.name]
    cover = []
    for level in range(len(extents) + 1):
        running = [e if number >= level else 1 for number, e in enumerate(extents)]
        values = _values(nest, node, np.indices(running, sparse=True))
        spans = [int(np.max(v) - np.min(v)) + 1 for v in values]
        cover.append([min(s, int(d)) for s, d in zip(spans, node.buffer.shape, strict=True)])
    at_zero = _values(nest, node, np.zeros(len(extents), dtype=np.int64))
    matching = [a for a in same_buffer if a.cover.T.tolist() == cover]
    assert matching, f"{node}: expected {cover}, got {[a.cover.T.tolist() for a in same_buffer]}"
    sizes = np.cumprod([1, *matching[0].storage_shape[:0:-1]])[::-1]
    steps = []
    for number in range(len(extents)):
        at_one = _values(nest, node, np.eye(len(extents), dtype=np.int64)[number])
        moved = zip(at_one, at_zero, sizes, strict=True)
        steps.append(sum(int((one - zero) * size) for one, zero, size in moved))
    assert tuple(steps) in [access.first_step_elements for access in matching]


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
