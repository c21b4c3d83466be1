"""A `TaskGraph` as a list of integers, for the compiled replay (`native/graph.h` reads it)."""

from __future__ import annotations

from tvm_cdmpp.extract.index import Axis, FloorDiv, FloorMod, Index, Opaque
from tvm_cdmpp.extract.stage import StageSpec, TaskGraph


def encode_graph(graph: TaskGraph) -> list[int]:
    """Return the integers that describe a graph."""
    reasons: dict[str, int] = {}
    encoded = [len(graph.stages)]
    for stage in graph.stages:
        encoded += _stage(stage, reasons)
    return encoded


def _stage(stage: StageSpec, reasons: dict[str, int]) -> list[int]:
    encoded = [
        stage.element_bytes,
        stage.compute_bytes,
        stage.is_placeholder,
        stage.layout_free,
        stage.is_output,
        stage.num_spatial,
        len(stage.shape),
        *stage.shape,
        len(stage.axis_extents),
        *stage.axis_extents,
        *stage.ops,
        *stage.combine_ops,
        len(stage.reads),
    ]
    for read in stage.reads:
        encoded += [read.stage, len(read.indices)]
        for index in read.indices:
            encoded += _index(index, reasons)
    return encoded


def _index(index: Index, reasons: dict[str, int]) -> list[int]:
    encoded = [index.constant, len(index.terms)]
    for atom, coefficient in index.terms:
        match atom:
            case Axis(number):
                encoded += [0, coefficient, number]
            case FloorDiv(inner, divisor):
                encoded += [1, coefficient, divisor, *_index(inner, reasons)]
            case FloorMod(inner, divisor):
                encoded += [2, coefficient, divisor, *_index(inner, reasons)]
            case Opaque(reason, inner):
                number = reasons.setdefault(reason, len(reasons))
                encoded += [3, coefficient, number, *_index(inner, reasons)]
    return encoded
