"""The calibration program, the bound, and the file of figures."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_tasks import TARGET, tvm
from tvm_cdmpp.errors import ConfigError, MeasureError, RecordError
from tvm_cdmpp.measure.calibration import (
    Calibration,
    CalibrationConfig,
    CalibrationRow,
    calibration_program,
    matmul_timer,
    read_calibration,
)
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession

LATENCIES_S = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20)


def test_program_runs_and_its_latency_is_plausible() -> None:
    options = MeasureOptions(repeat=3)
    with MeasureSession():
        measure = matmul_timer(
            options.builder(), options.runner(on_cpu=True), TARGET, num_devices=1
        )
        # 256^3 multiply-adds, on anything from a small core to a big machine.
        assert all(1e-5 < measure() < 1 for _ in range(2))


def test_program_that_does_not_build_is_an_error() -> None:
    options = MeasureOptions(build_timeout_s=0, repeat=2)
    with MeasureSession():
        measure = matmul_timer(
            options.builder(), options.runner(on_cpu=True), TARGET, num_devices=1
        )
        with pytest.raises(MeasureError, match="calibration program does not run"):
            measure()


@pytest.mark.parametrize("target", ["llvm", "cuda -arch=sm_70"])
def test_program_is_correct(target: str) -> None:
    program = calibration_program(tvm.target.Target(target))
    schedule, args = program.task.compute_dag.apply_steps_from_state(program.state)
    text = str(tvm.lower(schedule, args))
    assert ("threadIdx.x" if "cuda" in target else "T.parallel") in text
    # One workload, however often it is made.
    again = calibration_program(tvm.target.Target(target))
    assert again.task.workload_key == program.task.workload_key


@given(latencies_s=LATENCIES_S, bound=st.floats(0.01, 2))
def test_noise_is_what_exceeds_the_lowest(latencies_s: list[float], bound: float) -> None:
    values = iter(latencies_s)
    config = CalibrationConfig(bound=bound)
    calibration = Calibration(lambda: next(values), config, Path("unused"))
    for number, latency_s in enumerate(latencies_s, start=1):
        lowest = min(latencies_s[:number])
        assert calibration.check() == (latency_s <= (1 + bound) * lowest)
    assert not calibration.is_noisy(min(latencies_s))
    assert calibration.is_noisy(math.inf)


def test_file_keeps_every_figure(tmp_path: Path) -> None:
    file = tmp_path / "log.json.calibration.jsonl"
    values = iter([2.0, 1.0, 1.5])
    calibration = Calibration(lambda: next(values), CalibrationConfig(bound=0.1), file)
    for lines in (0, 16):
        calibration.check()
        calibration.write(0, lines)
    with file.open("a") as half:  # a killed run
        half.write('{"run": 1')
    calibration.check()
    calibration.write(16, 8)
    rows = read_calibration(file)
    assert [(r.latency_s, r.best_latency_s, r.noisy) for r in rows] == [
        (2, 2, False),
        (1, 1, False),
        (1.5, 1, True),
    ]
    assert [(r.first_line, r.num_lines) for r in rows] == [(0, 0), (0, 16), (16, 8)]
    assert {r.bound for r in rows} == {0.1}
    assert len({r.run for r in rows}) == 1


def test_unusable_file(tmp_path: Path) -> None:
    calibration = Calibration(lambda: 1.0, CalibrationConfig(), tmp_path)
    calibration.check()
    with pytest.raises(RecordError, match="could not be written"):
        calibration.write(0, 0)
    with pytest.raises(RecordError, match="cannot be read"):
        read_calibration(tmp_path)
    other = tmp_path / "other.jsonl"
    row = asdict(CalibrationRow(run=0, time=0, latency_s=1, best_latency_s=1, bound=1, noisy=False,
                                first_line=0, num_lines=0))  # fmt: skip
    for wakes_s in ([1e-6], []):
        other.write_text(json.dumps({**row, "wakes_s": wakes_s}))
        assert list(read_calibration(other)[0].wakes_s) == wakes_s
    for wrong in ({"i": 1}, *({**row, "wakes_s": wakes_s} for wakes_s in (None, ["1"], [0.0]))):
        other.write_text(json.dumps(wrong))
        with pytest.raises(RecordError, match=r"other.jsonl:1 is no calibration"):
            read_calibration(other)
    other.write_bytes(b"\xff")
    with pytest.raises(RecordError, match="cannot be read"):
        read_calibration(other)


@pytest.mark.parametrize("wrong", [{"bound": 0}, {"attempts": 0}, {"pause_s": -1}])
def test_config_is_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CalibrationConfig(**wrong)  # type: ignore[arg-type]
