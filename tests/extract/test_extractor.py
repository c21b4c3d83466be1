"""The fast path: against the exact one over many operators, and against figures by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.workloads import convolution as conv
from benchmarks.workloads import edges, handwritten, matrix, movement, reduction, sparse
from benchmarks.workloads.tasks import GPUS, INSERT_STAGE, NO_REWRITE, PRE_TRANSFORMED, ZooTask, zoo
from tests.extract import sampling
from tests.extract.layouts import with_layouts
from tests.extract.records import Steps, exact_leaves, record_of, records_of
from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.ast.schema import COLUMN, COUNTED, FIELDS, TRAFFIC_CAPACITIES_BYTES
from tvm_cdmpp.devices.hardware import Hardware
from tvm_cdmpp.errors import LoweringError, RecordError
from tvm_cdmpp.extract.agreement import differences, vector_differences
from tvm_cdmpp.extract.dag import analyse
from tvm_cdmpp.extract.extractor import StepExtractor
from tvm_cdmpp.extract.handover import dump_records
from tvm_cdmpp.extract.native import describe
from tvm_cdmpp.extract.stage import LayoutRewrite, ReadLayout
from tvm_cdmpp.extract.tir import extract_exact

STATES = 8
# The whole zoo is compared by `benchmarks/ast_equality.py`; these are quick to draw from.
QUICK = (
    ZooTask(matrix.matmul),
    ZooTask(matrix.matmul, args=(7, 11, 13, "float16")),
    ZooTask(matrix.matmul_relu),
    ZooTask(matrix.matmul_int8),
    ZooTask(matrix.matmul_layout_free, layout=NO_REWRITE),
    ZooTask(matrix.matmul_layout_free, layout=INSERT_STAGE),
    ZooTask(matrix.matmul_layout_free, layout=PRE_TRANSFORMED),
    ZooTask(matrix.batch_matmul, layout=PRE_TRANSFORMED),
    ZooTask(conv.conv2d_nhwc),
    ZooTask(conv.conv2d_nhwc, layout=PRE_TRANSFORMED),
    ZooTask(conv.conv2d_nchw),
    ZooTask(conv.conv2d_uneven_padding),
    ZooTask(conv.conv2d_transposed),
    ZooTask(conv.conv2d_winograd),
    ZooTask(conv.depthwise),
    ZooTask(reduction.max_pool),
    ZooTask(reduction.average_pool),
    ZooTask(reduction.softmax),
    ZooTask(reduction.norm),
    ZooTask(reduction.argmax),
    ZooTask(movement.elementwise),
    ZooTask(movement.transpose_reshape),
    ZooTask(movement.concatenate),
    ZooTask(movement.gather),
    ZooTask(handwritten.stencil2d_chain),
    ZooTask(handwritten.modulo_index),
    ZooTask(handwritten.diagonal),
    ZooTask(handwritten.two_outputs),
    ZooTask(matrix.matmul, "cuda"),
    ZooTask(matrix.matmul_relu, "cuda"),
    ZooTask(conv.conv2d_nchw, "cuda"),
    ZooTask(conv.depthwise, "cuda"),
    ZooTask(reduction.softmax, "cuda"),
    ZooTask(reduction.norm, "cuda"),
    ZooTask(reduction.argmax, "cuda"),
    ZooTask(movement.elementwise, "cuda"),
    ZooTask(reduction.softmax, "rocm"),
    ZooTask(matrix.batch_matmul, "metal"),
    ZooTask(matrix.matmul, "opencl"),
    ZooTask(matrix.matmul_transposed, "vulkan"),
    ZooTask(matrix.matmul_layout_free, "mali"),
    *(ZooTask(edges.head, args=(2, 96), layout=layout) for layout in LayoutRewrite),
    *(ZooTask(edges.head_by_hand, layout=layout) for layout in LayoutRewrite),
    ZooTask(matrix.batch_matmul, args=(6, 1, 1, 128), layout=INSERT_STAGE),
    ZooTask(edges.self_product, layout=NO_REWRITE),
    ZooTask(edges.unit_product),
    ZooTask(edges.unit_image, args=(1, 1, 3)),
    ZooTask(edges.unit_softmax, "cuda"),
    ZooTask(edges.empty_part),
    ZooTask(edges.returned_elementwise),
    ZooTask(edges.returned_sum),
    ZooTask(edges.returned_product, "cuda"),
    ZooTask(edges.returned_argmax),
    ZooTask(edges.returned_argmax, "cuda"),
    ZooTask(edges.lstm_cell),
    ZooTask(edges.batch_statistics),
    ZooTask(edges.dense_gradient),
    ZooTask(sparse.sparse_dense_csr),
    ZooTask(sparse.sparse_dense_bsr),
    ZooTask(sparse.ragged_sum),
)


class Sampled:
    """States of one task, and the task's extractor."""

    def __init__(self, zoo_task: ZooTask) -> None:
        self.task = zoo_task.make()
        self.states = sampling.sample_states(self.task, STATES, seed=7)
        self.records = dump_records(self.task, self.states)
        self.hardware = Hardware.of(self.task.hardware_params)

    def extractor(self) -> StepExtractor:
        layout = LayoutRewrite(int(self.task.layout_rewrite_option))
        return StepExtractor(analyse(self.task.compute_dag), self.hardware, layout)


