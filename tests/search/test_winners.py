"""Winners are timed in turns; passes that fail are counted and left out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_tasks import auto_scheduler, invent, matmul
from tvm_cdmpp.bridge.logs import append_records
from tvm_cdmpp.errors import MeasureError
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession
from tvm_cdmpp.search.winners import WinnerTimes, time_winners

TASKS = [matmul(16, 16, 16), matmul(32, 32, 32)]


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[MeasureSession]:
    with MeasureSession() as session:
        yield session


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """One program of each task."""
    for task in TASKS:
        append_records(tmp_path / "log.json", *invent(task, [1e-3]))
    return tmp_path / "log.json"


class _Answers(MeasureOptions):
    """Runs all programs, and then answers something else."""

    def answer(self, call: int, results: list[Any]) -> list[Any]:
        raise NotImplementedError

    def runner(self, *, on_cpu: bool, most_repeats: int | None = None) -> Any:
        real, options, calls = super().runner(on_cpu=on_cpu), self, [0]

        class Runner:
            def run(self, *arguments: Any, **keywords: Any) -> list[Any]:
                results = real.run(*arguments, **keywords)
                assert all(int(result.error_no) == 0 for result in results)
                calls[0] += 1
                return options.answer(calls[0] - 1, list(results))

        return Runner()


def result(latency_s: float, error_no: int = 0) -> Any:
    return auto_scheduler.MeasureResult([latency_s], error_no, "", 1, 0)


class _FirstIsSlow(_Answers):
    """What comes first after a build took 1 s, the others 1 ms."""

    def answer(self, call: int, results: list[Any]) -> list[Any]:
        return [result(1.0 if number == 0 else 1e-3) for number, _ in enumerate(results)]


class _SecondPassFails(_Answers):
    """Pass n takes n milliseconds; in the second one, the second task's program fails."""

    def answer(self, call: int, results: list[Any]) -> list[Any]:
        number, index = divmod(call, len(TASKS))
        return [result(1e-3 * (number + 1), int((number, index) == (1, 1))) for _ in results]


class _AllFail(_Answers):
    def answer(self, call: int, results: list[Any]) -> list[Any]:
        return [result(1e10, 4) for _ in results]


def test_what_runs_first_after_a_build_decides_nothing(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tvm_cdmpp.search.winners.PASSES", 5)
    for times in time_winners([log] * 2, TASKS, _FirstIsSlow(repeat=1)):
        assert times.task_latencies_s == (1e-3, 1e-3)
        assert times.latency_s([1, 2]) == pytest.approx(3e-3)


def test_failed_passes_are_counted(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvm_cdmpp.search.winners.PASSES", 3)
    (times,) = time_winners([log], TASKS, _SecondPassFails(repeat=1))
    assert times.failed_passes == 1
    assert times.task_latencies_s == pytest.approx((2e-3, 2e-3))
    assert times.pass_latencies_s([1, 2]) == pytest.approx((3e-3, 9e-3))


def test_a_program_that_always_fails(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvm_cdmpp.search.winners.PASSES", 1)
    with pytest.raises(MeasureError, match="ran during the search but not at the end"):
        time_winners([log], TASKS, _AllFail(repeat=1))


def test_a_task_without_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvm_cdmpp.search.winners.PASSES", 1)
    append_records(tmp_path / "log.json", *invent(TASKS[0], [1e-3]))
    append_records(tmp_path / "log.json", *invent(TASKS[1], [0.0]))
    (times,) = time_winners([tmp_path / "log.json"], TASKS, MeasureOptions(repeat=1))
    first, second = times.task_latencies_s
    assert first is not None
    assert second is None
    assert times.latency_s([1, 2]) is None
    assert times.pass_latencies_s([1, 2]) == ()
    assert times.failed_passes == 0


def test_passes_of_several_samples() -> None:
    times = WinnerTimes(samples_s=(((1.0, 2.0, 3.0), (5.0,)), ((), (7.0, 9.0))))
    assert times.task_latencies_s == (2.5, 8.0)
    assert times.pass_latencies_s([1, 10]) == (85.0,)
    assert times.failed_passes == 1
