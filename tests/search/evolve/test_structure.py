"""Neighbouring skeletons: other places, parallel loops and vectors, all of which TVM accepts."""

import numpy as np
import pytest

from tests.search.evolve.spaces import space
from tvm_cdmpp.extract import StageLoops
from tvm_cdmpp.search.evolve.structure import has_nested_parallel


@pytest.mark.parametrize("name", ["conv2d", "pool", "softmax", "attention"])
def test_tvm_accepts_all_neighbours(name: str) -> None:
    made, programs = space(name)
    kinds = set()
    for place in range(0, len(programs), 6):
        program = programs.take([place])
        found = made.neighbours(int(program.skeletons[0]))
        for skeleton in found:
            other = program.take([0])
            other.skeletons[:] = skeleton
            assert made.states(other)[0] is not None
            pairs = zip(made.steps(program)[0], made.steps(other)[0], strict=False)
            kinds.add(next(a[0] for a, b in pairs if a != b))
        assert len(set(found)) == len(found)
    assert "CA" in kinds or name == "softmax"
    assert "FU" in kinds


def test_a_gpu_has_none() -> None:
    made, programs = space("matmul")
    assert made.neighbours(int(programs.skeletons[0])) == []


def test_only_those_known_are_returned_when_asked_not_to_look() -> None:
    made, programs = space("conv2d")
    skeletons = np.unique(programs.skeletons).tolist()
    assert made.neighbours(skeletons[0], look=False) == []
    found = made.neighbours(skeletons[0])
    assert found == made.neighbours(skeletons[0], look=False)


def stage(kinds: list[str], attached: tuple[int, int] | None = None) -> StageLoops:
    return StageLoops(True, len(kinds), -1, attached, tuple((False, kind) for kind in kinds))


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([stage(["parallel"]), stage(["parallel", "serial"])], False),
        ([stage(["parallel"], (1, 0)), stage(["serial", "parallel"])], True),
        ([stage(["parallel"], (1, 0)), stage(["serial"], (2, 0)), stage(["parallel"])], True),
        ([stage(["parallel"], (1, 0)), stage(["serial"])], False),
    ],
)
def test_nested_parallel_loops(stages: list[StageLoops], expected: bool) -> None:
    assert has_nested_parallel(stages) == expected
