"""The zoo of the benchmarks: what it covers, and that what is drawn from it is fit for a proof."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.workloads import edges, handwritten, matrix, reduction, sparse, tasks
from benchmarks.workloads.tasks import (
    GPUS,
    INSERT_STAGE,
    NO_REWRITE,
    PRE_TRANSFORMED,
    REFUSED,
    ZooTask,
    sample_states,
)
from tests.extract.sampling import auto_scheduler, tvm
from tvm_cdmpp.extract.dag import analyse

EDGES = (edges.__name__, sparse.__name__)


def step_kinds(task: Any, states: list[Any]) -> set[str]:
    result = auto_scheduler.MeasureResult([1.0], 0, "", 1.0, 0)
    dump = auto_scheduler.measure_record.dump_record_to_string
    lines = [dump(auto_scheduler.MeasureInput(task, state), result) for state in states]
    return {step[0] for line in lines for step in json.loads(line)["i"][1][1]}


def test_the_zoo_is_large_and_has_all_targets() -> None:
    zoo = tasks.zoo()
    assert len({task.name for task in zoo}) == len(zoo) > 150
    assert {task.device for task in zoo} == {"cpu", *GPUS}
    assert len({task.builder for task in zoo}) >= 90


def test_every_task_can_be_made() -> None:
    keys = {(str(t.workload_key), str(t.target)) for t in (task.make() for task in tasks.zoo())}
    assert len(keys) > 150


def test_the_zoo_has_what_is_tested_last() -> None:
    zoo = tasks.zoo()
    layouts = {task.layout for task in zoo if task.builder is edges.head}
    assert layouts == {NO_REWRITE, INSERT_STAGE, PRE_TRANSFORMED}
    graphs = [analyse(task.make().compute_dag) for task in zoo if task.builder.__module__ in EDGES]
    for size in (0, 1):
        assert any(size in stage.axis_extents for graph in graphs for stage in graph.stages)
    told = " ".join(remark for graph in graphs for remark in graph.remarks())
    assert "lengths are assumed" in told
    assert "Other stages read the result" in told


def test_tasks_for_throughput_are_varied() -> None:
    chosen = tasks.throughput_tasks()
    assert len({task.name for task in chosen}) == len(chosen) >= 10
    assert {task.device for task in chosen} == {"cpu", "cuda"}
    sizes = [len(task.make().compute_dag.ops) for task in chosen]
    assert min(sizes) <= 3
    assert max(sizes) >= 10


@pytest.mark.parametrize("builder", REFUSED, ids=lambda builder: builder.__name__)
def test_what_ansor_is_said_to_refuse_it_refuses(builder: Any) -> None:
    with pytest.raises(tvm.TVMError):
        sample_states(tasks.make_task(builder), 1)


@pytest.mark.parametrize("device", ["cpu", "cuda", "vulkan"])
def test_states_are_distinct_and_the_same_on_every_run(device: str) -> None:
    task = ZooTask(matrix.matmul, device).make()
    drawn = [[str(state) for state in sample_states(task, 12, seed)] for seed in (0, 0, 1)]
    assert len(set(drawn[0])) == 12
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_simple_task_has_fewer_states_than_asked_for() -> None:
    states = sample_states(ZooTask(handwritten.diagonal).make(), 10)
    assert 1 <= len(states) < 10


def test_a_third_of_the_states_is_evolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from the initial population, which has more states than are asked for."""
    task = ZooTask(matrix.matmul, "cuda").make()
    initial: set[str] = set()
    draw = auto_scheduler.SketchPolicy.sample_initial_population

    def remember(policy: Any) -> Any:
        states = draw(policy)
        initial.update(map(str, states))
        return states

    monkeypatch.setattr(auto_scheduler.SketchPolicy, "sample_initial_population", remember)
    states = [str(state) for state in sample_states(task, 12)]
    assert sum(state not in initial for state in states) == 4


def test_sketches_of_all_kinds_are_drawn() -> None:
    zoo = [
        ZooTask(matrix.matmul), ZooTask(matrix.matmul_relu), ZooTask(reduction.sum_all),
        ZooTask(matrix.matmul, "cuda"), ZooTask(reduction.softmax, "cuda"),
        ZooTask(matrix.dense, layout=NO_REWRITE),
    ]  # fmt: skip
    kinds: set[str] = set()
    for zoo_task in zoo:
        task = zoo_task.make()
        kinds |= step_kinds(task, sample_states(task, 24))
    # Storage alignment is in no sketch of Ansor's own.
    every_kind = {"SP", "FSP", "FFSP", "RE", "FU", "AN", "PR", "CA", "CI", "CR", "CHR", "CHW", "RF"}
    assert kinds == every_kind
