"""Explanations of real states: what adds up, what is compared with what."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.search.logs import TARGET, write_tiny_log
from tests.tiny_tasks import invent, matmul
from tvm_cdmpp import CDMPPModel
from tvm_cdmpp.devices import DeviceSpec, find_device
from tvm_cdmpp.errors import CheckpointError
from tvm_cdmpp.models import TrainedPredictor, interval, load_weights
from tvm_cdmpp.search import (
    Measured,
    MeasuredLog,
    explain_program,
    read_measured_log,
    review_search,
    task_roofline,
)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> MeasuredLog:
    return read_measured_log(write_tiny_log(tmp_path_factory.mktemp("log") / "log.json"))


def explain(log: MeasuredLog, place: int, device: DeviceSpec | None = None, **options: Any) -> Any:
    task = log.tasks[0]
    return explain_program(
        load_weights("shipped"),
        replace(task.machine, device=device or task.machine.device),
        task.extractor,
        task.task,
        task.states[place],
        measured=Measured(task.asts, task.latencies_s),
        **options,
    )


def test_leaves_and_start_up_add_up_to_the_latency(log: MeasuredLog) -> None:
    found = explain(log, 0)
    leaves_s = sum(leaf.latency_s for leaf in found.leaves)
    assert leaves_s + found.start_s == pytest.approx(found.latency_s)
    assert 0 <= found.start_s < 0.1 * found.latency_s
    for leaf in found.leaves:
        assert leaf.latency_s == pytest.approx(leaf.share * found.latency_s)
    assert found.interval_s[0] < found.latency_s < found.interval_s[1]
    assert [leaf.is_init for leaf in found.leaves[:2]] == [True, False]


def test_intervals_are_as_wide_as_those_of_networks(log: MeasuredLog) -> None:
    task, predictor = log.tasks[0], load_weights("shipped")
    assert isinstance(predictor, TrainedPredictor)
    widths = []
    for name in ("epyc-7452", "x86-24t"):
        device = find_device(name)
        found = explain(log, 0, device=device)
        spread = predictor.predict(task.asts.take([0]), device).spread
        assert spread is not None
        wide = interval(found.latency_s, float(spread[0]), predictor.level_spread(device))
        assert found.interval_s == pytest.approx(wide, rel=1e-5)
        widths.append(found.interval_s[1] / found.interval_s[0] / math.exp(3.29 * float(spread[0])))
    assert widths[0] > 1.5 and widths[1] == pytest.approx(1.0)  # the weights know the second


def test_the_tree_has_loops_annotations_and_shares(log: MeasuredLog) -> None:
    found = explain(log, 0)
    assert "parallel" in found.loops
    stores = [line for line in found.loops.splitlines() if " = ..." in line]
    assert stores
    assert all(line.endswith("%") for line in stores)
    assert max(len(line) - len(line.lstrip()) for line in stores) >= 4


def test_each_store_gets_what_its_leaves_take() -> None:
    """A stage and its cache are two stores, though of one name in the DAG."""
    task = matmul(64, 64, 64, TARGET)
    inputs, _ = invent(task, [1e-5] * 16)
    model = CDMPPModel()
    cached = next(i.state for i in inputs if "C.local" in str(i.state))
    found = model.explain(task, cached)
    assert {leaf.name for leaf in found.leaves} == {"C.local", "C"}
    for name in ("C.local", "C"):
        share = sum(leaf.share for leaf in found.leaves if leaf.name == name)
        (line,) = (line for line in found.loops.splitlines() if f" {name} = ..." in line)
        assert line.endswith(f"  {100 * share:.1f}%")


def test_the_nearest_measured_programs_are_others(log: MeasuredLog) -> None:
    found = explain(log, 5, num_neighbours=99)
    assert {neighbour.row for neighbour in found.neighbours} == set(range(9)) - {5}
    for neighbour in found.neighbours:
        assert neighbour.latency_s == log.tasks[0].latencies_s[neighbour.row]
    distances = [neighbour.distance for neighbour in found.neighbours]
    assert distances == sorted(distances)
    assert distances[0] > 0


def test_two_programs_are_compared(log: MeasuredLog) -> None:
    task = log.tasks[0]
    leaves = task.asts.leaf_counts
    alike = next(n for n in range(1, len(leaves)) if leaves[n] == leaves[0])
    found = explain(log, 0, against=task.states[alike])
    assert found.other_s == pytest.approx(explain(log, alike).latency_s, rel=1e-5)
    assert found.against.reference_s == pytest.approx(found.other_s, rel=1e-3)
    difference = math.log(found.latency_s / found.other_s)
    assert sum(found.against.groups.values()) == pytest.approx(difference, abs=0.1)


def test_the_roofline_is_the_slower_of_compute_and_memory(log: MeasuredLog) -> None:
    task, device = log.tasks[0].task, log.tasks[0].machine.device
    latency_s, bound = task_roofline(task, device)
    compute_s = 2 * 64**3 / device.peak_flops
    memory_s = 3 * 4 * 64**2 / device.bandwidth_bytes_per_s
    assert latency_s == pytest.approx(max(compute_s, memory_s))
    assert bound == ("compute" if compute_s > memory_s else "memory")


def test_a_model_explains_with_what_it_was_given() -> None:
    task = matmul(64, 64, 64, TARGET)
    inputs, results = invent(task, [1e-5, 2e-5, 0.0, 3e-5])
    model = CDMPPModel()
    assert model.explain(task, inputs[0].state).neighbours == ()
    model.update(inputs, results)
    found = model.explain(task, inputs[0].state, against=inputs[1].state)
    assert {neighbour.latency_s for neighbour in found.neighbours} == {2e-5, 3e-5, np.inf}
    # Programs are ordered half a spread above what they are said to take.
    assert found.interval_s is not None
    spread = math.log(found.interval_s[1] / found.latency_s) / 1.645
    score = model.predict(task, [inputs[0].state])[0]
    assert 1 / found.latency_s == pytest.approx(score * math.exp(0.5 * spread), rel=0.1)
    with pytest.raises(CheckpointError, match="taken apart"):
        CDMPPModel(weights=None).explain(task, inputs[0].state)


def test_a_review_follows_the_best_and_says_what_is_left(log: MeasuredLog) -> None:
    review = review_search(log, load_weights("shipped"), "shipped")
    assert review.failures == {"build failed": 2}
    assert review.latency_s == pytest.approx(1e-5 + 2e-5)
    assert review.progress[:, 0].tolist() == list(range(10, 19))
    assert (np.diff(review.progress[:, 1]) <= 0).all()
    assert review.progress[-1, 1] == pytest.approx(review.latency_s)
    assert re.fullmatch(r"main memory at \d.* GB/s, .+", review.memory)
    for task in review.tasks:
        assert (task.trials, task.failed, len(task.measured_s)) == (9, 1, 8)
        assert task.concordance is not None
        assert 0 <= task.concordance <= 1
        assert task.advice == "fewer than 16 trials, too few to tell"
        assert replace(task, trials=16).advice == "still falling: more trials pay"
        assert task.late_gain_s > 0


def test_tasks_of_which_nothing_ran_are_reviewed_too(tmp_path: Path) -> None:
    path = write_tiny_log(tmp_path / "log.json", programs=3)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:3], lines[4]]) + b"\n")
    review = review_search(read_measured_log(path), load_weights("shipped"), "shipped")
    assert review.tasks[1].best_s is None
    assert review.tasks[1].advice == "no program ran: see the failures"


def test_advice_goes_by_trials_first_and_the_roofline_is_a_remark_of_its_own(
    log: MeasuredLog,
) -> None:
    review = review_search(log, load_weights("shipped"), "shipped")
    flat = replace(
        review.tasks[0], late_gain_s=0.0, best_s=1.0, roofline_s=0.1, trials=64, bound="memory"
    )
    faster = "the device is faster than its nominal figures"
    for changed, advice, remark in (
        ({}, "flat: many more trials, or another sketch", "far"),
        ({"bound": "start-up"}, "flat: little is left", "most of it is its start"),
        ({"roofline_s": 0.6}, "flat: little is left", "near"),
        (
            {"roofline_s": 1.1, "roofline_bound": "memory"},
            "flat: no word on what is left",
            f"below: caches hold its data, or {faster}",
        ),
        (
            {"roofline_s": 1.1, "roofline_bound": "compute"},
            "flat: no word on what is left",
            f"below: {faster}",
        ),
    ):
        task = replace(flat, **changed)
        assert (task.advice, task.next_to_roofline) == (advice, remark)
        falling = replace(task, late_gain_s=0.1)
        assert (falling.advice, falling.next_to_roofline) == (
            "still falling: more trials pay",
            remark,
        )
        for few in (replace(task, trials=15), replace(falling, trials=12)):
            assert few.advice == "fewer than 16 trials, too few to tell"
            assert few.next_to_roofline == remark
