"""The exact path, against programs worked out by hand and against TVM's own features."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.extract import sampling
from tests.extract.layouts import AS_GIVEN, COPIED, REWRITTEN, with_layouts
from tvm_cdmpp.ast.leaf import OP_CLASSES, Access, Leaf
from tvm_cdmpp.errors import LoweringError
from tvm_cdmpp.extract.dag import analyse
from tvm_cdmpp.extract.tir import extract_exact, leaves_of, lower

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

    def leaves(self) -> list[Leaf]:
        return extract_exact(self.task, self.state)


def loops(leaf: Leaf) -> list[tuple[int, str]]:
    return [(loop.extent, loop.kind) for loop in leaf.loops]


def reductions(leaf: Leaf) -> list[bool]:
    return [loop.is_reduce for loop in leaf.loops]


def operations(leaf: Leaf) -> dict[str, int]:
    return {name: count for name, count in zip(OP_CLASSES, leaf.ops, strict=True) if count}


def cover(access: Access) -> list[list[int]]:
    return [list(levels) for levels in access.cover]


def storage(access: Access) -> tuple[str, bool, tuple[int, ...]]:
    return access.scope, access.is_inside, access.shape


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
    assert (init.name, init.is_init, loops(init)) == ("C", True, space)
    assert (update.name, update.is_init) == ("C", False)
    assert loops(update) == [*space, (8, "serial")]
    assert (relu.name, relu.is_init) == ("D", False)
    assert loops(relu) == [(2, "parallel"), (3, "serial"), (6, "vectorized")]
    # Pre-order: root 0, loops 1 to 4, init 5, loop 6, update 7, loops 8 and 9, relu 10.
    assert [leaf.position for leaf in (init, update, relu)] == [2 * 5 - 5, 2 * 7 - 6, 2 * 10 - 4]
    assert reductions(init) == [False] * 4
    assert reductions(update) == [False] * 4 + [True]
    # The pragma of the consumer also holds for what is computed inside it.
    assert {leaf.unroll_limit for leaf in (init, update, relu)} == {16}
    assert operations(init) == {}
    assert operations(update) == {"float_add": 1, "float_mul": 1}
    assert operations(relu) == {"float_compare": 1}

    assert [leaf.buffer for leaf in (init, update, relu)] == [0, 0, 1]
    assert [leaf.nest for leaf in (init, update, relu)] == [0, 0, 0]
    assert [leaf.compute_bytes for leaf in (init, update, relu)] == [0, 4, 4]

    # What the update adds to is its store, so it is no read.
    write, a, b = update.accesses
    # Three rows are needed at a time, inside of the parallel loop.
    assert storage(write) == storage(relu.accesses[1]) == ("global", True, (3, 6))
    assert storage(a) == ("global", False, (4, 8))
    # The splits overshoot, so the cover is clipped to what is allocated.
    assert cover(write) == [[3, 3, 1, 1, 1, 1], [6, 6, 6, 4, 1, 1]]
    assert cover(a) == [[4, 3, 1, 1, 1, 1], [8, 8, 8, 8, 8, 1]]
    assert cover(b) == [[8, 8, 8, 8, 8, 1], [6, 6, 6, 4, 1, 1]]
    assert write.steps == (18, 6, 4, 1, 0)
    assert a.steps == (24, 8, 0, 0, 1)
    assert b.steps == (0, 0, 4, 1, 6)


def test_softmax_as_written() -> None:
    leaves = Program(sampling.softmax).leaves()
    names = ["maxelem", "maxelem", "exp", "expsum", "expsum", "norm"]
    assert [leaf.name for leaf in leaves] == [f"T_softmax_{name}" for name in names]
    assert [leaf.is_init for leaf in leaves] == [True, False, False, True, False, False]
    # Pre-order numbers 2, 4, 7, 9, 11, 14 at depths 2, 3, 3, 2, 3, 3.
    assert [leaf.position for leaf in leaves] == [2, 5, 11, 16, 19, 25]
    assert [reductions(leaf) for leaf in leaves] == [
        [False], [False, True], [False, False], [False], [False, True], [False, False],
    ]  # fmt: skip
    assert [operations(leaf) for leaf in leaves] == [
        {}, {"float_compare": 1}, {"float_add": 1, "float_math": 1}, {}, {"float_add": 1},
        {"float_div": 1},
    ]  # fmt: skip
    divided, exponential, total = leaves[-1].accesses
    assert cover(divided) == cover(exponential) == [[16, 1, 1], [37, 37, 1]]
    assert (total.shape, cover(total), total.steps) == ((16,), [[16, 1, 1]], (1, 0))
    assert [leaf.buffer for leaf in leaves] == [0, 0, 1, 2, 2, 3]
    # Each stage has a nest of its own; an initial value stands in that of its update.
    assert [leaf.nest for leaf in leaves] == [0, 0, 1, 2, 2, 3]


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
    assert operations(pad) == {"int_compare": 4, "bool": 3, "select": 1}
    assert cover(pad.accesses[1])[2] == [8, 8, 1, 1]
    # It compares loop variables only.
    assert pad.compute_bytes == 0
    assert [loop.extent for loop in update.loops] == [4, 8, 8, 3, 3, 3]
    assert reductions(update) == [False] * 3 + [True] * 3
    assert [leaf.position for leaf in (pad, init, update, relu)] == [4, 12, 17, 28]
    padded = update.accesses[1]
    assert padded.shape == (1, 3, 10, 10)
    assert cover(padded) == [
        [1] * 7,
        [3, 3, 3, 3, 1, 1, 1],
        [10, 10, 3, 3, 3, 1, 1],
        [10, 10, 10, 3, 3, 3, 1],
    ]
    assert padded.steps == (0, 10, 1, 100, 10, 1)


def test_inlined_padding_moves_into_the_reader() -> None:
    p = Program(padded_conv2d)
    p("compute_inline", "pad_temp")
    _, update, _ = p.leaves()
    assert operations(update) == {
        "float_add": 1, "float_mul": 1, "int_compare": 4, "bool": 3, "select": 1,
    }  # fmt: skip
    assert [access.shape for access in update.accesses[1:]] == [(1, 3, 8, 8), (4, 3, 3, 3)]


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
    assert len(c.accesses) == 2


def test_extent_that_depends_on_an_outer_loop() -> None:
    p = Program(copy_chain)
    p("fuse", "C", [p.iter("C", 0), p.iter("C", 1)])
    p("split", "C", p.iter("C", 0), [4])
    p("compute_at", "B", p.stage("C"), p.iter("C", 0))
    b, c = p.leaves()
    # Four neighbours of a row of five meet two rows at most.
    assert [loop.extent for loop in b.loops] == [13, 2, 5]
    assert b.accesses[0].shape == (2, 5)
    written = c.accesses[0]
    # Rows and columns are quotients and remainders; the first step is what counts.
    assert written.steps == (4, 1)
    assert cover(written) == [[10, 1, 1], [5, 4, 1]]


def test_reduction_outside_of_space() -> None:
    def column_sums() -> list[Any]:
        a, k = te.placeholder((6, 4), name="A"), te.reduce_axis((0, 6), name="k")
        return [a, te.compute((4,), lambda i: te.sum(a[k, i], axis=k), name="R")]

    p = Program(column_sums)
    p("reorder", "R", [p.iter("R", 1), p.iter("R", 0)])
    p("vectorize", "R", p.iter("R", 1))
    p("pragma", "R", p.iter("R", 0), "auto_unroll_max_step$64")
    init, update = p.leaves()
    assert (loops(init), init.unroll_limit) == ([(4, "vectorized")], 0)
    assert (loops(update), update.unroll_limit) == ([(6, "serial"), (4, "vectorized")], 64)
    assert reductions(update) == [True, False]


def test_producer_repeated_in_a_reduction_is_no_reduction() -> None:
    p = Program(padded_conv2d)
    p("compute_at", "pad_temp", p.stage("conv2d_nchw"), p.iter("conv2d_nchw", 4))
    pad = next(leaf for leaf in p.leaves() if leaf.name == "pad_temp")
    assert [loop.extent for loop in pad.loops] == [4, 8, 8, 3, 3, 3]
    assert not any(reductions(pad))


def test_two_outputs_and_an_index_read_from_memory() -> None:
    def largest() -> list[Any]:
        data = te.placeholder((4, 7), name="data")
        return [data, sampling.topi.argmax(data, axis=1)]

    leaves = Program(largest).leaves()
    assert [leaf.is_init for leaf in leaves] == [True, True, False, False, False]
    assert [leaf.name[-2:] for leaf in leaves[:4]] == ["v0", "v1", "v0", "v1"]
    assert [leaf.buffer for leaf in leaves] == [0, 1, 0, 1, 2]
    # The index looks at the data and at the largest value so far, which another leaf stores.
    assert [len(leaf.accesses) for leaf in leaves] == [1, 1, 3, 2, 2]

    def gather() -> list[Any]:
        table = te.placeholder((50, 8), name="table")
        rows = te.placeholder((6,), name="rows", dtype="int32")
        return [table, rows, te.compute((6, 8), lambda i, j: table[rows[i], j], name="G")]

    (leaf,) = Program(gather).leaves()
    table, rows = leaf.accesses[1:]
    assert cover(table) == [[50, 1, 1], [8, 8, 1]]
    # The row is read from memory, so nothing is known of its step.
    assert table.steps == (0, 1)
    assert (rows.shape, cover(rows)) == ((6,), [[6, 1, 1]])
    assert operations(leaf) == {}


def test_table_of_constants_costs_nothing() -> None:
    task = sampling.make_task(sampling.conv2d_winograd)
    state = sampling.sample_states(task, 1)[0]
    padding = [leaf for leaf in extract_exact(task, state) if "int_compare" in operations(leaf)]
    assert len(padding) <= 1
    assert all(operations(leaf)["int_compare"] <= 4 for leaf in padding)


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
    # It goes through the threads twice: their steps and reach are those of the loop kept.
    assert storage(fetch.accesses[0]) == ("shared", True, (2, 4))
    assert fetch.accesses[0].steps == (8, 1, 4)
    assert cover(fetch.accesses[0]) == [[2, 2, 1, 1], [4, 4, 4, 1]]
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
    assert [leaf.is_init for leaf in (init, update, store)] == [True, False, False]
    assert [leaf.nest for leaf in (init, update, store)] == [0, 0, 0]
    assert loops(init) == loops(store) == threads
    # Each thread has its own partial sum, so only the serial loop accumulates.
    assert loops(update) == [*threads, (2, "serial")]
    assert reductions(update) == [False, False, True]
    assert operations(update) == {"float_add": 1}
    assert operations(store) == {}
    partial, summand = update.accesses
    assert (init.buffer, update.buffer, store.buffer) == (0, 0, 1)
    assert storage(init.accesses[0]) == storage(partial) == ("local", True, (1,))
    assert (cover(partial), partial.steps) == ([[1, 1, 1, 1]], (0, 0, 0))
    assert cover(summand) == [[6, 1, 1, 1], [37, 37, 33, 1]]
    # The threads' sum is in yet another buffer, read by the thread that stores it.
    result, total = store.accesses
    assert (store.name, storage(result)) == ("R", ("global", False, (6,)))
    assert storage(total) == ("local", True, (1,))
    assert total.steps == (0, 0)


@pytest.mark.parametrize(
    ("tags", "attach", "expected"),
    [
        (["parallel"], 0, ("global", True)),
        ([], None, ("global", False)),
        (["blockIdx.x"], 0, ("shared", True)),
        (["blockIdx.x", "vthread"], 0, ("shared", True)),
        (["blockIdx.x", "vthread"], 1, ("local", True)),
        (["blockIdx.x", "threadIdx.x"], 1, ("local", True)),
        (["blockIdx.x", "threadIdx.x"], 2, ("local", True)),
    ],
)
def test_scope_that_nobody_asked_for(
    tags: list[str], attach: int | None, expected: tuple[str, bool]
) -> None:
    p = Program(copy_chain, GPU)
    p("split", "C", p.iter("C", 0), [2])
    for number, tag in enumerate(tags):
        if tag == "parallel":
            p(tag, "C", p.iter("C", number))
        else:
            p("bind", "C", p.iter("C", number), tag)
    if attach is not None:
        p("compute_at", "B", p.stage("C"), p.iter("C", attach))
    b, c = p.leaves()
    assert storage(b.accesses[0]) == storage(c.accesses[1])
    assert storage(b.accesses[0])[:2] == expected
    # Parameters belong to all.
    assert storage(c.accesses[0])[:2] == storage(b.accesses[1])[:2] == ("global", False)


def test_scope_inside_a_gpu_axis_of_one_iteration() -> None:
    p = Program(copy_chain, GPU)
    p("split", "C", p.iter("C", 0), [10])
    p("bind", "C", p.iter("C", 0), "blockIdx.x")
    p("compute_at", "B", p.stage("C"), p.iter("C", 0))
    b, _ = p.leaves()
    # It is no loop, but it is a block.
    assert storage(b.accesses[0]) == ("shared", False, (10, 5))


@pytest.mark.parametrize(
    ("asked", "scope"), [("shared", "shared"), ("local", "local"), ("warp", "shared")]
)
def test_scope_of_a_cache(asked: str, scope: str) -> None:
    p = Program(copy_chain, GPU)
    p("bind", "C", p.iter("C", 0), "threadIdx.x")
    p.state.cache_read(p.stage("B"), asked, [p.stage("C")])
    p("compute_at", f"B.{asked}", p.stage("C"), p.iter("C", 0))
    cache = p.leaves()[1]
    assert storage(cache.accesses[0])[:2] == (scope, True)


def half_precision() -> list[Any]:
    a = te.placeholder((8,), name="A", dtype="float16")
    scaled = te.compute((8,), lambda i: a[i] * a[i], name="S")
    wide = te.compute((8,), lambda i: scaled[i].astype("float32"), name="W")
    return [a, te.compute((8,), lambda i: te.exp(wide[i]) + a[i].astype("float32"), name="E")]


def quantised() -> list[Any]:
    a = te.placeholder((8, 16), name="A", dtype="int8")
    b = te.placeholder((16, 8), name="B", dtype="int8")
    k = te.reduce_axis((0, 16), name="k")

    def product(i: Any, j: Any) -> Any:
        return te.sum(a[i, k].astype("int32") * b[k, j].astype("int32"), axis=k)

    c = te.compute((8, 8), product, name="C")

    def clipped(i: Any, j: Any) -> Any:
        shifted = (c[i, j] + 64) >> 7
        return te.max(te.min(shifted, 127), -128).astype("int8")

    d = te.compute((8, 8), clipped, name="D")
    return [a, b, te.compute((8, 8), lambda i, j: te.max(d[i, j], d[j, i]), name="M")]


def positions() -> list[Any]:
    """A mix of types: floats made of loop variables, a choice."""
    a = te.placeholder((8,), name="A", dtype="int64")

    def chosen(i: Any) -> Any:
        inside = sampling.tvm.tir.all(i > 2, a[i] > 5)
        return sampling.tvm.tir.Select(inside, (i * 3).astype("float32") - 0.5, 0.0)

    return [a, te.compute((8,), chosen, name="P")]


def test_computing_with_small_types() -> None:
    scaled, wide, last = Program(half_precision).leaves()
    assert [leaf.compute_bytes for leaf in (scaled, wide, last)] == [2, 0, 4]
    assert [operations(leaf) for leaf in (scaled, wide, last)] == [
        {"float_mul": 1}, {"cast": 1}, {"float_math": 1, "float_add": 1, "cast": 1},
    ]  # fmt: skip
    assert [access.element_bytes for access in last.accesses] == [4, 4, 2]

    init, update, clip, largest = Program(quantised).leaves()
    assert [leaf.compute_bytes for leaf in (init, update, clip, largest)] == [0, 4, 4, 1]
    assert operations(update) == {"int_add": 1, "int_mul": 1, "cast": 2}
    assert operations(clip) == {"int_add": 1, "int_math": 1, "int_compare": 2, "cast": 1}
    assert operations(largest) == {"int_compare": 1}

    # Floats come before wider integers; the product of a loop variable is index arithmetic.
    (leaf,) = Program(positions).leaves()
    assert operations(leaf) == {"float_add": 1, "int_compare": 2, "bool": 1, "select": 1}
    assert leaf.compute_bytes == 4


@pytest.mark.parametrize(
    "builder",
    [*sampling.BUILDERS, half_precision, quantised, positions],
    ids=lambda builder: builder.__name__,
)
def test_counts_of_a_dag_are_those_of_its_program(builder: Callable[[], list[Any]]) -> None:
    p = Program(builder)
    stages = [stage for stage in analyse(p.task.compute_dag).stages if not stage.is_placeholder]
    leaves = [leaf for leaf in p.leaves() if not leaf.is_init]
    for stage, leaf in zip(stages, leaves, strict=True):
        counts = [sum(pair) for pair in zip(stage.ops, stage.combine_ops, strict=True)]
        assert tuple(counts) == leaf.ops, stage.name
        assert (stage.float_bytes or stage.int_bytes) == leaf.compute_bytes, stage.name


def test_weights_are_read_as_they_are_laid_out() -> None:
    task = sampling.make_task(sampling.conv2d_nhwc)
    state = sampling.sample_states(task, 1)[0]
    given, copied, rewritten = (
        extract_exact(with_layouts(task, option), state) for option in (AS_GIVEN, COPIED, REWRITTEN)
    )
    number = next(n for n, leaf in enumerate(given) if operations(leaf).get("float_mul"))
    weight = given[number].accesses[2]
    assert weight.shape == (3, 3, 24, 32)
    # One dimension for each part of an axis, from the outermost loop inward.
    relaid = rewritten[number].accesses[2]
    assert np.prod(relaid.shape) == np.prod(weight.shape)
    assert len(relaid.shape) > len(weight.shape)
    inner = [
        (step, loop.extent)
        for step, loop in zip(relaid.steps, given[number].loops, strict=True)
        if step
    ]
    assert inner[-1][0] == 1
    assert all(outer[0] == step * extent for outer, (step, extent) in itertools.pairwise(inner))
    # The rest of the program is the same, and a copy is one more leaf in front of it.
    assert [_without_weight(leaf) for leaf in given] == [_without_weight(x) for x in rewritten]
    copy = copied[0]
    assert copy.name == "auto_scheduler_layout_transform"
    assert copy.loops[0].kind == "parallel"
    assert [access.shape for access in copy.accesses] == [relaid.shape, weight.shape]
    assert [leaf.loops for leaf in copied[1:]] == [leaf.loops for leaf in given]
    assert copied[number + 1].accesses == rewritten[number].accesses


def _without_weight(leaf: Leaf) -> Leaf:
    kept = [a for a in leaf.accesses if np.prod(a.shape) != 3 * 3 * 24 * 32]
    return replace(leaf, accesses=tuple(kept))


def test_weights_that_tvm_cannot_lay_out() -> None:
    """Its text form of a layout cannot hold axis names that end in digits."""
    task = sampling.make_task(sampling.dense)
    state = sampling.sample_states(task, 1)[0]
    with pytest.raises(LoweringError, match="Skip this state"):
        extract_exact(with_layouts(task, REWRITTEN), state)
    assert extract_exact(with_layouts(task, AS_GIVEN), state)


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
    task = with_layouts(sampling.make_task(builder), AS_GIVEN)
    for state in sampling.sample_states(task, 6, seed=1):
        primfunc = lower(task, state)
        ours = sorted(_feature_rows(leaves_of(primfunc, 0)))
        rows = auto_scheduler.feature.named_features_from_primfunc(primfunc)
        columns = (
            rows["float_addsub"], rows["float_mul"], rows["float_divmod"], rows["float_cmp"],
            rows["outer_prod"], rows["num_loops"], rows["auto_unroll_max_step"],
            rows["vec_prod"], rows["parallel_prod"], rows["unroll_prod"],
        )  # fmt: skip
        assert ours == sorted(zip(*(column.tolist() for column in columns), strict=True))


def _feature_rows(leaves: list[Leaf]) -> Iterator[tuple[float, ...]]:
    for number, leaf in enumerate(leaves):
        if leaf.is_init:
            continue
        # Initial values cost no operations, so a buffer's operations are those of its last store.
        extents = [float(loop.extent) for loop in leaf.loops]
        executions = float(np.prod(extents))
        counts = [
            executions * operations(leaf).get(name, 0)
            for name in ("float_add", "float_mul", "float_div", "float_compare")
        ]
        annotated = [
            float(np.prod([x.extent for x in leaf.loops if x.kind == kind] or [0]))
            for kind in ("vectorized", "parallel", "unrolled")
        ]
        assert number == 0 or leaf.position > leaves[number - 1].position
        yield (*counts, executions, float(len(extents)), leaf.unroll_limit, *annotated)


def test_leaves_without_loops_stand_alone() -> None:
    leaves = Program(sampling.norm).leaves()
    assert [loops(leaf) for leaf in leaves] == [[], [(24, "serial"), (53, "serial")], []]
    assert [leaf.nest for leaf in leaves] == [0, 1, 2]
    assert [leaf.buffer for leaf in leaves] == [0, 0, 1]
    assert [leaf.position for leaf in leaves] == [2 * 1 - 1, 2 * 4 - 3, 2 * 5 - 1]
    assert leaves[2].accesses[1].cover == ((1,),)


def test_state_that_cannot_be_lowered() -> None:
    p = Program(copy_chain)
    p("compute_at", "C", p.stage("B"), p.iter("B", 0))
    with pytest.raises(LoweringError, match=r"copy_chain.*Skip this state"):
        p.leaves()


def test_program_that_is_not_from_a_schedule() -> None:
    blocks = te.create_prim_func(copy_chain())
    with pytest.raises(LoweringError, match="got BlockRealize"):
        leaves_of(blocks, 0)


def test_sampling_is_the_same_on_every_run() -> None:
    task = sampling.make_task(sampling.dense)
    first, again, other = (
        [str(state) for state in sampling.sample_states(task, 9, seed)] for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    assert len(first) == 9
