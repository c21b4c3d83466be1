"""Onboarding: what is kept back stays so, learning helps, it ends, and a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.contract import CPU
from tests.models.programs import random_batch
from tvm_cdmpp.devices.calibration import DeviceCalibration, Levels
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.models.adaptation import AdaptConfig
from tvm_cdmpp.models.additive import AdditiveConfig
from tvm_cdmpp.models.rows import Ints, TrainingRows
from tvm_cdmpp.models.trained import TrainedPredictor
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.curves import keep_point, read_points
from tvm_cdmpp.train.evaluation import evaluate
from tvm_cdmpp.train.learner import Learned, Learner
from tvm_cdmpp.train.onboarding import Onboarding, fastest, keep_back
from tvm_cdmpp.train.plan import OnboardSettings

NEW = DeviceSpec(name="new", kind="cpu", cores=64, clock_hz=1e9)
START = TrainedPredictor.untrained(AdditiveConfig(width=16, layers=1, hidden=16), 0)
QUICK = AdaptConfig(steps=10)
SHORT = TrainConfig(
    steps=120, learning_rate=1e-2, groups_per_batch=4, programs_per_group=8, window_batches=10,
    average=0.9, domain="cmd",
)  # fmt: skip


def rows_on(device: DeviceSpec, factor: float, num_tasks: int) -> TrainingRows:
    batch = random_batch(120, seed=3)
    noise = np.random.default_rng(0).lognormal(0, 0.1, 120)
    latencies_s = factor * noise * START.predict(batch, device).latency_s
    return TrainingRows.on(device, batch, latencies_s, np.arange(120) % num_tasks)


def with_own_schedules(rows: TrainingRows, own: npt.NDArray[np.bool_]) -> TrainingRows:
    """The same programs, some of which have schedules of TVM's own."""
    (machine,) = rows.machines
    of_own = replace(machine, device=replace(machine.device, own_schedule=True))
    return replace(rows, machines=(machine, of_own), machine_of=own.astype(np.int64))


class Memory:
    """A bench that knows what its programs take."""

    wake_s = None
    calls: Ints | None = None

    def __init__(self, rows: TrainingRows, on_batch: Callable[[int], None] = lambda _: None):
        self.candidates, self._on_batch = rows, on_batch
        self.order, self.stopped = np.zeros(0, np.int64), False

    @property
    def open(self) -> npt.NDArray[np.bool_]:
        return ~np.isin(np.arange(len(self.candidates)), self.order)

    @property
    def measured(self) -> TrainingRows:
        return self.candidates.take(self.order)

    def measure(self, programs: Ints) -> None:
        assert self.open[programs].all()
        self.order = np.concatenate([self.order, programs])
        self._on_batch(len(self.order))

    def stop(self) -> None:
        self.stopped = True


@given(st.lists(st.integers(0, 8), max_size=60), st.booleans())
def test_what_is_kept_back_stays_so(tasks: list[int], by_task: bool) -> None:
    numbers = np.array(tasks, np.int64)
    marked = keep_back(numbers, by_task=by_task)
    for end in range(len(tasks)):
        np.testing.assert_array_equal(keep_back(numbers[:end], by_task=by_task), marked[:end])
    if by_task:
        assert not set(numbers[marked].tolist()) & set(numbers[~marked].tolist())
        assert len(set(numbers[marked].tolist())) == (len(set(tasks)) + 3) // 5
    else:
        assert marked.sum() == (len(tasks) + 3) // 5


@pytest.mark.parametrize("num_tasks", [3, 12])
def test_the_error_falls(num_tasks: int) -> None:
    bench = Memory(rows_on(NEW, 20.0, num_tasks))
    learner = Learner(start=START, anchored=QUICK)
    work = Onboarding(bench, learner, OnboardSettings(budget=40, batch=20))
    points = list(work.steps())
    assert [point.records for point in points] == [20, 40]
    first = points[0]
    assert first.start_mape == pytest.approx(95, abs=2)
    assert first.mape is not None
    assert first.mape < 60
    assert first.low is not None
    assert first.high is not None
    assert first.low <= first.mape <= first.high
    found = work.result().weights.predict(bench.candidates.batch(), NEW).latency_s
    off = np.abs(found / bench.candidates.latencies_s - 1)
    assert off.mean() < 0.6
    # The start has not changed, nor what is said of GPUs.
    assert work.result().weights.experts["gpu"] is START.experts["gpu"]
    assert START.experts["cpu"].level == 0