@pytest.fixture(scope="module")
def drawn() -> dict[str, Sampled]:
    return {}


@pytest.fixture(params=QUICK, ids=lambda zoo_task: zoo_task.name)
def sample(request: pytest.FixtureRequest, drawn: dict[str, Sampled]) -> Sampled:
    """Draw from every task once."""
    if request.param.name not in drawn:
        drawn[request.param.name] = Sampled(request.param)
    return drawn[request.param.name]


def test_the_choice_has_all_targets_and_layouts() -> None:
    assert {task.device for task in QUICK} == {"cpu", *GPUS}
    assert {task.layout for task in QUICK} >= {NO_REWRITE, INSERT_STAGE, PRE_TRANSFORMED}


def test_equals_the_exact_path(sample: Sampled) -> None:
    assert sample.states
    extractor = sample.extractor()
    batch, errors = extractor.extract(sample.records)
    assert errors == {}
    leaves = extractor.leaves(sample.records)
    for number, (state, fast) in enumerate(zip(sample.states, leaves, strict=True)):
        exact = extract_exact(sample.task, state)
        assert not isinstance(fast, RecordError)
        assert [str(found) for found in differences(fast, exact)] == [], state
        vectors = describe(exact, sample.hardware)
        found = vector_differences(batch.vectors_of(number), vectors)
        assert [str(one) for one in found] == [], state


def test_every_computation_vector_is_sound(sample: Sampled) -> None:
    batch, errors = sample.extractor().extract(sample.records)
    assert errors == {}
    assert len(batch) == len(sample.states)
    assert (batch.leaf_counts > 0).all()
    assert np.isfinite(batch.vectors).all()
    assert (batch.vectors >= 0).all()
    assert (batch.positions > 0).all()
    flags = [COLUMN[field.name] for field in FIELDS if field.scale == "flag"]
    assert np.isin(batch.vectors[:, flags], [0, 1]).all()
    # Shares of limits are above one where a program breaks them, as Ansor's first ones may.
    fractions = [COLUMN[name] for name in ("core_use", "vector_use", "warp_use")]
    assert (batch.vectors[:, fractions] <= 1).all()


def test_describing_leaves_gives_the_vectors_of_the_fast_path(sample: Sampled) -> None:
    extractor = sample.extractor()
    batch, _ = extractor.extract(sample.records)
    for number, leaves in enumerate(extractor.leaves(sample.records)):
        assert not isinstance(leaves, RecordError)
        assert batch.leaf_counts[number] == len(leaves)
        np.testing.assert_array_equal(describe(leaves, sample.hardware), batch.vectors_of(number))
        first = batch.offsets[number]
        positions = batch.positions[first : first + len(leaves)]
        assert positions.tolist() == [leaf.position for leaf in leaves]


def test_company_and_order_change_nothing(sample: Sampled) -> None:
    lines = sample.records.splitlines(keepends=True)
    together, _ = sample.extractor().extract(sample.records)
    order = np.random.default_rng(0).permutation(len(lines))
    shuffled, _ = sample.extractor().extract(b"".join(lines[n] for n in order))
    equal(shuffled, together.take(order))
    extractor = sample.extractor()
    for number, line in enumerate(lines):
        alone, _ = extractor.extract(line)
        equal(alone, together.take([number]))


def equal(a: CompactASTBatch, b: CompactASTBatch) -> None:
    np.testing.assert_array_equal(a.offsets, b.offsets)
    np.testing.assert_array_equal(a.positions, b.positions)
    np.testing.assert_array_equal(a.vectors, b.vectors)


def test_batches_do_not_share_memory(drawn: dict[str, Sampled]) -> None:
    """What a extractor gave stays as it is when it goes on."""
    sample = drawn.setdefault(QUICK[0].name, Sampled(QUICK[0]))
    extractor = sample.extractor()
    first, _ = extractor.extract(sample.records)
    vectors, positions = first.vectors.copy(), first.positions.copy()
    extractor.extract(sample.records.splitlines()[-1] * 3)
    del extractor
    np.testing.assert_array_equal(first.vectors, vectors)
    np.testing.assert_array_equal(first.positions, positions)


