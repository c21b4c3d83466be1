"""The fast path: against the exact one over many operators, and against figures by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tvm_cdmpp.extract.bounds import StageBounds, evaluate
from tvm_cdmpp.extract.steps import split_record_steps
from tvm_cdmpp.extract.structure import Leaf, Structure, build_structure

from tests.extract import sampling
from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.ast.schema import COLUMN, FIELDS, TRAFFIC_CAPACITIES_BYTES
from tvm_cdmpp.extract import features
from tvm_cdmpp.extract.dag import analyse
from tvm_cdmpp.extract.replayer import StepReplayer
from tvm_cdmpp.extract.stage import OP_CLASSES, TaskGraph
from tvm_cdmpp.extract.tir import TirLeaf, extract_exact

auto_scheduler = sampling.auto_scheduler
NAMES = [builder.__name__ for builder in sampling.BUILDERS]
KINDS = ("serial", "unrolled", "vectorized", "parallel")
# Extents, flags and touched elements of a level.
Levels = tuple[int, ...]


@dataclass(frozen=True)
class Sampled:
    task: Any
    graph: TaskGraph
    states: list[Any]
    programs: list[Any]


@pytest.fixture(scope="module")
def zoo() -> dict[str, Sampled]:
    return {name: sampled(name, task) for name, task in sampling.task_zoo()}


def sampled(name: str, task: Any) -> Sampled:
    states = sampling.sample_states(task, 12, seed=7)
    programs = [steps_of(task, state) for state in states]
    return Sampled(task, analyse(task.compute_dag), states, programs)


def steps_of(task: Any, state: Any) -> Any:
    result = auto_scheduler.MeasureResult([0.1], 0, "", 1.0, 0)
    inputs = auto_scheduler.MeasureInput(task, state)
    line = auto_scheduler.measure_record.dump_record_to_string(inputs, result)
    return json.loads(line)["i"][1][1]


class Fast:
    """One program as the fast path sees it, in the terms of the exact one."""

    def __init__(self, graph: TaskGraph, steps: Any) -> None:
        key, self.parameters = split_record_steps(steps)
        self.structure: Structure = build_structure(graph, key)
        values = np.asarray([self.parameters], dtype=np.int64)
        self.bounds: dict[int, StageBounds] = evaluate(self.structure, values)
        self.positions = features._positions(self.structure, self.bounds)[0].tolist()

    def extents(self, leaf: Leaf) -> list[int]:
        extents = self.bounds[leaf.stage].loop_extents[0]
        return [int(extents[p]) for p in leaf.path]

    def loops(self, leaf: Leaf) -> list[tuple[int, str, bool]]:
        stage = self.structure.stages[leaf.stage]
        first_own = len(stage.inherited)
        return [
            (extent, KINDS[stage.path[p].annotation], stage.path[p].is_reduce and p >= first_own)
            for p, extent in zip(leaf.path, self.extents(leaf), strict=True)
            if extent > 1
        ]

    def unroll_limit(self, leaf: Leaf) -> int:
        stage = self.structure.stages[leaf.stage]
        parameter = stage.init_unroll_parameter if leaf.is_init else stage.unroll_parameter
        return 0 if parameter is None else self.parameters[parameter]

    def accesses(self, leaf: Leaf) -> list[tuple[Levels, Levels]]:
        """Touched elements per level, and steps of the leaf's own loops; the write first."""
        kept = [n for n, extent in enumerate(self.extents(leaf)) if extent > 1]
        first_own = len(self.structure.stages[leaf.stage].inherited)
        own = [n for n in kept if leaf.path[n] >= first_own]
        found = features._accesses(self.structure, leaf, self.bounds, False)
        return [
            (
                tuple(int(x) for x in access.touched[0][[*kept, -1]]),
                tuple(int(x) for x in access.strides[0][own]),
            )
            for access in found
        ]

    def num_own_loops(self, leaf: Leaf) -> int:
        first_own = len(self.structure.stages[leaf.stage].inherited)
        pairs = zip(leaf.path, self.extents(leaf), strict=True)
        return sum(p >= first_own and extent > 1 for p, extent in pairs)


def operations(leaf: TirLeaf) -> dict[str, int]:
    counts = leaf.op_counts
    names = {"float_compare": "float_cmp"}
    found = {name: counts.get(names.get(name, name), 0) for name in OP_CLASSES[:5]}
    integers = sum(count for name, count in counts.items() if name.startswith("int_"))
    return found | {"integer": integers, "logic": counts["select"] + counts["bool"]}


