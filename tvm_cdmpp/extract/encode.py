"""A `TaskGraph` as a list of integers, for the compiled part (`native/graph.h` reads it)."""

from __future__ import annotations

from tvm_cdmpp.extract.index import Axis, FloorDiv, FloorMod, Index, Opaque
from tvm_cdmpp.extract.stage import StageSpec, TaskGraph

_OPEN = 1 << 60
"""Stands for the end of a condition that is open."""


def encode_graph(graph: TaskGraph) -> list[int]:
    """Return the integers that describe a graph."""
    texts: dict[str, int] = {}
    encoded = [len(graph.stages)]
    for stage in graph.stages:
        encoded += _stage(stage, texts)
    return encoded


def _stage(stage: StageSpec, texts: dict[str, int]) -> list[int]:
    encoded = [
        stage.element_bytes,
        stage.float_bytes,
        stage.int_bytes,
        texts.setdefault(stage.guard, len(texts)) if stage.guard else -1,
        stage.guarded_read,
        stage.is_placeholder,
        stage.is_output,
        stage.is_returned,
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
        encoded += [read.stage, read.output, read.layout, len(read.indices)]
        for index in read.indices:
            encoded += _index(index, texts)
    encoded.append(len(stage.choices))
    for choice in stage.choices:
        encoded += [choice.num_parts, len(choice.conditions)]
        for condition in choice.conditions:
            low = -_OPEN if condition.low is None else condition.low
            high = _OPEN if condition.high is None else condition.high
            encoded += [low, high, *_index(condition.index, texts)]
    for numbers in (stage.peers, stage.sources):
        encoded += [len(numbers), *numbers]
    encoded.append(len(stage.outputs))
    for output in stage.outputs:
        encoded += _stage(output, texts)
    return encoded


def _index(index: Index, texts: dict[str, int]) -> list[int]:
    encoded = [index.constant, len(index.terms)]
    for atom, coefficient in index.terms:
        match atom:
            case Axis(number):
                encoded += [0, coefficient, number]
            case FloorDiv(inner, divisor):
                encoded += [1, coefficient, divisor, *_index(inner, texts)]
            case FloorMod(inner, divisor):
                encoded += [2, coefficient, divisor, *_index(inner, texts)]
            case Opaque(reason, inner):
                number = texts.setdefault(reason, len(texts))
                encoded += [3, coefficient, number, *_index(inner, texts)]
    return encoded
