"""Replay transform steps on an analysed DAG, symbolically.

Candidates of one search mostly differ in numbers (split factors, unroll limits), not in what the
steps do. `split_record_steps` separates the two: a hashable *structure key*, and a flat list of
parameters. `replay` turns a structure into a `Structure` once; `bounds` then evaluates it for the
parameters of any number of candidates at a time.

Step kinds and their fields are those of the Ansor log format v0.2 to v0.6 (transform_step.cc).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract.index import Index, axis_index
from tvm_cdmpp.extract.stage import NO_OPS, Read, StageSpec, TaskGraph, shift_reads

SERIAL, UNROLL, VECTORIZE, PARALLEL, VTHREAD = 0, 1, 2, 3, 4
BLOCKS = (5, 7, 9)
THREADS = (6, 8, 10)
"""Annotations by their number in the log: none, unroll, vectorize, parallel, vthread, then
blockIdx and threadIdx in turn for x, y and z."""

_NUM_ANNOTATIONS = 12
_TOO_LARGE = 2**31
_UNROLL_PRAGMA = "auto_unroll_max_step$"
StructureKey = tuple[Any, ...]


@dataclass(frozen=True)
class Split:
    """Split `parent` into `parts`, outer to inner.

    Each factor is a product of parameters; the inner parts get them when `inner_to_outer`, else
    the outer parts do.
    """

    parent: int
    parts: tuple[int, ...]
    factors: tuple[tuple[int, ...], ...]
    inner_to_outer: bool


@dataclass(frozen=True)
class Fuse:
    """Fuse `parents` (outer to inner) into one iterator."""

    parents: tuple[int, ...]
    fused: int


@dataclass
class ReplayedStage:
    """A stage while steps are applied. Iterators are numbered per stage, the axes first."""

    spec: StageSpec
    relations: list[Split | Fuse] = field(default_factory=list)
    leaf_iterators: list[int] = field(default_factory=list)
    is_reduce: list[bool] = field(default_factory=list)
    annotations: dict[int, int] = field(default_factory=dict)
    attached_to: tuple[ReplayedStage, int] | None = None
    inlined: bool = False
    unroll: tuple[int, int] | None = None
    """Iterator that carries the unroll pragma, and the parameter that holds its limit."""

    def __post_init__(self) -> None:
        self.reset(self.spec)

    def reset(self, spec: StageSpec) -> None:
        """Start again from the axes of `spec`, as TVM does when a step replaces the operation."""
        self.spec = spec
        self.relations = []
        self.leaf_iterators = list(range(len(spec.axis_extents)))
        self.is_reduce = [n >= spec.num_spatial for n in range(len(spec.axis_extents))]

    def new_iterator(self, is_reduce: bool) -> int:
        """Add an iterator and return its number."""
        self.is_reduce.append(is_reduce)
        return len(self.is_reduce) - 1


def split_record_steps(steps: Sequence[Sequence[Any]]) -> tuple[StructureKey, list[int]]:
    """Separate what steps do from their numbers.

    Parameters
    ----------
    steps
        The transform steps of one record, as decoded from JSON.

    Returns
    -------
    key
        Hashable description of the structure.
    parameters
        Split factors and unroll limits, in the order in which the key consumes them.

    Raises
    ------
    RecordError
        If a step is malformed or of an unknown kind.
    """
    key: list[Any] = []
    parameters: list[int] = []
    position = 0
    try:
        for position, step in enumerate(steps):
            kind = step[0]
            if kind == "SP":
                # The recorded extent may be stale; bounds are inferred instead.
                lengths = step[4]
                if 0 in lengths:
                    raise ValueError("a split factor is zero")
                key.append(("SP", step[1], step[2], len(lengths), step[5]))
                parameters += lengths
            elif kind == "PR" and step[3].startswith(_UNROLL_PRAGMA):
                key.append(("PR", step[1], step[2]))
                parameters.append(int(step[3][len(_UNROLL_PRAGMA) :]))
            elif kind == "RF":
                # The new stage's axes depend on the factor of the split just before.
                key.append(("RF", *step[1:], tuple(steps[position - 1][4])))
            elif kind in _HANDLERS and kind != "PR":
                key.append(tuple(tuple(x) if isinstance(x, list) else x for x in step))
            else:
                raise RecordError(
                    f"Transform step {position} is of unknown kind {step[:4]}; expected one of "
                    f"{', '.join(sorted(_HANDLERS))}."
                )
        if not all(type(n) is int and 0 <= n < _TOO_LARGE for n in parameters):
            raise ValueError(f"split factors must be positive integers, got {parameters}")
        structure_key = tuple(key)
        hash(structure_key)
    except (TypeError, LookupError, ValueError, AttributeError) as error:
        if isinstance(error, RecordError):
            raise
        at = str(steps[position])[:100] if isinstance(steps, list) and steps else steps
        raise RecordError(
            f"Malformed transform steps, near step {position} {at}: {error}."
        ) from error
    return structure_key, parameters


def replay(graph: TaskGraph, key: StructureKey) -> list[ReplayedStage]:
    """Apply the steps of a structure key to the stages of a task.

    Raises
    ------
    RecordError
        If the steps do not fit the task (an index out of range, an impossible step).
    """
    replayer = _Replayer(graph)
    for position, step in enumerate(key):
        replayer.position = position
        try:
            _HANDLERS[step[0]](replayer, step)
        except (LookupError, ValueError, TypeError) as error:
            if isinstance(error, RecordError):
                raise
            raise RecordError(
                f"Transform step {position} {step} does not fit the task with stages "
                f"{[stage.spec.name for stage in replayer.stages]}: {error}. "
                "The record probably belongs to another workload."
            ) from error
    return replayer.stages


class _Replayer:
    """The stage list under replay, one method per step kind."""

    def __init__(self, graph: TaskGraph) -> None:
        self.stages = [ReplayedStage(spec) for spec in graph.stages]
        self._splits: dict[int, tuple[tuple[int, ...], ...]] = {}
        self._num_parameters = 0
        self.position = 0

    def _take(self, count: int) -> tuple[tuple[int, ...], ...]:
        first = self._num_parameters
        self._num_parameters += count
        return tuple((n,) for n in range(first, first + count))

    def _stage(self, number: int) -> ReplayedStage:
        if not 0 <= number < len(self.stages):
            raise IndexError(f"stage {number} of {len(self.stages)}")
        return self.stages[number]

    def split(self, step: tuple[Any, ...]) -> None:
        factors = self._take(step[3])
        self._splits[self.position] = factors
        self._apply_split(step[1], step[2], factors, bool(step[4]))

    def follow_split(self, step: tuple[Any, ...]) -> None:
        _, stage, iterator, source, parts = step
        lengths = self._source(source)
        if not 1 <= parts <= len(lengths) + 1:
            raise ValueError(f"{parts} parts from a split with {len(lengths)} factors")
        last = tuple(n for factor in lengths[parts - 1 :] for n in factor)
        self._apply_split(stage, iterator, (*lengths[: parts - 1], last), True)

    def follow_fused_split(self, step: tuple[Any, ...]) -> None:
        _, stage, iterator, sources, level, is_factor = step
        factor = tuple(n for source in sources for n in self._source(source)[level])
        self._apply_split(stage, iterator, (factor,), bool(is_factor))

    def _source(self, step_number: int) -> tuple[tuple[int, ...], ...]:
        if step_number not in self._splits:
            raise ValueError(f"step {step_number} is not a split")
        return self._splits[step_number]

    def _apply_split(
        self,
        number: int,
        position: int,
        factors: tuple[tuple[int, ...], ...],
        inner_to_outer: bool,
    ) -> None:
        stage = self._stage(number)
        parent = _at(stage.leaf_iterators, position)
        parts = tuple(stage.new_iterator(stage.is_reduce[parent]) for _ in range(len(factors) + 1))
        stage.relations.append(Split(parent, parts, factors, inner_to_outer))
        stage.leaf_iterators[position : position + 1] = parts
        self._move_attached(stage, (parent,), parts[-1])

    def _move_attached(self, target: ReplayedStage, old: tuple[int, ...], new: int) -> None:
        for stage in self.stages:
            attached = stage.attached_to
            if attached and attached[0] is target and attached[1] in old:
                stage.attached_to = (target, new)

    def fuse(self, step: tuple[Any, ...]) -> None:
        stage = self._stage(step[1])
        positions = step[2]
        if len(positions) == 0:
            fused = stage.new_iterator(False)
            stage.relations.append(Fuse((), fused))
            stage.leaf_iterators.append(fused)
            return
        parents = tuple(_at(stage.leaf_iterators, p) for p in positions)
        if list(positions) != list(range(positions[0], positions[-1] + 1)):
            raise ValueError(f"iterators {positions} are not adjacent")
        fused = stage.new_iterator(any(stage.is_reduce[p] for p in parents))
        stage.relations.append(Fuse(parents, fused))
        stage.leaf_iterators[positions[0] : positions[-1] + 1] = [fused]
        self._move_attached(stage, parents, fused)

    def reorder(self, step: tuple[Any, ...]) -> None:
        stage = self._stage(step[1])
        order = step[2]
        if sorted(order) != list(range(len(stage.leaf_iterators))):
            raise ValueError(f"not a permutation of {len(stage.leaf_iterators)} iterators")
        stage.leaf_iterators = [stage.leaf_iterators[p] for p in order]

    def annotate(self, step: tuple[Any, ...]) -> None:
        stage = self._stage(step[1])
        if step[3] not in range(_NUM_ANNOTATIONS):
            raise ValueError(f"annotation {step[3]} of {_NUM_ANNOTATIONS}")
        stage.annotations[_at(stage.leaf_iterators, step[2])] = step[3]

    def pragma(self, step: tuple[Any, ...]) -> None:
        ((parameter,),) = self._take(1)
        stage = self._stage(step[1])
        # TVM ignores the pragma on an iterator that does not exist (a stage without loops).
        if step[2] < len(stage.leaf_iterators):
            stage.unroll = (stage.leaf_iterators[step[2]], parameter)

    def compute_at(self, step: tuple[Any, ...]) -> None:
        target = self._stage(step[2])
        self._stage(step[1]).attached_to = (target, _at(target.leaf_iterators, step[3]))

    def compute_inline(self, step: tuple[Any, ...]) -> None:
        stage = self._stage(step[1])
        if stage.spec.has_reduction or stage.spec.is_placeholder:
            raise ValueError(f"stage '{stage.spec.name}' cannot be inlined")
        stage.inlined, stage.attached_to = True, None

    def compute_root(self, step: tuple[Any, ...]) -> None:
        stage = self._stage(step[1])
        stage.inlined, stage.attached_to = False, None

    def storage_align(self, step: tuple[Any, ...]) -> None:
        self._stage(step[1])

    def cache_read(self, step: tuple[Any, ...]) -> None:
        _, number, scope, readers = step
        source = self._stage(number).spec
        readers = [self._stage(reader) for reader in readers]
        copy = _copy_of(source, number, f"{source.name}.{scope}", scope)
        self._insert(number + 1, ReplayedStage(copy), first_renumbered=number + 1)
        for reader in readers:
            reads = tuple(
                replace(r, stage=number + 1) if r.stage == number else r for r in reader.spec.reads
            )
            reader.spec = replace(reader.spec, reads=reads)

    def cache_write(self, step: tuple[Any, ...]) -> None:
        _, number, scope = step
        target = self._stage(number)
        spec = target.spec
        cached = replace(spec, name=f"{spec.name}.{scope}", scope=scope, is_output=False)
        copy = _copy_of(spec, number, spec.name, spec.scope)
        target.reset(replace(copy, is_output=spec.is_output))
        self._insert(number, ReplayedStage(cached), first_renumbered=number, keep=target)

    def rfactor(self, step: tuple[Any, ...]) -> None:
        _, number, position, factor_position, lengths = step
        target = self._stage(number)
        factor = _at(target.leaf_iterators, position)
        factored, final = _rfactor_specs(target, number, factor, factor_position, lengths)
        target.reset(final)
        self._insert(number, ReplayedStage(factored), first_renumbered=number, keep=target)

    def _insert(
        self,
        number: int,
        stage: ReplayedStage,
        first_renumbered: int,
        keep: ReplayedStage | None = None,
    ) -> None:
        for other in self.stages:
            if other is not keep:
                other.spec = shift_reads(other.spec, first_renumbered)
        self.stages.insert(number, stage)


def _at(iterators: Sequence[int], position: int) -> int:
    if not 0 <= position < len(iterators):
        raise IndexError(f"iterator {position} of {len(iterators)}")
    return iterators[position]


def _copy_of(source: StageSpec, number: int, name: str, scope: str) -> StageSpec:
    """Return a stage that copies stage `number` element by element."""
    identity = tuple(axis_index(n) for n in range(len(source.shape)))
    return StageSpec(
        name,
        source.shape,
        source.element_bytes,
        len(source.shape),
        source.shape,
        (Read(number, identity),),
        scope=scope,
    )


def _rfactor_specs(
    stage: ReplayedStage, number: int, factor: int, position: int, lengths: tuple[int, ...]
) -> tuple[StageSpec, StageSpec]:
    """Return the specs of the factored stage and of the final reduction over the factor axis.

    The factored stage keeps the reduction iterators that do not stem from the split, then the
    split's other parts, and gets the factor as a spatial axis (schedule_dataflow_rewrite.cc).
    """
    spec = stage.spec
    split = next(
        (r for r in reversed(stage.relations) if isinstance(r, Split) and factor in r.parts), None
    )
    if split is None:
        raise ValueError("rfactor needs a split of the reduction just before")
    fuse = next(
        (r for r in stage.relations if isinstance(r, Fuse) and r.fused == split.parent), None
    )
    touched = fuse.parents if fuse else (split.parent,)
    if any(not spec.num_spatial <= axis < len(spec.axis_extents) for axis in touched):
        raise ValueError("rfactor after a nested split is not supported")
    untouched = [
        axis for axis in range(spec.num_spatial, len(spec.axis_extents)) if axis not in touched
    ]
    parent_extent = 1
    for axis in touched:
        parent_extent *= spec.axis_extents[axis]
    part_extents = dict(
        zip(split.parts, _part_extents(parent_extent, lengths, split.inner_to_outer), strict=True)
    )
    others = [part for part in split.parts if part != factor]
    position = position if position >= 0 else spec.num_spatial + 1 + position
    spatial = list(range(spec.num_spatial))
    spatial.insert(position, -1)
    new_axis = {("part", factor): position}
    new_axis |= {("axis", axis): n for n, axis in enumerate(spatial) if axis >= 0}
    new_axis |= {("axis", axis): len(spatial) + n for n, axis in enumerate(untouched)}
    first_other = len(spatial) + len(untouched)
    new_axis |= {("part", part): first_other + n for n, part in enumerate(others)}

    # The old reduction axes in terms of the parts: undo the split, then the fusion.
    fused, stride = Index(), 1
    for part in reversed(split.parts):
        fused = fused + axis_index(new_axis["part", part]).scaled(stride)
        stride *= part_extents[part]
    values: dict[int, Index] = {}
    for n, axis in enumerate(reversed(touched)):
        outermost = n == len(touched) - 1
        extent = spec.axis_extents[axis]
        values[axis] = fused if outermost else fused.floormod(extent)
        fused = fused.floordiv(extent)
    mapping = [
        values[axis] if axis in values else axis_index(new_axis["axis", axis])
        for axis in range(len(spec.axis_extents))
    ]
    reads = tuple(
        Read(r.stage, tuple(index.substitute(mapping) for index in r.indices)) for r in spec.reads
    )
    factor_extent = part_extents[factor]
    shape = tuple(factor_extent if axis < 0 else spec.axis_extents[axis] for axis in spatial)
    extents = (
        *shape,
        *(spec.axis_extents[axis] for axis in untouched),
        *(part_extents[part] for part in others),
    )
    factored = replace(
        spec,
        name=f"{spec.name}.rf",
        shape=shape,
        num_spatial=len(shape),
        axis_extents=extents,
        reads=reads,
        is_output=False,
    )
    final_indices = [axis_index(n) for n in range(spec.num_spatial)]
    final_indices.insert(position, axis_index(spec.num_spatial))
    final = replace(
        spec,
        axis_extents=(*spec.axis_extents[: spec.num_spatial], factor_extent),
        reads=(Read(number, tuple(final_indices)),),
        ops=NO_OPS,
    )
    return factored, final


def _part_extents(extent: int, lengths: Sequence[int], inner_to_outer: bool) -> list[int]:
    """Extents of the parts of a split, outer to inner; factors are kept as they are."""
    parts: list[int] = []
    for length in reversed(lengths) if inner_to_outer else lengths:
        parts.append(length)
        extent = -(-extent // length)
    parts.append(extent)
    return parts[::-1] if inner_to_outer else parts


_HANDLERS: dict[str, Any] = {
    "SP": _Replayer.split,
    "FSP": _Replayer.follow_split,
    "FFSP": _Replayer.follow_fused_split,
    "RE": _Replayer.reorder,
    "FU": _Replayer.fuse,
    "AN": _Replayer.annotate,
    "PR": _Replayer.pragma,
    "CA": _Replayer.compute_at,
    "CI": _Replayer.compute_inline,
    "CR": _Replayer.compute_root,
    "CHR": _Replayer.cache_read,
    "CHW": _Replayer.cache_write,
    "RF": _Replayer.rfactor,
    "SA": _Replayer.storage_align,
}
