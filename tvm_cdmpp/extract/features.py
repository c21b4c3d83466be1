"""Computation vectors from evaluated structures.

Per structure, accesses are turned into the memory they touch at each loop level; the results of
all structures are gathered in dense arrays (one row per leaf, loops aligned at the innermost), and
the fields of the schema are computed for all leaves at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast.schema import (
    ACCESS_SLOTS,
    COLUMN,
    NUM_FIELDS,
    NUM_INNER_LOOPS,
    TRAFFIC_CAPACITIES_BYTES,
)
from tvm_cdmpp.extract.bounds import StageBounds
from tvm_cdmpp.extract.index import FloatArray, Index, axis_index
from tvm_cdmpp.extract.stage import OP_CLASSES
from tvm_cdmpp.extract.steps import BLOCKS, PARALLEL, THREADS, UNROLL, VECTORIZE, VTHREAD
from tvm_cdmpp.extract.structure import Leaf, ScheduledStage, Structure

_Put: TypeAlias = Callable[[str, npt.NDArray[Any]], None]

LINE_BYTES = 64.0
NUM_SLOTS = len(ACCESS_SLOTS)


@dataclass(frozen=True)
class _Access:
    """Memory touched by one access; arrays over candidates and levels."""

    element_bytes: int
    touched: FloatArray
    """Elements, [n, levels]."""
    line_bytes: FloatArray
    """Bytes of the cache lines, [n, levels]."""
    strides: FloatArray
    """Elements moved by one step of each loop of the leaf, [n, levels - 1]."""
    is_local: bool


class LeafTable:
    """Dense arrays over the leaves of a batch, filled structure by structure."""

    def __init__(self, num_leaves: int, depth: int) -> None:
        self.depth = depth
        self.extents = np.ones((num_leaves, depth))
        self.is_reduce = np.zeros((num_leaves, depth), dtype=bool)
        self.annotations = np.zeros((num_leaves, depth), dtype=np.int8)
        self.ops = np.zeros((num_leaves, len(OP_CLASSES)))
        self.is_init = np.zeros(num_leaves)
        self.unroll_limit = np.zeros(num_leaves)
        self.buffer_bytes = np.zeros(num_leaves)
        self.num_accesses = np.zeros(num_leaves)
        self.positions = np.zeros(num_leaves, dtype=np.int32)
        self.element_bytes = np.zeros((num_leaves, NUM_SLOTS))
        self.touched_bytes = np.zeros((num_leaves, NUM_SLOTS, depth + 1))
        self.line_bytes = np.zeros((num_leaves, NUM_SLOTS, depth + 1))
        self.strides = np.zeros((num_leaves, NUM_SLOTS, depth))
        self.is_local = np.zeros((num_leaves, NUM_SLOTS))

    def fill(
        self,
        structure: Structure,
        bounds: dict[int, StageBounds],
        parameters: npt.NDArray[np.int64],
        first_rows: npt.NDArray[np.int64],
        rewrites_layout: bool,
    ) -> None:
        """Write the leaves of the candidates of one structure.

        Parameters
        ----------
        structure, bounds, parameters
            What the candidates share, its evaluation, and their parameters.
        first_rows
            Row of each candidate's first leaf, of shape (candidates,).
        rewrites_layout
            Whether layout-free constants are stored in the order in which they are read.
        """
        positions = _positions(structure, bounds)
        for number, leaf in enumerate(structure.leaves):
            rows = first_rows + number
            stage = structure.stages[leaf.stage]
            self._fill_loops(rows, stage, leaf, bounds[leaf.stage])
            self.positions[rows] = positions[:, number]
            unroll = stage.init_unroll_parameter if leaf.is_init else stage.unroll_parameter
            if unroll is not None:
                self.unroll_limit[rows] = parameters[:, unroll]
            self._fill_accesses(rows, structure, leaf, bounds, rewrites_layout)

    def _fill_loops(
        self,
        rows: npt.NDArray[np.int64],
        stage: ScheduledStage,
        leaf: Leaf,
        bounds: StageBounds,
    ) -> None:
        path = list(leaf.path)
        first = self.depth - len(path)
        self.extents[rows, first:] = bounds.loop_extents[:, path]
        loops = stage.path
        self.is_reduce[rows, first:] = [loops[p].is_reduce and p >= len(stage.inherited)
                                        for p in path]  # fmt: skip
        self.annotations[rows, first:] = [loops[p].annotation for p in path]
        self.ops[rows] = leaf.ops
        self.is_init[rows] = leaf.is_init
        self.buffer_bytes[rows] = bounds.region.prod(axis=1) * stage.spec.element_bytes

    def _fill_accesses(
        self,
        rows: npt.NDArray[np.int64],
        structure: Structure,
        leaf: Leaf,
        bounds: dict[int, StageBounds],
        rewrites_layout: bool,
    ) -> None:
        accesses = _accesses(structure, leaf, bounds, rewrites_layout)
        self.num_accesses[rows] = len(accesses)
        first = self.depth - len(leaf.path)
        for number, access in enumerate(accesses):
            slot = min(number, NUM_SLOTS - 1)
            self.element_bytes[rows, slot] = access.element_bytes
            touched = access.touched * access.element_bytes
            self.touched_bytes[rows, slot, first:] += touched
            self.touched_bytes[rows, slot, :first] += touched[:, :1]
            self.line_bytes[rows, slot, first:] += access.line_bytes
            self.line_bytes[rows, slot, :first] += access.line_bytes[:, :1]
            self.is_local[rows, slot] = access.is_local
            strides = self.strides[rows, slot, first:]
            self.strides[rows, slot, first:] = np.maximum(strides, access.strides)

    def computation_vectors(self) -> npt.NDArray[np.float32]:
        """Compute every field of the schema; shape (leaves, NUM_FIELDS)."""
        vectors = np.zeros((len(self.extents), NUM_FIELDS), dtype=np.float32)

        def put(name: str, values: npt.NDArray[Any]) -> None:
            vectors[:, COLUMN[name]] = values

        def put_log(name: str, values: npt.NDArray[Any]) -> None:
            put(name, np.log2(1.0 + values))

        executions = self.extents.prod(axis=1)
        for column, name in enumerate(OP_CLASSES):
            put_log(f"{name}_ops", self.ops[:, column] * executions)
        put("is_init", self.is_init)
        put("is_copy", (self.ops.sum(axis=1) == 0) & (self.is_init == 0))
        put_log("executions", executions)
        put_log("spatial_executions", np.where(self.is_reduce, 1.0, self.extents).prod(axis=1))
        put_log("reduce_executions", np.where(self.is_reduce, self.extents, 1.0).prod(axis=1))
        put_log("num_loops", (self.extents > 1).sum(axis=1).astype(np.float64))
        self._put_annotations(put, put_log, executions)
        put_log("buffer_bytes", self.buffer_bytes)
        put_log("num_accesses", self.num_accesses)
        innermost = self._put_inner_loops(put, put_log)
        self._put_accesses(put, put_log, executions, innermost)
        self._put_traffic(put_log)
        return vectors

    def _extent_of(self, *annotations: int) -> FloatArray:
        chosen = np.isin(self.annotations, annotations)
        extent: FloatArray = np.where(chosen, self.extents, 1.0).prod(axis=1)
        return extent

    def _put_annotations(self, put: _Put, put_log: _Put, executions: FloatArray) -> None:
        parallel = self._extent_of(PARALLEL)
        put_log("parallel_extent", parallel)
        put_log("task_executions", executions / parallel)
        put_log("vector_extent", self._extent_of(VECTORIZE))
        put_log("unroll_extent", self._extent_of(UNROLL))
        put_log("unroll_limit", self.unroll_limit)
        put_log("block_extent", self._extent_of(*BLOCKS))
        put_log("thread_extent", self._extent_of(*THREADS))
        put_log("vthread_extent", self._extent_of(VTHREAD))
        # TVM unrolls a nest when its steps stay within the limit; vectorized loops do not count.
        serial = np.where(self.annotations == VECTORIZE, 1.0, self.extents)
        steps = np.cumprod(serial[:, ::-1], axis=1)
        fits = steps <= np.maximum(self.unroll_limit, 1.0)[:, None]
        put_log("unrolled_body", np.where(fits, steps, 1.0).max(axis=1, initial=1.0))

    def _put_inner_loops(self, put: _Put, put_log: _Put) -> npt.NDArray[np.int64]:
        """Write the innermost loops with more than one iteration; return the innermost's column."""
        rows = np.arange(len(self.extents))
        remaining = self.extents > 1
        innermost = np.full(len(rows), -1, dtype=np.int64)
        for n in range(NUM_INNER_LOOPS):
            column = self.depth - 1 - np.argmax(remaining[:, ::-1], axis=1)
            found = remaining.any(axis=1)
            if n == 0:
                innermost = np.where(found, column, -1)
                vectorized = self.annotations[rows, column] == VECTORIZE
                put("is_vectorized", found & vectorized)
            put_log(f"inner{n}_extent", np.where(found, self.extents[rows, column], 1.0) - 1.0)
            put(f"inner{n}_is_reduce", found & self.is_reduce[rows, column])
            remaining[rows, column] = False
        return innermost

    def _put_accesses(
        self,
        put: _Put,
        put_log: _Put,
        executions: FloatArray,
        innermost: npt.NDArray[np.int64],
    ) -> None:
        rows = np.arange(len(executions))
        nested = innermost >= 0
        # Level at which the two innermost loops run.
        second = np.where(self.extents > 1, np.arange(self.depth), -1)
        second[rows[nested], innermost[nested]] = -1
        tile_level = np.where(nested, np.maximum(second.max(axis=1), 0), self.depth)
        for slot, name in enumerate(ACCESS_SLOTS):
            used = self.element_bytes[:, slot] > 0
            accessed = executions * self.element_bytes[:, slot]
            unique = self.touched_bytes[:, slot, 0]
            stride = np.where(nested, self.strides[rows, slot, innermost], 0.0)
            put_log(f"{name}_element_bytes", self.element_bytes[:, slot])
            put_log(f"{name}_access_bytes", accessed)
            put_log(f"{name}_unique_bytes", unique)
            put_log(f"{name}_line_bytes", self.line_bytes[:, slot, 0])
            put_log(f"{name}_reuse", accessed / np.maximum(unique, 1.0))
            put_log(f"{name}_stride", stride)
            put(f"{name}_is_invariant", used & nested & (stride == 0))
            put(f"{name}_is_contiguous", used & nested & (stride == 1))
            put_log(f"{name}_tile_bytes", self.touched_bytes[rows, slot, tile_level])
            put(f"{name}_is_local", self.is_local[:, slot])

    def _put_traffic(self, put_log: _Put) -> None:
        footprint = self.line_bytes.sum(axis=1)
        outside = np.ones_like(footprint)
        np.cumprod(self.extents, axis=1, out=outside[:, 1:])
        moved = footprint * outside
        rows = np.arange(len(footprint))
        for capacity in TRAFFIC_CAPACITIES_BYTES:
            fits = footprint <= capacity
            # The innermost level always "fits": one execution streams through any cache.
            fits[:, -1] = True
            level = np.argmax(fits, axis=1)
            put_log(f"traffic_{capacity}", moved[rows, level])


