"""Loop extents and covered regions of a structure, for many candidates at once.

The walk goes from consumers to producers. For every stage it gives the extent of each loop and,
per axis and level, the *cover*: how many values the axis takes while the loops from that level
inward run (level 0: all loops of the path, last level: none). A stage computed at a loop of its
consumer must provide what the consumer reads below that loop, so the consumer's cover at that
level, pushed through its read indices, is the region of the producer; it is clipped to the shape,
as in TVM's bound inference (compute_op.cc, message_passing.cc). Shapes in brackets use n for
candidates, A for axes, K for levels (path length + 1), L for own loops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.extract.index import FloatArray, Index
from tvm_cdmpp.extract.stage import Read
from tvm_cdmpp.extract.steps import PARALLEL, SERIAL, UNROLL, VECTORIZE, Fuse, Split
from tvm_cdmpp.extract.structure import ScheduledStage, Structure

_UNBOUND = (SERIAL, UNROLL, VECTORIZE, PARALLEL)


@dataclass(frozen=True)
class StageBounds:
    """Numbers of one stage for n candidates."""

    loop_extents: FloatArray
    """Extents of the loops on the stage's path, outermost first; [n, K - 1]."""
    cover: FloatArray
    """Values each axis takes with the loops from a level inward running; [n, A, K]."""
    relaxed_cover: FloatArray
    """The same with all GPU threads running at every level: what shared memory must hold."""
    region: FloatArray
    """Extent of each spatial axis that one execution of the stage computes; [n, dims]."""
    loop_strides: FloatArray
    """Step of each axis when an own loop advances by one; [n, A, L]."""


def evaluate(structure: Structure, parameters: npt.NDArray[np.int64]) -> dict[int, StageBounds]:
    """Evaluate a structure for the parameters of n candidates.

    Parameters
    ----------
    structure
        The replayed schedule.
    parameters
        Split factors and unroll limits, of shape (n, number of parameters).

    Returns
    -------
    bounds
        Numbers per computed stage.
    """
    values = parameters.astype(np.float64)
    bounds: dict[int, StageBounds] = {}
    for number, stage in structure.stages.items():
        inherited = _needed(structure, stage, bounds, values.shape[0])
        bounds[number] = _evaluate_stage(stage, inherited, bounds, values)
    return bounds


def _needed(
    structure: Structure, stage: ScheduledStage, bounds: dict[int, StageBounds], n: int
) -> FloatArray:
    """Cover of the stage's spatial axes at the inherited levels and at its own top; [n, dims, d+1].

    The last level is the region that one execution of the stage must compute.
    """
    shape = np.asarray(stage.spec.shape, dtype=np.float64)
    depth = len(stage.inherited)
    full = np.broadcast_to(shape[:, None], (n, len(shape), depth + 1))
    if stage.spec.is_output:
        return full
    needed = np.ones((n, len(shape), depth + 1))
    relaxed = stage.spec.scope == "shared"
    reads: dict[int, list[Read]] = {}
    for number, read in structure.consumers.get(stage.number, ()):
        reads.setdefault(number, []).append(read)
    for number, group in reads.items():
        if structure.stages[number].path[:depth] != stage.inherited:
            return full
        consumer = bounds[number]
        cover = (consumer.relaxed_cover if relaxed else consumer.cover)[:, :, : depth + 1]
        for dimension in range(len(shape)):
            span = _union_span([read.indices[dimension] for read in group], cover)
            np.maximum(needed[:, dimension], span, out=needed[:, dimension])
    # TVM clips an interval only where it provably covers the dimension, that is where no loop
    # outside of it moves it; a moving interval keeps its length even at the border.
    moving = needed < needed[:, :, :1]
    return np.where(moving & np.isfinite(needed), needed, np.minimum(needed, shape[:, None]))


def _union_span(indices: Sequence[Index], cover: FloatArray) -> FloatArray | float:
    """Span of the union of several reads of one dimension; shifted reads widen the interval."""
    spans = [index.span(lambda axis: cover[:, axis]) for index in indices]
    constants = [index.constant for index in indices]
    same_terms = len({index.terms for index in indices}) == 1
    widest = spans[0]
    for span in spans[1:]:
        widest = np.maximum(widest, span)
    if same_terms:
        widest = widest + (max(constants) - min(constants))
    result: FloatArray | float = widest
    return result


def _evaluate_stage(
    stage: ScheduledStage,
    needed: FloatArray,
    bounds: dict[int, StageBounds],
    values: FloatArray,
) -> StageBounds:
    n = values.shape[0]
    spec = stage.spec
    region = np.ascontiguousarray(needed[:, :, -1])
    reduce_extents = np.asarray(spec.axis_extents[spec.num_spatial :], dtype=np.float64)
    extents: list[FloatArray | None] = [None] * stage.num_iterators
    for axis in range(spec.num_spatial):
        extents[axis] = region[:, axis]
    for offset, extent in enumerate(reduce_extents):
        extents[spec.num_spatial + offset] = np.full(n, extent)
    _pass_down_extents(stage, extents, values)

    own = np.ones((n, len(stage.own)))
    for position, loop in enumerate(stage.own):
        own[:, position] = extents[loop.iterator]
    own_cover, own_relaxed = _covers(stage, extents, own)
    depth = len(stage.inherited)
    cover = np.empty((n, len(spec.axis_extents), depth + own.shape[1] + 1))
    relaxed = cover if own_relaxed is own_cover else np.empty_like(cover)
    for target, below in ((cover, own_cover), (relaxed, own_relaxed)):
        target[:, :, depth:] = below
        target[:, : spec.num_spatial, :depth] = needed[:, :, :depth]
        target[:, spec.num_spatial :, :depth] = reduce_extents[:, None]
    outer = (
        bounds[stage.attached_to].loop_extents[:, :depth]
        if stage.attached_to is not None
        else np.ones((n, 0))
    )
    return StageBounds(
        np.concatenate([outer, own], axis=1),
        cover,
        relaxed,
        region,
        _loop_strides(stage, extents, n),
    )


