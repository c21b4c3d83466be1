"""The slow, exact path: lower a state with TVM and read its leaves from the PrimFunc.

It is the oracle for the arithmetic fast path, and it serves programs that are not states.

- The lowering is the one of Ansor's own feature extraction: apply the steps, infer bounds, build
  the statement, simplify. Buffers are still multi-dimensional, nothing is vectorised or unrolled.
- A leaf is a store; its loops are what encloses it, without those that run once. A GPU thread
  axis counts as a loop. Where one thread axis is bound a second time inside itself (cooperative
  fetching) the inner one is the same hardware index, so it adds no loop.
- Guards (`if likely(index < extent)`) are no leaves, cost no operations and narrow no cover.
- Indices are evaluated as `constant + sum(coefficient * loop) + bounds of the non-affine rest`,
  for all loop levels at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_cdmpp.errors import LoweringError
from tvm_cdmpp.extract.tir_index import UNBOUNDED, Binding, IndexEvaluator, LinearIndex
from tvm_cdmpp.extract.tir_ops import count_operations
from tvm_cdmpp.tvm_runtime import load_tvm

tvm = load_tvm()
tir = tvm.tir

_LOOP_KINDS = {
    int(tir.ForKind.SERIAL): "serial",
    int(tir.ForKind.PARALLEL): "parallel",
    int(tir.ForKind.VECTORIZED): "vectorized",
    int(tir.ForKind.UNROLLED): "unrolled",
}
_UNROLL_PRAGMA = "pragma_auto_unroll_max_step"


@dataclass(frozen=True)
class TirLoop:
    """One loop around a leaf; it runs more than once."""

    extent: int
    """Iterations; the largest over the enclosing loops where `symbolic`."""
    kind: str
    """serial, parallel, vectorized, unrolled, vthread, or a thread axis such as blockIdx.x."""
    reduce: bool
    """Whether the leaf accumulates over this loop.

    So it is when the loop variable is in no index of the store, and the loop does not enclose the
    store of the initial value as well.
    """
    symbolic: bool = False
    """Whether the number of iterations depends on enclosing loops."""


@dataclass(frozen=True, eq=False)
class TirAccess:
    """One access of a leaf; equal accesses are merged, other indices make another access.

    Indices are those of the tensor, also for a buffer that is allocated inside some of the loops:
    cover and stride then tell what those loops go through, although the memory is used again.
    """

    buffer: str
    shape: tuple[int, ...]
    """The tensor's shape, in elements."""
    dtype: str
    is_write: bool
    cover: NDArray[np.int64]
    """Span of each index, of shape (dimensions, loops + 1).

    Column k: the loops from number k inward run, those further out stand at their first
    iteration. Clipped to `shape`; the last column is one.
    """
    stride_elements: tuple[int | None, ...]
    """Distance in memory from one iteration of each loop to the next; None if not affine."""
    first_step_elements: tuple[int | None, ...]
    """The same from the first iteration to the second; None if read from memory (a gather).

    A loop fused from the axes of a contiguous buffer steps by one, affine or not.
    """
    storage_shape: tuple[int, ...]
    """What is allocated: the region that a stage computed inside another one needs at a time."""


@dataclass(frozen=True)
class TirLeaf:
    """One store of a tensor program."""

    buffer: str
    is_init: bool
    """Whether it stores the initial value of a reduction."""
    loops: tuple[TirLoop, ...]
    """Outer to inner."""
    accesses: tuple[TirAccess, ...]
    """The write, then the reads in order of appearance."""
    op_counts: dict[str, int]
    """Operations of the stored expression per execution; see `tir_ops`."""
    position: int
    """2 * (pre-order number) - depth, over root, loops and stores; the root has number, depth 0."""
    auto_unroll_max_step: int


def extract_exact(task: Any, state: Any) -> list[TirLeaf]:
    """Lower one state and return its leaves in pre-order.

    Raises
    ------
    LoweringError
        If TVM refuses the state, or the program is of a kind that cannot be read.
    """
    return leaves_of(lower(task, state))


def lower(task: Any, state: Any) -> Any:
    """Lower one state as Ansor's feature extraction does.

    Parameters
    ----------
    task
        The search task.
    state
        A complete `State` or `StateObject` of the task.

    Returns
    -------
    primfunc
        A `tvm.tir.PrimFunc`, before storage flattening.

    Raises
    ------
    LoweringError
        If TVM refuses the state.
    """
    schedule_to_module = tvm.get_global_func("driver.schedule_to_module")
    try:
        schedule, tensors = task.compute_dag.apply_steps_from_state(state)
        module = schedule_to_module(schedule, tensors, "main", None)
        return tir.transform.Simplify()(module)["main"]
    except tvm.TVMError as error:
        reason = str(error).strip().splitlines()[-1]
        raise LoweringError(
            f"A state of task {task.workload_key} must lower to a tensor program; TVM says: "
            f"{reason}. Skip this state."
        ) from error