def test_no_records_and_seconds() -> None:
    extractor = StepExtractor(analyse(sampling.make_task(sampling.matmul).compute_dag))
    assert extractor.seconds == {"parse": 0, "apply": 0, "features": 0}
    batch, errors = extractor.extract(b"")
    assert len(batch) == 0
    assert batch.vectors.shape == (0, len(FIELDS))
    assert errors == {}
    assert extractor.leaves(b"") == []
    extractor.extract(record_of([]))
    assert all(seconds > 0 for seconds in extractor.seconds.values())


class ByHand:
    """The vectors of one program given by its steps, which is also compared with TVM's."""

    def __init__(
        self,
        task: Any,
        steps: Steps,
        hardware: Hardware | None = None,
        layout: LayoutRewrite = LayoutRewrite.AS_GIVEN,
    ) -> None:
        extractor = StepExtractor(analyse(task.compute_dag), hardware, layout)
        self.batch, errors = extractor.extract(record_of(steps))
        assert errors == {}
        (leaves,) = extractor.leaves(record_of(steps))
        assert not isinstance(leaves, RecordError)
        cores = (hardware or Hardware()).cores
        exact = exact_leaves(with_layouts(task, int(layout)), steps, cores)
        assert differences(leaves, exact) == []
        self.leaves = [in_units(vector) for vector in self.batch.vectors]


def in_units(vector: npt.NDArray[np.float32]) -> dict[str, float]:
    """Undo the scaling of a computation vector."""
    values = vector.astype(np.float64)
    return {
        field.name: float(np.exp2(x) - 1) if field.scale == "log2" else float(x)
        for field, x in zip(FIELDS, values, strict=True)
    }


def expect(found: dict[str, float], expected: dict[str, float]) -> None:
    """Compare with a tolerance of 1e-5: vectors are float32 logarithms."""
    different = {
        name: (found[name], value)
        for name, value in expected.items()
        if not np.isclose(found[name], value, rtol=1e-5, atol=1e-5)
    }
    assert different == {}