def test_what_networks_spend_their_time_on_is_measured_first() -> None:
    """Two networks run four of twelve tasks: one of these often, and another one alone."""
    rows = rows_on(NEW, 1.0, 12)
    heavy = [3, 5, 7, 11]
    calls = np.zeros((2, 12), np.int64)
    calls[0, heavy], calls[1, 9] = (1000, 1, 1, 1000), 1
    for known in (None, calls):
        bench = Memory(rows)
        bench.calls = known
        settings = OnboardSettings(budget=8, batch=8, programs_per_task=2)
        list(Onboarding(bench, Learner(start=START, anchored=QUICK), settings).steps())
        tasks, counts = np.unique(rows.tasks[bench.order], return_counts=True)
        assert len(bench.order) == 8
        of_task = dict(zip(tasks.tolist(), counts.tolist(), strict=True))
        if known is not None:
            # Three quarters of the budget, two programs each; the rest stands for the others.
            assert [of_task.get(task) for task in (3, 11, 9)] == [2, 2, 2]
            firsts = [np.flatnonzero(rows.tasks == task)[:2].tolist() for task in (3, 11, 9)]
            assert {place for two in firsts for place in two} <= set(bench.order)
            assert len(set(of_task) - {3, 11, 9}) == 1


def test_sources_are_not_forgotten() -> None:
    target, sources = rows_on(NEW, 5.0, 12), rows_on(CPU, 1.0, 6)
    found = {}
    for name, known in (("anchored", None), ("with sources", sources)):
        learner = Learner(start=START, sources=known, config=SHORT, anchored=QUICK)
        learned = learner.learn(target.take(np.arange(40)), target.take(np.arange(40, 120))).weights
        found[name] = [
            float(np.median(np.abs(np.log(evaluate(learned, rows).latency_s / rows.latencies_s))))
            for rows in (target, sources)
        ]
    assert found["anchored"][0] < 0.5
    assert found["anchored"][1] > 1.2  # the level of this device is taken for that of all
    assert found["with sources"][0] < np.log(5.0) - 0.05
    assert found["with sources"][1] < 0.2


@pytest.mark.parametrize("with_sources", [False, True])
def test_what_is_learned_comes_on_top_of_the_levels_of_a_device(with_sources: bool) -> None:
    """Calibrated at 10 and 30 times what is predicted; it is half as much again."""
    start = TrainedPredictor(dict(START.experts), {"command": "test"})
    levels = Levels(
        weights=start.origin, level=2.0, operators={"pool": np.log(10), "conv2d": np.log(30)}
    )
    device = replace(NEW, calibration=DeviceCalibration(levels=(levels,)))
    machines = [device.for_operator(operator) for operator in ("pool", "conv2d")]
    parts = [rows_on(machines[0], 15.0, 6), rows_on(machines[1], 45.0, 6)]
    bench = Memory(TrainingRows.join(parts))
    assert bench.candidates.uncalibrated().devices == (NEW,)
    sources = rows_on(CPU, 1.0, 6) if with_sources else None
    learner = Learner(start=start, sources=sources, config=SHORT, anchored=QUICK)
    work = Onboarding(bench, learner, OnboardSettings(budget=40, batch=40))
    (point,) = work.steps()
    assert point.start_mape is not None
    assert point.start_mape == pytest.approx(33, abs=6)  # the levels count at once
    assert point.mape is not None
    assert point.mape < 0.6 * point.start_mape
    found = work.result().weights
    assert found.experts["cpu"].ahead is None
    found.about = {"command": "adapt"}
    kept = replace(levels, weights=found.origin)
    for machine, rows in zip(machines, parts, strict=True):
        operator = "pool" if machine is machines[0] else "conv2d"
        known = replace(NEW, calibration=DeviceCalibration(levels=(kept,))).for_operator(operator)
        off = np.log(found.predict(rows.batch(), known).latency_s / rows.latencies_s)
        assert abs(np.median(off)) < (0.3 if with_sources else 0.1)  # 0.4 at first