def leaves_of(primfunc: Any) -> list[TirLeaf]:
    """Return the leaves of a lowered program in pre-order.

    Raises
    ------
    LoweringError
        If the program holds a statement or an index that cannot be read.
    """
    walker = _Walker()
    walker.visit(primfunc.body)
    return [_finish(leaf, walker.leaves) for leaf in walker.leaves]


@dataclass(frozen=True, eq=False)
class _Loop:
    """A loop on the walker's stack; equal only to itself."""

    extent: int
    kind: str
    symbolic: bool


@dataclass(frozen=True, eq=False)
class _Store:
    """A leaf before it is known which loops reduce and which stores are initial values."""

    leaf: TirLeaf
    buffer: Any
    loops: tuple[_Loop, ...]
    indexed_loops: frozenset[int]
    reads_itself: bool


def _finish(store: _Store, stores: Sequence[_Store]) -> TirLeaf:
    """Tell initial values from updates, and reduction loops from the others."""
    others = [s for s in stores if s.buffer.same_as(store.buffer) and s is not store]
    is_init = not store.reads_itself and any(s.reads_itself for s in others)
    outside = {loop for s in others if not s.reads_itself for loop in s.loops}
    loops = tuple(
        TirLoop(
            loop.extent,
            loop.kind,
            store.reads_itself and number not in store.indexed_loops and loop not in outside,
            loop.symbolic,
        )
        for number, loop in enumerate(store.loops)
    )
    return replace(store.leaf, is_init=is_init, loops=loops)


