"""Fewer repeats of slow programs: what is asked of TVM, and what TVM makes of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_tasks import TARGET, auto_scheduler, matmul, tvm
from tvm_cdmpp.bridge.results import failed, latency_s
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.measure.outcomes import Failures
from tvm_cdmpp.measure.repeats import LOCAL_TIMES, REMOTE_TIMES, FewerRepeats
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession

TIMEOUT_S = 10
FAST, SLOW = matmul(16, 16, 16), matmul(32, 32, 32)


class Machine:
    """Runs programs of given latencies as TVM does: one run to warm up, all in one timeout."""

    def __init__(self, before: int) -> None:
        self.before = before  # arguments before the timeout
        self.repeats: list[list[int]] = []

    def __call__(self, inputs: Sequence[Any], built: Sequence[Any], *args: Any) -> list[Any]:
        timeout_s, number, repeat, last = args[self.before :]
        assert (timeout_s, number, last) == (TIMEOUT_S, 1, "last")
        self.repeats.append([repeat] * len(inputs))
        results = []
        for build in built:
            latency = build.time_cost
            fits = (1 + repeat) * latency <= timeout_s
            error = (0, "") if fits else (4, "Traceback ...\nTimeoutError")
            results.append(auto_scheduler.MeasureResult([latency] * repeat, *error, 1.0, 1.0))
        return results


def programs(task: Any, *latencies_s: float, folder: Path) -> tuple[list[Any], list[Any]]:
    inputs, built = [], []
    for number, latency in enumerate(latencies_s):
        (folder / str(number)).mkdir(exist_ok=True)
        inputs.append(auto_scheduler.MeasureInput(task, task.compute_dag.get_init_state()))
        file = str(folder / str(number) / "lib.so")
        built.append(auto_scheduler.measure.BuildResult(file, [], 0, None, latency))
    return inputs, built


@pytest.mark.parametrize(
    ("times", "others"), [(LOCAL_TIMES, []), (REMOTE_TIMES, ["key", "host", 1, 1, 1])]
)
def test_slow_programs_get_as_many_repeats_as_fit(
    tmp_path: Path, times: slice, others: list[Any]
) -> None:
    machine, repeats = Machine(len(others)), FewerRepeats()

    def run(task: Any, *latencies_s: float) -> list[float]:
        machine.repeats = []
        inputs, built = programs(task, *latencies_s, folder=tmp_path)
        results = repeats.run(times, machine, inputs, built, *others, TIMEOUT_S, 1, 10, "last")
        return [latency_s(result) for result in results]

    assert run(FAST, 0.125, 0.5) == [0.125, 0.5]
    assert machine.repeats == [[10, 10]]
    # Too slow for ten: once more, with one.
    assert run(SLOW, 0.5, 2.0, 20.0) == [0.5, 2.0, float("inf")]
    assert machine.repeats == [[10] * 3, [1] * 2]
    # What timed out leaves no files.
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    # Now the task is known: ten would do for its fastest, nine are sure to.
    assert run(SLOW, 0.7, 0.9) == pytest.approx([0.7, 0.9])
    assert machine.repeats == [[9, 9]]
    # Another task is not.
    assert run(FAST, 0.125) == [0.125]
    assert machine.repeats == [[10]]


def test_a_run_timeout_has_its_name() -> None:
    failures = Failures()
    for number, message in ((4, "Traceback ...\nTimeoutError"), (7, ""), (4, "CUDA"), (6, "")):
        failures.count(auto_scheduler.MeasureResult([1e10], number, message, 1.0, 1.0))
    assert failures.counts == {"run timeout": 2, "run failed": 1, "build timeout": 1}


@auto_scheduler.register_workload
def tiny_pause(milliseconds: int) -> list[Any]:
    te = tvm.te
    a = te.placeholder((1,), name="A", dtype="int32")

    def pause(i: Any) -> Any:
        call = tvm.tir.call_extern("int32", "usleep", 1000 * milliseconds)
        return a[i] + call

    return [a, te.compute((1,), pause, name="B")]


def test_a_slow_program_is_measured_by_tvm() -> None:
    """Ten repeats of 0.24 s do not fit into 2 s; one does."""
    task = auto_scheduler.SearchTask(func=tiny_pause, args=(240,), target=TARGET)
    program = [auto_scheduler.MeasureInput(task, task.compute_dag.get_init_state())]
    options = MeasureOptions(run_timeout_s=2)
    with MeasureSession():
        builder, runner = options.builder(), options.runner(on_cpu=True)
        runner.run(program[:0], [], verbose=0)
        for expected in (1, 3):
            (result,) = runner.run(program, builder.build(program, verbose=0), verbose=0)
            assert not failed(result), result.error_msg
            assert latency_s(result) == pytest.approx(0.24, rel=0.2)
            assert len(result.costs) == expected


@pytest.mark.parametrize("name", ["run_timeout_s", "repeat"])
def test_what_measures_nothing_is_refused(name: str) -> None:
    wrong: dict[str, Any] = {name: 0}
    with pytest.raises(ConfigError, match=f"{name} must be at least 1; got 0"):
        replace(MeasureOptions(), **wrong)
