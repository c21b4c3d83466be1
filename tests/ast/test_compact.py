"""Batches of compact ASTs, the positional encoding, and the list of fields."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_cdmpp.ast.compact import (
    CompactASTBatch,
    concatenate,
    dense_mask,
    densify,
    positional_encoding,
)
from tvm_cdmpp.ast.schema import (
    ACCESS_SLOTS,
    COLUMN,
    COUNTED,
    FIELDS,
    GROUPS,
    NUM_FIELDS,
    TRAFFIC_CAPACITIES_BYTES,
)


def make(counts: Sequence[int], first: int = 1) -> CompactASTBatch:
    """Make programs with the given leaf counts; every leaf is told from every other."""
    total = sum(counts)
    numbers = np.arange(first, first + total)
    vectors = numbers[:, None] + np.linspace(0, 0.5, NUM_FIELDS)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    unscaled = numbers[:, None] + np.linspace(0.5, 1, len(COUNTED))
    return CompactASTBatch(
        vectors.astype(np.float32), numbers.astype(np.int32), offsets, unscaled.astype(np.float32)
    )


def programs(batch: CompactASTBatch) -> list[tuple[list[int], list[float]]]:
    """Positions and first fields, program by program."""
    return [
        (batch.positions[a:b].tolist(), batch.vectors[a:b, 0].tolist())
        for a, b in zip(batch.offsets[:-1], batch.offsets[1:], strict=True)
    ]


def test_without_empty_leaves_out_programs_without_leaves() -> None:
    batch = make([2, 0, 3, 0, 0])
    found = batch.without_empty()
    assert programs(found) == programs(batch.take([0, 2]))
    assert found.vectors is batch.vectors
    assert found.unscaled is batch.unscaled


COUNTS = st.lists(st.integers(0, 5), max_size=8)


@given(COUNTS, st.data())
def test_take_gives_the_chosen_programs_in_order(counts: list[int], data: st.DataObject) -> None:
    batch = make(counts)
    numbers = st.lists(st.integers(0, len(counts) - 1), max_size=10) if counts else st.just([])
    chosen = data.draw(numbers)
    taken = batch.take(chosen)
    assert len(taken) == len(chosen)
    assert programs(taken) == [programs(batch)[p] for p in chosen]
    assert taken.vectors.dtype == taken.unscaled_fields().dtype == np.float32
    np.testing.assert_array_equal(taken.unscaled_fields()[:, 0], taken.vectors[:, 0] + 0.5)
    assert taken.positions.dtype == np.int32


@given(st.lists(COUNTS, max_size=4))
def test_concatenate_keeps_every_program(parts: list[list[int]]) -> None:
    batches = [make(counts, first=100 * n) for n, counts in enumerate(parts)]
    joined = concatenate(batches)
    assert programs(joined) == [program for batch in batches for program in programs(batch)]
    first = 0
    for batch in batches:
        again = joined.take(range(first, first + len(batch)))
        np.testing.assert_array_equal(again.vectors, batch.vectors)
        np.testing.assert_array_equal(again.offsets, batch.offsets)
        np.testing.assert_array_equal(again.unscaled_fields(), batch.unscaled_fields())
        first += len(batch)


@given(COUNTS)
def test_of_counts_divides_leaves_among_programs(counts: list[int]) -> None:
    expected = make(counts)
    made = CompactASTBatch.of_counts(
        expected.vectors, expected.positions, np.array(counts, dtype=np.int64)
    )
    assert programs(made) == programs(expected)
    assert made.leaf_counts.tolist() == counts
    assert made.offsets.dtype == np.int64


@given(COUNTS)
def test_vectors_of_one_program(counts: list[int]) -> None:
    batch = make(counts)
    for n, count in enumerate(counts):
        assert batch.vectors_of(n).shape == (count, NUM_FIELDS)
        np.testing.assert_array_equal(batch.vectors_of(n), batch.take([n]).vectors)


@given(COUNTS)
def test_dense_form(counts: list[int]) -> None:
    batch = make(counts)
    mask = dense_mask(batch.leaf_counts)
    vectors, positions = densify(batch.vectors, mask), densify(batch.positions, mask)
    assert mask.shape == (len(counts), max([1, *counts]))
    assert mask.sum(axis=1).tolist() == counts
    assert vectors.shape == (*mask.shape, NUM_FIELDS)
    assert positions.shape == mask.shape
    assert vectors.dtype == np.float32
    assert positions.dtype == np.int32
    np.testing.assert_array_equal(vectors[mask], batch.vectors)
    np.testing.assert_array_equal(positions[mask], batch.positions)
    assert not vectors[~mask].any()
    assert not positions[~mask].any()
    # Leaves come first, so that cutting off columns of padding loses nothing.
    assert all(row[:count].all() for row, count in zip(mask, counts, strict=True))


def test_dense_form_is_as_wide_as_the_longest_program() -> None:
    batch = make([1, 3, 2])
    assert densify(batch.vectors, dense_mask(batch.leaf_counts)).shape == (3, 3, NUM_FIELDS)


def test_dense_form_of_equal_programs_copies_nothing() -> None:
    batch = make([2, 2, 2])
    dense = densify(batch.vectors, dense_mask(batch.leaf_counts))
    assert np.shares_memory(dense, batch.vectors)


def test_empty_batches() -> None:
    empty = concatenate([])
    assert len(empty) == 0
    assert empty.vectors.shape == (0, NUM_FIELDS)
    assert len(empty.take([])) == 0
    mask = dense_mask(empty.leaf_counts)
    assert mask.shape == (0, 1)
    assert densify(empty.vectors, mask).shape == (0, 1, NUM_FIELDS)
    assert programs(concatenate([empty, make([2]), empty])) == programs(make([2]))


def test_positional_encoding() -> None:
    encoding = positional_encoding(np.array([[0, 1], [7, 300]], dtype=np.int32), 8, 1000.0)
    assert encoding.shape == (2, 2, 8)
    assert encoding.dtype == np.float32
    np.testing.assert_array_equal(encoding[0, 0], [0, 1] * 4)
    # Frequencies 1000^(-0/8), 1000^(-2/8), 1000^(-4/8), 1000^(-6/8).
    frequencies = [1.0, 1000**-0.25, 1000**-0.5, 1000**-0.75]
    for position, row in ((1, encoding[0, 1]), (7, encoding[1, 0]), (300, encoding[1, 1])):
        expected = [f(position * w) for w in frequencies for f in (np.sin, np.cos)]
        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_positions_are_told_apart() -> None:
    encoding = positional_encoding(np.arange(1000, dtype=np.int32), 64).astype(np.float64)
    distances = ((encoding[:, None, :8] - encoding[None, :, :8]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 1e-4


def test_schema() -> None:
    names = [field.name for field in FIELDS]
    assert len(set(names)) == len(names) == NUM_FIELDS
    assert [COLUMN[name] for name in names] == list(range(NUM_FIELDS))
    assert all(field.meaning for field in FIELDS)
    assert list(dict.fromkeys(field.group for field in FIELDS)) == list(GROUPS)
    assert list(TRAFFIC_CAPACITIES_BYTES) == sorted(TRAFFIC_CAPACITIES_BYTES)


@pytest.mark.parametrize("slot", ACCESS_SLOTS)
def test_every_slot_has_the_same_fields(slot: str) -> None:
    def fields_of(name: str) -> list[str]:
        prefix = f"{name}_"
        return [
            field.name.removeprefix(prefix) for field in FIELDS if field.name.startswith(prefix)
        ]

    assert fields_of(slot) == fields_of("write")
    assert "stride" in fields_of(slot)


def test_fields_before_scaling_are_recovered_where_they_were_not_kept() -> None:
    batch = make([2, 1])
    counts = np.arange(3 * len(COUNTED), dtype=np.float32).reshape(3, -1) ** 3
    logs = np.array([FIELDS[COLUMN[name]].scale == "log2" for name in COUNTED])
    counts[:, ~logs] = [[0], [1], [1]]
    vectors = batch.vectors.copy()
    vectors[:, [COLUMN[name] for name in COUNTED]] = np.where(logs, np.log2(1 + counts), counts)
    stored = CompactASTBatch(vectors, batch.positions, batch.offsets)
    np.testing.assert_allclose(stored.unscaled_fields(), counts, rtol=1e-4)
    joined = concatenate([batch, stored, concatenate([])])
    assert joined.unscaled is None
    assert concatenate([batch, concatenate([])]).unscaled is not None