def test_matmul_by_hand() -> None:
    """C[4, 6] += A[4, 8] * B[8, 6]: parallel i, j in twos, k, three vector lanes."""
    steps = [
        ["SP", 2, 1, 6, [3], 1],
        ["RE", 2, [0, 1, 3, 2]],
        ["AN", 2, 0, 3],
        ["AN", 2, 3, 2],
        ["PR", 2, 0, "auto_unroll_max_step$16"],
    ]
    hardware = Hardware(cores=3, vector_bytes=16)
    found = ByHand(sampling.make_task(sampling.matmul, args=(4, 6, 8)), steps, hardware)
    init, update = found.leaves

    # Pre-order: i 1, outer j 2, init's lanes 3, init 4, k 5, lanes 6, update 7.
    assert found.batch.positions.tolist() == [2 * 4 - 4, 2 * 7 - 5]
    expect(
        update,
        {
            "float_add_ops": 192, "float_mul_ops": 192, "float_div_ops": 0, "int_add_ops": 0,
            "int_mul_ops": 0, "select_ops": 0, "bool_ops": 0, "cast_ops": 0, "compute_bytes": 4,
            "is_init": 0, "is_copy": 0, "executions": 4 * 6 * 8,
            "spatial_executions": 24, "reduce_executions": 8, "num_loops": 4,
            # The lanes stand inside of k; nothing inside of the lanes is a reduction.
            "spatial_inside": 3, "reduce_inside": 1,
            "inner0_extent": 3 - 1, "inner0_is_reduce": 0, "inner1_extent": 8 - 1,
            "inner1_is_reduce": 1, "inner2_extent": 2 - 1, "inner3_extent": 4 - 1,
            "unroll_extent": 1, "unroll_limit": 16,
            # Outer j, k and the lanes as one: 2 * 8 * 1 steps are within 16.
            "unrolled_body": 16,
            # Four rows on three cores take two rounds, in which four of six turns are taken.
            "parallel_extent": 4, "task_executions": 48, "core_executions": 96,
            "core_use": 4 / 6,
            # Three of the four lanes of a register hold sums while k runs.
            "vector_extent": 3, "is_vectorized": 1, "vector_use": 3 / 4, "open_registers": 3 / 4,
            "block_extent": 1, "thread_extent": 1, "vthread_extent": 1, "warp_use": 0,
            "thread_share": 0, "shared_bytes": 0, "shared_share": 0, "register_bytes": 0,
            "write_warp_sectors": 0, "read0_warp_sectors": 0,
            "buffer_bytes": 96, "buffer_fills": 1, "buffer_is_register": 0, "num_accesses": 3,
        },
    )  # fmt: skip
    for slot, unique_bytes, line_bytes, strides, tile_bytes, is_aligned in (
        ("write", 4 * 6 * 4, 128, (1, 0), 3 * 4, False),  # rows of 24 bytes
        ("read0", 8 * 6 * 4, 192, (1, 6), 8 * 3 * 4, False),  # B, the largest buffer
        ("read1", 4 * 8 * 4, 128, (0, 1), 8 * 4, True),
    ):
        expect(
            update,
            {
                f"{slot}_element_bytes": 4, f"{slot}_access_bytes": 192 * 4,
                f"{slot}_unique_bytes": unique_bytes, f"{slot}_line_bytes": line_bytes,
                f"{slot}_reuse": 768 / unique_bytes, f"{slot}_stride": strides[0],
                f"{slot}_second_stride": strides[1], f"{slot}_is_contiguous": strides[0] == 1,
                f"{slot}_is_invariant": strides[0] == 0, f"{slot}_is_aligned": is_aligned,
                f"{slot}_tile_bytes": tile_bytes, f"{slot}_is_inside": 0, f"{slot}_is_shared": 0,
            },
        )  # fmt: skip
    expect(
        update,
        {
            # k comes back to the same three sums; the lanes in between touch a line of each.
            "write_reuse_count": 8, "write_reuse_distance": 3 * 64,
            # Each row needs all of B anew: its own line of A and C, three of B.
            "read0_reuse_count": 4, "read0_reuse_distance": 64 + 3 * 64 + 64,
            # All lanes multiply the same element of A.
            "read1_reuse_count": 3, "read1_reuse_distance": 3 * 64,
        },
    )  # fmt: skip
    for name in ("element_bytes", "access_bytes", "reuse", "reuse_count", "is_aligned"):
        expect(update, {f"read2_{name}": 0, f"rest_{name}": 0})
    # Everything fits into the smallest cache: each line is fetched once.
    for capacity in TRAFFIC_CAPACITIES_BYTES:
        expect(update, {f"traffic_{capacity}": 448, f"intensity_{capacity}": 2 * 192 / 448})
    expect(update, {"working_set": 448})
    # Two of the three cores take two rows each; B is read by both.
    for slot, core_bytes, sharers in (("write", 64, 1), ("read0", 192, 2), ("read1", 64, 1)):
        expect(
            update,
            {
                f"{slot}_core_bytes": core_bytes, f"{slot}_sharers": sharers,
                f"{slot}_next_bytes": 0,  # two rows of A and of C lie in one line
            },
        )  # fmt: skip
    expect(update, {"core_working_set": 64 + 192 + 64})
    expect(
        init,
        {
            "is_init": 1, "is_copy": 0, "float_add_ops": 0, "executions": 24, "compute_bytes": 0,
            "reduce_executions": 1, "num_loops": 3, "vector_extent": 3, "parallel_extent": 4,
            "open_registers": 0, "spatial_inside": 24, "write_unique_bytes": 96,
            "write_reuse_count": 0, "read0_element_bytes": 0, "num_accesses": 1,
            "traffic_4096": 128, "intensity_4096": 0,
        },
    )  # fmt: skip


def test_reductions_inside_by_hand() -> None:
    """All of k inside: i, j, k in twos of three, as a dot product."""
    task = sampling.make_task(sampling.matmul, args=(4, 6, 6))
    _, update = ByHand(task, [["SP", 2, 2, 6, [3], 1]], Hardware(cores=0)).leaves
    expect(
        update,
        {
            "spatial_inside": 1, "reduce_inside": 6, "inner0_is_reduce": 1, "inner1_is_reduce": 1,
            "core_use": 0, "core_executions": 4 * 6 * 6, "open_registers": 4 / 64,
            "write_is_invariant": 1, "write_reuse_count": 3, "read1_stride": 1,
            "read1_second_stride": 3,
        },
    )  # fmt: skip


def test_partly_filled_rounds_and_registers_by_hand() -> None:
    """Twenty lanes in registers of sixteen; nine rows on four cores."""
    task = sampling.make_task(sampling.matmul, args=(9, 20, 5))
    steps = [["RE", 2, [0, 2, 1]], ["AN", 2, 0, 3], ["AN", 2, 2, 2]]
    _, update = ByHand(task, steps, Hardware(cores=4)).leaves
    expect(
        update,
        {
            "vector_use": 20 / 32, "open_registers": 20 / 16, "spatial_inside": 20,
            "core_use": 9 / 12, "core_executions": 3 * 20 * 5, "task_executions": 100,
            # Rows of 80 and 20 bytes are no whole registers.
            "write_is_aligned": 0, "read0_is_aligned": 0,
        },
    )  # fmt: skip
    wide = sampling.make_task(sampling.matmul, args=(9, 32, 5))
    expect(ByHand(wide, steps).leaves[1], {"write_is_aligned": 1, "vector_use": 1})


