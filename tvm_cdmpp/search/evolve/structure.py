"""Programs that differ in where a stage is computed, or in what is parallel or a vector.

The rules are those of TVM's evolution on CPUs (`MutateComputeLocation`, `MutateParallel` in
sketch_policy_rules.cc), except that each place is looked up at the moment when the step is applied,
where TVM takes it from the finished program; and vectors may get shorter, which TVM only samples.
On GPUs it changes none of these, and nothing here does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

import orjson

from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract import StageLoops, StepExtractor
from tvm_cdmpp.search.evolve.programs import Step

# Ansor's numbers of annotations.
_VECTOR, _PARALLEL = 2, 3


def neighbours(steps: Sequence[Step], extractor: StepExtractor) -> list[list[Step]]:
    """Return the programs that differ from a program for a CPU in one such step.

    Parameters
    ----------
    steps
        Of the program, numbers included; none of its numbers changes.
    extractor
        Of the task.
    """
    found = []
    for at, step in enumerate(steps):
        if step[0] == "CA":
            others = _other_places(steps, at, extractor)
        elif step[0] == "AN" and step[3] == _PARALLEL and step[2] == 0:
            others = _other_parallel(steps, at, extractor)
        elif step[0] == "AN" and step[3] == _VECTOR:
            others = _shorter_vectors(steps, at)
        else:
            continue
        found += [other for other in others if _is_valid(other, extractor)]
    return found


def _is_valid(steps: Sequence[Step], extractor: StepExtractor) -> bool:
    try:
        return not has_nested_parallel(_loops(steps, extractor))
    except RecordError:
        return False


def has_nested_parallel(stages: Sequence[StageLoops]) -> bool:
    """Tell whether a parallel loop is within another, which TVM cannot compile."""
    within: dict[int | None, list[int]] = {}
    for number, stage in enumerate(stages):
        if stage.has_loops:
            within.setdefault(stage.attached[0] if stage.attached else None, []).append(number)

    def depth(number: int) -> int:
        own = sum(kind == "parallel" for _, kind in stages[number].loops)
        return own + sum(map(depth, within.get(number, ())))

    return any(depth(root) > 1 for root in within.get(None, ()))


def _loops(steps: Sequence[Step], extractor: StepExtractor) -> list[StageLoops]:
    return extractor.loops(orjson.dumps(list(steps)))


def _other_places(steps: Sequence[Step], at: int, extractor: StepExtractor) -> Iterator[list[Step]]:
    """Compute a stage that is not tiled somewhere else in the loops of those that read it."""
    stages = _loops(steps[:at], extractor)
    _, number, *now = steps[at]
    if len(stages[number].loops) != stages[number].num_axes:
        return
    for place in _places(stages, number):
        if list(place) != now:
            yield [*steps[:at], ["CA", number, *place], *steps[at + 1 :]]


def _places(stages: Sequence[StageLoops], number: int) -> Iterator[tuple[int, int]]:
    target = stages[number].consumer
    if target < 0 or not stages[target].has_loops:
        return
    occupied = {s.attached for n, s in enumerate(stages) if n != number and s.has_loops}
    is_tiled = len(stages[target].loops) != stages[target].num_axes
    in_reduction = False
    for at, (reduces, kind) in enumerate(stages[target].loops):
        if (reduces and not is_tiled) or (in_reduction and not reduces) or kind == "unrolled":
            break
        in_reduction = in_reduction or reduces
        yield target, at
        if (target, at) in occupied:
            break
    if outer := stages[target].attached:
        for at, (reduces, kind) in enumerate(stages[outer[0]].loops):
            if reduces or kind == "unrolled" or (outer[0], at) in occupied:
                break
            yield outer[0], at


def _other_parallel(
    steps: Sequence[Step], at: int, extractor: StepExtractor
) -> Iterator[list[Step]]:
    """Fuse fewer or more of a stage's outermost loops into the parallel one."""
    number = steps[at][1]
    if at == 0 or steps[at - 1][:2] != ["FU", number] or steps[at - 1][2][:1] != [0]:
        return
    fused = len(steps[at - 1][2])
    stages = _loops(steps[: at - 1], extractor)
    attached = {s.attached[1] for s in stages if s.attached and s.attached[0] == number}
    free = sum(1 for _ in takewhile(lambda loop: loop == (False, "serial"), stages[number].loops))
    most = min(free, 1 + min(attached, default=free))
    for wanted in range(1, most + 1):
        later = [_shifted(step, number, fused - wanted) for step in steps[at + 1 :]]
        if wanted != fused and None not in later:
            fuse = ["FU", number, list(range(wanted))]
            yield [*steps[: at - 1], fuse, steps[at], *(step for step in later if step)]


def _shifted(step: Step, number: int, offset: int) -> Step | None:
    """Let a later step point to the same loops; None if it cannot."""
    if step[0] == "CA" and step[2] == number:
        return None
    if step[1] != number:
        return step
    if step[0] in ("AN", "PR"):
        place = step[2] + offset if step[2] else 0
        return [*step[:2], place, *step[3:]] if place > 0 or not step[2] else None
    if step[0] == "FU" and step[2] and step[2][0] + offset > 0:
        return [*step[:2], [place + offset for place in step[2]]]
    return None


def _shorter_vectors(steps: Sequence[Step], at: int) -> Iterator[list[Step]]:
    """Fuse fewer loops into the innermost one, which becomes a vector."""
    number, place = steps[at][1:3]
    if at == 0 or steps[at - 1][:2] != ["FU", number] or steps[at - 1][2][:1] != [place]:
        return
    if any(step[1] == number for step in steps[at + 1 :]):
        return
    fused = steps[at - 1][2]
    for fewer in range(1, len(fused)):
        offset = len(fused) - fewer
        vector = ["AN", number, place + offset, _VECTOR]
        fuse = [["FU", number, fused[offset:]]] if fewer > 1 else []
        yield [*steps[: at - 1], *fuse, vector, *steps[at + 1 :]]
