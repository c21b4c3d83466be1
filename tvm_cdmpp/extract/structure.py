"""The loop tree of a replayed schedule: which leaf sits under which loops, in pre-order.

A `Structure` is made once per distinct step structure of a task and kept; it holds no numbers.
Inlined stages are gone: their reads and operations are part of the stages that use them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract.stage import OpCounts, Read, StageSpec, TaskGraph, add_ops
from tvm_cdmpp.extract.steps import (
    SERIAL,
    THREADS,
    VTHREAD,
    Fuse,
    ReplayedStage,
    Split,
    StructureKey,
    replay,
)

Relation: TypeAlias = Split | Fuse


@dataclass(frozen=True)
class Loop:
    """One loop of the tree: iterator `iterator` of stage `stage`."""

    stage: int
    iterator: int
    annotation: int
    is_reduce: bool

    @property
    def is_thread(self) -> bool:
        """Whether the loop runs across the threads (or virtual threads) of a GPU block."""
        return self.annotation == VTHREAD or self.annotation in THREADS


@dataclass(frozen=True)
class ScheduledStage:
    """A stage that is computed (not inlined), with its reads flattened."""

    number: int
    spec: StageSpec
    relations: tuple[Relation, ...]
    num_iterators: int
    inherited: tuple[Loop, ...]
    """Loops of other stages around this one, outermost first."""
    own: tuple[Loop, ...]
    attached_to: int | None
    unroll_parameter: int | None
    """Parameter with the unroll limit of the update: the stage's own, or that of the loop nest
    it is attached in."""
    init_unroll_parameter: int | None
    """The same for the init leaf, which a pragma on a reduction loop does not reach."""

    @property
    def path(self) -> tuple[Loop, ...]:
        """All loops around the stage's update, outermost first."""
        return self.inherited + self.own


@dataclass(frozen=True)
class Leaf:
    """One store statement."""

    stage: int
    is_init: bool
    path: tuple[int, ...]
    """Positions in the stage's path of the loops around this leaf."""
    nodes: tuple[int, ...]
    """Numbers of these loops among the tree's nodes."""
    node: int
    """Number of the leaf itself among the tree's nodes, in pre-order."""
    ops: OpCounts


@dataclass(frozen=True)
class Structure:
    """A schedule without its numbers.

    `stages` are in an order in which every stage comes after the one it is attached to and after
    its consumers; `nodes` are the tree's loops (stage, iterator) and leaves (None) in pre-order.
    """

    stages: dict[int, ScheduledStage]
    consumers: dict[int, tuple[tuple[int, Read], ...]]
    leaves: tuple[Leaf, ...]
    nodes: tuple[tuple[int, int] | None, ...]
    specs: tuple[StageSpec, ...]


def build_structure(graph: TaskGraph, key: StructureKey) -> Structure:
    """Replay a structure key and lay out its loop tree.

    Raises
    ------
    RecordError
        If the steps do not fit the task.
    """
    replayed = replay(graph, key)
    flattened = _flatten_inlined(replayed)
    numbers = {id(stage): n for n, stage in enumerate(replayed)}
    scheduled: dict[int, ScheduledStage] = {}
    for number in range(len(replayed) - 1, -1, -1):
        stage = replayed[number]
        if stage.inlined or stage.spec.is_placeholder:
            continue
        scheduled[number] = _schedule(number, stage, flattened[number], numbers, scheduled)
    consumers: dict[int, list[tuple[int, Read]]] = {}
    for number, item in scheduled.items():
        for read in item.spec.reads:
            consumers.setdefault(read.stage, []).append((number, read))
    leaves, nodes = _TreeWalk(scheduled).walk()
    return Structure(
        scheduled,
        {number: tuple(items) for number, items in consumers.items()},
        tuple(leaves),
        tuple(nodes),
        tuple(stage.spec for stage in replayed),
    )


def _flatten_inlined(stages: list[ReplayedStage]) -> list[StageSpec]:
    """Replace reads of inlined stages by what those read; producers come first in the list."""
    flattened: list[StageSpec] = []
    for stage in stages:
        spec = stage.spec
        if any(stages[read.stage].inlined for read in spec.reads):
            ops = spec.ops
            reads: list[Read] = []
            for read in spec.reads:
                if not stages[read.stage].inlined:
                    reads.append(read)
                    continue
                producer = flattened[read.stage]
                ops = add_ops(ops, producer.ops)
                reads += [
                    Read(inner.stage, tuple(i.substitute(read.indices) for i in inner.indices))
                    for inner in producer.reads
                ]
            spec = replace(spec, reads=tuple(reads), ops=ops)
        flattened.append(replace(spec, reads=tuple(dict.fromkeys(spec.reads))))
    return flattened