@pytest.mark.parametrize("with_sources", [False, True])
def test_what_was_learned_before_stays_when_more_is(with_sources: bool) -> None:
    rows = rows_on(NEW, 5.0, 12)
    first, second = rows.take(np.arange(60)), rows.take(np.arange(60, 120))
    none = rows.take(np.zeros(0, np.int64))
    start = Learner(start=START, anchored=QUICK).learn(first, none).weights
    start.experts["cpu"].ahead = None  # as weights are that were written
    sources = rows_on(CPU, 1.0, 6) if with_sources else None
    again = (
        Learner(start=start, sources=sources, config=SHORT, anchored=QUICK)
        .learn(second, none)
        .weights
    )
    off = np.abs(np.log(evaluate(again, first).latency_s / first.latencies_s))
    assert np.median(off) < 0.2


class Once(Learner):
    """Learns once."""

    def learn(self, measured: TrainingRows, unlabelled: TrainingRows) -> Learned:
        return Learned(FAR if len(measured) > 10 else self.start, "once")


FAR = TrainedPredictor({k: replace(e, level=3.0) for k, e in START.experts.items()})


def test_two_batches_without_a_gain_end_it() -> None:
    bench = Memory(rows_on(NEW, 20.0, 12))
    work = Onboarding(bench, Once(start=START), OnboardSettings(budget=100, batch=10))
    gains = [point.gain for point in work.steps()]
    assert gains[0] == 0
    assert gains[1] is not None
    assert gains[1] > 0.8
    assert gains[2:] == [0, 0]
    assert "the last 2 batches brought the error down by less than 2%" in work.ended


@pytest.mark.parametrize("kept", [10, 20, 30, 40])
def test_a_killed_run_ends_as_one_that_was_not(kept: int, tmp_path: Path) -> None:
    rows, settings = rows_on(NEW, 20.0, 12), OnboardSettings(budget=100, batch=10)
    bench, file = Memory(rows), tmp_path / "curve.jsonl"
    whole = Onboarding(bench, Once(start=START), settings)
    for point in whole.steps():
        if point.records <= kept:
            keep_point(file, point, {"seed": 0})
        with file.open("a") as torn:
            damaged = {**asdict(point), "mape": "x", "learning": {"seed": 0}}
            torn.write(f'\n{json.dumps(damaged)}\n{{"records": 5')
    assert read_points(file, {"seed": 1}) == read_points(tmp_path / "none", {}) == []
    killed = Memory(rows)
    killed.order = bench.order[:kept]
    work = Onboarding(killed, Once(start=START), settings, read_points(file, {"seed": 0}))
    list(work.steps())
    assert killed.order.tolist() == bench.order.tolist()
    assert (work.curve, work.ended) == (whole.curve, whole.ended)


def test_what_a_batch_brought_is_not_known_where_a_run_was_killed_before_its_point() -> None:
    bench = Memory(rows_on(NEW, 20.0, 12))
    bench.order = np.arange(20)
    points = Onboarding(bench, Once(start=START), OnboardSettings(budget=40, batch=10)).steps()
    assert [point.gain for point in points] == [None, 0, 0]


def test_all_that_was_planned_is_measured_first_where_that_is_wanted() -> None:
    rows, ends = rows_on(NEW, 20.0, 60), {}
    for whole_plan in (False, True):
        settings = OnboardSettings(budget=60, batch=10, programs_per_task=1, whole_plan=whole_plan)
        work = Onboarding(Memory(rows), Once(start=START), settings)
        # Without a gain since the second batch.
        ends[whole_plan] = [point.tasks for point in work.steps()]
    assert ends == {False: [10, 20, 30, 40], True: [10, 20, 30, 40, 50, 60]}