def exact_accesses(leaf: TirLeaf, is_update: bool, num_own: int) -> list[tuple[Levels, Levels]]:
    """As `Fast.accesses`, without a reduction's read of its own result.

    Buffers are told by name alone, and stages share names, so only the first read of that name in
    an update is left out: the combiner reads its accumulator first.
    """
    accesses = list(leaf.accesses)
    if is_update:
        accesses.remove(next(a for a in accesses[1:] if a.buffer == leaf.buffer))
    num_outer = len(leaf.loops) - num_own
    found = []
    for access in accesses:
        shape = np.array(access.storage_shape, dtype=np.int64).reshape(-1, 1)
        touched = np.minimum(access.cover, shape).prod(axis=0)
        steps = access.first_step_elements[num_outer:]
        assert None not in steps
        found.append((tuple(touched.tolist()), tuple(abs(step or 0) for step in steps)))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_exact_path(zoo: dict[str, Sampled], name: str) -> None:
    sample = zoo[name]
    assert sample.programs
    for state, steps in zip(sample.states, sample.programs, strict=True):
        fast, exact = Fast(sample.graph, steps), extract_exact(sample.task, state)
        assert len(fast.structure.leaves) == len(exact)
        for number, (leaf, expected) in enumerate(zip(fast.structure.leaves, exact, strict=True)):
            stage = fast.structure.stages[leaf.stage]
            where = f"{expected.buffer}, leaf {number} of {steps}"
            # TVM names the parts of a factored reduction and of caches in its own way.
            base = stage.spec.name.split(".")[0]
            assert expected.buffer.split(".")[0].split("_red_temp")[0].startswith(base), where
            assert leaf.is_init == expected.is_init, where
            loops = [(loop.extent, loop.kind, loop.reduce) for loop in expected.loops]
            assert fast.loops(leaf) == loops, where
            assert fast.positions[number] == expected.position, where
            assert fast.unroll_limit(leaf) == expected.auto_unroll_max_step, where
            assert dict(zip(OP_CLASSES, leaf.ops, strict=True)) == operations(expected), where
            is_update = stage.spec.has_reduction and not leaf.is_init
            theirs = exact_accesses(expected, is_update, fast.num_own_loops(leaf))
            ours = fast.accesses(leaf)
            assert ours[0] == theirs[0], where
            assert sorted(ours) == sorted(theirs), where


@pytest.mark.parametrize("name", NAMES)
def test_every_computation_vector_is_finite(zoo: dict[str, Sampled], name: str) -> None:
    sample = zoo[name]
    batch, errors = StepReplayer(sample.graph).extract(sample.programs)
    assert errors == {}
    assert (batch.leaf_counts > 0).all()
    assert np.isfinite(batch.vectors).all()
    assert (batch.vectors >= 0).all()
    flags = [COLUMN[field.name] for field in FIELDS if field.scale == "flag"]
    assert np.isin(batch.vectors[:, flags], [0, 1]).all()
    assert (batch.positions > 0).all()


@pytest.mark.parametrize("name", ["conv2d_nchw", "softmax", "norm", "matmul_relu"])
def test_company_and_order_change_nothing(zoo: dict[str, Sampled], name: str) -> None:
    sample = zoo[name]
    together, _ = StepReplayer(sample.graph).extract(sample.programs)
    order = np.random.default_rng(0).permutation(len(sample.programs))
    shuffled, _ = StepReplayer(sample.graph).extract([sample.programs[n] for n in order])
    equal(shuffled, together.take(order))
    replayer = StepReplayer(sample.graph)
    for number, steps in enumerate(sample.programs):
        alone, _ = replayer.extract([steps])
        equal(alone, together.take([number]))


def equal(a: CompactASTBatch, b: CompactASTBatch) -> None:
    np.testing.assert_array_equal(a.offsets, b.offsets)
    np.testing.assert_array_equal(a.positions, b.positions)
    np.testing.assert_array_equal(a.vectors, b.vectors)


def in_units(vector: npt.NDArray[np.float32]) -> dict[str, float]:
    """Undo the scaling of a computation vector."""
    values = vector.astype(np.float64)
    return {
        field.name: round(float(np.exp2(x) - 1), 1) if field.scale == "log2" else float(x)
        for field, x in zip(FIELDS, values, strict=True)
    }


def expect(found: dict[str, float], expected: dict[str, float]) -> None:
    """Compare with 1e-5 of tolerance: vectors are float32 logarithms."""
    different = {
        name: (found[name], value)
        for name, value in expected.items()
        if not np.isclose(found[name], value, rtol=1e-5)
    }
    assert different == {}