def _thread_bound(stage: ScheduledStage) -> set[int]:
    """Return the iterators that lead to a loop bound to a GPU index; TVM keeps their factors."""
    bound = {loop.iterator for loop in stage.own if loop.annotation not in _UNBOUND}
    for relation in reversed(stage.relations):
        if isinstance(relation, Split):
            if bound & set(relation.parts):
                bound.add(relation.parent)
        elif relation.fused in bound:
            bound |= set(relation.parents)
    return bound


def _pass_down_extents(
    stage: ScheduledStage, extents: list[FloatArray | None], values: FloatArray
) -> None:
    """Fill in the extents of derived iterators (PassDownDomain in message_passing.cc)."""
    bound = _thread_bound(stage)
    for relation in stage.relations:
        if isinstance(relation, Fuse):
            fused = np.ones(values.shape[0])
            for parent in relation.parents:
                fused = fused * extents[parent]  # type: ignore[operator]
            extents[relation.fused] = fused
            continue
        rest = extents[relation.parent]
        assert rest is not None
        # Factors are listed outer to inner; inner-to-outer splitting applies the innermost first.
        if relation.inner_to_outer:
            order = list(zip(relation.parts[1:], relation.factors, strict=True))[::-1]
            last = relation.parts[0]
        else:
            order = list(zip(relation.parts[:-1], relation.factors, strict=True))
            last = relation.parts[-1]
        for part, factor in order:
            size = values[:, factor[0]] if len(factor) == 1 else values[:, factor].prod(axis=1)
            extents[part] = size if part in bound else np.minimum(size, rest)
            rest = np.ceil(rest / size)
        extents[last] = rest


def _covers(
    stage: ScheduledStage, extents: list[FloatArray | None], own: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Cover of every axis at the own levels, plain and with all threads running; [n, A, L+1]."""
    has_threads = any(loop.is_thread for loop in stage.own)
    covers = _cover_with(stage, extents, own, relaxed=False)
    if not has_threads:
        return covers, covers
    return covers, _cover_with(stage, extents, own, relaxed=True)


def _cover_with(
    stage: ScheduledStage,
    extents: list[FloatArray | None],
    own: FloatArray,
    relaxed: bool,
) -> FloatArray:
    n, num_loops = own.shape
    covers: dict[int, FloatArray] = {}
    for position, loop in enumerate(stage.own):
        cover = np.ones((n, num_loops + 1))
        last = num_loops if relaxed and loop.is_thread else position
        cover[:, : last + 1] = own[:, position, None]
        covers[loop.iterator] = cover
    for relation in reversed(stage.relations):
        if isinstance(relation, Split):
            cover = covers[relation.parts[0]]
            for part in relation.parts[1:]:
                cover = (cover - 1.0) * extents[part][:, None] + covers[part]  # type: ignore[index]
            # Exact where every part runs through, else the plain sum, which may overshoot.
            extent = extents[relation.parent][:, None]  # type: ignore[index]
            covers[relation.parent] = np.where(cover == cover[:, :1], extent, cover)
            continue
        block = covers[relation.fused]
        for parent in reversed(relation.parents):
            extent = extents[parent][:, None]  # type: ignore[index]
            covers[parent] = np.where(np.mod(extent, block) == 0.0, block, extent)
            block = _rows_met(block, extent)
    num_axes = len(stage.spec.axis_extents)
    return np.stack([covers[axis] for axis in range(num_axes)], axis=1)


def _rows_met(block: FloatArray, row: FloatArray) -> FloatArray:
    """Return how many rows of length `row` a block meets at most, blocks lying end to end."""
    common = np.gcd(block.astype(np.int64), row.astype(np.int64))
    met: FloatArray = np.floor((row - common + block - 1.0) / row) + 1.0
    return met


def _loop_strides(stage: ScheduledStage, extents: list[FloatArray | None], n: int) -> FloatArray:
    """Step of each axis when an own loop advances by one; [n, A, L].

    A loop fused from several axes steps the innermost of them that has more than one value.
    """
    num_axes = len(stage.spec.axis_extents)
    steps: dict[int, FloatArray] = {}
    for axis in range(num_axes):
        step = np.zeros((n, num_axes))
        step[:, axis] = 1.0
        steps[axis] = step
    for relation in stage.relations:
        if isinstance(relation, Split):
            step = steps[relation.parent]
            for part in reversed(relation.parts):
                steps[part] = step
                step = step * extents[part][:, None]  # type: ignore[index]
            continue
        step = np.zeros((n, num_axes))
        still = np.ones((n, 1))
        for parent in reversed(relation.parents):
            moves = extents[parent][:, None] > 1.0  # type: ignore[index]
            step = step + still * moves * steps[parent]
            still = still * ~moves
        steps[relation.fused] = step
    if not stage.own:
        return np.zeros((n, num_axes, 0))
    return np.stack([steps[loop.iterator] for loop in stage.own], axis=2)
