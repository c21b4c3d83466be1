"""Programs of tiny operators, chosen and really measured into a log that a second run goes on."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.measure.test_collect import FAST, TASKS, check_distinct, timer
from tests.tiny_tasks import auto_scheduler, invent, read_log, shrink_search
from tvm_cdmpp.bridge import task_dag
from tvm_cdmpp.devices.calibration import DeviceCalibration, Levels
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import ConfigError, MeasureError, RecordError
from tvm_cdmpp.measure.bench import BenchConfig, LiveBench
from tvm_cdmpp.measure.calibration import CalibrationConfig, read_calibration
from tvm_cdmpp.measure.own_records import (
    OwnRecord,
    append_own_records,
    own_records_file,
    read_own_records,
)
from tvm_cdmpp.measure.quiet import calibration_file
from tvm_cdmpp.measure.session import MeasureSession
from tvm_cdmpp.networks import LAYERS, network_of_layers
from tvm_cdmpp.networks.untuned import OwnFunction, own_functions
from tvm_cdmpp.search.ahead import first_candidates
from tvm_cdmpp.search.cost_model import CDMPPModel
from tvm_cdmpp.train import operator_of_dag

LEVELS = Levels(weights="w", level=0.0, operators={"matmul": 1.0, "elementwise": 2.0})
HERE = DeviceSpec(name="here", kind="cpu", cores=2, calibration=DeviceCalibration(levels=(LEVELS,)))

MODEL = CDMPPModel(seed=0, device=HERE)


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[MeasureSession]:
    with MeasureSession() as session:
        yield session


@pytest.fixture(autouse=True)
def small_search(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_search(monkeypatch)


def bench(
    log: Path,
    *calibrations_s: float,
    functions: Sequence[OwnFunction] = (),
    keep_noisy: bool = False,
) -> LiveBench:
    config = BenchConfig(
        measure=FAST,
        calibration=CalibrationConfig(
            start_measurements=1, attempts=2, pause_s=0, keep_noisy=keep_noisy
        ),
    )
    return LiveBench(
        TASKS,
        HERE,
        lambda task, number: first_candidates(task, MODEL, 5, seed=number),
        config,
        functions,
        log=log,
        measure_calibration=timer(*(calibrations_s or (1.0,))),
    )


def test_chosen_programs_are_measured_and_a_second_run_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    first = bench(log)
    assert first.candidates.tasks.tolist() == [0] * 5 + [1] * 5
    assert first.candidates.devices == tuple(
        dict.fromkeys(HERE.for_operator(operator_of_dag(task_dag(task))) for task in TASKS)
    )
    assert first.candidates.uncalibrated().devices == (replace(HERE, calibration=None),)
    assert first.open.all()
    assert len(first.measured) == 0
    first.measure(np.array([1, 4, 7]))
    check_distinct(log, 3)
    assert np.flatnonzero(~first.open).tolist() == [1, 4, 7]
    measured = first.measured
    assert measured.tasks.tolist() == [0, 0, 1]
    # They are the programs that were chosen, with the latencies that the log has.
    np.testing.assert_array_equal(
        measured.batch().vectors, first.candidates.take(np.array([1, 4, 7])).batch().vectors
    )
    logged_s = [np.mean([float(cost) for cost in r.costs]) for _, r in read_log(log)]
    np.testing.assert_allclose(measured.latencies_s, logged_s, rtol=1e-4)
    rows = read_calibration(calibration_file(log))
    assert [row.num_lines for row in rows] == [0, 3]
    wakes_s = list(rows[-1].wakes_s)
    assert first.wake_s == (pytest.approx(np.mean(wakes_s)) if wakes_s else None)

    second = bench(log)
    assert second.wake_s == first.wake_s  # before anything is measured
    np.testing.assert_array_equal(second.open, first.open)
    np.testing.assert_allclose(second.measured.latencies_s, measured.latencies_s, rtol=1e-4)
    assert second.measured.tasks.tolist() == [0, 0, 1]
    second.measure(np.array([0]))
    check_distinct(log, 4)
    assert len(second.measured) == 4


def test_the_middle_one_of_the_runs_of_a_program_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, files = tmp_path / "log.json", list[Path]()
    # The third program fails, so it does not run again; the second pass is noisy, so it is not one.
    times_s = {
        0: iter([3e-3, 9e-3, 2e-3, 5e-3, 4e-3, 1e-3]),
        1: iter([6e-3, 9e-3, 6e-3, 8e-3, 7e-3, 7e-3]),
        2: iter([0.0]),
    }

    class Runner:
        @staticmethod
        def run(inputs: list[Any], built: list[Any], verbose: int) -> list[Any]:
            states = [str(each.state) for each in inputs]
            files.extend(Path(each.filename) for each in built)
            assert all(file.exists() for file in files[-len(built) :])
            for each in built:
                shutil.rmtree(Path(each.filename).parent)  # as TVM's runner does
            return invent(TASKS[0], [next(times_s[programs.index(state)]) for state in states])[1]

    found = bench(log, 1.0, 1.0, 2.0, 1.0)
    programs = [str(state) for state in found._states[:3]]
    monkeypatch.setattr(found._machine, "_runner", Runner)
    found.measure(np.array([0, 1, 2]))
    assert found.measured.latencies_s.tolist() == [3e-3, 7e-3, np.inf]
    assert all(next(left, None) is None for left in times_s.values())
    assert len(set(files)) == 13


def test_passes_that_were_quiet_count_when_it_is_asked_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, calls = bench(tmp_path / "log.json", 1.0, 1.0, 2.0), list[int]()

    class Runner:
        @staticmethod
        def run(inputs: list[Any], built: list[Any], verbose: int) -> list[Any]:
            calls.append(len(inputs))
            if len(calls) == 2:
                found.stop()  # while the machine is noisy
            return invent(TASKS[0], [len(calls) * 1e-3] * len(inputs))[1]

    monkeypatch.setattr(found._machine, "_runner", Runner)
    found.measure(np.array([0, 1]))
    assert calls == [2, 2]
    assert found.measured.latencies_s.tolist() == [1e-3, 1e-3]


def test_a_noisy_machine_is_refused_and_nothing_written(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    noisy = bench(log, 1.0, 2.0)
    with pytest.raises(MeasureError, match="the machine is noisy"):
        noisy.measure(np.array([0]))
    assert noisy.open.all()
    assert log.read_bytes() == b""
    # Asked to stop, it does not measure again, and says nothing.
    stopped = bench(log, 1.0, 2.0)
    stopped.stop()
    stopped.measure(np.array([0]))
    assert len(stopped.measured) == 0


def test_failures_and_programs_of_a_log_count(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    auto_scheduler.save_records(str(log), *invent(TASKS[1], [0, 2e-3, 0]))
    found = bench(log)
    assert found.failures.counts == {"build failed": 2}
    np.testing.assert_array_equal(found.measured.latencies_s, [np.inf, 2e-3, np.inf])
    assert found.measured.tasks.tolist() == [1, 1, 1]


def test_functions_with_tvms_own_schedules_are_measured_as_well(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    functions = own_functions(network_of_layers(LAYERS[:2]), TASKS[0].target, HERE.cores)
    first = bench(log, functions=[*functions, *functions])
    assert first.candidates.tasks.tolist() == [0] * 5 + [1] * 5 + [2, 3]
    assert first.candidates.own.tolist() == [False] * 10 + [True] * 2
    of_rows = first.candidates.machine_of[10:]
    own = [first.candidates.machines[place].device for place in of_rows]
    assert own == [function.on(HERE) for function in functions]
    first.measure(np.array([11, 3, 10]))
    check_distinct(log, 1)  # an Ansor log holds programs with transform steps only
    assert first.measured.tasks.tolist() == [0, 3, 2]
    records, torn = read_own_records(own_records_file(log))
    assert ([record.function for record in records], torn) == (
        [functions[1].key, functions[0].key],
        0,
    )
    assert [r.latency_s for r in records] == first.measured.latencies_s[1:].tolist()
    earlier = own_records_file(log).read_text().replace('"function": "', '"function": "pool ')
    own_records_file(log).write_text(earlier + '{"function": "conv')  # with a class before the key
    assert read_own_records(own_records_file(log)) == (records, 1)

    second = bench(log, functions=[functions[0]])
    assert second.measured.tasks.tolist() == [0, 2]  # the other is another network's
    assert np.flatnonzero(~second.open).tolist() == [3, 10]
    assert (second.unusable, second.torn) == (0, 1)


def test_functions_of_a_noisy_machine_are_marked(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    functions = own_functions(network_of_layers(LAYERS[:1]), TASKS[0].target, HERE.cores)
    for calibrations_s in ((1.0,), (1.0, 2.0)):
        own_records_file(log).unlink(missing_ok=True)
        found = bench(log, *calibrations_s, functions=functions, keep_noisy=True)
        found.measure(np.array([10]))
        (record,), _ = read_own_records(own_records_file(log))
        assert record.noisy == (len(calibrations_s) == 2)
        assert found.wake_s is None or 1e-7 < found.wake_s < 1e-4
        assert (found.batches, found.noisy_batches) == (1, int(record.noisy))


def test_own_records_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "log.json.own.jsonl"
    assert read_own_records(file) == ([], 0)
    kept = [OwnRecord("a", "conv2d", 1e-3), OwnRecord("b", "dense", None, "build failed")]
    append_own_records(file, kept)
    assert read_own_records(file) == (kept, 0)
    for wrong in ('{"function": "a", "name": "b", "latency_s": -1}', '{"function": "a"}', "[]"):
        file.write_text(f"{wrong}\n")
        with pytest.raises(RecordError, match=r"own.jsonl:1 is no record .* Move the file away"):
            read_own_records(file)


def test_bad_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no task"):
        LiveBench([], HERE, lambda *_: [], BenchConfig(), log=tmp_path / "log")