class _Walker:
    """Walks statements in pre-order and keeps what encloses them."""

    def __init__(self) -> None:
        self.leaves: list[_Store] = []
        self._loops: list[_Loop] = []
        self._bindings: dict[Any, Binding] = {}
        self._threads: dict[str, tuple[int, Binding]] = {}
        self._storage: dict[Any, tuple[int, ...]] = {}
        self._unroll = 0
        self._num_nodes = 0
        self._visitors: dict[type, Callable[[Any], None]] = {
            tir.SeqStmt: self._visit_sequence,
            tir.For: self._visit_for,
            tir.AttrStmt: self._visit_attribute,
            tir.LetStmt: self._visit_let,
            tir.IfThenElse: self._visit_if,
            tir.BufferRealize: self._visit_realize,
            tir.BufferStore: self._visit_store,
            tir.Allocate: self._visit_body,
            tir.AssertStmt: self._visit_body,
            tir.Evaluate: self._visit_nothing,
        }

    def visit(self, stmt: Any) -> None:
        """Visit one statement and everything below it."""
        visitor = self._visitors.get(type(stmt))
        if visitor is None:
            known = ", ".join(sorted(kind.__name__ for kind in self._visitors))
            raise LoweringError(
                f"A tensor program must consist of {known}; got {type(stmt).__name__}. "
                "Pass a program lowered from a te schedule."
            )
        visitor(stmt)

    def _visit_nothing(self, stmt: Any) -> None:
        pass

    def _visit_body(self, stmt: Any) -> None:
        self.visit(stmt.body)

    def _visit_sequence(self, stmt: Any) -> None:
        for child in stmt.seq:
            self.visit(child)

    def _visit_if(self, stmt: Any) -> None:
        self.visit(stmt.then_case)
        if stmt.else_case is not None:
            self.visit(stmt.else_case)

    def _visit_let(self, stmt: Any) -> None:
        self._bindings[stmt.var] = Binding(None, stmt.value)
        self.visit(stmt.body)

    def _visit_for(self, stmt: Any) -> None:
        with self._loop(stmt.loop_var, stmt.min, stmt.extent, _LOOP_KINDS[int(stmt.kind)]):
            self.visit(stmt.body)

    def _visit_realize(self, stmt: Any) -> None:
        self._storage[stmt.buffer] = tuple(self._maximum(r.extent) for r in stmt.bounds)
        self.visit(stmt.body)

    def _visit_attribute(self, stmt: Any) -> None:
        if stmt.attr_key == "virtual_thread":
            with self._loop(stmt.node.var, None, stmt.value, "vthread"):
                self.visit(stmt.body)
        elif stmt.attr_key == "thread_extent":
            with self._thread(stmt.node, stmt.value):
                self.visit(stmt.body)
        elif stmt.attr_key == _UNROLL_PRAGMA:
            outer, self._unroll = self._unroll, int(stmt.value)
            self.visit(stmt.body)
            self._unroll = outer
        else:
            self.visit(stmt.body)

    @contextmanager
    def _thread(self, axis: Any, extent_expr: Any) -> Iterator[None]:
        """Enter a thread axis; bound again inside itself it is no new loop."""
        tag = str(axis.thread_tag)
        extent = self._maximum(extent_expr)
        outer = self._threads.get(tag)
        if outer is not None and outer[0] == extent:
            self._bindings[axis.var] = outer[1]
            yield
            return
        with self._loop(axis.var, None, extent_expr, tag):
            self._threads[tag] = (extent, self._bindings[axis.var])
            yield
        if outer is None:
            del self._threads[tag]
        else:
            self._threads[tag] = outer

    @contextmanager
    def _loop(self, var: Any, start: Any, extent_expr: Any, kind: str) -> Iterator[None]:
        """Enter a loop; one that runs once only binds its variable."""
        extent = self._maximum(extent_expr)
        if extent == 1:
            self._bindings[var] = Binding(None, start)
            yield
            return
        self._bindings[var] = Binding(len(self._loops), start)
        self._loops.append(_Loop(extent, kind, not isinstance(extent_expr, tir.IntImm)))
        self._num_nodes += 1
        yield
        self._loops.pop()

    def _evaluator(self) -> IndexEvaluator:
        return IndexEvaluator([loop.extent for loop in self._loops], self._bindings)

    def _maximum(self, expr: Any) -> int:
        """Return the largest value of an extent over the enclosing loops."""
        if isinstance(expr, tir.IntImm):
            return int(expr.value)
        return self._evaluator().maximum(expr)

    def _visit_store(self, stmt: Any) -> None:
        self._num_nodes += 1
        evaluator = self._evaluator()
        op_counts, loads = count_operations(stmt.value)
        written = [evaluator(index) for index in stmt.indices]
        accesses = [self._access(stmt.buffer, written, True)]
        seen: list[Any] = []
        for load in loads:
            if not any(_same_access(load, other) for other in seen):
                seen.append(load)
                indices = [evaluator(index) for index in load.indices]
                accesses.append(self._access(load.buffer, indices, False))
        leaf = TirLeaf(
            buffer=str(stmt.buffer.name),
            is_init=False,
            loops=(),
            accesses=tuple(accesses),
            op_counts=op_counts,
            position=2 * self._num_nodes - (len(self._loops) + 1),
            auto_unroll_max_step=self._unroll,
        )
        indexed = frozenset[int]().union(*(index.loops for index in written))
        reads_itself = any(load.buffer.same_as(stmt.buffer) for load in seen)
        self.leaves.append(_Store(leaf, stmt.buffer, tuple(self._loops), indexed, reads_itself))

    def _access(self, buffer: Any, indices: Sequence[LinearIndex], is_write: bool) -> TirAccess:
        shape = tuple(self._maximum(extent) for extent in buffer.shape)
        storage_shape = self._storage.get(buffer, shape)
        num_loops = len(self._loops)
        spans = [np.minimum(i.spans(), extent) for i, extent in zip(indices, shape, strict=True)]
        steps = _first_steps(indices, storage_shape, num_loops)
        curved = frozenset[int]().union(*(index.nonlinear_loops for index in indices))
        return TirAccess(
            buffer=str(buffer.name),
            shape=shape,
            dtype=str(buffer.dtype),
            is_write=is_write,
            cover=np.array(spans, dtype=np.int64).reshape(len(shape), num_loops + 1),
            stride_elements=tuple(None if n in curved else s for n, s in enumerate(steps)),
            first_step_elements=steps,
            storage_shape=storage_shape,
        )


def _first_steps(
    indices: Sequence[LinearIndex], storage_shape: Sequence[int], num_loops: int
) -> tuple[int | None, ...]:
    """Return how far in memory each loop's second iteration is from its first."""
    total, unknown = np.zeros(num_loops, dtype=np.int64), np.zeros(num_loops, dtype=bool)
    neighbour = 1
    for index, extent in zip(reversed(indices), reversed(storage_shape), strict=True):
        steps = index.first_steps()
        unknown |= abs(steps) >= UNBOUNDED
        total += steps * neighbour
        neighbour *= extent
    return tuple(None if u else int(step) for u, step in zip(unknown, total, strict=True))


def _same_access(left: Any, right: Any) -> bool:
    if not left.buffer.same_as(right.buffer):
        return False
    return bool(tvm.ir.structural_equal(left.indices, right.indices))
