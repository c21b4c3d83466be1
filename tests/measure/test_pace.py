"""Programs that run again with every batch, and what they say of the others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_tasks import auto_scheduler, matmul
from tvm_cdmpp.bridge import failed, latency_s
from tvm_cdmpp.measure import MeasureOptions, MeasureSession, Pace, at_full_pace

TASK, OTHER = matmul(16, 16, 16), matmul(16, 16, 32)


def result_of(cost_s: float) -> Any:
    error_no = int(cost_s == 0)
    return auto_scheduler.MeasureResult([cost_s or 1e10] * 3, error_no, "", 1.0, 1.0)


class Machine:
    """Programs take what is in their file, times how slow it is."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.slowness, self.count = folder, 1.0, 0
        self.ran: list[list[float]] = []

    def batch(self, *costs_s: float, task: Any = TASK) -> tuple[list[Any], list[Any]]:
        inputs, built = [], []
        for cost_s in costs_s:
            self.count += 1
            file = self.folder / str(self.count) / "program.so"
            file.parent.mkdir()
            file.write_text(str(cost_s))
            built.append(auto_scheduler.measure.BuildResult(str(file), [], 0, None, 1.0))
            inputs.append(auto_scheduler.MeasureInput(task, task.compute_dag.get_init_state()))
        return inputs, built

    def __call__(self, inputs: Sequence[Any], built: Sequence[Any], *args: Any) -> list[Any]:
        assert args == ("last",)
        assert len(inputs) == len(built)
        costs_s = [float(Path(each.filename).read_text()) for each in built]
        self.ran.append(costs_s)
        for each in built:  # as TVM does
            Path(each.filename).unlink()
        return [result_of(cost_s * self.slowness) for cost_s in costs_s]


def test_the_fastest_program_of_the_task_tells_how_slow_the_machine_is(tmp_path: Path) -> None:
    machine, pace = Machine(tmp_path), Pace()
    assert [latency_s(r) for r in pace.run(machine, *machine.batch(2.0, 1.0), "last")] == [2.0, 1.0]
    assert (pace.slowness, pace.batches, str(pace)) == (1.0, 0, "")
    machine.slowness = 1.6
    results = pace.run(machine, *machine.batch(1.5, 0.5), "last")
    assert machine.ran[-1] == [1.0, 1.5, 0.5]
    assert pace.slowness == pytest.approx(1.6)
    assert [latency_s(r) for r in results] == pytest.approx([2.4, 0.8])
    restored = [latency_s(at_full_pace(r, pace.slowness)) for r in results]
    assert restored == pytest.approx([1.5, 0.5])
    assert str(pace).startswith(
        "1 of 1 batches ran while this machine was slow, by a factor of 1.6"
    )
    # The faster one has taken its place, and what it would have taken is known.
    machine.slowness = 1.0
    pace.run(machine, *machine.batch(3.0), "last")
    assert machine.ran[-1] == [0.5, 3.0]
    assert pace.slowness == 1.0
    pace.close()


def test_a_machine_that_was_slow_at_first_is_not_slow_later(tmp_path: Path) -> None:
    machine, pace = Machine(tmp_path), Pace()
    machine.slowness = 1.6
    pace.run(machine, *machine.batch(1.0), "last")
    machine.slowness = 1.0
    pace.run(machine, *machine.batch(2.0), "last")
    assert pace.slowness == 1.0
    machine.slowness = 1.5
    pace.run(machine, *machine.batch(2.0), "last")
    assert pace.slowness == pytest.approx(1.5)
    pace.close()


def test_a_task_without_a_program_is_told_by_one_of_another(tmp_path: Path) -> None:
    machine, pace = Machine(tmp_path), Pace()
    pace.run(machine, *machine.batch(1.0), "last")
    machine.slowness = 2.0
    pace.run(machine, *machine.batch(9.0, 0.0, task=OTHER), "last")
    assert (machine.ran[-1], pace.slowness) == ([1.0, 9.0, 0.0], 2.0)
    machine.slowness = 1.0
    pace.run(machine, *machine.batch(8.0, task=OTHER), "last")
    assert (machine.ran[-1], pace.slowness) == ([9.0, 8.0], 1.0)
    pace.close()


def test_a_reference_that_fails_says_nothing(tmp_path: Path) -> None:
    machine, pace = Machine(tmp_path), Pace()
    pace.run(machine, *machine.batch(1.0), "last")
    machine.slowness = 0.0
    (result,) = pace.run(machine, *machine.batch(1.0), "last")
    assert failed(at_full_pace(result, 2.0))
    assert (pace.slowness, pace.batches) == (1.0, 0)
    pace.close()


def test_sessions_run_a_reference_where_they_are_asked_to() -> None:
    """The reference is built and run by TVM itself; its file is there for every batch."""
    program = [auto_scheduler.MeasureInput(TASK, TASK.compute_dag.get_init_state())]
    options = MeasureOptions(repeat=2)
    with MeasureSession() as session:
        builder, runner = options.builder(), options.runner(on_cpu=True)

        def run() -> None:
            (result,) = runner.run(program, builder.build(program, verbose=0), verbose=0)
            assert not failed(result), result.error_msg

        run()
        assert session.pace.batches == 0
        with session.pace.watched():
            for batches in range(3):
                run()
                assert session.pace.batches == batches
        run()
        assert session.pace.batches == 2