def test_what_a_core_touches_depends_on_the_order_of_fused_loops() -> None:
    """C[4, 32] in strips of four columns: cores that take one each write the same lines."""
    task = sampling.make_task(sampling.matmul, args=(4, 32, 16))

    def update(order: list[int]) -> dict[str, float]:
        split = ["SP", 2, 1, 32, [4], 1]
        steps = [split, ["RE", 2, [*order, 3, 2]], ["FU", 2, [0, 1]], ["AN", 2, 0, 3]]
        return ByHand(task, steps, Hardware(cores=8)).leaves[1]

    strips, rows = update([1, 0]), update([0, 1])  # columns outside, then rows outside
    expect(strips, {"parallel_extent": 32, "task_executions": 64, "core_use": 1})
    expect(rows, {"parallel_extent": 32, "task_executions": 64, "core_use": 1})
    expect(
        strips,
        {
            # Four rows, 16 bytes of a line in each, which four cores share; a strip of B, all of A.
            "write_core_bytes": 4 * 64, "write_sharers": 8 * 4 / 8, "write_next_bytes": 64,
            "read0_core_bytes": 16 * 64, "read0_sharers": 4, "read0_next_bytes": 0,
            "read1_core_bytes": 4 * 64, "read1_sharers": 8, "read1_next_bytes": 64,
            "core_working_set": 4 * 64 + 16 * 64 + 4 * 64,
        },
    )  # fmt: skip
    expect(
        rows,
        {
            # Half a row: one line of C and of A that no other half touches or one does, half of B.
            "write_core_bytes": 64, "write_sharers": 1, "write_next_bytes": 0,
            "read0_core_bytes": 16 * 64, "read0_sharers": 4, "read0_next_bytes": 0,
            "read1_core_bytes": 64, "read1_sharers": 2, "read1_next_bytes": 0,
            "core_working_set": 64 + 16 * 64 + 64,
        },
    )  # fmt: skip


def test_what_cores_keep_of_a_parallel_loop_by_hand() -> None:
    """64 rows on two cores: a core loads B once, not once for each row."""
    task = sampling.make_task(sampling.matmul, args=(64, 64, 64))
    row, matrix = 2 * 256, 64 * 256  # of A and C; B
    whole = {"traffic_131072": 64 * row + matrix}
    _, update = ByHand(task, [["AN", 2, 0, 3]], Hardware(cores=2)).leaves
    expect(update, {"traffic_32768": 2 * (32 * row + matrix), "write_next_bytes": 256, **whole})
    # Where cores are not known, each row is a share of its own.
    _, update = ByHand(task, [["AN", 2, 0, 3]], Hardware(cores=0)).leaves
    expect(update, {"traffic_32768": 64 * (row + matrix), "write_next_bytes": 0, **whole})


def test_traffic_by_hand() -> None:
    """A plain 64 x 64 x 64 product, i outside of j outside of k, rows of 256 bytes."""
    task = sampling.make_task(sampling.matmul, args=(64, 64, 64))
    update = ByHand(task, []).leaves[1]
    matrix_bytes, row, line = 64 * 64 * 4, 256, 64
    traffic = {
        # Nothing but one execution fits, as a column of B takes a line per row.
        4096: 3 * line * 64**3,
        # All of k: a row of A, a column of B, an element of C.
        16384: (row + 64 * line + line) * 64**2,
        # All of j and k: a row of A, B, a row of C.
        32768: (row + matrix_bytes + row) * 64,
        131072: 3 * matrix_bytes,
        33554432: 3 * matrix_bytes,
    }
    for capacity, moved in traffic.items():
        intensity = 2 * 64**3 / moved
        expect(update, {f"traffic_{capacity}": moved, f"intensity_{capacity}": intensity})
    expect(
        update,
        {
            "working_set": 3 * matrix_bytes, "read0_line_bytes": matrix_bytes,
            "read1_line_bytes": matrix_bytes,
            # A and B are equally large; A's row comes back with every j, B with every i.
            "write_reuse_count": 64, "write_reuse_distance": 3 * line,
        },
    )  # fmt: skip
    counts = sorted(
        (update[f"{slot}_stride"], update[f"{slot}_reuse_distance"]) for slot in ("read0", "read1")
    )
    np.testing.assert_allclose(
        counts, [(1, row + 64 * line + line), (64, row + matrix_bytes + row)], rtol=1e-5
    )


