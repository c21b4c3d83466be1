"""Reading and replaying transform steps: structure keys, errors, the cache."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tvm_cdmpp.extract.steps import split_record_steps
from tvm_cdmpp.extract.structure import build_structure

from tests.extract import sampling
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract import replayer as replayer_module
from tvm_cdmpp.extract.dag import analyse
from tvm_cdmpp.extract.replayer import StepReplayer
from tvm_cdmpp.extract.stage import TaskGraph

Steps = list[Any]

TILED: Steps = [
    ["SP", 2, 0, 37, [4], 1],
    ["SP", 2, 2, 48, [2, 8], 1],
    ["RE", 2, [0, 2, 1, 3, 5, 4]],
    ["AN", 2, 0, 3],
    ["PR", 2, 0, "auto_unroll_max_step$64"],
]


@pytest.fixture(scope="module")
def graph() -> TaskGraph:
    """Stages A, B and C of a matrix product; C has axes i, j and k."""
    return analyse(sampling.make_task(sampling.matmul).compute_dag)


def steps_of(task: Any, state: Any) -> Steps:
    auto_scheduler = sampling.auto_scheduler
    result = auto_scheduler.MeasureResult([0.1], 0, "", 1.0, 0)
    inputs = auto_scheduler.MeasureInput(task, state)
    line = auto_scheduler.measure_record.dump_record_to_string(inputs, result)
    steps: Steps = json.loads(line)["i"][1][1]
    return steps


def replay(graph: TaskGraph, steps: Steps) -> None:
    build_structure(graph, split_record_steps(steps)[0])


def test_numbers_are_no_part_of_the_structure() -> None:
    other = [
        ["SP", 2, 0, 99, [5], 1],
        ["SP", 2, 2, 1, [3, 7], 1],
        *TILED[2:4],
        ["PR", 2, 0, "auto_unroll_max_step$512"],
    ]
    key, parameters = split_record_steps(TILED)
    other_key, other_parameters = split_record_steps(other)
    assert key == other_key
    assert hash(key) == hash(other_key)
    assert parameters == [4, 2, 8, 64]
    assert other_parameters == [5, 3, 7, 512]


@pytest.mark.parametrize(
    ("position", "step"),
    [
        (0, ["SP", 2, 1, 37, [4], 1]),
        (0, ["SP", 2, 0, 37, [4], 0]),
        (1, ["SP", 2, 2, 48, [2], 1]),
        (2, ["RE", 2, [0, 2, 1, 3, 4, 5]]),
        (3, ["AN", 2, 0, 1]),
        (4, ["PR", 2, 1, "auto_unroll_max_step$64"]),
    ],
)
def test_everything_else_is(position: int, step: list[Any]) -> None:
    changed = [*TILED[:position], step, *TILED[position + 1 :]]
    assert split_record_steps(changed)[0] != split_record_steps(TILED)[0]


def test_factors_of_a_factored_reduction_shape_its_stages() -> None:
    def key(factor: int) -> Any:
        return split_record_steps([["SP", 2, 2, 64, [factor], 1], ["RF", 2, 2, 2]])[0]

    assert key(4) != key(8)


def test_no_steps(graph: TaskGraph) -> None:
    assert split_record_steps([]) == ((), [])
    batch, errors = StepReplayer(graph).extract([[]])
    assert batch.leaf_counts.tolist() == [2]
    assert errors == {}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (["XX", 2, 0], "step 1 .*unknown kind.*expected one of AN, CA"),
        (["PR", 2, 0, "tensorize"], "step 1 .*unknown kind"),
        (["AN", 7, 0, 3], "step 1 .*stage 7 of 3"),
        (["AN", -1, 0, 3], "step 1 .*stage -1 of 3"),
        (["AN", 2, 9, 3], "step 1 .*iterator 9 of 4"),
        (["AN", 2, 0, 99], "step 1 .*annotation 99"),
        (["SP", 2, 4, 1, [2], 1], "step 1 .*iterator 4 of 4"),
        (["RE", 2, [0, 1, 2]], "step 1 .*permutation of 4"),
        (["RE", 2, [0, 0, 1, 2]], "step 1 .*permutation of 4"),
        (["FU", 2, [0, 2]], "step 1 .*not adjacent"),
        (["FU", 2, [3, 4]], "step 1 .*iterator 4 of 4"),
        (["CA", 2, 3, 0], "step 1 .*stage 3 of 3"),
        (["CI", 2], "step 1 .*'C' cannot be inlined"),
        (["CI", 0], "step 1 .*'A' cannot be inlined"),
        (["FSP", 2, 0, 5, 2], "step 1 .*step 5 is not a split"),
        (["FSP", 2, 0, 0, 9], "step 1 .*9 parts"),
        (["FFSP", 2, 0, [0], 3, 1], "step 1 "),
        (["RF", 2, 3, 2], "step 1 .*rfactor needs a split"),
        (["CHR", 2, "shared", [8]], "step 1 .*stage 8 of 3"),
    ],
)
def test_steps_that_do_not_fit(graph: TaskGraph, step: list[Any], message: str) -> None:
    steps = [["SP", 2, 0, 37, [4], 1], step]
    with pytest.raises(RecordError, match=message):
        replay(graph, steps)


def test_attached_in_circles_or_to_nothing(graph: TaskGraph) -> None:
    for target in (0, 2):
        with pytest.raises(RecordError, match="'C' is attached to"):
            replay(graph, [["CA", 2, target, 0]])


MALFORMED: list[Any] = [
    None,
    5,
    {"SP": 1},
    [5],
    [None],
    [[]],
    [{}],
    [{"kind": "SP"}],
    ["SP"],
    [[["SP"], 2, 0]],
    [["SP"]],
    [["SP", 2, 0, 37, 4, 1]],
    [["SP", 2, 0, 37, None, 1]],
    [["SP", 2, 0, 37, ["4"], 1]],
    [["SP", 2, 0, 37, "44", 1]],
    [["SP", 2, 0, 37, [None], 1]],
    [["SP", 2, 0, 37, [1.5], 1]],
    [["SP", 2, 0, 37, [[4]], 1]],
    [["SP", 2, 0, 37, [0], 1]],
    [["SP", 2, 0, 37, [-4], 1]],
    [["SP", 2, 0, 37, [2**70], 1]],
    [["SP", "2", 0, 37, [4], 1]],
    [["SP", 2, [0], 37, [4], 1]],
    [["SP", 2, {}, 37, [4], 1]],
    [["RE", 2, [[0], 1, 2]]],
    [["RE", 2, None]],
    [["RE", 2, ["a", 1, 2]]],
    [["FU", 2, 0]],
    [["AN", 2, 0, "parallel"]],
    [["AN", 2, 0, None]],
    [["AN", 2, 0]],
    [["AN", 2, 0, 3, 4, [[5]]]],
    [["PR", 2, 0, 16]],
    [["PR", 2, 0, "auto_unroll_max_step$many"]],
    [["PR", 2, "x", "auto_unroll_max_step$16"]],
    [["FSP", 2]],
    [["FFSP", 2, 0, 0, 0, 1]],
    [["RF", 2, 0, 0]],
    [["CHW"]],
    [["CHR", 0, "shared", 2]],
]


@pytest.mark.parametrize("steps", MALFORMED, ids=str)
def test_malformed_steps_are_record_errors(graph: TaskGraph, steps: Any) -> None:
    good, errors = StepReplayer(graph).extract([TILED])
    assert errors == {}
    batch, errors = StepReplayer(graph).extract([TILED, steps, TILED])
    assert list(errors) == [1]
    assert isinstance(errors[1], RecordError)
    assert "step" in str(errors[1])
    # The others are not touched.
    assert batch.leaf_counts.tolist() == [2, 0, 2]
    assert (batch.take([0]).vectors == good.vectors).all()
    assert (batch.take([2]).vectors == good.vectors).all()


def test_malformed_steps_name_their_position(graph: TaskGraph) -> None:
    _, errors = StepReplayer(graph).extract([[*TILED, ["SP", 2]]])
    assert re.search(r"step 5 .*\['SP', 2\]", str(errors[0]))


def test_errors_are_told_by_program_number(graph: TaskGraph) -> None:
    programs = [[["XX"]], TILED, [["AN", 9, 0, 3]], [], [["AN", 9, 0, 3]]]
    batch, errors = StepReplayer(graph).extract(programs)
    assert sorted(errors) == [0, 2, 4]
    assert batch.leaf_counts.tolist() == [0, 2, 0, 2, 0]
    assert "unknown kind" in str(errors[0])
    assert "stage 9" in str(errors[2])


def test_steps_of_other_workloads() -> None:
    """A log may be mixed up; whatever comes, it is a RecordError or a program."""
    builders = (sampling.matmul, sampling.softmax, sampling.norm, sampling.conv2d_nchw)
    zoo = [sampling.make_task(builder) for builder in builders]
    programs = [steps_of(t, state) for t in zoo for state in sampling.sample_states(t, 4, seed=2)]
    refused: list[RecordError] = []
    for task in zoo:
        batch, errors = StepReplayer(analyse(task.compute_dag)).extract(programs)
        assert ((batch.leaf_counts == 0) == [n in errors for n in range(len(programs))]).all()
        refused += errors.values()
    assert len(refused) > len(programs)
    assert all("fit the task" in str(error) for error in refused)


def count_replays(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    built: list[Any] = []

    def build(graph: TaskGraph, key: Any) -> Any:
        built.append(key)
        return build_structure(graph, key)

    monkeypatch.setattr(replayer_module, "build_structure", build)
    return built


def unrolled(iterator: int) -> Steps:
    return [["AN", 2, iterator, 1]]


def test_a_structure_is_replayed_once(graph: TaskGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    built = count_replays(monkeypatch)
    replayer = StepReplayer(graph)
    for factor in (1, 2, 3, 4):
        replayer.extract([[["SP", 2, 0, 37, [factor], 1]], unrolled(1), unrolled(9)])
    assert len(built) == 3


def test_the_cache_is_bounded(graph: TaskGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    built = count_replays(monkeypatch)
    replayer = StepReplayer(graph, cache_size=2)

    def replays(*iterators: int) -> int:
        before = len(built)
        for iterator in iterators:
            replayer.extract([unrolled(iterator)])
        return len(built) - before

    assert replays(0, 1) == 2
    assert replays(0, 1, 0) == 0
    assert replays(2) == 1  # drops 1, the least recently used
    assert replays(0, 2) == 0
    assert replays(1) == 1
    assert replays(0) == 1


def test_more_structures_in_a_batch_than_the_cache_holds(graph: TaskGraph) -> None:
    programs = [unrolled(0), unrolled(1), unrolled(2), unrolled(7)]
    small, small_errors = StepReplayer(graph, cache_size=1).extract(programs)
    large, large_errors = StepReplayer(graph).extract(programs)
    assert (small.vectors == large.vectors).all()
    assert list(small_errors) == list(large_errors) == [3]


def test_a_known_error_does_not_grow(graph: TaskGraph) -> None:
    """An exception that is raised again and again would keep every frame it passed."""
    replayer = StepReplayer(graph)
    lengths = []
    for _ in range(4):
        _, errors = replayer.extract([unrolled(9)])
        trace, length = errors[0].__traceback__, 0
        while trace is not None:
            trace, length = trace.tb_next, length + 1
        lengths.append(length)
    assert max(lengths) == lengths[0]
