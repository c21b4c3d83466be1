"""Programs that TVM sampled; how their builds ended is invented."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.tiny_tasks import auto_scheduler, invent, matmul
from tvm_cdmpp.search.unroll_guard import UnrollGuard, _unrolling

TASK = matmul(64, 64, 64)


class Same:
    """Scores all alike, and counts what it is given."""

    def __init__(self) -> None:
        self.learned = 0

    def predict(self, task: Any, states: Sequence[Any]) -> list[float]:
        return [1.0] * len(states)

    def update(self, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        self.learned += len(inputs)


@pytest.fixture(scope="module")
def programs() -> tuple[list[Any], list[Any], list[int]]:
    inputs, results = invent(TASK, [1e-3] * 16)
    steps = _unrolling(TASK, [measured.state for measured in inputs])
    assert {0, 512} < set(steps)  # else this sample shows nothing
    return inputs, results, steps


def learn(guard: UnrollGuard, programs: Any, *, late_from: int) -> None:
    inputs, results, steps = programs
    late = auto_scheduler.MeasureResult([1e10], 6, "", 15.0, 1.0)
    results = [
        late if number and number >= late_from else result
        for number, result in zip(steps, results, strict=True)
    ]
    guard.update(inputs, results)


def test_unrolling_that_timed_out_is_not_chosen_again(programs: Any) -> None:
    inputs, _, steps = programs
    states = [measured.state for measured in inputs]
    guard = UnrollGuard(Same())
    assert guard.predict(TASK, states) == [1.0] * len(states)
    learn(guard, programs, late_from=512)
    assert guard.model.learned == len(states)
    scores = guard.predict(TASK, states)
    assert np.isneginf(scores).tolist() == [number >= 512 for number in steps]
    # Where nothing else is left, something must be.
    far = [state for state, number in zip(states, steps, strict=True) if number >= 512]
    assert guard.predict(TASK, far) == [1.0] * len(far)
    # Another task is not concerned.
    other, _ = invent(matmul(32, 32, 32), [1e-3] * 8)
    assert guard.predict(other[0].task, [o.state for o in other]) == [1.0] * 8


def test_more_builds_than_timeouts_lift_it(programs: Any) -> None:
    states = [measured.state for measured in programs[0]]
    guard = UnrollGuard(Same())
    learn(guard, programs, late_from=512)
    for _ in range(2):
        learn(guard, programs, late_from=10**6)
    assert guard.predict(TASK, states) == [1.0] * len(states)
