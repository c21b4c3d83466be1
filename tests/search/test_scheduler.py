"""The stepwise scheduler chooses the same tasks, in the same order, as TVM's own."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tests.tiny_tasks import auto_scheduler, matmul
from tvm_cdmpp.search.scheduler import StepwiseScheduler

ROUND = 4
SHAPES = [(16, 16, 16), (32, 32, 32), (32, 16, 64), (64, 64, 64), (8, 8, 8), (64, 32, 32)]
WEIGHTS = [1, 3, 2, 1, 9, 2]
Latency = Callable[[int], float]


class StubPolicy(auto_scheduler.search_policy.SearchPolicy):
    """Pretends to measure: the latency of a task depends on the number of its rounds only."""

    def __init__(self, latency_s: Latency) -> None:
        self.latency_s = latency_s
        self.num_rounds = 0

    def continue_search_one_round(self, num_measure: int, measurer: Any) -> tuple[Any, Any]:
        latency_s = self.latency_s(self.num_rounds)
        self.num_rounds += 1
        error = int(latency_s == 0)
        result = auto_scheduler.MeasureResult([latency_s or 1e10], error, "", 0.1, 1.0)
        return [None] * num_measure, [result] * num_measure


def improving(seed: int) -> list[Latency]:
    generator = np.random.default_rng(seed)

    def curve(begin_s: float, floor: float, decay: float) -> Latency:
        return lambda n: begin_s * (floor + (1 - floor) * decay**n)

    return [
        curve(generator.uniform(1e-5, 1e-2), generator.uniform(0, 0.8), generator.uniform(0.3, 1))
        for _ in SHAPES
    ]


def stock_order(curves: Sequence[Latency], num_rounds: int) -> list[int]:
    order: list[int] = []

    class Recording(auto_scheduler.TaskScheduler):
        def _tune_task(self, task_idx: int) -> None:
            order.append(int(task_idx))
            super()._tune_task(task_idx)

    tasks = [matmul(*shape) for shape in SHAPES]
    options = auto_scheduler.TuningOptions(
        num_measure_trials=ROUND * num_rounds, num_measures_per_round=ROUND, verbose=0
    )
    policies = [StubPolicy(curve) for curve in curves]
    Recording(tasks, WEIGHTS, callbacks=[]).tune(options, search_policy=policies)
    return order


def stepwise(curves: Sequence[Latency]) -> StepwiseScheduler:
    tasks = [matmul(*shape) for shape in SHAPES]
    policies = [StubPolicy(curve) for curve in curves]
    return StepwiseScheduler(tasks, WEIGHTS, policies=policies, measurer=None, round_size=ROUND)


def stepwise_order(scheduler: StepwiseScheduler, num_rounds: int) -> list[int]:
    order: list[int] = []
    while len(order) < num_rounds and (index := scheduler.next_task()) is not None:
        scheduler.tune_task(index, ROUND)
        order.append(index)
    return order


@pytest.mark.parametrize("seed", range(5))
def test_same_order_as_stock(seed: int) -> None:
    curves = improving(seed)
    expected = stock_order(curves, 60)
    assert len(set(expected[len(SHAPES) :])) > 2  # the strategy had something to decide
    assert stepwise_order(stepwise(curves), 60) == expected


def test_failing_task_gets_three_rounds_and_does_not_starve_others() -> None:
    curves = improving(0)
    curves[2] = lambda n: 0.0
    order = stepwise_order(stepwise(curves), 40)
    assert order.count(2) == 3
    assert order[:8] == [0, 1, 2, 3, 4, 5, 2, 2]
    assert len(order) == 40


def test_task_that_fails_once_is_tuned_on() -> None:
    curves = improving(0)
    curves[2] = lambda n: 0.0 if n == 0 else 1e-2
    scheduler = stepwise(curves)
    order = stepwise_order(scheduler, 30)
    assert scheduler.best_costs[2] == 1e-2
    assert order.count(2) > 2


def test_ends_when_no_task_has_a_program() -> None:
    order = stepwise_order(stepwise([lambda n: 0.0] * len(SHAPES)), 100)
    assert len(order) == 3 * len(SHAPES)