def _positions(structure: Structure, bounds: dict[int, StageBounds]) -> npt.NDArray[np.int32]:
    """Position of every leaf, `2 * k - depth`; loops of one iteration are no nodes; [n, leaves]."""
    n = next(iter(bounds.values())).region.shape[0]
    present = np.ones((n, len(structure.nodes)), dtype=np.int32)
    for number, node in enumerate(structure.nodes):
        if node is not None:
            stage = structure.stages[node[0]]
            column = len(stage.inherited) + next(
                p for p, loop in enumerate(stage.own) if loop.iterator == node[1]
            )
            present[:, number] = bounds[node[0]].loop_extents[:, column] > 1
    order = np.cumsum(present, axis=1)
    positions = np.empty((n, len(structure.leaves)), dtype=np.int32)
    for number, leaf in enumerate(structure.leaves):
        depth = present[:, list(leaf.nodes)].sum(axis=1) + 1
        positions[:, number] = 2 * order[:, leaf.node] - depth
    return positions


def _accesses(
    structure: Structure,
    leaf: Leaf,
    bounds: dict[int, StageBounds],
    rewrites_layout: bool,
) -> list[_Access]:
    """List the accesses of a leaf: the store first, then the reads, largest buffer first."""
    stage = structure.stages[leaf.stage]
    identity = tuple(axis_index(n) for n in range(stage.spec.num_spatial))
    pairs = [(leaf.stage, identity)]
    if not leaf.is_init:
        reads = sorted(stage.spec.reads, key=lambda read: -_static_bytes(structure, read.stage))
        pairs += [(read.stage, read.indices) for read in reads]
    return [
        _access(structure, leaf, bounds, buffer, indices, rewrites_layout)
        for buffer, indices in pairs
    ]


