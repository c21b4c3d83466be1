"""Rounds go where they gain most."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.tiny_tasks import auto_scheduler, matmul
from tvm_cdmpp.bridge import possible_latency_s
from tvm_cdmpp.measure import Pace
from tvm_cdmpp.search.gain_scheduler import BatchMeasurer, GainScheduler


class StubPolicy(auto_scheduler.search_policy.SearchPolicy):
    """Its latency falls by its gain each round, and the gain by half; done below a hundredth."""

    def __init__(self, latency_s: float, gain: float) -> None:
        self.latency_s, self.gain, self.is_done = latency_s, gain, False

    def continue_search_one_round(self, num_measure: int, _measurer: Any) -> tuple[Any, Any]:
        error = int(self.latency_s == 0)
        result = auto_scheduler.MeasureResult([self.latency_s or 1e10], error, "", 0.1, 1.0)
        self.latency_s *= 1 - self.gain
        self.gain /= 2
        self.is_done = self.gain < 0.01
        return [None] * num_measure, [result] * num_measure


def order(latencies_s: list[float], gains: list[float], weights: list[int]) -> list[int]:
    policies = [StubPolicy(*both) for both in zip(latencies_s, gains, strict=True)]
    tasks = [matmul(16, 16, 16 * (n + 1)) for n in range(len(policies))]
    scheduler = GainScheduler(tasks, weights, policies=policies, measurer=None, round_size=2)
    chosen: list[int] = []
    while (index := scheduler.next_task()) is not None:
        scheduler.tune_task(index, 2)
        chosen.append(index)
    return chosen


def test_largest_gain_first_and_then_an_end() -> None:
    # 1 would gain 2 x 8 ms x 0.1 = 1.6 ms, 0 half a ms.
    chosen = order([1e-3, 8e-3], [1.0, 0.2], [1, 2])
    assert chosen[:4] == [0, 1, 1, 1]
    assert set(chosen) == {0, 1}
    assert chosen.count(1) == 5  # until its gain is below a hundredth


def test_tasks_without_a_valid_program_are_given_up() -> None:
    assert order([0.0, 1e-3], [1.0, 0.01], [1, 1]) == [0, 1, 0, 0]


def test_programs_are_measured_in_batches() -> None:
    class Stub:
        def __init__(self) -> None:
            self.sizes: list[int] = []

        def build(self, inputs: Any, verbose: int) -> Any:
            self.sizes.append(len(inputs))
            return inputs

        def run(self, inputs: Any, _builds: Any, _verbose: int) -> Any:
            return [2 * n for n in inputs]

        def callback(self, policy: Any, inputs: Any, results: Any) -> None:
            assert policy == "policy"
            assert results == [2 * n for n in inputs]

    stub = Stub()
    found = BatchMeasurer(stub, stub, stub).measure("policy", list(range(100)))
    assert found == list(range(0, 200, 2))
    assert sum(stub.sizes) == 100
    assert max(stub.sizes) < 100


class SlowMachine:
    """Builds and runs programs whose states are their latencies; slow in some batches."""

    def __init__(self, pace: Pace, slowness: list[float]) -> None:
        self.pace, self.slowness = pace, slowness
        self.recorded: list[float] = []
        self.recorded_again: list[float] = []

    def build(self, inputs: Any, verbose: int) -> Any:
        return inputs

    def run(self, inputs: Any, _builds: Any, _verbose: int) -> Any:
        assert self.pace.watches
        self.pace.slowness = self.slowness.pop(0)
        return [
            auto_scheduler.MeasureResult([each.state * self.pace.slowness], 0, "", 0.1, 1.0)
            for each in inputs
        ]

    def callback(self, _policy: Any, _inputs: Any, results: Any) -> None:
        self.recorded += [possible_latency_s(result) for result in results]

    def again(self, _inputs: Any, results: Any) -> None:
        self.recorded_again += [possible_latency_s(result) for result in results]


def test_what_ran_while_the_machine_was_slow_is_allowed_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The policy sees what programs take; those that may be the best are measured again."""
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # batches of two
    pace, key = Pace(), SimpleNamespace(workload_key="task")
    machine = SlowMachine(pace, [1.0, 2.0, 2.0, 1.0, 1.0])
    measurer = BatchMeasurer(machine, machine, machine, pace)

    def measure(*latencies_s: float) -> list[float]:
        inputs = [SimpleNamespace(task=key, state=s) for s in latencies_s]
        return [possible_latency_s(result) for result in measurer.measure(None, inputs)]

    assert measure(4.0, 5.0, 3.0, -1.0) == [4.0, 5.0, 3.0, np.inf]  # no latency at all
    assert machine.recorded == [4.0, 5.0, 6.0, np.inf]
    assert machine.recorded_again == []  # the machine was still slow
    assert measure(8.0, 7.0) == [8.0, 7.0]
    assert machine.recorded[4:] == [8.0, 7.0]
    assert machine.recorded_again == [3.0]
    assert not machine.slowness
