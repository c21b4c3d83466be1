"""The analytic estimate ranks what is well understood."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.models.programs import extract, matmul_graph, parallel_rows, random_batch
from tvm_cdmpp.ast.compact import CompactASTBatch, concatenate
from tvm_cdmpp.ast.schema import COLUMN, FIELDS, GROUPS, TRAFFIC_CAPACITIES_BYTES
from tvm_cdmpp.devices.spec import DeviceSpec, generic_gpu
from tvm_cdmpp.models.analytic import (
    TERMS,
    estimate_latency_s,
    estimate_leaf_latency_s,
    leaf_terms_s,
    sum_leaves,
)

CPU = DeviceSpec(name="cpu", kind="cpu", cores=8)
GPU = DeviceSpec(
    name="gpu", kind="gpu", cores=80, clock_hz=1.5e9, simd_bytes=128, l1_bytes=128 * 2**10,
    l2_bytes=6 * 2**20, l3_bytes=0, bandwidth_bytes_per_s=900e9, shared_bytes_per_core=96 * 2**10,
)  # fmt: skip


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
            "is_vectorized": 1.0, "vector_extent": np.log2(1 + lanes),
            "spatial_inside": np.log2(1 + lanes * vectors), "inner0_is_reduce": 0.0,
            "write_is_inside": 1.0, "write_is_contiguous": 1.0,
        }.items():  # fmt: skip
            batch.vectors[:, COLUMN[name]] = value
        return float(leaf_terms_s(batch, device)[TERMS.index("load_store")].sum())

    assert load_store_s(fits) < load_store_s(60)
    assert load_store_s(60) == load_store_s(80)
    if simd_bytes < 64:
        assert load_store_s(28) == load_store_s(60)


def sum_terms_s(**counts: float) -> dict[str, float]:
    """Terms of a leaf on a CPU that sums up 1024 products, or values of one buffer, in scalars."""
    facts: dict[str, float] = {
        "executions": 2**20, "reduce_executions": 1024, "float_add_ops": 2**20,
        "parallel_extent": 1, "vector_extent": 1, "inner0_extent": 1023, "inner0_is_reduce": 1,
        "reduce_inside": 1024, "spatial_inside": 1, "unrolled_body": 1024,
        "write_element_bytes": 4, "write_is_invariant": 1, "write_is_inside": 1,
        "read0_element_bytes": 4,
    }  # fmt: skip
    found = leaf_terms_s(one_leaf(facts | counts), replace(CPU, simd_bytes=32))
    return dict(zip(TERMS, found[:, 0].tolist(), strict=True))


def test_a_sum_waits_for_itself_and_several_do_not() -> None:
    product = {"read1_element_bytes": 4, "read1_is_contiguous": 1}
    alone, eight, sixteen = (
        sum_terms_s(spatial_inside=sums, **product)["arithmetic"] for sums in (1, 8, 16)
    )
    assert alone > 5 * eight
    assert sixteen == eight
    # A core that looks ahead finds the next of short sums, which do not wait for each other.
    assert sum_terms_s(reduce_inside=16, **product)["arithmetic"] == eight


def test_sums_of_columns_are_vectorized() -> None:
    """A column of a row-major buffer is summed up beside its neighbours, eight at once."""
    column = sum_terms_s(read0_stride=4096)
    scattered = sum_terms_s(read0_stride=4096, read1_element_bytes=4, read1_stride=4096)
    one = sum_terms_s(read0_stride=4096, executions=1024, float_add_ops=1024)  # no neighbours
    assert column["load_store"] < scattered["load_store"] / 6
    assert column["load_store"] < 1024 * one["load_store"] / 4


def test_lines_of_a_column_are_kept_for_the_next_one() -> None:
    """64 lines of a column fit into 32 KiB, 4096 do not; then each value is a line of its own."""
    moved = {f"traffic_{capacity}": 64 * 2**20 for capacity in TRAFFIC_CAPACITIES_BYTES}
    kept = sum_terms_s(inner0_extent=63, reduce_inside=64, reduce_executions=64, **moved)
    lost = sum_terms_s(inner0_extent=4095, reduce_inside=4096, reduce_executions=4096, **moved)
    assert kept["into_l1"] == pytest.approx(lost["into_l1"] / 16)  # 4 of 64 bytes


def test_far_sums_without_registers_cost_more() -> None:
    spilled = {"spatial_inside": 1024, "inner0_is_reduce": 0, "inner0_extent": 1023}
    near = sum_terms_s(write_is_inside=1, **spilled)["load_store"]
    far = sum_terms_s(write_is_inside=0, **spilled)["load_store"]
    assert far > 1.3 * near


def gpu_leaf(blocks: int, threads: int, **counts: float) -> CompactASTBatch:
    """One leaf that multiplies and adds values of one buffer into another, 64 times a thread."""
    executions, size = 64 * blocks * threads, 256 * blocks * threads
    facts: dict[str, float] = {
        "executions": executions, "reduce_executions": 1, "float_add_ops": executions,
        "float_mul_ops": executions, "unrolled_body": 64, "vector_extent": 1,
        "block_extent": blocks, "thread_extent": threads, "vthread_extent": 1,
        "inner0_extent": 7, "inner1_extent": 7, "buffer_bytes": size,
    }  # fmt: skip
    for slot in ("write", "read0"):
        facts |= {
            f"{slot}_element_bytes": 4, f"{slot}_tile_bytes": 256, f"{slot}_unique_bytes": size,
            f"{slot}_warp_sectors": 4,
        }  # fmt: skip
    return one_leaf(facts | counts)


def one_leaf(facts: dict[str, float]) -> CompactASTBatch:
    """A program of a leaf with some fields; the others are 0."""
    vectors = np.zeros((1, len(FIELDS)), np.float32)
    for name, value in facts.items():
        is_log = FIELDS[COLUMN[name]].scale == "log2"
        vectors[0, COLUMN[name]] = np.log2(1 + value) if is_log else value
    return CompactASTBatch.of_counts(vectors, np.zeros(1, np.int32), np.array([1]))


def gpu_s(batch: CompactASTBatch, device: DeviceSpec = GPU, term: str | None = None) -> float:
    """Seconds of a program, or of one term of its only leaf."""
    if term is None:
        return float(estimate_latency_s(batch, device)[0])
    return float(leaf_terms_s(batch, device)[TERMS.index(term), 0])


def test_blocks_of_a_gpu_take_turns() -> None:
    one, all_, more = (gpu_s(gpu_leaf(n, 256), term="arithmetic") for n in (1, 80, 81))
    assert one == pytest.approx(all_)
    assert all_ < more < 2.0 * all_  # two blocks on one multiprocessor hide more
    many, twice = (gpu_s(gpu_leaf(80 * n, 256), term="arithmetic") for n in (64, 128))
    assert twice == pytest.approx(2 * many)


def test_threads_of_a_gpu_make_it_faster_up_to_its_peak() -> None:
    """The same work, by blocks of 1 to 1024 threads."""
    work = 2**24
    seconds = [gpu_s(gpu_leaf(work // n, n)) for n in (1, 8, 32, 128, 1024)]
    assert (np.diff(seconds[:4]) < 0).all()
    assert seconds[0] > 5 * seconds[3]
    assert seconds[4] == pytest.approx(seconds[3], rel=0.3)
    assert min(seconds) > 2 * 64 * work / GPU.peak_flops


def test_scattered_accesses_of_a_gpu_are_slower() -> None:
    # As many sectors as threads of a warp, in place of four.
    near, far = (gpu_leaf(4096, 128, read0_warp_sectors=n) for n in (4, 32))
    assert gpu_s(far) > 1.2 * gpu_s(near)  # memory moves whole rows in either case
    assert gpu_s(far, term="into_l1") > 4 * gpu_s(near, term="into_l1")
    # What the block keeps in shared memory does not come from beyond it, nor do registers.
    shared = gpu_leaf(4096, 128, read0_is_shared=1, read0_warp_sectors=4)
    kept = gpu_leaf(4096, 128, read0_warp_sectors=0)
    assert gpu_s(kept) < gpu_s(shared) < gpu_s(near)


def test_a_gpu_with_more_bandwidth_is_faster() -> None:
    batch = gpu_leaf(2**16, 128, float_add_ops=0, float_mul_ops=0)
    faster = replace(GPU, bandwidth_bytes_per_s=2 * GPU.bandwidth_bytes_per_s)
    assert gpu_s(batch, faster) < gpu_s(batch)
    assert gpu_s(batch, GPU, "into_l3") == pytest.approx(2 * gpu_s(batch, faster, "into_l3"))


def test_a_block_waits_for_what_it_copies() -> None:
    """Shared memory that is filled often is waited for each time, unless other blocks run."""
    fill = {"write_is_shared": 1, "read0_warp_sectors": 1, "shared_bytes": 1024}
    once, often = (
        gpu_s(gpu_leaf(80, 32, **(fill | {"buffer_bytes": stored})), term="load_store")
        for stored in (4 * 64 * 32, 4 * 32)
    )
    assert often > 3 * once


def test_register_tiles_load_shared_memory_less_often() -> None:
    shared = {"read0_is_shared": 1, "read0_warp_sectors": 1}
    alone, tile = (
        gpu_s(gpu_leaf(800, 256, register_bytes=4 * kept, **shared), term="load_store")
        for kept in (1, 64)
    )
    assert alone > 1.4 * tile


def test_a_gpu_without_figures_of_shared_memory_and_cpu_programs_on_it() -> None:
    """Blocks then share the first cache; more of them run at once where it is large."""
    unknown = replace(GPU, shared_bytes_per_core=None)
    blocks = gpu_leaf(1600, 64, shared_bytes=2**14)
    assert gpu_s(blocks, unknown) < gpu_s(blocks, replace(unknown, l1_bytes=2**14))
    parallel = gpu_leaf(1, 1, parallel_extent=800)
    assert gpu_s(parallel) < gpu_s(gpu_leaf(1, 1, parallel_extent=1))


def test_occupancy_registers_and_kernels_of_a_gpu() -> None:
    # One block of 32 threads in place of many, as shared memory is full.
    many, few = (gpu_leaf(4096, 32, shared_bytes=2**n) for n in (10, 16))
    assert gpu_s(few, term="arithmetic") > 3 * gpu_s(many, term="arithmetic")
    # 64 sums stay in registers, 512 do not.
    held, spilled = (
        gpu_leaf(4096, 128, reduce_executions=9, buffer_is_register=1, register_bytes=4 * n,
                 write_warp_sectors=0, read0_is_shared=1)
        for n in (64, 512)
    )  # fmt: skip
    assert gpu_s(spilled) > 2 * gpu_s(held)
    # Only what writes memory is a kernel.
    assert gpu_s(held, term="start") == 0
    assert gpu_s(many, term="start") > 2e-6
    # Virtual threads share what is copied for their block.
    copy = {"write_is_shared": 1, "buffer_bytes": 4096}
    alone, four = (
        gpu_leaf(4096, 128, vthread_extent=n, executions=n * 2**25, **copy) for n in (1, 4)
    )
    assert gpu_s(four, term="into_l1") == pytest.approx(gpu_s(alone, term="into_l1"))