def _schedule(
    number: int,
    stage: ReplayedStage,
    spec: StageSpec,
    numbers: dict[int, int],
    scheduled: dict[int, ScheduledStage],
) -> ScheduledStage:
    inherited: tuple[Loop, ...] = ()
    attached_to = None
    if stage.attached_to:
        attached_to = numbers[id(stage.attached_to[0])]
        path = scheduled[attached_to].path if attached_to in scheduled else ()
        at = (attached_to, stage.attached_to[1])
        depth = next((n for n, loop in enumerate(path) if (loop.stage, loop.iterator) == at), None)
        if depth is None:
            raise RecordError(
                f"The transform steps do not fit the task: stage '{spec.name}' is attached to a "
                "loop that does not exist. The record probably belongs to another workload."
            )
        inherited = path[: depth + 1]
    around = scheduled[attached_to].unroll_parameter if attached_to is not None else None
    unroll = stage.unroll[1] if stage.unroll else around
    on_reduction = stage.unroll is not None and stage.is_reduce[stage.unroll[0]]
    own = tuple(
        Loop(number, i, stage.annotations.get(i, SERIAL), stage.is_reduce[i])
        for i in stage.leaf_iterators
    )
    return ScheduledStage(
        number,
        spec,
        tuple(stage.relations),
        len(stage.is_reduce),
        inherited,
        own,
        attached_to,
        unroll,
        around if on_reduction else unroll,
    )


class _TreeWalk:
    """Emit loops and leaves in pre-order, as TVM nests attached stages."""

    def __init__(self, stages: dict[int, ScheduledStage]) -> None:
        self._stages = stages
        self._attached: dict[tuple[int, int], list[int]] = {}
        for number in sorted(stages):
            stage = stages[number]
            if stage.attached_to is not None:
                loop = stage.inherited[-1]
                self._attached.setdefault((loop.stage, loop.iterator), []).append(number)
        self._leaves: list[Leaf] = []
        self._nodes: list[tuple[int, int] | None] = []

    def walk(self) -> tuple[list[Leaf], list[tuple[int, int] | None]]:
        for number in sorted(self._stages):
            if self._stages[number].attached_to is None:
                self._emit(number, ())
        return self._leaves, self._nodes

    def _emit(self, number: int, enclosing: tuple[int, ...]) -> None:
        stage = self._stages[number]
        first_reduce = next((n for n, loop in enumerate(stage.own) if loop.is_reduce), None)
        if stage.spec.has_reduction and first_reduce is None:
            first_reduce = len(stage.own)
        nodes = list(enclosing)
        for position in range(len(stage.own) + 1):
            if position == first_reduce:
                self._emit_init(stage, position, nodes)
            if position < len(stage.own):
                loop = stage.own[position]
                nodes.append(self._add((number, loop.iterator)))
                for producer in self._attached.get((number, loop.iterator), ()):
                    self._emit(producer, tuple(nodes))
        ops = add_ops(stage.spec.ops, stage.spec.combine_ops)
        path = tuple(range(len(stage.path)))
        self._leaves.append(Leaf(number, False, path, tuple(nodes), self._add(None), ops))

    def _emit_init(self, stage: ScheduledStage, position: int, common: list[int]) -> None:
        """Emit the init leaf, just before the first reduction loop.

        It sits under its own copy of the spatial loops that follow.
        """
        nodes = list(common)
        depth = len(stage.inherited)
        path = list(range(depth + position))
        for offset in range(position, len(stage.own)):
            loop = stage.own[offset]
            if not loop.is_reduce:
                nodes.append(self._add((stage.number, loop.iterator)))
                path.append(depth + offset)
        no_ops = (0,) * len(stage.spec.ops)
        self._leaves.append(
            Leaf(stage.number, True, tuple(path), tuple(nodes), self._add(None), no_ops)
        )

    def _add(self, node: tuple[int, int] | None) -> int:
        self._nodes.append(node)
        return len(self._nodes) - 1
