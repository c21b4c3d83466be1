"""Programs that are chosen to be measured: as many as asked for, and the right ones."""

from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.ast.schema import COLUMN, NUM_FIELDS
from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.train.selection import (
    SelectionMethod,
    _visit,
    principal_components,
    program_features,
    select_programs,
)

METHODS: tuple[SelectionMethod, ...] = get_args(SelectionMethod)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def islands(sizes: list[int], seed: int = 0) -> tuple[Floats, Ints]:
    """Tasks far from each other, each a cloud of programs."""
    generator = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(len(sizes)), sizes)
    place = generator.permutation(len(sizes))[tasks]
    features = generator.normal(0, 0.1, (len(tasks), 5))
    features[:, 0] += 10.0 * place
    return features, tasks


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=8),
    st.integers(0, 20),
    st.sampled_from(METHODS),
    st.integers(0, 5),
)
def test_as_many_as_asked_for(
    sizes: list[int], budget: int, method: SelectionMethod, seed: int
) -> None:
    features, tasks = islands(sizes)
    tasks = 7 * tasks + 3  # numbers have gaps
    spread = np.abs(features[:, 1])
    found = [select_programs(features, tasks, budget, method, seed, spread) for _ in range(2)]
    assert found[0].tolist() == found[1].tolist()
    assert found[0].tolist() == sorted(set(found[0].tolist()))
    assert len(found[0]) == min(budget, len(tasks))
    assert set(found[0].tolist()) <= set(range(len(tasks)))


@pytest.mark.parametrize("method", METHODS)
def test_programs_that_are_all_alike(method: SelectionMethod) -> None:
    alike = np.ones((30, 4))
    found = select_programs(alike, np.arange(30) % 3, 10, method, 0, np.zeros(30))
    assert len(set(found.tolist())) == 10


def test_clusters_find_every_kind_of_program() -> None:
    features, tasks = islands([200, 50, 20, 10, 5, 5])
    found = select_programs(features, tasks, 24, "kmeans", 0)
    # Six clusters, so six tasks, with four programs each.
    assert np.bincount(tasks[found]).tolist() == [4] * 6
    # Within a task as well: two kinds of programs, of which one is rare.
    two_kinds = np.where(np.arange(100) < 97, 0.0, 5.0)[:, None] * np.ones((1, 3))
    two_kinds = two_kinds + np.random.default_rng(0).normal(0, 0.01, (100, 3))
    found = select_programs(two_kinds, np.zeros(100, np.int64), 4, "kmeans", 0)
    assert (found >= 97).any()
    assert (found < 97).any()


def test_the_largest_clusters_come_first() -> None:
    tasks = np.repeat([0, 1, 2, 3], [100, 5, 60, 5])
    place = np.array([0.0, 1.0, 50.0, 51.0])[tasks]
    features = place[:, None] + np.random.default_rng(0).normal(0, 0.1, (170, 3))
    # Two clusters, each with a small task beside a large one.
    assert set(tasks[select_programs(features, tasks, 8, "kmeans", 0)].tolist()) == {0, 2}
    distances = np.array([[0.0, 1.0, 2.0, 9.0], [2.0, 0.0, 1.0, 9.0]])
    assert list(_visit(distances, np.array([1, 5]))) == [1, 0, 2, 3]
    # What a small task has no programs for goes to others.
    features, tasks = islands([2, 3, 50])
    found = select_programs(features, tasks, 40, "kmeans", 0)
    assert np.bincount(tasks[found], minlength=3).tolist() == [2, 3, 35]
    features, tasks = islands([2] * 10)
    found = select_programs(features, tasks, 8, "kmeans", 0)
    assert sorted(np.bincount(tasks[found], minlength=10).tolist()) == [0] * 6 + [2] * 4


def test_the_centre_is_the_mean_of_all() -> None:
    line = np.arange(11.0)[:, None]
    found = select_programs(line, np.zeros(11, np.int64), 3, "center", 0)
    assert found.tolist() == [4, 5, 6]


