"""The exact path, against programs worked out by hand and against TVM's own features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.extract import sampling
from tvm_cdmpp.errors import LoweringError
from tvm_cdmpp.extract.tir import TirLeaf, extract_exact, leaves_of, lower

tvm = sampling.tvm
te, auto_scheduler = tvm.te, tvm.auto_scheduler
CPU, GPU = "llvm -num-cores 4", "cuda -arch=sm_80"


class Program:
    """A state under construction: stages by name, iterators by number."""

    def __init__(self, builder: Callable[[], list[Any]], target: str = CPU) -> None:
        self.task = sampling.make_task(builder, target)
        self.state = self.task.compute_dag.get_init_state()

    def stage(self, name: str) -> Any:
        return next(s.op.output(0) for s in self.state.stages if s.op.name == name)

    def __call__(self, step: str, name: str, *args: Any) -> None:
        getattr(self.state, step)(self.stage(name), *args)

    def iter(self, name: str, number: int) -> Any:
        return self.state[self.stage(name)].iters[number]

    def leaves(self) -> list[TirLeaf]:
        return extract_exact(self.task, self.state)


def loops(leaf: TirLeaf) -> list[tuple[int, str]]:
    return [(loop.extent, loop.kind) for loop in leaf.loops]


def reductions(leaf: TirLeaf) -> list[bool]:
    return [loop.reduce for loop in leaf.loops]


def operations(leaf: TirLeaf) -> dict[str, int]:
    return {name: count for name, count in leaf.op_counts.items() if count}


def test_matmul_computed_inside_relu() -> None:
    p = Program(sampling.matmul_relu)
    p("split", "C", p.iter("C", 0), [3])
    p("split", "C", p.iter("C", 2), [4])
    p("split", "D", p.iter("D", 0), [3])
    p("compute_at", "C", p.stage("D"), p.iter("D", 0))
    p("parallel", "D", p.iter("D", 0))
    p("vectorize", "D", p.iter("D", 2))
    p("pragma", "D", p.iter("D", 0), "auto_unroll_max_step$16")

    init, update, relu = p.leaves()

    space = [(2, "parallel"), (3, "serial"), (2, "serial"), (4, "serial")]
    assert (init.buffer, init.is_init, loops(init)) == ("C", True, space)
    assert (update.buffer, update.is_init) == ("C", False)
    assert loops(update) == [*space, (8, "serial")]
    assert (relu.buffer, relu.is_init) == ("D", False)
    assert loops(relu) == [(2, "parallel"), (3, "serial"), (6, "vectorized")]
    # Pre-order: root 0, loops 1 to 4, init 5, loop 6, update 7, loops 8 and 9, relu 10.
    assert [leaf.position for leaf in (init, update, relu)] == [2 * 5 - 5, 2 * 7 - 6, 2 * 10 - 4]
    assert reductions(init) == [False] * 4
    assert reductions(update) == [False] * 4 + [True]
    # The pragma of the consumer also holds for what is computed inside it.
    assert {leaf.auto_unroll_max_step for leaf in (init, update, relu)} == {16}
    assert operations(init) == {}
    assert operations(update) == {"float_add": 1, "float_mul": 1}
    assert operations(relu) == {"float_cmp": 1}

    write, accumulator, a, b = update.accesses
    assert [x.is_write for x in update.accesses] == [True, False, False, False]
    assert [x.buffer for x in update.accesses] == ["C", "C", "A", "B"]
    # Three rows are needed at a time; the splits overshoot, so the cover is clipped to the shape.
    assert (write.shape, write.storage_shape) == ((4, 6), (3, 6))
    assert write.cover.tolist() == [[4, 3, 1, 1, 1, 1], [6, 6, 6, 4, 1, 1]]
    assert accumulator.cover.tolist() == write.cover.tolist()
    assert a.cover.tolist() == [[4, 3, 1, 1, 1, 1], [8, 8, 8, 8, 8, 1]]
    assert b.cover.tolist() == [[8, 8, 8, 8, 8, 1], [6, 6, 6, 4, 1, 1]]
    assert write.stride_elements == (18, 6, 4, 1, 0)
    assert a.stride_elements == (24, 8, 0, 0, 1)
    assert b.stride_elements == (0, 0, 4, 1, 6)


def test_softmax_as_written() -> None:
    leaves = Program(sampling.softmax).leaves()
    names = ["maxelem", "maxelem", "exp", "expsum", "expsum", "norm"]
    assert [leaf.buffer for leaf in leaves] == [f"T_softmax_{name}" for name in names]
    assert [leaf.is_init for leaf in leaves] == [True, False, False, True, False, False]
    # Pre-order numbers 2, 4, 7, 9, 11, 14 at depths 2, 3, 3, 2, 3, 3.
    assert [leaf.position for leaf in leaves] == [2, 5, 11, 16, 19, 25]
    assert [reductions(leaf) for leaf in leaves] == [
        [False], [False, True], [False, False], [False], [False, True], [False, False],
    ]  # fmt: skip
    assert [operations(leaf) for leaf in leaves] == [
        {}, {"float_cmp": 1}, {"float_add": 1, "float_math": 1}, {}, {"float_add": 1},
        {"float_div": 1},
    ]  # fmt: skip
    divided, exponential, total = leaves[-1].accesses
    assert divided.cover.tolist() == exponential.cover.tolist() == [[16, 1, 1], [37, 37, 1]]
    assert (total.shape, total.cover.tolist(), total.stride_elements) == (
        (16,),
        [[16, 1, 1]],
        (1, 0),
    )


def padded_conv2d() -> list[Any]:
    data = te.placeholder((1, 3, 8, 8), name="data")
    kernel = te.placeholder((4, 3, 3, 3), name="kernel")
    conv = sampling.topi.nn.conv2d_nchw(data, kernel, 1, 1, 1)
    return [data, kernel, sampling.topi.nn.relu(conv)]


def test_padded_conv2d() -> None:
    pad, init, update, relu = Program(padded_conv2d).leaves()
    # The batch axis runs once, so it is no loop.
    assert [loop.extent for loop in pad.loops] == [3, 10, 10]
    # All four bounds are tested; the index arithmetic inside them does not count.
    assert operations(pad) == {"int_cmp": 4, "bool": 3, "select": 1}
    assert pad.accesses[1].cover.tolist()[2] == [8, 8, 1, 1]
    assert [loop.extent for loop in update.loops] == [4, 8, 8, 3, 3, 3]
    assert reductions(update) == [False] * 3 + [True] * 3
    assert [leaf.position for leaf in (pad, init, update, relu)] == [4, 12, 17, 28]
    padded = update.accesses[2]
    assert padded.buffer == "pad_temp"
    assert padded.cover.tolist() == [
        [1] * 7,
        [3, 3, 3, 3, 1, 1, 1],
        [10, 10, 3, 3, 3, 1, 1],
        [10, 10, 10, 3, 3, 3, 1],
    ]
    assert padded.stride_elements == (0, 10, 1, 100, 10, 1)


def test_inlined_padding_moves_into_the_reader() -> None:
    p = Program(padded_conv2d)
    p("compute_inline", "pad_temp")
    _, update, _ = p.leaves()
    assert operations(update) == {
        "float_add": 1, "float_mul": 1, "int_cmp": 4, "bool": 3, "select": 1,
    }  # fmt: skip
    assert [access.buffer for access in update.accesses[2:]] == ["data", "kernel"]


def copy_chain() -> list[Any]:
    a = te.placeholder((10, 5), name="A")
    b = te.compute((10, 5), lambda i, j: a[i, j] * 2.0, name="B")
    return [a, te.compute((10, 5), lambda i, j: b[i, j] + b[i, j], name="C")]


@pytest.mark.parametrize(
    ("lengths", "attach", "producer", "consumer"),
    [
        ([2, 3], 0, [2, 6, 5], [2, 2, 3, 5]),  # two times six rows: overshoot is kept
        ([2, 3], 1, [2, 2, 3, 5], [2, 2, 3, 5]),
        ([4, 3], 0, [10, 5], [4, 3, 5]),  # the outer loop runs once, so all is needed, exactly
        ([16], 0, [10, 5], [10, 5]),  # a factor beyond the extent is cut to it
    ],
)
def test_splits_that_do_not_divide(
    lengths: list[int], attach: int, producer: list[int], consumer: list[int]
) -> None:
    p = Program(copy_chain)
    p("split", "C", p.iter("C", 0), lengths)
    p("compute_at", "B", p.stage("C"), p.iter("C", attach))
    b, c = p.leaves()
    assert [loop.extent for loop in b.loops] == producer
    assert [loop.extent for loop in c.loops] == consumer
    # The same element read twice is one access.
    assert [access.buffer for access in c.accesses] == ["C", "B"]


def test_extent_that_depends_on_an_outer_loop() -> None:
    p = Program(copy_chain)
    p("fuse", "C", [p.iter("C", 0), p.iter("C", 1)])
    p("split", "C", p.iter("C", 0), [4])
    p("compute_at", "B", p.stage("C"), p.iter("C", 0))
    b, c = p.leaves()
    # Four neighbours of a row of five meet two rows at most.
    assert [(loop.extent, loop.symbolic) for loop in b.loops] == [
        (13, False),
        (2, True),
        (5, False),
    ]
    assert b.accesses[0].storage_shape == (2, 5)
    written = c.accesses[0]
    assert written.stride_elements == (None, None)
    assert written.first_step_elements == (4, 1)
    assert written.cover.tolist() == [[10, 1, 1], [5, 4, 1]]


def test_reduction_outside_of_space() -> None:
    def column_sums() -> list[Any]:
        a, k = te.placeholder((6, 4), name="A"), te.reduce_axis((0, 6), name="k")
        return [a, te.compute((4,), lambda i: te.sum(a[k, i], axis=k), name="R")]

    p = Program(column_sums)
    p("reorder", "R", [p.iter("R", 1), p.iter("R", 0)])
    p("vectorize", "R", p.iter("R", 1))
    p("pragma", "R", p.iter("R", 0), "auto_unroll_max_step$64")
    init, update = p.leaves()
    assert (loops(init), init.auto_unroll_max_step) == ([(4, "vectorized")], 0)
    assert (loops(update), update.auto_unroll_max_step) == ([(6, "serial"), (4, "vectorized")], 64)
    assert reductions(update) == [True, False]


def test_producer_repeated_in_a_reduction_is_no_reduction() -> None:
    p = Program(padded_conv2d)
    p("compute_at", "pad_temp", p.stage("conv2d_nchw"), p.iter("conv2d_nchw", 4))
    pad = next(leaf for leaf in p.leaves() if leaf.buffer == "pad_temp")
    assert [loop.extent for loop in pad.loops] == [4, 8, 8, 3, 3, 3]
    assert not any(reductions(pad))


def test_two_outputs_and_an_index_read_from_memory() -> None:
    def largest() -> list[Any]:
        data = te.placeholder((4, 7), name="data")
        return [data, sampling.topi.argmax(data, axis=1)]

    leaves = Program(largest).leaves()
    assert [leaf.is_init for leaf in leaves] == [True, True, False, False, False]
    assert [leaf.buffer[-2:] for leaf in leaves[:4]] == ["v0", "v1", "v0", "v1"]

    def gather() -> list[Any]:
        table = te.placeholder((50, 8), name="table")
        rows = te.placeholder((6,), name="rows", dtype="int32")
        return [table, rows, te.compute((6, 8), lambda i, j: table[rows[i], j], name="G")]

    (leaf,) = Program(gather).leaves()
    table, rows = leaf.accesses[1:]
    assert table.cover.tolist() == [[50, 1, 1], [8, 8, 1]]
    assert table.stride_elements == table.first_step_elements == (None, 1)
    assert (rows.buffer, rows.cover.tolist()) == ("rows", [[6, 1, 1]])
    assert operations(leaf) == {}


def test_table_of_constants_costs_nothing() -> None:
    task = sampling.make_task(sampling.conv2d_winograd)
    state = sampling.sample_states(task, 1)[0]
    padding = [leaf for leaf in extract_exact(task, state) if leaf.op_counts["int_cmp"]]
    assert len(padding) <= 1
    assert all(leaf.op_counts["int_cmp"] <= 4 for leaf in padding)


def test_cooperative_fetching_uses_the_same_threads() -> None:
    p = Program(sampling.matmul, GPU)
    p("split", "C", p.iter("C", 0), [2])
    p("split", "C", p.iter("C", 3), [4])
    p("reorder", "C", [p.iter("C", number) for number in (0, 2, 3, 4, 1)])
    p.state.cache_read(p.stage("A"), "shared", [p.stage("C")])
    p("compute_at", "A.shared", p.stage("C"), p.iter("C", 2))
    p("fuse", "A.shared", [p.iter("A.shared", 0), p.iter("A.shared", 1)])
    p("split", "A.shared", p.iter("A.shared", 0), [48])
    p("bind", "A.shared", p.iter("A.shared", 1), "threadIdx.x")
    p("bind", "C", p.iter("C", 0), "blockIdx.x")
    p("bind", "C", p.iter("C", 1), "threadIdx.x")
    init, fetch, update = p.leaves()
    threads = [(19, "blockIdx.x"), (48, "threadIdx.x")]
    assert loops(init) == [*threads, (2, "serial")]
    # Two rows by four columns are eight elements for 48 threads.
    assert loops(fetch) == [*threads, (16, "serial")]
    assert fetch.accesses[0].storage_shape == (2, 4)
    assert loops(update) == [*threads, (16, "serial"), (4, "serial"), (2, "serial")]
    assert reductions(update) == [False, False, True, True, False]


def test_reduction_across_threads() -> None:
    def row_sums() -> list[Any]:
        a, k = te.placeholder((6, 37), name="A"), te.reduce_axis((0, 37), name="k")
        return [a, te.compute((6,), lambda i: te.sum(a[i, k], axis=k), name="R")]

    p = Program(row_sums, GPU)
    p("split", "R", p.iter("R", 1), [32])
    p("bind", "R", p.iter("R", 0), "blockIdx.x")
    p("bind", "R", p.iter("R", 2), "threadIdx.x")
    init, update, store = p.leaves()
    threads = [(6, "blockIdx.x"), (32, "threadIdx.x")]
    assert init.is_init
    assert loops(init) == loops(store) == threads
    # Each thread has its own partial sum, so only the serial loop accumulates.
    assert loops(update) == [*threads, (2, "serial")]
    assert reductions(update) == [False, False, True]
    assert store.buffer == "R"


def test_cuda_states_lower_without_a_gpu() -> None:
    task = sampling.make_task(sampling.conv2d_nhwc, GPU)
    for state in sampling.sample_states(task, 6):
        leaves = extract_exact(task, state)
        kinds = {loop.kind for leaf in leaves for loop in leaf.loops}
        assert "blockIdx.x" in kinds
        for leaf in leaves:
            tags = [loop.kind for loop in leaf.loops if "Idx" in loop.kind]
            assert len(tags) == len(set(tags))


@pytest.mark.parametrize("builder", sampling.BUILDERS, ids=lambda builder: builder.__name__)
def test_agrees_with_features_of_tvm(builder: Callable[[], list[Any]]) -> None:
    """TVM gives one row per buffer: operations summed, loops of the last store."""
    task = sampling.make_task(builder)
    for state in sampling.sample_states(task, 6, seed=1):
        primfunc = lower(task, state)
        ours = sorted(_feature_rows(leaves_of(primfunc)))
        rows = auto_scheduler.feature.named_features_from_primfunc(primfunc)
        columns = (
            rows["float_addsub"], rows["float_mul"], rows["float_divmod"], rows["float_cmp"],
            rows["outer_prod"], rows["num_loops"], rows["auto_unroll_max_step"],
            rows["vec_prod"], rows["parallel_prod"], rows["unroll_prod"],
        )  # fmt: skip
        assert ours == sorted(zip(*(column.tolist() for column in columns), strict=True))


def _feature_rows(leaves: list[TirLeaf]) -> Iterator[tuple[float, ...]]:
    for number, leaf in enumerate(leaves):
        if leaf.is_init:
            continue
        # Initial values cost no operations, so a buffer's operations are those of its last store.
        extents = [float(loop.extent) for loop in leaf.loops]
        executions = float(np.prod(extents))
        counts = [
            executions * leaf.op_counts[name]
            for name in ("float_add", "float_mul", "float_div", "float_cmp")
        ]
        annotated = [
            float(np.prod([x.extent for x in leaf.loops if x.kind == kind] or [0]))
            for kind in ("vectorized", "parallel", "unrolled")
        ]
        assert number == 0 or leaf.position > leaves[number - 1].position
        yield (*counts, executions, float(len(extents)), leaf.auto_unroll_max_step, *annotated)


def test_state_that_cannot_be_lowered() -> None:
    p = Program(copy_chain)
    p("compute_at", "C", p.stage("B"), p.iter("B", 0))
    with pytest.raises(LoweringError, match=r"copy_chain.*Skip this state"):
        p.leaves()


def test_program_that_is_not_from_a_schedule() -> None:
    blocks = te.create_prim_func(copy_chain())
    with pytest.raises(LoweringError, match="got BlockRealize"):
        leaves_of(blocks)


def test_sampling_is_the_same_on_every_run() -> None:
    task = sampling.make_task(sampling.dense)
    first, again, other = (
        [str(state) for state in sampling.sample_states(task, 9, seed)] for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    assert len(first) == 9
