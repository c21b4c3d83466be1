"""The slow, exact path: lower a state with TVM and read its leaves from the PrimFunc.

It is the oracle for the arithmetic fast path, and it serves programs that are not states.

- The lowering is the one of Ansor's own feature extraction: apply the steps, infer bounds, build
  the statement, simplify. Buffers are still multi-dimensional, nothing is vectorised or unrolled.
  But constants are read in the layout in which the program is measured.
- A leaf is a store; its loops are what encloses it, without those that run once. A GPU thread
  axis counts as a loop. Where one thread axis is bound a second time inside itself (cooperative
  fetching) the inner one is the same hardware index, so it adds no loop.
- Guards (`if likely(index < extent)`) are no leaves, cost no operations and narrow no cover.
- Indices are evaluated as `constant + sum(coefficient * loop) + bounds of the non-affine rest`,
  for all loop levels at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvm_cdmpp.ast import SCOPES, Access, Leaf, Loop
from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.errors import LoweringError
from tvm_cdmpp.extract.extents import assumed_extent
from tvm_cdmpp.extract.operations import OperationCounter, element_bytes
from tvm_cdmpp.extract.tir_index import Binding, IndexEvaluator, LinearIndex, memory_steps

tvm = load_tvm()
tir = tvm.tir

_LOOP_KINDS = {
    int(tir.ForKind.SERIAL): "serial",
    int(tir.ForKind.PARALLEL): "parallel",
    int(tir.ForKind.VECTORIZED): "vectorized",
    int(tir.ForKind.UNROLLED): "unrolled",
}
_UNROLL_PRAGMA = "pragma_auto_unroll_max_step"


def extract_exact(task: Any, state: Any) -> list[Leaf]:
    """Lower one state and return its leaves in pre-order.

    Raises
    ------
    LoweringError
        If TVM refuses the state, or the program is of a kind that cannot be read.
    """
    return leaves_of(lower(task, state), int(task.hardware_params.num_cores))


def lower(task: Any, state: Any) -> Any:
    """Lower one state to the program that is measured, before storage flattening.

    Parameters
    ----------
    task
        The search task.
    state
        A complete `State` or `StateObject` of the task.

    Returns
    -------
    primfunc
        A `tvm.tir.PrimFunc`. Where the task asks for it, layout-free constants are stored in the
        order in which they are read, or copied into that order first.

    Raises
    ------
    LoweringError
        If TVM refuses the state.
    """
    schedule_to_module = tvm.get_global_func("driver.schedule_to_module")
    try:
        schedule, tensors = task.compute_dag.apply_steps_from_state(
            state, layout_rewrite=task.layout_rewrite_option
        )
        module = schedule_to_module(schedule, tensors, "main", None)
        return tir.transform.Simplify()(module)["main"]
    except tvm.TVMError as error:
        reason = str(error).strip().splitlines()[-1]
        raise LoweringError(
            f"A state of task {task.workload_key} must lower to a tensor program; TVM says: "
            f"{reason}. Skip this state."
        ) from error


def leaves_of(primfunc: Any, cores: int) -> list[Leaf]:
    """Return the leaves of a lowered program in pre-order.

    Parameters
    ----------
    primfunc
        The program.
    cores
        That parallel loops are shared out among; where there are none, not positive.

    Raises
    ------
    LoweringError
        If the program holds a statement or an index that cannot be read.
    """
    walker = _Walker({buffer.data for buffer in primfunc.buffer_map.values()}, cores)
    walker.visit(primfunc.body)
    return _finish(walker.stores)


@dataclass(frozen=True, eq=False)
class _Loop:
    """A loop on the walker's stack; equal only to itself."""

    extent: int
    kind: str


@dataclass(frozen=True)
class _Storage:
    """How a buffer is allocated."""

    shape: tuple[int, ...]
    scope: str
    is_inside: bool


@dataclass(frozen=True, eq=False)
class _Store:
    """A leaf before it is compared with the others."""

    leaf: Leaf
    buffer: Any
    loops: tuple[_Loop, ...]
    indexed_loops: frozenset[int]
    reads_itself: bool


def _finish(stores: Sequence[_Store]) -> list[Leaf]:
    """Fill in numbers of buffers and nests, and tell initial values from updates.

    A leaf accumulates over a loop whose variable is in no index of the store, unless the loop
    encloses the store of the initial value as well.
    """
    leaves: list[Leaf] = []
    buffers: dict[Any, int] = {}
    nest, previous = -1, None
    for store in stores:
        outermost = store.loops[0] if store.loops else None
        if outermost is None or outermost is not previous:
            nest += 1
        previous = outermost
        others = [s for s in stores if s.buffer.same_as(store.buffer) and s is not store]
        outside = {loop for s in others if not s.reads_itself for loop in s.loops}
        loops = tuple(
            Loop(
                loop.extent,
                loop.kind,
                store.reads_itself and number not in store.indexed_loops and loop not in outside,
            )
            for number, loop in enumerate(store.loops)
        )
        leaves.append(
            replace(
                store.leaf,
                buffer=buffers.setdefault(store.buffer, len(buffers)),
                nest=nest,
                is_init=not store.reads_itself and any(s.reads_itself for s in others),
                loops=loops,
            )
        )
    return leaves


