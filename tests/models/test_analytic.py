"""The analytic estimate ranks what is well understood."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.models.programs import extract, matmul_graph, parallel_rows, random_batch
from tvm_cdmpp.ast.compact import CompactASTBatch, concatenate
from tvm_cdmpp.ast.schema import COLUMN, FIELDS, GROUPS
from tvm_cdmpp.devices.spec import DeviceSpec, generic_gpu
from tvm_cdmpp.models.analytic import (
    TERMS,
    estimate_latency_s,
    estimate_leaf_latency_s,
    leaf_terms_s,
    sum_leaves,
)

CPU = DeviceSpec(name="cpu", kind="cpu", cores=8)


@pytest.mark.parametrize("device", [CPU, DeviceSpec(name="x", kind="cpu", cores=1, l3_bytes=0),
                                    generic_gpu("cuda")], ids=lambda d: d.kind)  # fmt: skip
def test_finite_and_positive(device: DeviceSpec) -> None:
    batch = random_batch(200)
    latencies_s = estimate_latency_s(batch, device)
    assert latencies_s.shape == (200,)
    assert np.isfinite(latencies_s).all()
    assert (latencies_s > 0).all()
    leaves_s = estimate_leaf_latency_s(batch, device)
    assert leaves_s.shape == batch.positions.shape
    assert (leaves_s > 0).all()


def test_programs_are_the_sum_of_their_leaves() -> None:
    batch = random_batch(20)
    leaves_s = estimate_leaf_latency_s(batch, CPU)
    sums = [leaves_s[a:b].sum() for a, b in zip(batch.offsets, batch.offsets[1:], strict=False)]
    np.testing.assert_allclose(estimate_latency_s(batch, CPU) - sums, 5e-7, rtol=1e-6)
    # A leaf counts for its own program alone, also beside programs without leaves.
    counts = np.array([0, 2, 0, 1])
    some = CompactASTBatch.of_counts(batch.vectors[:3], batch.positions[:3], counts)
    seconds = sum_leaves(some, np.array([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(seconds - 5e-7, [0, 3, 0, 4])


@pytest.mark.parametrize("device", [CPU, generic_gpu("cuda")], ids=lambda d: d.kind)
def test_stored_vectors_give_the_estimate_of_the_extracted_programs(device: DeviceSpec) -> None:
    batch = random_batch(200)
    assert batch.unscaled is not None
    stored = CompactASTBatch(batch.vectors, batch.positions, batch.offsets)
    expected = estimate_latency_s(batch, device)
    np.testing.assert_allclose(estimate_latency_s(stored, device), expected, rtol=1e-5)


def test_no_programs() -> None:
    assert estimate_latency_s(concatenate([]), CPU).shape == (0,)


@pytest.mark.parametrize("device", [CPU, generic_gpu("cuda")], ids=lambda d: d.kind)
def test_fields_may_be_missing(device: DeviceSpec) -> None:
    """Zeros in their place still give an estimate; the suite makes errors of numpy's warnings."""
    batch = random_batch(50)
    groups = np.array([field.group for field in FIELDS])
    ablations = [groups != group for group in GROUPS]
    ablations += [np.arange(len(FIELDS)) != column for column in range(len(FIELDS))]
    ablations.append(np.zeros(len(FIELDS), dtype=np.bool_))
    for kept in ablations:
        without = CompactASTBatch(batch.vectors * kept, batch.positions, batch.offsets)
        latencies_s = estimate_latency_s(without, device)
        assert np.isfinite(latencies_s).all()
        assert (latencies_s > 0).all()


def test_parallel_is_not_slower_on_eight_cores() -> None:
    # 256 rows in blocks: 1, 2, 4 and 8 tasks.
    latencies_s = estimate_latency_s(
        extract([parallel_rows(rows) for rows in (256, 128, 64, 32)]), CPU
    )
    assert (np.diff(latencies_s) < 0).all()
    assert latencies_s[0] / latencies_s[3] > 4


def test_nine_tasks_take_two_turns_of_eight_cores() -> None:
    graph = matmul_graph(n=288)
    eight, nine = estimate_latency_s(extract([parallel_rows(36), parallel_rows(32)], graph), CPU)
    assert nine > 1.5 * eight


def test_vectorized_and_contiguous_beats_scalar() -> None:
    vectorized = parallel_rows(32)
    scalar = [*vectorized[:2], ["RE", 2, [0, 1, 2, 3, 4]], vectorized[3]]  # k innermost
    fast_s, slow_s = estimate_latency_s(extract([vectorized, scalar]), CPU)
    assert slow_s > 2 * fast_s


def test_never_beyond_the_peak() -> None:
    batch = random_batch(200)
    least_s = 2 * 256**3 / CPU.peak_flops
    assert (estimate_latency_s(batch, CPU) > least_s).all()


@pytest.mark.parametrize(("simd_bytes", "fits"), [(32, 12), (64, 28)])
def test_sums_that_vector_registers_hold_are_not_stored_each_time(
    simd_bytes: int, fits: int
) -> None:
    """Of 16 registers 12 sums find room, 28 do not; AVX-512 has 32."""
    device = DeviceSpec(name="cpu", kind="cpu", simd_bytes=simd_bytes)
    lanes = simd_bytes // 4

    def load_store_s(vectors: int) -> float:
        batch = replace(random_batch(1), unscaled=None)
        for name, value in {
            "write_element_bytes": np.log2(5.0), "is_init": 0.0, "reduce_executions": 5.0,
            "inner0_extent": np.log2(lanes), "inner0_is_reduce": 0.0,
            "inner1_extent": np.log2(vectors), "inner1_is_reduce": 0.0,
            "inner2_is_reduce": 1.0, "write_is_contiguous": 1.0,
        }.items():  # fmt: skip
            batch.vectors[:, COLUMN[name]] = value
        return float(leaf_terms_s(batch, device)[TERMS.index("load_store")].sum())

    assert load_store_s(fits) < load_store_s(40)
    assert load_store_s(40) == load_store_s(60)
    if simd_bytes < 64:
        assert load_store_s(28) == load_store_s(40)