def test_a_producer_inside_its_consumer() -> None:
    """Relu in rows; each row's product is computed inside the parallel loop."""
    task = sampling.make_task(sampling.matmul_relu, args=(4, 6, 8))
    init, update, relu = ByHand(task, [["AN", 3, 0, 3], ["CA", 2, 3, 0]]).leaves
    expect(init, {"executions": 24, "parallel_extent": 4, "buffer_bytes": 24, "buffer_fills": 4})
    expect(
        update,
        {"executions": 192, "write_is_inside": 1, "read0_is_inside": 0, "buffer_bytes": 24,
         "buffer_fills": 4, "write_unique_bytes": 24},
    )  # fmt: skip
    expect(
        relu,
        {"executions": 24, "write_is_inside": 0, "read0_is_inside": 1, "float_compare_ops": 24,
         "buffer_bytes": 96, "buffer_fills": 1},
    )  # fmt: skip


def test_copies_by_hand() -> None:
    """A local copy of what is stored at last."""
    task = sampling.make_task(sampling.matmul, args=(4, 6, 8))
    _, update, copy = ByHand(task, [["CHW", 2, "local"]]).leaves
    expect(update, {"is_copy": 0, "buffer_is_register": 1, "register_bytes": 96})
    expect(copy, {"is_copy": 1, "buffer_is_register": 0, "executions": 24, "compute_bytes": 0})


GPU = Hardware(
    cores=-1, vector_bytes=16, line_bytes=64, shared_bytes=1024, local_bytes=256, threads=128,
    vthreads=8, warp=32,
)  # fmt: skip


def test_cuda_by_hand() -> None:
    """C[8, 96] += A[8, 4] * B[4, 96]: blocks of two rows, 48 threads of two columns each.

    A block keeps its rows of A in shared memory, a thread its sums in registers.
    """
    task = sampling.make_task(sampling.matmul, "cuda -arch=sm_80", args=(8, 96, 4))
    block, thread = 5, 6
    steps = [
        ["CHW", 2, "local"],  # stage 2 sums, stage 3 stores
        ["SP", 3, 0, 8, [2], 1],
        ["SP", 3, 2, 96, [2], 1],
        ["RE", 3, [0, 2, 1, 3]],
        ["AN", 3, 0, block],
        ["AN", 3, 1, thread],
        ["CA", 2, 3, 1],
        ["CHR", 0, "shared", [3 - 1]],  # stage 1 holds A
        ["CA", 1, 4, 0],
        ["FU", 1, [0, 1]],
        ["SP", 1, 0, 8, [48], 1],
        ["AN", 1, 1, thread],
    ]
    fetch, init, update, store = ByHand(task, steps, GPU).leaves
    everywhere = {
        "block_extent": 4, "thread_extent": 48, "vthread_extent": 1,
        # 48 threads are a warp and a half.
        "warp_use": 48 / 64, "thread_share": 48 / 128,
        # Two rows of A for a block; two by two sums for a thread.
        "shared_bytes": 2 * 4 * 4, "shared_share": 32 / 1024, "register_bytes": 2 * 2 * 4,
        "core_use": 0,
    }  # fmt: skip
    for leaf in (fetch, init, update, store):
        expect(leaf, everywhere)
    expect(
        fetch,
        {"is_copy": 1, "write_is_shared": 1, "write_is_inside": 1, "read0_is_shared": 0,
         "buffer_bytes": 32,
         # Neighbours fetch neighbours: 32 times four bytes are four sectors.
         "write_warp_sectors": 4, "read0_warp_sectors": 4},
    )  # fmt: skip
    expect(
        update,
        {"write_is_shared": 0, "buffer_is_register": 1, "buffer_bytes": 16, "buffer_fills": 192,
         # Of B, the largest: each thread reads every other element, so all of 63 in a row.
         "read0_warp_sectors": 8, "read1_is_shared": 1,
         # A's shared row is the same for the whole warp; registers are no memory.
         "read1_warp_sectors": 1, "write_warp_sectors": 0, "read2_warp_sectors": 0},
    )  # fmt: skip
    expect(store, {"is_copy": 1, "write_warp_sectors": 8, "read0_warp_sectors": 0})


def test_warps_by_hand() -> None:
    """A row per thread: every thread of a warp touches a sector of its own."""
    task = sampling.make_task(sampling.matmul, "cuda -arch=sm_80", args=(64, 20, 4))
    _, update = ByHand(task, [["AN", 2, 0, 6]], GPU).leaves
    expect(
        update,
        {"thread_extent": 64, "warp_use": 1, "thread_share": 0.5, "shared_share": 0,
         "write_warp_sectors": 32, "read0_warp_sectors": 16, "read1_warp_sectors": 1},
    )  # fmt: skip