def test_the_fastest_of_each_task_count_and_what_failed() -> None:
    rows = rows_on(NEW, 20.0, 4).take(np.arange(12))
    latencies_s = np.array([3.0, 1.0, 9.0, 2.0, 2.0, 3.0, 8.0, 1.0, np.inf, 2.0, 7.0, np.inf])
    rows = replace(rows, latencies_s=latencies_s)  # tasks 0, 1, 2, 3, 0, 1, ...
    assert fastest(rows, 1.0).tolist() == list(range(12))
    assert fastest(rows, 1 / 3).tolist() == [1, 4, 7, 8, 10, 11]
    assert fastest(rows, 0.5).tolist() == [1, 4, 6, 7, 8, 9, 10, 11]


def test_slow_programs_of_few_tasks_are_not_kept_back_either() -> None:
    rows = rows_on(NEW, 20.0, 3).take(np.arange(9))
    latencies_s = rows.latencies_s.copy()
    latencies_s[[1, 6]] = 50.0 * latencies_s.max()  # which would be kept back
    bench = Memory(replace(rows, latencies_s=latencies_s))
    settings = OnboardSettings(budget=9, batch=9, programs_per_task=3, fastest_share=1 / 3)
    (point,) = Onboarding(bench, Learner(start=START, anchored=QUICK), settings).steps()
    assert (point.records, point.kept_back, point.mape) == (9, 0, None)


def test_the_error_of_one_program_has_no_interval() -> None:
    rows = rows_on(NEW, 20.0, 3).take(np.arange(9))
    latencies_s = rows.latencies_s.copy()
    latencies_s[1] = 50.0 * latencies_s.max()  # it would be kept back, as will be the next
    latencies_s[6] = 0.5 * latencies_s.min()
    bench = Memory(replace(rows, latencies_s=latencies_s))
    settings = OnboardSettings(budget=9, batch=9, programs_per_task=3, fastest_share=1 / 3)
    (point,) = Onboarding(bench, Learner(start=START, anchored=QUICK), settings).steps()
    assert point.kept_back == 1
    assert point.mape is not None
    assert (point.low, point.high) == (None, None)


def test_slow_programs_teach_nothing_where_only_fast_ones_are_wanted() -> None:
    rows = rows_on(NEW, 20.0, 12)
    slow = np.arange(120) >= 12  # all but one of each task
    latencies_s = np.where(slow, 30.0, 1.0) * rows.latencies_s
    bench = Memory(replace(rows, latencies_s=latencies_s))
    settings = OnboardSettings(budget=120, batch=120, programs_per_task=10, fastest_share=0.1)
    work = Onboarding(bench, Learner(start=START, anchored=QUICK), settings)
    (point,) = work.steps()
    assert work.num_counted == 12
    bench.candidates.latencies_s[:24] = np.inf  # two of each task fail
    assert work.num_counted == 12
    bench.candidates.latencies_s[:] = np.inf
    assert work.num_counted == 0
    bench.candidates = rows
    assert (point.records, point.kept_back) == (120, 3)  # of 12 tasks three are kept back
    found = work.result().weights.predict(bench.candidates.batch(), NEW).latency_s
    assert np.abs(np.log(found / rows.latencies_s)).mean() < 0.7


def test_a_program_of_a_microsecond_is_not_the_whole_gain() -> None:
    """It gets worse by far as a percentage, and all others get better."""
    rows, settings = rows_on(NEW, 20.0, 12), OnboardSettings(budget=30, batch=30)
    order = Memory(rows)
    list(Onboarding(order, Once(start=START), settings).steps())
    kept = order.order[keep_back(rows.tasks[order.order], by_task=True)]
    rows.latencies_s[kept[0]] *= 1e-4
    (point,) = Onboarding(Memory(rows), Once(start=START), settings).steps()
    assert point.mape is not None
    assert point.start_mape is not None
    assert point.gain is not None
    assert point.mape > 10 * point.start_mape
    assert point.gain > 0.3


