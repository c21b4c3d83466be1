"""Transform steps: what each kind does, and what is said of those that are broken."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.workloads import edges
from tests.extract import sampling
from tests.extract.records import Steps, exact_leaves, record_of, records_of
from tvm_cdmpp.ast.leaf import LOOP_KINDS, Leaf
from tvm_cdmpp.devices import Hardware
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract.agreement import differences
from tvm_cdmpp.extract.dag import analyse
from tvm_cdmpp.extract.extractor import StepExtractor
from tvm_cdmpp.extract.handover import dump_records
from tvm_cdmpp.extract.stage import LayoutRewrite

# Iterators of stage C of a matrix product are i, j and k; stages A and B are its inputs.
CORES = 3
TILED: Steps = [
    ["SP", 2, 0, 8, [4], 1],
    ["SP", 2, 2, 12, [2, 3], 1],
    ["RE", 2, [0, 2, 1, 3, 5, 4]],
    ["AN", 2, 0, 3],
    ["PR", 2, 0, "auto_unroll_max_step$64"],
]


def product() -> Any:
    """Make the task of C[8, 12] += A[8, 6] * B[6, 12]."""
    return sampling.make_task(sampling.matmul, args=(8, 12, 6))


@pytest.fixture(scope="module")
def extractor() -> StepExtractor:
    return StepExtractor(analyse(product().compute_dag), Hardware(cores=CORES))


def leaves_of(extractor: StepExtractor, steps: Any) -> list[Leaf]:
    (leaves,) = extractor.leaves(record_of(steps))
    assert not isinstance(leaves, RecordError), leaves
    return leaves


def error_of(extractor: StepExtractor, line: bytes) -> str:
    """Extract the line among good ones, which must not suffer, and return its error."""
    good = record_of(TILED)
    alone, errors = extractor.extract(good)
    assert errors == {}
    batch, errors = extractor.extract(good + line + good)
    assert list(errors) == [1]
    assert batch.leaf_counts.tolist() == [2, 0, 2]
    np.testing.assert_array_equal(batch.vectors, np.concatenate([alone.vectors] * 2))
    (from_leaves,) = extractor.leaves(line)
    assert isinstance(from_leaves, RecordError)
    assert str(from_leaves) == str(errors[1])
    return str(errors[1])


def loops(leaf: Leaf) -> list[tuple[int, str]]:
    return [(loop.extent, loop.kind) for loop in leaf.loops]


def serial(*extents: int) -> list[tuple[int, str]]:
    return [(extent, "serial") for extent in extents]


FOLLOWED: Steps = [["SP", 2, 0, 8, [4, 2], 1]]
FOLLOWED_TWICE: Steps = [*FOLLOWED, ["SP", 2, 3, 12, [2, 3], 1]]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], (8, 12, 6)),
        # Factors of the inner parts; then of the outer ones.
        ([["SP", 2, 0, 8, [4], 1]], (2, 4, 12, 6)),
        ([["SP", 2, 0, 8, [4], 0]], (4, 2, 12, 6)),
        ([["SP", 2, 1, 12, [2, 3], 1]], (8, 2, 2, 3, 6)),
        ([["SP", 2, 1, 12, [3, 2], 0]], (8, 3, 2, 2, 6)),
        ([["SP", 2, 2, 6, [2], 1]], (8, 12, 3, 2)),
        ([["SP", 2, 0, 8, [], 1]], (8, 12, 6)),
        # The recorded extent may be stale; a factor that does not divide makes loops overshoot.
        ([["SP", 2, 0, 99, [3], 1]], (3, 3, 12, 6)),
        ([["SP", 2, 0, 8, [16], 1]], (8, 12, 6)),
        # As many parts as asked for; the last factor is the product of those left.
        ([*FOLLOWED, ["FSP", 2, 3, 0, 1]], (4, 2, 2, 8, 6)),
        ([*FOLLOWED, ["FSP", 2, 3, 0, 2]], (4, 2, 2, 4, 2, 6)),
        # By the product of the factors that several splits have at one level, both ways.
        ([*FOLLOWED_TWICE, ["FFSP", 2, 6, [1], 1, 1]], (4, 2, 2, 2, 3, 2, 3)),
        ([*FOLLOWED_TWICE, ["FFSP", 2, 6, [1], 1, 0]], (4, 2, 2, 2, 3, 3, 2)),
        ([*FOLLOWED_TWICE, ["FFSP", 2, 6, [0, 1], 1, 1]], (4, 2, 2, 2, 3, 6)),
        ([["FU", 2, [0, 1]]], (96, 6)),
        ([["FU", 2, [1]]], (8, 12, 6)),
        ([["FU", 2, []]], (8, 12, 6)),
        ([["FU", 2, []], ["RE", 2, [2, 0, 1, 3]]], (12, 8, 6)),
        ([["FU", 2, [0, 1]], ["SP", 2, 0, 96, [32], 1]], (3, 32, 6)),
        ([["RE", 2, [1, 2, 0]]], (12, 6, 8)),
        ([["SA", 2, 0, 32, 1]], (8, 12, 6)),
        ([["PR", 2, 0, "debug_skip_region"]], (8, 12, 6)),
        # TVM ignores a pragma on an iterator that does not exist.
        ([["PR", 2, 7, "auto_unroll_max_step$16"]], (8, 12, 6)),
    ],
    ids=str,
)
def test_what_becomes_of_loops(
    extractor: StepExtractor, steps: Steps, expected: tuple[int, ...]
) -> None:
    leaves = leaves_of(extractor, steps)
    assert tuple(loop.extent for loop in leaves[-1].loops) == expected
    assert {loop.kind for loop in leaves[-1].loops} == {"serial"}
    assert {leaf.unroll_limit for leaf in leaves} == {0}


LOOP_STEPS: list[Steps] = [
    [["SP", 2, 0, 8, [4], 0], ["AN", 2, 0, 3]],
    [*FOLLOWED, ["FSP", 2, 3, 0, 2]],
    [*FOLLOWED_TWICE, ["FFSP", 2, 6, [0, 1], 1, 1]],
    [["FU", 2, []], ["AN", 2, 0, 3]],
    [["SA", 2, 0, 32, 1]],
    TILED,
]
REWRITES: list[Steps] = [
    [["CHW", 2, "local"], ["CA", 2, 3, 0]],
    [["CHR", 0, "shared", [2]], ["CA", 1, 3, 0]],
    [["CHR", 1, "global", [2]], ["SP", 3, 1, 12, [4], 1], ["CA", 2, 3, 1]],
    [["SP", 2, 2, 6, [3], 1], ["RF", 2, 3, 2]],
    [["SP", 2, 2, 6, [3], 0], ["RF", 2, 2, 0]],
    [["SP", 2, 2, 6, [4], 1], ["RF", 2, 3, 2], ["CA", 2, 3, 1]],
]


@pytest.mark.parametrize("steps", LOOP_STEPS + REWRITES, ids=str)
def test_steps_do_what_tvm_does(extractor: StepExtractor, steps: Steps) -> None:
    assert differences(leaves_of(extractor, steps), exact_leaves(product(), steps, CORES)) == []


def test_annotations(extractor: StepExtractor) -> None:
    init, update = leaves_of(extractor, [["AN", 2, 0, 3], ["AN", 2, 1, 2], ["AN", 2, 2, 1]])
    assert loops(init) == [(8, "parallel"), (12, "vectorized")]
    assert loops(update) == [(8, "parallel"), (12, "vectorized"), (6, "unrolled")]
    plain = leaves_of(extractor, [["AN", 2, 0, 3], ["AN", 2, 0, 0]])
    assert plain == leaves_of(extractor, [])


@pytest.mark.parametrize("kind", range(4, len(LOOP_KINDS)))
def test_annotations_of_gpu_indices(extractor: StepExtractor, kind: int) -> None:
    init, update = leaves_of(extractor, [["AN", 2, 0, kind]])
    assert loops(init)[0] == loops(update)[0] == (8, LOOP_KINDS[kind])


def test_pragmas(extractor: StepExtractor) -> None:
    unroll = "auto_unroll_max_step$"
    for iterator, limits in ((0, [16, 16]), (1, [16, 16]), (2, [0, 16])):
        leaves = leaves_of(extractor, [["PR", 2, iterator, f"{unroll}16"]])
        assert [leaf.unroll_limit for leaf in leaves] == limits
    last = leaves_of(extractor, [["PR", 2, 0, f"{unroll}16"], ["PR", 2, 0, f"{unroll}512"]])
    assert [leaf.unroll_limit for leaf in last] == [512, 512]


def test_cache_write(extractor: StepExtractor) -> None:
    init, update, copy = leaves_of(extractor, [["CHW", 2, "local"], ["CA", 2, 3, 0]])
    assert [leaf.buffer for leaf in (init, update, copy)] == [0, 0, 1]
    stored, read = copy.accesses
    assert update.accesses[0].scope == read.scope == "local"
    assert update.accesses[0].shape == read.shape == (1, 12)
    assert (stored.scope, stored.shape) == ("global", (8, 12))
    assert loops(copy) == serial(8, 12)
    assert set(copy.ops) == {0}


def test_cache_read(extractor: StepExtractor) -> None:
    fetch, init, update = leaves_of(extractor, [["CHR", 0, "shared", [2]], ["CA", 1, 3, 0]])
    assert loops(fetch) == serial(8, 6)
    assert [access.scope for access in fetch.accesses] == ["shared", "global"]
    assert fetch.accesses[0].is_inside
    assert fetch.accesses[0].shape == (1, 6)
    assert [access.scope for access in update.accesses] == ["global", "shared", "global"]
    assert init.is_init


@pytest.mark.parametrize(("position", "shape"), [(0, (3, 8, 12)), (2, (8, 12, 3))])
def test_factored_reduction(
    extractor: StepExtractor, position: int, shape: tuple[int, ...]
) -> None:
    steps = [["SP", 2, 2, 6, [3], 1], ["RF", 2, 3, position]]
    _, parts, _, total = leaves_of(extractor, steps)
    assert parts.accesses[0].shape == shape
    assert loops(parts) == serial(*shape, 2)
    assert loops(total) == serial(8, 12, 3)
    assert [loop.is_reduce for loop in total.loops] == [False, False, True]
    assert total.accesses[1].shape == shape


def test_computed_at_root_and_inlined() -> None:
    relu = StepExtractor(analyse(sampling.make_task(sampling.matmul_relu).compute_dag))
    inside = leaves_of(relu, [["SP", 3, 1, 6, [3], 1], ["CA", 2, 3, 1]])
    assert [loops(leaf) for leaf in inside] == [
        serial(4, 2, 3),
        serial(4, 2, 3, 8),
        serial(4, 2, 3),
    ]
    assert inside[0].accesses[0].shape == (1, 3)
    # A loop that something is attached to may be split and fused further.
    moved = leaves_of(relu, [["CA", 2, 3, 0], ["SP", 3, 0, 4, [2], 1]])
    assert [leaf.accesses[0].shape for leaf in moved[:2]] == [(1, 6), (1, 6)]
    fused = leaves_of(relu, [["CA", 2, 3, 1], ["FU", 3, [0, 1]]])
    assert [loops(leaf) for leaf in fused] == [serial(24), serial(24, 8), serial(24)]
    assert leaves_of(relu, [["CA", 2, 3, 0], ["CR", 2]]) == leaves_of(relu, [])

    # Stage 1 is the first of a chain of element-wise operators.
    chain = StepExtractor(analyse(sampling.make_task(sampling.elementwise).compute_dag))
    plain, inlined = leaves_of(chain, []), leaves_of(chain, [["CI", 1]])
    assert len(inlined) == len(plain) - 1
    assert sum(map(sum, (leaf.ops for leaf in inlined))) == sum(
        map(sum, (leaf.ops for leaf in plain))
    )
    assert leaves_of(chain, [["CI", 1], ["CR", 1]]) == plain


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (["XX", 2, 0], "step 1 .*unknown kind.*expected one of AN, FU"),
        (["PR", 2, 0, "tensorize"], "step 1 .*unknown pragma 'tensorize'"),
        (["PR", 2, 0, "auto_unroll_max_step$"], "step 1 .*unknown pragma"),
        (["PR", 2, 0, "auto_unroll_max_step$many"], "step 1 .*unknown pragma"),
        (["PR", 2, 0, "auto_unroll_max_step$-1"], "step 1 .*unknown pragma"),
        (["PR", 2, 0, f"auto_unroll_max_step${2**70}"], "step 1 .*unknown pragma"),
        (["PR", 2, -1, "auto_unroll_max_step$16"], "step 1 .*iterator -1 of 4"),
        (["AN", 7, 0, 3], "step 1 .*stage 7 of 3"),
        (["AN", -1, 0, 3], "step 1 .*stage -1 of 3"),
        (["AN", 2, 9, 3], "step 1 .*iterator 9 of 4"),
        (["AN", 2, -1, 3], "step 1 .*iterator -1 of 4"),
        (["AN", 2, 0, 99], "step 1 .*annotation 99"),
        (["AN", 2, 0, -1], "step 1 .*annotation -1"),
        (["AN", 2, 0, 11], "step 1 .*annotation 11"),
        (["SP", 2, 4, 1, [2], 1], "step 1 .*iterator 4 of 4"),
        (["SP", 2, 0, 1, [0], 1], "step 1 .*split factor 0"),
        (["SP", 2, 0, 1, [-4], 1], "step 1 .*split factor -4"),
        (["SP", 2, 0, 1, [2**31], 1], "step 1 .*split factor 2147483648"),
        (["SP", 2, 0, 1, [1] * 40, 1], "step 1 .*at most 32"),
        (["RE", 2, [0, 1, 2]], "step 1 .*permutation of 4"),
        (["RE", 2, [0, 0, 1, 2]], "step 1 .*permutation of 4"),
        (["RE", 2, [0, 1, 2, 3, 3]], "step 1 .*permutation of 4"),
        (["FU", 2, [0, 2]], "step 1 .*not adjacent"),
        (["FU", 2, [1, 0]], "step 1 .*not adjacent"),
        (["FU", 2, [3, 4]], "step 1 .*iterator 4 of 4"),
        (["CA", 2, 3, 0], "step 1 .*stage 3 of 3"),
        (["CA", 2, 2, 4], "step 1 .*iterator 4 of 4"),
        (["CI", 2], "step 1 .*cannot be inlined"),
        (["CI", 0], "step 1 .*cannot be inlined"),
        (["FSP", 2, 0, 5, 2], "step 1 .*step 5 is not an earlier split"),
        (["FSP", 2, 0, 1, 2], "step 1 .*step 1 is not an earlier split"),
        (["FSP", 2, 0, 0, 9], "step 1 .*9 parts"),
        (["FSP", 2, 0, 0, 0], "step 1 .*0 parts"),
        (["FFSP", 2, 0, [0], 3, 1], "step 1 .*level 3"),
        (["FFSP", 2, 0, [7], 0, 1], "step 1 .*step 7 is not an earlier split"),
        (["RF", 2, 3, 2], "step 1 .*needs a split"),
        (["RF", 2, 0, 0], "step 1 .*not supported"),
        (["CHR", 2, "shared", [8]], "step 1 .*stage 8 of 3"),
        (["CHW", 3, "local"], "step 1 .*stage 3 of 3"),
    ],
    ids=str,
)
def test_steps_that_do_not_fit(extractor: StepExtractor, step: list[Any], message: str) -> None:
    found = error_of(extractor, record_of([["SP", 2, 0, 8, [4], 1], step]))
    assert re.search(message, found), found


def test_a_new_axis_must_have_a_place(extractor: StepExtractor) -> None:
    split = ["SP", 2, 2, 6, [3], 1]
    for position in (3, -4):
        assert "step 1 (RF" in error_of(extractor, record_of([split, ["RF", 2, 3, position]]))
    assert leaves_of(extractor, [split, ["RF", 2, 3, -1]]) == leaves_of(
        extractor, [split, ["RF", 2, 3, 2]]
    )


@pytest.mark.parametrize("target", [0, 2])
def test_attached_in_circles_or_to_nothing(extractor: StepExtractor, target: int) -> None:
    # An input has no loops at all, a stage must not be inside of itself.
    message = error_of(extractor, record_of([["CA", 2, target, 0]]))
    assert "stage 2 is attached to a loop that does not exist" in message


def test_outputs_are_not_inlined() -> None:
    graph = analyse(sampling.make_task(sampling.elementwise).compute_dag)
    (error,) = StepExtractor(graph).leaves(record_of([["CI", len(graph.stages) - 1]]))
    assert "an output cannot be inlined" in str(error)


HUGE = 2**30


@pytest.mark.parametrize(
    "steps",
    [
        [["SP", 2, 0, 8, [2**16] * 4, 1], ["FSP", 2, 5, 0, 1]],
        [["SP", 2, 0, 8, [2**16] * 4, 1], ["FFSP", 2, 5, [0, 0, 0, 0], 1, 1]],
        [["SP", 2, 0, 8, [HUGE] * 4, 1], ["FU", 2, [0, 1, 2, 3, 4]], ["AN", 2, 0, 5]],
        [["SP", 2, 0, 8, [HUGE] * 6, 1], *(["AN", 2, n, 5] for n in range(6))],
        [["SP", 2, 2, 6, [HUGE] * 9, 1], ["RF", 2, 3, 0]],
        [*(["SP", 2, n, 8, [HUGE], 1] for n in (2, 1, 0)), *(["AN", 2, n, 6] for n in range(6))],
        [["SP", 2, 0, 8, [1], 1]] * 100,
        [["SP", 2, 0, 8, [1], 1]] * 20000,
        [["CHW", 2, "local"]] * 1000,
        [["SP", 2, 0, 8, [7], 1], ["FU", 2, [0, 1]]] * 30,
    ],
    ids=lambda steps: str(steps)[:70],
)
def test_programs_beyond_all_limits(extractor: StepExtractor, steps: Steps) -> None:
    error_of(extractor, record_of(steps))


def test_inlined_back_and_forth() -> None:
    extractor = StepExtractor(analyse(sampling.make_task(sampling.elementwise).compute_dag))
    (error,) = extractor.leaves(record_of([["CI", 1], ["CR", 1]] * 50000))
    assert "more than 256 steps that change operations" in str(error)


MALFORMED: list[Any] = [
    None, 5, "SP", {"SP": 1}, [5], [None], [[]], [{}], [{"kind": "SP"}], ["SP"], [[["SP"], 2, 0]],
    [["SP"]],
    [["SP", 2, 0, 37, 4, 1]],
    [["SP", 2, 0, 37, None, 1]],
    [["SP", 2, 0, 37, ["4"], 1]],
    [["SP", 2, 0, 37, "44", 1]],
    [["SP", 2, 0, 37, [None], 1]],
    [["SP", 2, 0, 37, [1.5], 1]],
    [["SP", 2, 0, 37, [1e300], 1]],
    [["SP", 2, 0, 37, [[4]], 1]],
    [["SP", 2, 0, 37, [2**70], 1]],
    [["SP", 2, 0, 37, [4], 1, 1]],
    [["SP", 2, 0, 37, [4]]],
    [["SP", "2", 0, 37, [4], 1]],
    [["SP", 2, [0], 37, [4], 1]],
    [["SP", 2, {}, 37, [4], 1]],
    [["RE", 2, [[0], 1, 2]]],
    [["RE", 2, None]],
    [["RE", 2, ["a", 1, 2]]],
    [["FU", 2, 0]],
    [["AN", 2, 0, "parallel"]],
    [["AN", 2, 0, None]],
    [["AN", 2, 0, True]],
    [["AN", 2, 0]],
    [["AN", 2, 0, 3, 4, [[5]]]],
    [["PR", 2, 0, 16]],
    [["PR", 2, "x", "auto_unroll_max_step$16"]],
    [["FSP", 2]],
    [["FFSP", 2, 0, 0, 0, 1]],
    [["RF", 2, 0]],
    [["CHW"]],
    [["CHR", 0, "shared", 2]],
]  # fmt: skip


@pytest.mark.parametrize("steps", MALFORMED, ids=str)
def test_steps_of_wrong_types(extractor: StepExtractor, steps: Any) -> None:
    message = error_of(extractor, record_of(steps))
    assert re.search(r"expected .* at character \d+, near '", message), message


GOOD = record_of(TILED)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"  \t\r\n",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b'{"i": 5}\n',
        b'{"i": []}\n',
        b'{"i": [[], []]}\n',
        b'{"i": [[], [[], []]]\n',
        b'{"r": [], "v": "v0.6"}\n',
        b'{"i": [[], [[], []]], "r": ]}\n',
        b'{"i" [[], [[], []]]}\n',
        b"\x00\xff\xfe{\x80\n",
        b'{"i": "\xff\x00\n',
        bytes(range(11, 256)) * 4 + b"\n",
        b"[" * 1_000_000 + b"\n",
        b'{"i": [' + b"[" * 1_000_000 + b"\n",
        b'{"i": ["' + b"x" * 1_000_000 + b"\n",
        b'{"i": [[], [[], [["' + b"x" * 1_000_000 + b'"]]]]}\n',
        b'{"i": [[], [[], [["AN", ' + b"9" * 1_000_000 + b", 0, 3]]]]}\n",
    ],
    ids=lambda line: repr(line[:40]),
)
def test_lines_that_are_no_records(extractor: StepExtractor, line: bytes) -> None:
    message = error_of(extractor, line)
    assert "line of an Ansor log" in message or "unknown kind" in message


def test_messages_are_short(extractor: StepExtractor) -> None:
    long = "x" * 1_000_000
    for text in (record_of([[long]]), record_of([["PR", 2, 0, long]]), b"[" * 1_000_000 + b"\n"):
        assert len(error_of(extractor, text)) < 400


@pytest.mark.parametrize("end", range(0, len(GOOD) - 2, 7))
def test_lines_cut_off(extractor: StepExtractor, end: int) -> None:
    assert "line of an Ansor log" in error_of(extractor, GOOD[:end] + b"\n")


def test_where_lines_end(extractor: StepExtractor) -> None:
    def outcome(text: bytes) -> list[int]:
        batch, _ = extractor.extract(text)
        assert len(extractor.leaves(text)) == len(batch)
        return [int(count) for count in batch.leaf_counts]

    assert outcome(b"") == []
    assert outcome(GOOD) == outcome(GOOD.rstrip()) == [2]
    assert outcome(GOOD + b"\n" + GOOD) == [2, 0, 2]
    assert outcome(GOOD.replace(b"\n", b"\r\n") * 2) == [2, 2]
    # As JSON, a lone carriage return is but space.
    assert outcome(GOOD.replace(b" ", b"\r")) == [2]


def test_spaces_and_order_of_keys_do_not_matter(extractor: StepExtractor) -> None:
    line = json.loads(GOOD)
    dense = json.dumps(line, separators=(",", ":")).encode()
    turned = json.dumps({"v": "v0.6", "r": ["}", {"]": '"'}], "i": line["i"]}).encode()
    expected = extractor.leaves(GOOD)
    assert extractor.leaves(dense) == extractor.leaves(turned) == expected


def test_errors_are_told_by_line(extractor: StepExtractor) -> None:
    programs = [[["XX"]], TILED, [["AN", 9, 0, 3]], [], [["AN", 9, 0, 3]]]
    batch, errors = extractor.extract(records_of(*programs))
    assert sorted(errors) == [0, 2, 4]
    assert batch.leaf_counts.tolist() == [0, 2, 0, 2, 0]
    assert "unknown kind" in str(errors[0])
    assert "stage 9" in str(errors[2])
    assert [isinstance(one, RecordError) for one in extractor.leaves(records_of(*programs))] == [
        True, False, True, False, True,
    ]  # fmt: skip


def test_steps_of_other_workloads() -> None:
    """A log may be mixed up; whatever comes, it is a RecordError or a program."""
    builders = (sampling.matmul, sampling.softmax, sampling.norm, sampling.conv2d_nchw)
    zoo = [sampling.make_task(builder) for builder in builders]
    lines = b"".join(dump_records(t, sampling.sample_states(t, 4, seed=2)) for t in zoo)
    refused: list[RecordError] = []
    for task in zoo:
        batch, errors = StepExtractor(analyse(task.compute_dag)).extract(lines)
        assert ((batch.leaf_counts == 0) == [n in errors for n in range(len(batch))]).all()
        assert np.isfinite(batch.vectors).all()
        refused += errors.values()
    assert len(refused) > len(lines.splitlines())
    assert all("another workload" in str(error) for error in refused)


def test_many_kinds_of_rewrites_leave_nothing_behind(extractor: StepExtractor) -> None:
    """The rewrites of a task are remembered, but not for ever."""
    expected = extractor.leaves(GOOD)
    programs = [[["SP", 2, 2, 6, [factor], 1], ["RF", 2, 3, 2]] for factor in range(1, 5000)]
    batch, errors = extractor.extract(records_of(*programs))
    assert errors == {}
    again, _ = extractor.extract(records_of(*programs[:50]))
    np.testing.assert_array_equal(again.vectors, batch.take(range(50)).vectors)
    assert extractor.leaves(GOOD) == expected


STAGES, ITERATORS = st.integers(-1, 4), st.integers(-1, 5)
FACTORS = st.lists(
    st.one_of(st.integers(0, 40), st.sampled_from([2**16, 2**31 - 1, 2**31, 2**62])), max_size=4
)
ORDERS = st.integers(1, 7).flatmap(lambda n: st.permutations(range(n)))
SCOPES = st.sampled_from(["local", "shared", "global"])
ANY_STEP = st.one_of(
    st.tuples(st.just("AN"), STAGES, ITERATORS, st.integers(-1, 12)),
    st.tuples(st.just("SP"), STAGES, ITERATORS, st.integers(), FACTORS, st.integers(0, 1)),
    st.tuples(st.just("FSP"), STAGES, ITERATORS, st.integers(-1, 5), st.integers(-1, 5)),
    st.tuples(
        st.just("FFSP"), STAGES, ITERATORS, st.lists(st.integers(-1, 5), max_size=3), ITERATORS,
        st.integers(0, 1),
    ),
    st.tuples(st.just("FU"), STAGES, st.integers(0, 4).map(lambda n: [n, n + 1])),
    st.tuples(st.just("FU"), STAGES, st.lists(ITERATORS, max_size=4)),
    st.tuples(st.just("RE"), STAGES, ORDERS),
    st.tuples(st.just("PR"), STAGES, ITERATORS, st.just("auto_unroll_max_step$64")),
    st.tuples(st.just("CA"), STAGES, STAGES, ITERATORS),
    st.tuples(st.sampled_from(["CI", "CR"]), STAGES),
    st.tuples(st.just("CHW"), STAGES, SCOPES),
    st.tuples(st.just("CHR"), STAGES, SCOPES, st.lists(STAGES, max_size=3)),
    st.tuples(st.just("RF"), STAGES, ITERATORS, ITERATORS),
    st.tuples(st.just("SA"), STAGES, ITERATORS, st.integers(), st.integers()),
)  # fmt: skip


@pytest.fixture(scope="module")
def fuzzed() -> list[StepExtractor]:
    builders = (
        sampling.norm, sampling.conv2d_nchw, edges.empty_rows, edges.empty_sum_factored,
        edges.unit_product, edges.returned_argmax,
    )  # fmt: skip
    tasks = [product(), *(sampling.make_task(builder) for builder in builders)]
    return [StepExtractor(analyse(t.compute_dag), layout=LayoutRewrite(2)) for t in tasks]


def check(extractors: list[StepExtractor], text: bytes) -> None:
    for extractor in extractors:
        batch, errors = extractor.extract(text)
        assert len(batch) == text.count(b"\n") + (not text.endswith(b"\n")) * bool(text)
        assert np.isfinite(batch.vectors).all()
        assert (batch.vectors >= 0).all()
        assert sorted(errors) == np.flatnonzero(batch.leaf_counts == 0).tolist()
        assert all(str(error) for error in errors.values())


FUZZING = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZING
@given(text=st.binary(max_size=300))
def test_random_bytes(fuzzed: list[StepExtractor], text: bytes) -> None:
    check(fuzzed, text)


@FUZZING
@given(programs=st.lists(st.lists(ANY_STEP, max_size=10), min_size=4, max_size=12))
def test_random_steps(fuzzed: list[StepExtractor], programs: list[Any]) -> None:
    check(fuzzed, records_of(*programs))


@pytest.fixture(scope="module")
def real_lines() -> list[bytes]:
    tasks = [sampling.make_task(b) for b in (sampling.norm, sampling.conv2d_nchw)]
    return [
        line for t in tasks for line in dump_records(t, sampling.sample_states(t, 8)).splitlines()
    ]


@FUZZING
@given(data=st.data())
def test_damaged_lines(
    fuzzed: list[StepExtractor], real_lines: list[bytes], data: st.DataObject
) -> None:
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    lines = []
    for _ in range(8):
        line = bytearray(real_lines[generator.integers(len(real_lines))])
        for _ in range(generator.integers(1, 6)):
            at = int(generator.integers(len(line)))
            piece = [b"0", b"9", b"-", b",", b"[", b"]", b'"', b"1e9", b"\xff", b"4294967296", b""]
            line[at : at + 1] = piece[generator.integers(len(piece))]
        lines.append(bytes(line))
    check(fuzzed, b"\n".join(lines))


def test_a_reduction_over_nothing_is_not_factored() -> None:
    extractor = StepExtractor(analyse(sampling.make_task(edges.empty_sum_factored).compute_dag))
    steps = [["FU", 1, [1, 2]], ["SP", 1, 1, 0, [4], 1], ["RF", 1, 2, 1]]
    (error,) = extractor.leaves(record_of(steps))
    assert "there is nothing to reduce" in str(error)
