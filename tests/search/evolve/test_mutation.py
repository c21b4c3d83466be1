"""Mutated numbers stay what TVM's own mutation makes: factors move, nothing else."""

import numpy as np
import pytest

from tvm_cdmpp.search.evolve.mutation import MAX_INNERMOST, NumberMutation, divisors, lengths_of
from tvm_cdmpp.search.evolve.programs import Ints, Skeletons

LIMITS = (0, 16, 64, 512)


def mutation_of(
    extents: list[int], parts: list[int], stages: list[int], seed: int = 0
) -> tuple[NumberMutation, Ints, Skeletons]:
    steps = [
        ["SP", stage, n, extent, [1] * count, 1]
        for n, (extent, count, stage) in enumerate(zip(extents, parts, stages, strict=True))
    ]
    skeletons = Skeletons()
    _, numbers = skeletons.add([*steps, ["PR", 1, 0, "auto_unroll_max_step$0"]])
    mutation = NumberMutation(skeletons.families[0], LIMITS, np.random.default_rng(seed))
    return mutation, np.array([numbers] * 256), skeletons


@pytest.mark.parametrize(
    ("extents", "parts"),
    [
        ([12], [1]),
        ([0, 1, 360], [3, 2, 2]),
        ([64, 64, 7], [3, 3, 1]),
        ([1500, 2, 509], [3, 1, 2]),
        ([0, 1], [2, 2]),
    ],
)
def test_factors_move_within_one_split(extents: list[int], parts: list[int]) -> None:
    mutation, numbers, skeletons = mutation_of(extents, parts, [1] * len(extents))
    splits = skeletons.families[0].splits
    for _ in range(5):
        before = numbers.copy()
        moved = mutation.move_factors(numbers)
        changed = np.zeros(len(numbers), int)
        for split, extent in zip(splits, extents, strict=True):
            columns = slice(split.first, split.first + split.parts + 1)
            changed += (numbers[:, columns] != before[:, columns]).any(axis=1)
            assert (numbers[:, split.first] == extent).all()
            inner = numbers[:, split.first + 1 : split.first + 1 + split.parts].prod(axis=1)
            assert (extent % inner == 0).all()
            assert (numbers[:, split.first + split.parts] <= MAX_INNERMOST).all()
        # A factor may go back to the loop that is left over, which is no number, from one that is.
        assert (changed == moved).all()
    assert (len(np.unique(numbers, axis=0)) > 1) == (max(extents) > 1)


def test_every_tiling_is_reached() -> None:
    mutation, numbers, _ = mutation_of([12], [2], [1])
    seen = set()
    for _ in range(60):
        mutation.move_factors(numbers)
        seen |= {tuple(row[1:3]) for row in numbers.tolist()}
    every = {(a, b) for a in divisors(12) for b in divisors(12) if 12 % (a * b) == 0}
    assert seen == every


def test_splits_that_do_not_divide_stay() -> None:
    mutation, numbers, _ = mutation_of([12, 7], [1, 1], [1, 1])
    numbers[:, 1] = 5
    mutation.move_factors(numbers)
    assert (numbers[:, 1] == 5).all()
    assert set(numbers[:, 3].tolist()) == {7}


def test_unroll_limits() -> None:
    mutation, numbers, _ = mutation_of([12], [1], [1])
    mutation.change_unrolling(numbers)
    assert set(numbers[:, -1].tolist()) == set(LIMITS)
    assert (numbers[:, :-1] == [12, 1]).all()


@pytest.mark.parametrize(("stages", "num_units"), [([1, 1, 2], 3), ([1, 1, 1], 4)])
def test_children_have_whole_parts_of_both_parents(stages: list[int], num_units: int) -> None:
    mutation, numbers, _ = mutation_of([64] * 3, [2] * 3, stages)
    others = numbers + 1
    before = numbers.copy()
    mutation.cross(numbers, others)
    taken = numbers != before
    assert len(np.unique(taken, axis=0)) == 2**num_units
    for first in (0, 3, 6):  # a split stays together
        assert (
            taken[:, first : first + 3].all(axis=1) | ~taken[:, first : first + 3].any(axis=1)
        ).all()
    if stages[1] != stages[2]:  # and the splits of one stage
        assert (taken[:, 0] == taken[:, 3]).all()


def test_lengths_of_splits_with_fewer_parts() -> None:
    numbers = np.array([[24, 2, 3, 9], [10, 5, 9, 9]])
    found = lengths_of(numbers, np.array([0, 0]), np.array([2, 1]))
    assert found.tolist() == [[4, 2, 3], [2, 5, 1]]