@pytest.mark.parametrize("layout", LayoutRewrite)
def test_rewritten_layouts_are_read_in_order(layout: LayoutRewrite) -> None:
    """A layout-free weight is stored as it is read, so its lines are all used."""
    task = sampling.make_task(layout_free_dense, layout=int(layout))
    dense = analyse(task.compute_dag).stages[-1]
    assert [read.layout for read in dense.reads] == [ReadLayout.GIVEN, ReadLayout.FREE]
    # The output's columns innermost: a column of the weight.
    steps: Steps = [["RE", 2, [0, 2, 1]]]
    leaves = ByHand(task, steps, layout=layout).leaves
    stride = 96 if layout == LayoutRewrite.AS_GIVEN else 1
    expect(leaves[-1], {"read0_stride": stride, "read1_stride": 0})
    assert len(leaves) == (3 if layout == LayoutRewrite.COPIED else 2)
    if layout == LayoutRewrite.COPIED:
        expect(leaves[0], {"is_copy": 1, "executions": 32 * 96, "parallel_extent": 96})


def test_a_program_without_steps_keeps_its_layouts() -> None:
    task = sampling.make_task(layout_free_dense)
    plain, rewritten = (
        ByHand(task, [], layout=layout).batch
        for layout in (LayoutRewrite.AS_GIVEN, LayoutRewrite.REWRITTEN)
    )
    equal(plain, rewritten)


def layout_free_dense() -> list[Any]:
    te = sampling.te
    data, weight = te.placeholder((8, 96), name="data"), te.placeholder((32, 96), name="weight")
    k = te.reduce_axis((0, 96), name="k")
    attrs = {"layout_free_placeholders": [weight]}
    result = te.compute(
        (8, 32),
        lambda i, j: te.sum(data[i, k] * weight[j, k], axis=k),
        name="dense",
        attrs=attrs,
    )
    return [data, weight, result]


def test_a_tile_that_straddles_two_groups() -> None:
    """Four of 24 channels, six to a group of four inputs: some tiles need the inputs of two."""
    task = next(t for t in zoo() if t.name == "conv1d_grouped/cpu").make()
    steps = [
        ["SP", 3, 1, 24, [4], 1],
        ["CA", 1, 3, 1],
    ]
    fast = StepExtractor(analyse(task.compute_dag)).leaves(record_of(steps))[0]
    assert isinstance(fast, list)
    assert fast[0].accesses[0].shape[1] == 8
    assert differences(fast, exact_leaves(task, steps, Hardware().cores)) == []


def test_fields_are_kept_before_they_are_scaled() -> None:
    task = sampling.make_task(sampling.conv2d_nchw)
    records = dump_records(task, sampling.sample_states(task, 12))
    batch, _ = StepExtractor(analyse(task.compute_dag)).extract(records)
    assert batch.unscaled is not None
    scaled = batch.vectors[:, [COLUMN[name] for name in COUNTED]]
    logs = [FIELDS[COLUMN[name]].scale == "log2" for name in COUNTED]
    np.testing.assert_allclose(
        np.where(logs, np.log2(1.0 + batch.unscaled), batch.unscaled), scaled, atol=1e-5
    )
    executions = batch.unscaled[:, COUNTED.index("executions")]
    assert (executions == np.rint(executions)).all()


@pytest.mark.parametrize(
    "zoo_task",
    [
        ZooTask(edges.empty_rows),
        ZooTask(edges.empty_rows, "cuda"),
        ZooTask(edges.empty_sum),
        ZooTask(edges.empty_sum_factored),
        ZooTask(edges.empty_elementwise),
        ZooTask(edges.stored_twice, layout=INSERT_STAGE),
        ZooTask(edges.stored_twice, layout=PRE_TRANSFORMED),
        ZooTask(edges.self_product, layout=INSERT_STAGE),
        ZooTask(edges.self_product, layout=PRE_TRANSFORMED),
    ],
    ids=lambda zoo_task: zoo_task.name,
)
def test_what_has_no_program_is_refused_record_by_record(zoo_task: ZooTask) -> None:
    """Nothing to compute, or a layout that TVM fails to rewrite: both paths refuse the same."""
    sample = Sampled(zoo_task)
    batch, errors = sample.extractor().extract(sample.records)
    assert errors
    assert len(batch) == len(sample.states)
    assert all("of size 0" in str(e) or "TVM cannot build" in str(e) for e in errors.values())
    for number, state in enumerate(sample.states):
        try:
            refused = not extract_exact(sample.task, state)
        except LoweringError:
            refused = True
        assert refused == (number in errors), state


@pytest.mark.parametrize("layout", LayoutRewrite)
def test_a_factored_product_reads_its_weight_as_it_is(layout: LayoutRewrite) -> None:
    """TVM forgets that a layout is free when it factors the reduction: no copy, no new order."""
    task = sampling.make_task(edges.head, args=(2, 768), layout=int(layout))
    steps: Steps = [["SP", 2, 3, 768, [16], 1], ["RF", 2, 4, 2]]
    factored = ByHand(task, steps, layout=layout)
    assert factored.batch.leaf_counts.tolist() == [4]
    leaves = StepExtractor(analyse(task.compute_dag), layout=layout).leaves(record_of(steps))[0]
    assert not isinstance(leaves, RecordError)
    assert (1, 2, 768) in [read.shape for read in leaves[1].accesses]


