"""Assumed lengths of loops whose extent depends on data."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.workloads import handwritten, matrix, sparse
from tests.extract import sampling
from tests.extract.sampling import te
from tvm_cdmpp.extract.extents import assumed_extent


def assumed(tensors: list[Any]) -> list[int | None]:
    """Assumed extents of the reduction axes, producers first."""
    ops = [op for op in sampling.auto_scheduler.ComputeDAG(tensors).ops if op.input_tensors]
    return [assumed_extent(a.dom.extent, a.var, op.body) for op in ops for a in op.reduce_axis]


@pytest.mark.parametrize(
    ("nonzeros", "rows", "share"), [(96, 32, 3), (97, 32, 4), (5, 8, 1), (8, 1, 8)]
)
def test_rows_share_the_elements(nonzeros: int, rows: int, share: int) -> None:
    assert assumed(sparse.sparse_dense_csr(m=rows, nonzeros=nonzeros)) == [share]


def test_blocks_of_a_row_are_shared_and_their_columns_known() -> None:
    assert assumed(sparse.sparse_dense_bsr(m=32, blocks=24)) == [3, None]


def test_a_length_that_is_data_is_at_most_the_whole_dimension() -> None:
    assert assumed(sparse.ragged_sum(longest=20)) == [20]


def test_the_smallest_dimension_bounds_a_loop() -> None:
    lengths = te.placeholder((4,), "int32", "lengths")
    a, b = te.placeholder((4, 30), name="A"), te.placeholder((15,), name="B")

    def total(i: Any) -> Any:
        k = te.reduce_axis((0, lengths[i]), name="k")
        return te.sum(a[i, k * 2] * b[k], axis=k)

    assert assumed([lengths, a, b, te.compute((4,), total, name="sums")]) == [15]


def test_a_loop_that_indexes_nothing_runs_once() -> None:
    lengths, a = te.placeholder((4,), "int32", "lengths"), te.placeholder((4,), name="A")

    def total(i: Any) -> Any:
        return te.sum(a[i], axis=te.reduce_axis((0, lengths[i]), name="k"))

    assert assumed([lengths, a, te.compute((4,), total, name="sums")]) == [1]


@pytest.mark.parametrize("builder", [matrix.matmul, handwritten.triangular])
def test_other_loops_need_no_assumption(builder: Any) -> None:
    assert assumed(builder()) == [None]
