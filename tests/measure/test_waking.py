"""What waking threads takes, measured for real."""

import time
from typing import Any
from unittest.mock import Mock

import pytest

from tests.tiny_tasks import TARGET
from tvm_cdmpp.measure import waking
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession
from tvm_cdmpp.measure.waking import Wakes, wake_timer


def test_threads_take_longer_than_none_and_no_millisecond() -> None:
    options = MeasureOptions(repeat=2)
    with MeasureSession():
        measure = wake_timer(options.builder(), options.runner(on_cpu=False), TARGET, cores=2)
        found_s = [measure() for _ in range(2)]
    # Nothing is said of a machine that is too busy to tell.
    assert all(seconds is None or 1e-7 < seconds < 1e-4 for seconds in found_s)


def test_a_loop_that_waits_for_other_programs_tells_nothing() -> None:
    def run(costs_s: tuple[float, float]) -> float | None:
        results = [Mock(error_no=0, costs=[Mock(value=seconds)]) for seconds in costs_s]
        runner = Mock(run=lambda *_, **__: results)
        return wake_timer(Mock(), runner, TARGET, cores=2)()

    assert run((1e-8, 1.01e-6)) == pytest.approx(1e-6)
    assert run((1e-8, 4e-3)) is None
    assert run((1e-6, 1e-7)) is None


def test_what_does_not_run_tells_nothing() -> None:
    options: Any = MeasureOptions(build_timeout_s=0, repeat=2)
    with MeasureSession():
        measure = wake_timer(options.builder(), options.runner(on_cpu=False), TARGET, cores=2)
        assert measure() is None


def test_it_waits_until_nothing_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    running = iter([3, 2, 1, 9])
    monkeypatch.setattr(waking, "_running", lambda: next(running))
    waking.wait_until_idle(60.0)
    assert next(running) == 9
    monkeypatch.setattr(waking, "_running", lambda: 2)
    begin = time.monotonic()
    waking.wait_until_idle(0.1)
    assert 0.1 <= time.monotonic() - begin < 5


def test_running_threads_are_counted() -> None:
    assert waking._running() >= 1


def test_five_repeats_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, runner = list[int](), waking.auto_scheduler.LocalRunner

    def remember(**settings: Any) -> Any:
        asked.append(settings["repeat"])
        return runner(**settings)

    monkeypatch.setattr(waking.auto_scheduler, "LocalRunner", remember)
    for repeat in (10, 2):
        Wakes(MeasureOptions(repeat=repeat), TARGET, 2)
    assert asked == [5, 2]