class _Walker:
    """Walks statements in pre-order and keeps what encloses them."""

    def __init__(self, parameters: Set[Any], cores: int) -> None:
        self.stores: list[_Store] = []
        self._cores = cores
        self._parameters = parameters
        self._loops: list[_Loop] = []
        self._bindings: dict[Any, Binding] = {}
        self._threads: dict[str, tuple[int, Binding]] = {}
        self._storage: dict[Any, _Storage] = {}
        self._default_scope = SCOPES[0]
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
            tir.Allocate: self._visit_allocate,
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
        assumed = assumed_extent(stmt.extent, stmt.loop_var, [stmt.body])
        extent = stmt.extent if assumed is None else tir.IntImm("int32", assumed)
        with self._loop(stmt.loop_var, stmt.min, extent, _LOOP_KINDS[int(stmt.kind)]):
            self.visit(stmt.body)

    def _visit_realize(self, stmt: Any) -> None:
        if stmt.buffer.data not in self._parameters:  # what the caller gives is not allocated
            self._allocate(stmt.buffer.data, [region.extent for region in stmt.bounds])
        self.visit(stmt.body)

    def _visit_allocate(self, stmt: Any) -> None:
        self._allocate(stmt.buffer_var, stmt.extents)
        self.visit(stmt.body)

    def _allocate(self, data: Any, shape: Sequence[Any]) -> None:
        scope = str(data.type_annotation.storage_scope)
        if not scope:
            scope = self._default_scope
        elif scope not in SCOPES:
            scope = "shared"  # a warp's memory and the like
        extents = tuple(self._maximum(extent) for extent in shape)
        self._storage[data] = _Storage(extents, scope, bool(self._loops))

    def _visit_attribute(self, stmt: Any) -> None:
        if stmt.attr_key == "virtual_thread":
            with self._scope("local"), self._loop(stmt.node.var, None, stmt.value, "vthread"):
                self.visit(stmt.body)
        elif stmt.attr_key == "thread_extent":
            is_block = str(stmt.node.thread_tag).startswith("blockIdx")
            scope = "shared" if is_block else "local"
            with self._scope(scope), self._thread(stmt.node, stmt.value):
                self.visit(stmt.body)
        elif stmt.attr_key == _UNROLL_PRAGMA:
            outer, self._unroll = self._unroll, int(stmt.value)
            self.visit(stmt.body)
            self._unroll = outer
        else:
            self.visit(stmt.body)

    @contextmanager
    def _scope(self, scope: str) -> Iterator[None]:
        """Enter a GPU axis: what is allocated inside is at least as private as `scope`.

        Axes of one iteration count too, since TVM infers scopes before it drops any loop.
        """
        outer = self._default_scope
        self._default_scope = max(outer, scope, key=SCOPES.index)
        yield
        self._default_scope = outer

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
        if extent < 1:
            raise LoweringError(
                f"Every loop must run at least once; that over '{var.name}' has the extent "
                f"{extent}. A program that computes nothing cannot be scored."
            )
        if extent == 1:
            self._bindings[var] = Binding(None, start)
            yield
            return
        self._bindings[var] = Binding(len(self._loops), start)
        self._loops.append(_Loop(extent, kind))
        self._num_nodes += 1
        yield
        self._loops.pop()

    def _evaluator(self) -> IndexEvaluator:
        return IndexEvaluator([loop.extent for loop in self._loops], self._bindings, self._shared())

    def _shared(self) -> tuple[int, int] | None:
        """Return the loop that is shared out among cores, and the iterations of one core."""
        for number, loop in enumerate(self._loops):
            if loop.kind == "parallel":
                return number, -(-loop.extent // self._cores) if self._cores > 0 else 1
        return None

    def _maximum(self, expr: Any) -> int:
        """Return the largest value of an extent over the enclosing loops."""
        if isinstance(expr, tir.IntImm):
            return int(expr.value)
        return self._evaluator().maximum(expr)

    def _visit_store(self, stmt: Any) -> None:
        self._num_nodes += 1
        counter = OperationCounter()
        counter.visit(stmt.value)
        distinct = [stmt]
        for read in counter.reads:
            # An update's read of its own element is left out, as it equals the store.
            if not any(_same_access(read, other) for other in distinct):
                distinct.append(read)
        evaluator = self._evaluator()
        indices = [[evaluator(index) for index in access.indices] for access in distinct]
        leaf = Leaf(
            name=str(stmt.buffer.name),
            buffer=0,
            nest=0,
            is_init=False,
            position=2 * self._num_nodes - (len(self._loops) + 1),
            unroll_limit=self._unroll,
            compute_bytes=counter.compute_bytes,
            ops=counter.counts,
            loops=(),
            accesses=tuple(
                self._access(access.buffer, own)
                for access, own in zip(distinct, indices, strict=True)
            ),
        )
        indexed = frozenset[int]().union(*(index.loops for index in indices[0]))
        reads_itself = any(read.buffer.same_as(stmt.buffer) for read in counter.reads)
        self.stores.append(_Store(leaf, stmt.buffer, tuple(self._loops), indexed, reads_itself))

    def _access(self, buffer: Any, indices: Sequence[LinearIndex]) -> Access:
        storage = self._storage.get(buffer.data)
        if storage is None:  # a parameter
            shape = tuple(self._maximum(extent) for extent in buffer.shape)
            storage = _Storage(shape, "global", False)
        spans = [np.minimum(i.spans(), n) for i, n in zip(indices, storage.shape, strict=True)]
        return Access(
            element_bytes=element_bytes(buffer.dtype),
            scope=storage.scope,
            is_inside=storage.is_inside,
            shape=storage.shape,
            cover=tuple(tuple(span.tolist()) for span in spans),
            steps=memory_steps(indices, storage.shape, len(self._loops)),
            share=tuple(
                tuple(np.minimum(index.shares(), extent).tolist())
                for index, extent in zip(indices, storage.shape, strict=True)
            ),
        )


def _same_access(left: Any, right: Any) -> bool:
    if not left.buffer.same_as(right.buffer):
        return False
    return bool(tvm.ir.structural_equal(left.indices, right.indices))
