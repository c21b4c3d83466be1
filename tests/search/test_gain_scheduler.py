"""Rounds go where they gain most."""

from typing import Any

from tests.tiny_tasks import auto_scheduler, matmul
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