def test_the_budget_is_spent_to_the_last_record() -> None:
    # Two batches: of three, the last two might have brought nothing, which is another end.
    bench = Memory(rows_on(NEW, 20.0, 12))
    work = Onboarding(
        bench, Learner(start=START, anchored=QUICK), OnboardSettings(budget=15, batch=10)
    )
    assert [point.records for point in work.steps()] == [10, 15]
    assert work.ended == "the budget is spent"
    few = Memory(rows_on(NEW, 20.0, 12).take(np.arange(8)))
    work = Onboarding(
        few, Learner(start=START, anchored=QUICK), OnboardSettings(budget=25, batch=10)
    )
    assert [point.records for point in work.steps()] == [8]
    assert work.ended == "there are no more programs to measure"
    less = Onboarding(
        bench, Learner(start=START, anchored=QUICK), OnboardSettings(budget=12, batch=10)
    )
    assert [point.records for point in less.steps()] == [15]
    assert less.ended == "there were 15 records already, which count although the budget is 12"


def test_a_killed_run_goes_on_to_the_same_end() -> None:
    def kill(records: int) -> None:
        if records == 20:
            raise KeyboardInterrupt

    rows, settings = rows_on(NEW, 20.0, 12), OnboardSettings(budget=30, batch=10)
    straight = Memory(rows)
    list(Onboarding(straight, Learner(start=START, anchored=QUICK), settings).steps())
    bench = Memory(rows, kill)
    with pytest.raises(KeyboardInterrupt):
        list(Onboarding(bench, Learner(start=START, anchored=QUICK), settings).steps())
    bench._on_batch = lambda _: None
    again = Onboarding(bench, Learner(start=START, anchored=QUICK), settings)
    assert [point.records for point in again.steps()] == [20, 30]
    np.testing.assert_array_equal(bench.order, straight.order)


def test_stop_ends_after_the_batch_in_flight() -> None:
    bench = Memory(rows_on(NEW, 20.0, 12), lambda _: work.stop())
    work = Onboarding(
        bench, Learner(start=START, anchored=QUICK), OnboardSettings(budget=30, batch=10)
    )
    assert [point.records for point in work.steps()] == [10]
    assert bench.stopped
    assert work.ended == "it was asked to stop"


def test_functions_with_tvms_own_schedules_have_their_share() -> None:
    rows = rows_on(NEW, 20.0, 12)
    tasks = rows.tasks.copy()
    tasks[-12:] = np.arange(100, 112)  # as many functions as tasks
    own = tasks >= 100
    bench = Memory(with_own_schedules(replace(rows, tasks=tasks), own))
    settings = OnboardSettings(budget=24, batch=12, programs_per_task=1)
    work = Onboarding(bench, Learner(start=START, anchored=QUICK), settings)
    points = list(work.steps())
    first, second = bench.order[:12], bench.order[12:]
    assert own[first].sum() == own[second].sum() == 6
    assert len(np.unique(tasks[bench.order])) == 24  # each once
    # Of 12 tasks the second, seventh and last are kept back, and of the functions.
    assert [point.kept_back for point in points] == [2, 6]
    # Where there is nothing else left, functions take more than their share.
    bench.order = np.flatnonzero(~own)
    chosen = work._plan.choose(np.flatnonzero(bench.open), 10, 0)
    assert len(chosen) == 10
    assert own[chosen].all()


def test_failures_teach_no_latency() -> None:
    rows = rows_on(NEW, 20.0, 12)
    broken = TrainingRows.on(NEW, rows.batch(), np.full(120, np.inf), rows.tasks)
    work = Onboarding(
        Memory(broken), Learner(start=START, anchored=QUICK), OnboardSettings(budget=20, batch=20)
    )
    (point,) = work.steps()
    assert (point.failed, point.kept_back, point.mape, point.gain) == (20, 0, None, None)
    with pytest.raises(RecordError, match="none of 20 measured programs ran"):
        work.result()


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_a_share_of_none_or_of_more_than_all_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="fastest_share"):
        OnboardSettings(budget=10, batch=10, fastest_share=share)


@pytest.mark.parametrize(("budget", "batch"), [(10, 11), (10, 0)])
def test_a_budget_below_a_batch_is_refused(budget: int, batch: int) -> None:
    with pytest.raises(ConfigError, match="batch"):
        OnboardSettings(budget=budget, batch=batch)


def test_nothing_to_measure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no program to measure"):
        Onboarding(
            Memory(TrainingRows.join([])),
            Learner(start=START, anchored=QUICK),
            OnboardSettings(budget=64),
        )
