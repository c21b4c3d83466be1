"""Programs as skeletons and numbers: nothing is lost, and nothing is told apart that is alike."""

import numpy as np
import orjson
import pytest

from tests.search.evolve.spaces import TASKS, space, states, task
from tvm_cdmpp.extract import dump_records
from tvm_cdmpp.search.evolve.programs import Programs, Skeletons


@pytest.mark.parametrize("name", TASKS)
def test_steps_come_back(name: str) -> None:
    made, programs = space(name)
    lines = dump_records(task(name), states(name)).splitlines()
    assert made.steps(programs) == [orjson.loads(line)["i"][1][1] for line in lines]


SPLIT = ["SP", 1, 0, 64, [4, 8], 1]
UNROLL = ["PR", 1, 0, "auto_unroll_max_step$16"]


def test_programs_with_other_numbers_have_one_skeleton() -> None:
    skeletons = Skeletons()
    first = skeletons.add([SPLIT, UNROLL])
    other = skeletons.add([["SP", 1, 0, 64, [2, 2], 1], ["PR", 1, 0, "auto_unroll_max_step$0"]])
    assert first == (0, [64, 4, 8, 16])
    assert other == (0, [64, 2, 2, 0])
    assert skeletons.steps_of(0, [64, 2, 2, 0])[0] == ["SP", 1, 0, 64, [2, 2], 1]


@pytest.mark.parametrize(
    ("steps", "same_family"),
    [
        ([SPLIT, ["AN", 1, 0, 3], UNROLL], True),
        ([SPLIT, ["CA", 1, 2, 0], UNROLL], True),
        ([SPLIT, ["FU", 1, [0, 1]], ["AN", 1, 0, 3], UNROLL], True),
        ([["SP", 1, 1, 64, [4, 8], 1], UNROLL], False),
        ([["SP", 1, 0, 64, [4], 1], UNROLL], False),
        ([["AN", 1, 0, 3], SPLIT, UNROLL], False),
        ([SPLIT], False),
    ],
)
def test_families(steps: list[list[object]], same_family: bool) -> None:
    skeletons = Skeletons()
    first, _ = skeletons.add([SPLIT, UNROLL])
    other, _ = skeletons.add(steps)
    assert other != first
    assert (skeletons.family[first] == skeletons.family[other]) == same_family


def test_keys_tell_programs_apart() -> None:
    numbers = np.array([[64, 4, 8, 16], [64, 8, 4, 16], [64, 4, 8, 16], [64, 4, 8, 16]])
    keys = Programs(np.array([0, 0, 1, 0]), numbers).keys().tolist()
    assert len(set(keys)) == 3
    assert keys[0] == keys[3]
    wide = Programs.join(
        [Programs(np.array([0]), numbers[:1, :2]), Programs(np.array([0]), numbers[:1])]
    )
    assert wide.numbers.tolist() == [[64, 4, 0, 0], [64, 4, 8, 16]]
