"""Programs that are timed twice: which, and what counts of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_tasks import auto_scheduler, matmul, tvm
from tvm_cdmpp.bridge.results import latency_s
from tvm_cdmpp.measure.doubtful import SecondRuns, is_doubtful
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession

STEADY, DISTURBED = [1e-3] * 10, [1e-3] * 9 + [9e-3]


def measured(*costs_s: float, error_no: int = 0) -> Any:
    return auto_scheduler.MeasureResult(costs_s, error_no, "", 1.0, 1.0)


class Machine:
    """Says of each program what it is told, the first time and the second."""

    def __init__(self, *told: list[Any]) -> None:
        self.told = {str(n): list(results) for n, results in enumerate(told)}
        self.ran: list[list[str]] = []

    def __call__(self, inputs: Sequence[Any], built: Sequence[Any], *args: Any) -> list[Any]:
        assert args == (3, "last")
        assert len(inputs) == len(built)
        names = [Path(each.filename).read_text() for each in built]
        self.ran.append(names)
        for each in built:  # as TVM does
            Path(each.filename).unlink()
            Path(each.filename).parent.rmdir()
        return [self.told[name].pop(0) for name in names]


def run(machine: Machine, folder: Path, runs: SecondRuns) -> list[Any]:
    built = []
    for name in machine.told:
        (folder / name).mkdir()
        file = folder / name / "program.so"
        file.write_text(name)
        built.append(auto_scheduler.measure.BuildResult(str(file), [], 0, None, 1.0))
    return runs.run(machine, list(machine.told), built, 3, "last")


def test_the_first_and_those_that_were_disturbed_run_again(tmp_path: Path) -> None:
    machine = Machine(
        [measured(*[2e-3] * 10), measured(*STEADY)],
        [measured(*STEADY)],
        [measured(*DISTURBED), measured(*STEADY)],
        [measured(*DISTURBED), measured(*[5e-3] * 10)],
    )
    runs = SecondRuns()
    assert str(runs) == ""
    results = run(machine, tmp_path, runs)
    assert machine.ran == [["0", "1", "2", "3"], ["0", "2", "3"]]
    assert [latency_s(result) for result in results] == pytest.approx([1e-3, 1e-3, 1e-3, 1.8e-3])
    assert not list(tmp_path.iterdir())
    assert (runs.total, runs.counted) == (3, 2)
    assert str(runs).startswith("3 programs ran twice")


def test_a_second_run_that_fails_does_not_count(tmp_path: Path) -> None:
    machine = Machine([measured(*STEADY), measured(1e10, error_no=4)])
    runs = SecondRuns()
    (result,) = run(machine, tmp_path, runs)
    assert (runs.total, runs.counted) == (1, 0)
    assert latency_s(result) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("result", "as_first", "as_other"),
    [
        (measured(*STEADY), True, False),
        (measured(*DISTURBED), True, True),
        (measured(1e-3), True, False),
        (measured(*[cost * 100 for cost in DISTURBED]), False, False),
        (measured(1e10, error_no=4), False, False),
        (measured(*[0.0] * 10), False, False),
    ],
    ids=["steady", "disturbed", "one repeat", "long", "failed", "impossible"],
)
def test_what_is_in_doubt(result: Any, as_first: bool, as_other: bool) -> None:
    assert is_doubtful(result, is_first=True) == as_first
    assert is_doubtful(result, is_first=False) == as_other


@pytest.mark.parametrize(("on_cpu", "runs"), [(True, [1, 1]), (False, [1])])
def test_tvm_runs_a_program_twice(counted_runs: list[int], on_cpu: bool, runs: list[int]) -> None:
    """The second run has the file that the first one removed; with long repeats there is none."""
    task = matmul(64, 64, 64)
    program = [auto_scheduler.MeasureInput(task, task.compute_dag.get_init_state())]
    options = MeasureOptions()
    with MeasureSession():
        builder, runner = options.builder(), options.runner(on_cpu=on_cpu)
        (result,) = runner.run(program, builder.build(program, verbose=0), verbose=0)
    assert counted_runs == runs
    assert latency_s(result) < 1
    assert len(result.costs) == options.repeat


@pytest.fixture
def counted_runs() -> Iterator[list[int]]:
    """How many programs each call of TVM's function gets, which sessions find in its place."""
    name = "auto_scheduler.local_runner.run"
    original, found = tvm.get_global_func(name), []

    def run(inputs: Any, *args: Any) -> Any:
        found.append(len(inputs))
        return original(inputs, *args)

    tvm.register_func(name, run, override=True)
    yield found
    tvm.register_func(name, original, override=True)