def test_uncertain_programs_unlike_each_other() -> None:
    features, tasks = islands([50, 50, 50])
    spread = np.full(150, 0.1)
    spread[[3, 4, 60]] = [1.0, 0.99, 0.9]
    found = select_programs(features, tasks, 2, "uncertain", 0, spread)
    # Program 4 is nearly as uncertain as program 3, but says the same.
    assert found.tolist() == [3, 60]
    even = select_programs(features, tasks, 3, "uncertain", 0, np.ones(150))
    assert tasks[even].tolist() == [0, 1, 2]


def test_seeds_choose_differently() -> None:
    features, tasks = islands([100, 100])
    for method in ("random", "kmeans"):
        first, second = (select_programs(features, tasks, 10, method, seed) for seed in (0, 1))
        assert first.tolist() != second.tolist()


def test_what_cannot_be_chosen_from() -> None:
    features, tasks = islands([5, 5])
    with pytest.raises(ConfigError, match="budget"):
        select_programs(features, tasks, -1, "random", 0)
    with pytest.raises(ConfigError, match="one of random, kmeans, center, uncertain; got 'best'"):
        select_programs(features, tasks, 2, "best", 0)  # type: ignore[arg-type]
    for spread in (None, np.ones(3), np.full(10, np.nan), -np.ones(10), np.full(10, np.inf)):
        with pytest.raises(ConfigError, match="spread"):
            select_programs(features, tasks, 2, "uncertain", 0, spread)
    with pytest.raises(RecordError, match="shape"):
        select_programs(features, tasks[:3], 2, "random", 0)
    with pytest.raises(RecordError, match="finite"):
        select_programs(np.full((10, 2), np.nan), tasks, 2, "kmeans", 0)


def batch_of(leaf_counts: list[int], seed: int = 0) -> CompactASTBatch:
    counts = np.array(leaf_counts, np.int64)
    vectors = np.random.default_rng(seed).random((counts.sum(), NUM_FIELDS)).astype(np.float32)
    return CompactASTBatch.of_counts(vectors, np.zeros(len(vectors), np.int32), counts)


def test_features_are_the_most_executed_leaf_and_the_sum() -> None:
    batch = batch_of([3, 1, 2, 5])
    found = program_features(batch)
    assert found.shape == (4, 2 * NUM_FIELDS)
    raw = []
    for program in range(4):
        leaves = batch.vectors_of(program).astype(np.float64)
        most = leaves[np.argmax(leaves[:, COLUMN["executions"]])]
        raw.append(np.concatenate([most, leaves.sum(axis=0)]))
    expected = (raw - np.mean(raw, axis=0)) / np.std(raw, axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert program_features(batch_of([])).shape == (0, 2 * NUM_FIELDS)


def test_constant_features_are_zero() -> None:
    batch = batch_of([1, 1, 1])
    batch.vectors[:, 5] = 0.1
    found = program_features(batch)
    assert (found[:, [5, NUM_FIELDS + 5]] == 0).all()
    np.testing.assert_allclose(found[:, 6].std(), 1.0, rtol=1e-5)


def test_a_program_without_leaves_is_named() -> None:
    with pytest.raises(RecordError, match="Program 1 "):
        program_features(batch_of([2, 0, 1]))


def test_principal_components_keep_what_varies() -> None:
    generator = np.random.default_rng(0)
    plane = generator.normal(size=(60, 2)) * [5.0, 1.0] @ generator.normal(size=(2, 8)) + 3.0
    found = principal_components(plane, 2)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
    assert found[:, 0].var() > found[:, 1].var()
    assert abs(np.corrcoef(found.T)[0, 1]) < 1e-9

    def distances(rows: Floats) -> Floats:
        found: Floats = np.linalg.norm(rows[:, None] - rows, axis=2)
        return found

    np.testing.assert_allclose(distances(found), distances(plane), atol=1e-9)
    assert principal_components(plane, 20).shape == (60, 8)