def _static_bytes(structure: Structure, buffer: int) -> int:
    spec = structure.specs[buffer]
    size = spec.element_bytes
    for extent in spec.shape:
        size *= extent
    return size


def _access(
    structure: Structure,
    leaf: Leaf,
    bounds: dict[int, StageBounds],
    buffer: int,
    indices: tuple[Index, ...],
    rewrites_layout: bool,
) -> _Access:
    spec = structure.specs[buffer]
    stage = structure.stages[leaf.stage]
    own = bounds[leaf.stage]
    levels = [*leaf.path, len(stage.path)]
    cover = own.cover[:, :, levels]
    n = cover.shape[0]
    if buffer in bounds:
        shape = bounds[buffer].region
    else:
        shape = np.broadcast_to(np.asarray(spec.shape, dtype=np.float64), (n, len(spec.shape)))
    touched = np.ones((n, len(levels)))
    run = np.ones_like(touched)
    rows = np.ones_like(touched)
    whole = np.ones_like(touched, dtype=bool)
    step = np.ones(n)
    moved = np.zeros((n, own.loop_strides.shape[2]))
    for dimension in range(len(indices) - 1, -1, -1):
        index, extent = indices[dimension], shape[:, dimension, None]
        span = np.minimum(index.span(lambda axis: cover[:, axis]), extent)
        touched = touched * span
        # Consecutive memory grows outwards as long as the inner dimensions are whole.
        run = np.where(whole, run * span, run)
        rows = np.where(whole, rows, rows * span)
        whole &= span == extent
        moved = moved + step[:, None] * index.step(lambda axis: own.loop_strides[:, axis])
        step = step * shape[:, dimension]
    strides = np.zeros((n, len(leaf.path)))
    first_own = len(stage.inherited)
    kept = [(column, p - first_own) for column, p in enumerate(leaf.path) if p >= first_own]
    if kept:
        columns, loops = (list(part) for part in zip(*kept, strict=True))
        strides[:, columns] = np.abs(moved[:, loops])
    if spec.layout_free and rewrites_layout:
        lines = np.ceil(touched * spec.element_bytes / LINE_BYTES)
        strides = np.minimum(strides, 1.0)
    else:
        lines = rows * np.ceil(run * spec.element_bytes / LINE_BYTES)
    is_local = buffer in structure.stages and structure.stages[buffer].attached_to is not None
    return _Access(spec.element_bytes, touched, lines * LINE_BYTES, strides, is_local)