def test_matmul_by_hand() -> None:
    """C[4, 6] += A[4, 8] * B[8, 6]: parallel i, j in twos, k, three vector lanes."""
    graph = analyse(sampling.make_task(sampling.matmul, args=(4, 6, 8)).compute_dag)
    steps = [
        ["SP", 2, 1, 6, [3], 1],
        ["RE", 2, [0, 1, 3, 2]],
        ["AN", 2, 0, 3],
        ["AN", 2, 3, 2],
        ["PR", 2, 0, "auto_unroll_max_step$16"],
    ]
    batch, errors = StepReplayer(graph).extract([steps])
    assert errors == {}
    init, update = (in_units(vector) for vector in batch.vectors)

    # Pre-order: i 1, outer j 2, init's lanes 3, init 4, k 5, lanes 6, update 7.
    assert batch.positions.tolist() == [2 * 4 - 4, 2 * 7 - 5]
    expect(
        update,
        {
            "float_add_ops": 192, "float_mul_ops": 192, "float_div_ops": 0, "integer_ops": 0,
            "is_init": 0, "is_copy": 0, "executions": 4 * 6 * 8, "spatial_executions": 24,
            "reduce_executions": 8, "num_loops": 4, "parallel_extent": 4, "task_executions": 48,
            "vector_extent": 3, "is_vectorized": 1, "unroll_extent": 1, "unroll_limit": 16,
            # Outer j, k and the lanes as one: 2 * 8 * 1 steps are within 16.
            "unrolled_body": 16, "block_extent": 1, "thread_extent": 1, "vthread_extent": 1,
            "buffer_bytes": 96, "num_accesses": 3,
            "inner0_extent": 3 - 1, "inner0_is_reduce": 0, "inner1_extent": 8 - 1,
            "inner1_is_reduce": 1, "inner2_extent": 2 - 1, "inner3_extent": 4 - 1,
        },
    )  # fmt: skip
    for slot, unique_bytes, line_bytes, stride, tile_bytes in (
        ("write", 4 * 6 * 4, 128, 1, 3 * 4),
        ("read0", 8 * 6 * 4, 192, 1, 8 * 3 * 4),  # B, the largest buffer
        ("read1", 4 * 8 * 4, 128, 0, 8 * 4),
    ):
        expect(
            update,
            {
                f"{slot}_element_bytes": 4, f"{slot}_access_bytes": 192 * 4,
                f"{slot}_unique_bytes": unique_bytes, f"{slot}_line_bytes": line_bytes,
                f"{slot}_reuse": 768 / unique_bytes, f"{slot}_stride": stride,
                f"{slot}_is_contiguous": stride == 1, f"{slot}_is_invariant": stride == 0,
                f"{slot}_tile_bytes": tile_bytes, f"{slot}_is_local": 0,
            },
        )  # fmt: skip
    expect(update, {"read2_element_bytes": 0, "read2_access_bytes": 0, "rest_line_bytes": 0})
    # Everything fits into the smallest cache: each line is fetched once.
    expect(update, {f"traffic_{capacity}": 448 for capacity in TRAFFIC_CAPACITIES_BYTES})
    expect(
        init,
        {
            "is_init": 1, "float_add_ops": 0, "executions": 24, "reduce_executions": 1,
            "num_loops": 3, "vector_extent": 3, "parallel_extent": 4, "write_unique_bytes": 96,
            "read0_element_bytes": 0, "num_accesses": 1, "traffic_4096": 128,
        },
    )  # fmt: skip


def test_traffic_by_hand() -> None:
    """A plain 64 x 64 x 64 product, i outside of j outside of k, rows of 256 bytes."""
    graph = analyse(sampling.make_task(sampling.matmul, args=(64, 64, 64)).compute_dag)
    batch, _ = StepReplayer(graph).extract([[]])
    update = in_units(batch.vectors[1])
    matrix, row, line = 64 * 64 * 4, 256, 64
    expect(
        update,
        {
            # Nothing but one execution fits, as a column of B takes a line per row.
            "traffic_4096": 3 * line * 64**3,
            # All of k: a row of A, a column of B, an element of C.
            "traffic_16384": (row + 64 * line + line) * 64**2,
            # All of j and k: a row of A, B, a row of C.
            "traffic_32768": (row + matrix + row) * 64,
            "traffic_131072": 3 * matrix,
            "traffic_33554432": 3 * matrix,
            "read0_line_bytes": matrix,
            "read1_line_bytes": matrix,
        },
    )


def test_a_producer_inside_its_consumer() -> None:
    """Relu in rows; each row's product is computed inside the parallel loop."""
    graph = analyse(sampling.make_task(sampling.matmul_relu, args=(4, 6, 8)).compute_dag)
    batch, errors = StepReplayer(graph).extract([[["AN", 3, 0, 3], ["CA", 2, 3, 0]]])
    assert errors == {}
    init, update, relu = (in_units(vector) for vector in batch.vectors)
    expect(init, {"executions": 24, "parallel_extent": 4, "buffer_bytes": 24})
    expect(update, {"executions": 192, "write_is_local": 1, "read0_is_local": 0,
                    "buffer_bytes": 24})  # fmt: skip
    expect(relu, {"executions": 24, "write_is_local": 0, "read0_is_local": 1,
                  "float_compare_ops": 24, "buffer_bytes": 96})  # fmt: skip


def test_rewritten_layouts_are_read_in_order() -> None:
    """A layout-free weight is stored as it is read, so its lines are all used."""
    task = sampling.make_task(layout_free_dense)
    graph = analyse(task.compute_dag)
    assert [stage.layout_free for stage in graph.stages] == [False, True, False]
    steps = [["RE", 2, [0, 2, 1]]]  # the output's columns innermost: a column of the weight
    plain, _ = StepReplayer(graph).extract([steps])
    rewritten, _ = StepReplayer(graph, rewrites_layout=True).extract([steps])
    strides = [
        (in_units(batch.vectors[1])["read0_stride"], in_units(batch.vectors[1])["read1_stride"])
        for batch in (plain, rewritten)
    ]
    assert strides == [(96, 0), (1, 0)]


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
