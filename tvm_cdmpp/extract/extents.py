"""Loops whose extent depends on data: how long they are taken to be.

A sparse matrix product runs over the elements of each row, of which only the data knows the number.
One assumption serves both extractors, whose expressions differ in their reads alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tvm_cdmpp.bridge import load_tvm

tvm = load_tvm()
tir = tvm.tir

_READS = (tir.BufferLoad, tir.ProducerLoad)


def assumed_extent(extent: Any, var: Any, body: Iterable[Any]) -> int | None:
    """Return the assumed extent of a loop, or None if it does not depend on data.

    The variable of a loop stays within every dimension that it indexes, so the smallest of these
    bounds the extent. Where the extent is the distance between two elements of one array, as
    between the starts of two rows, the rows share that dimension, each taken to have its share. A
    loop whose variable indexes nothing is taken to run once, as Ansor's own features have it.

    Parameters
    ----------
    extent
        An expression.
    var
        The variable of the loop.
    body
        Expressions or statements that the loop runs.
    """
    if isinstance(extent, tir.IntImm) or not _reads_of(extent):
        return None
    dimensions = [
        int(size.value)
        for part in body
        for read in _reads_of(part)
        for index, size in zip(read.indices, _source(read).shape, strict=True)
        if isinstance(size, tir.IntImm) and _moves(index, var)
    ]
    shares = 1
    if isinstance(extent, tir.Sub) and all(isinstance(e, _READS) for e in (extent.a, extent.b)):
        starts, ends = _source(extent.b), _source(extent.a)
        if starts.same_as(ends):
            shares = math.prod(int(size) for size in starts.shape) - 1
    return max(1, math.ceil(min(dimensions, default=1) / max(1, shares)))


def _source(read: Any) -> Any:
    return read.buffer if isinstance(read, tir.BufferLoad) else read.producer


def _reads_of(part: Any) -> list[Any]:
    found: list[Any] = []
    tir.stmt_functor.post_order_visit(
        part, lambda node: found.append(node) if isinstance(node, _READS) else None
    )
    return found


def _moves(index: Any, var: Any) -> bool:
    """Whether an index moves with a variable; what is read at another index may be anything."""
    if isinstance(index, _READS):
        return False
    if isinstance(index, tir.Var):
        return bool(index.same_as(var))
    parts = [getattr(index, name, None) for name in ("a", "b", "value")]
    return any(isinstance(part, tvm.ir.PrimExpr) and _moves(part, var) for part in parts)