def test_a_stage_that_moved_is_rewritten_as_if_its_fused_loops_ran_once() -> None:
    """TVM's states forget the extents of loops that moved, and a fusion keeps them forgotten."""
    layout = LayoutRewrite.REWRITTEN
    task = sampling.make_task(matrix.batch_matmul, args=(6, 1, 1, 128), layout=int(layout))
    for moves, shape in (([], (6, 1, 128)), ([["CR", 2]], (1, 1, 128))):
        steps: Steps = [*moves, ["FU", 2, [0, 1, 2]]]
        ByHand(task, steps, layout=layout)
        leaves = StepExtractor(analyse(task.compute_dag), layout=layout).leaves(record_of(steps))[0]
        assert not isinstance(leaves, RecordError)
        assert leaves[-1].accesses[-1].shape == shape


def test_a_result_that_is_inlined_is_never_written() -> None:
    """TVM keeps a result that others read for an inner stage; scored is what is measured."""
    task = sampling.make_task(edges.returned_elementwise)
    assert ByHand(task, []).batch.leaf_counts.tolist() == [3]
    inlined = ByHand(task, [["CI", 1]])
    assert inlined.batch.leaf_counts.tolist() == [2]


def test_a_result_that_is_computed_inside_another_is_in_the_memory_of_the_caller() -> None:
    task = sampling.make_task(edges.returned_sum)
    steps: Steps = [["CA", 1, 2, 0]]
    ByHand(task, steps)
    leaves = StepExtractor(analyse(task.compute_dag)).leaves(record_of(steps))[0]
    assert not isinstance(leaves, RecordError)
    assert [[loop.extent for loop in leaf.loops] for leaf in leaves] == [[16], [16, 24], [16]]
    store = leaves[1].accesses[0]
    assert (store.shape, store.is_inside, store.scope) == ((16,), False, "global")


def test_loops_that_data_bounds_are_counted() -> None:
    graphs = [
        analyse(sampling.make_task(builder).compute_dag)
        for builder in (sparse.sparse_dense_bsr, sparse.ragged_sum, matrix.matmul)
    ]
    assert [graph.num_opaque_extents for graph in graphs] == [1, 1, 0]


def test_skeletons_with_other_numbers_are_the_records_with_these() -> None:
    task = sampling.make_task(sampling.matmul)
    extractor = StepExtractor(analyse(task.compute_dag))
    steps = [["SP", 2, 0, 64, [4, 2], 1], ["PR", 2, 0, "auto_unroll_max_step$16"]]
    other = [["SP", 2, 0, 64, [2, 8], 1], ["PR", 2, 0, "auto_unroll_max_step$512"]]
    assert extractor.add_skeleton(json.dumps(steps).encode()) == 0
    numbers = np.array([[64, 4, 2, 16], [1, 2, 8, 512], [64, 0, 2, 16]])
    found, errors, _ = extractor.extract_numbers(np.zeros(3, np.int64), numbers)
    expected, _ = extractor.extract(records_of(steps, other))
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    np.testing.assert_array_equal(found.positions, expected.positions)
    assert list(errors) == [2]
    assert "split factor 0" in str(errors[2])


def test_loops_after_steps() -> None:
    task = sampling.make_task(sampling.matmul_relu)
    extractor = StepExtractor(analyse(task.compute_dag))
    steps = [["SP", 2, 0, 64, [4], 1], ["CA", 2, 3, 1], ["AN", 3, 0, 3]]
    _, _, product, relu = extractor.loops(json.dumps(steps).encode())
    serial = (False, "serial")
    assert product.loops == (serial, serial, serial, (True, "serial"))
    assert product.num_axes == 3
    assert product.consumer == 3
    assert product.attached == (3, 1)
    assert relu.loops == ((False, "parallel"), serial)
    assert relu.attached is None
    with pytest.raises(RecordError, match="does not fit"):
        extractor.loops(b'[["AN", 3, 7, 3]]')


def test_loops_are_not_fused_across_an_attached_stage() -> None:
    """As TVM has it, which calls such a step an invalid fuse."""
    task = sampling.make_task(sampling.matmul_relu)
    extractor = StepExtractor(analyse(task.compute_dag))
    attached = ["CA", 2, 3, 0]
    _, errors = extractor.extract(records_of([attached, ["FU", 3, [0, 1]]]))
    assert "attached" in str(errors[0])
    _, errors = extractor.extract(records_of([["CA", 2, 3, 1], ["FU", 3, [0, 1]]]))
    assert not errors
