"""A search that was stopped goes on from what was saved with its log."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny_tasks import auto_scheduler, matmul, read_log, shrink_search
from tvm_cdmpp.errors import CheckpointError
from tvm_cdmpp.measure import MeasureOptions, MeasureSession
from tvm_cdmpp.models import Content, read_checkpoint, write_checkpoint
from tvm_cdmpp.search.evolve.policy import EvolutionPolicy
from tvm_cdmpp.search.gain_scheduler import BatchMeasurer
from tvm_cdmpp.search.reports import TuneSettings
from tvm_cdmpp.search.resuming import state_path
from tvm_cdmpp.search.tuner import NetworkTuner

TASKS = [matmul(16, 16, 16), matmul(32, 32, 32)]


def result(measured: Any) -> Any:
    """What a program takes, by its text; with more digits than a log holds. Some fail."""
    digest = hashlib.blake2b(str(measured.state).encode()).digest()
    works = digest[0] > 30
    latency_s = 1e-4 * (1.0 + int.from_bytes(digest[1:7], "big") / 2**48)
    return auto_scheduler.MeasureResult([latency_s if works else 1e10], 0 if works else 2, "", 1, 1)


class Measured:
    """Stands for building and running."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, measurer: Any, policy: Any, inputs: Sequence[Any]) -> list[Any]:
        self.batches.append([str(measured.state) for measured in inputs])
        results = [result(measured) for measured in inputs]
        measurer._recorder.callback(policy, list(inputs), results)
        return results


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    shrink_search(monkeypatch)
    found = Measured()
    # Called as a method, a plain function gets the measurer.
    monkeypatch.setattr(BatchMeasurer, "measure", lambda *args: found(*args))
    return found


@pytest.fixture(scope="module")
def session() -> Iterator[MeasureSession]:
    with MeasureSession() as session:
        yield session


def search(log: Path, session: MeasureSession, seed: int = 3) -> NetworkTuner:
    settings = TuneSettings(trials=32, round_size=4, seed=seed, search="evolve")
    return NetworkTuner(TASKS, [1, 2], "cdmpp", settings, log=log, session=session)


def rounds(tuner: NetworkTuner, count: int) -> list[int]:
    return [report.task for report in islice(tuner.rounds(), count)]


def test_it_goes_on_as_if_it_had_not_stopped(
    tmp_path: Path, session: MeasureSession, measured: Measured
) -> None:
    log = tmp_path / "whole.json"
    whole = search(log, session)
    tasks = rounds(whole, 4)
    expected, measured.batches = measured.batches, []
    assert len({program for batch in expected for program in batch}) == 16

    log = tmp_path / "stopped.json"
    found = rounds(search(log, session), 3)
    second = search(log, session)
    assert second.state_problem == ""
    assert second.trials == 12
    found += rounds(second, 1)
    assert (found, measured.batches) == (tasks, expected)
    assert second.network_latency_s == whole.network_latency_s
    assert second.results() == whole.results()


def test_records_that_came_after_the_state_are_learned(
    tmp_path: Path, session: MeasureSession, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.json"
    with MeasureSession() as stopped:
        first = search(log, stopped)
        rounds(first, 2)

        def stop(*_: Any) -> None:  # a batch has reached the log, and nobody has learned from it
            stopped.stop()
            raise InterruptedError

        monkeypatch.setattr(EvolutionPolicy, "note", stop)
        rounds(first, 1)
    monkeypatch.undo()
    shrink_search(monkeypatch)
    monkeypatch.setattr(BatchMeasurer, "measure", lambda *args: measured(*args))
    second = search(log, session)
    assert (second.state_problem, second.trials, first.trials) == ("", 12, 12)
    assert len(second._given._online.memory.rows) == 12
    assert [result.trials for result in second.results()] == [r.trials for r in first.results()]
    assert sum(second._scheduler.task_cts) == 3
    rounds(second, 1)
    programs = [program for batch in measured.batches for program in batch]
    assert len(set(programs)) == len(programs) == 16


def test_a_state_that_does_not_fit_is_not_taken(
    tmp_path: Path, session: MeasureSession, measured: Measured
) -> None:
    log = tmp_path / "log.json"
    rounds(search(log, session), 2)
    whole = log.read_bytes()
    log.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    fewer = search(log, session)
    assert "the log was cut or changed" in fewer.state_problem
    assert fewer.trials == len(fewer._given._online.memory.rows) == len(read_log(log)) == 7
    log.write_bytes(whole)
    assert "another seed" in search(log, session, seed=4).state_problem
    path = state_path(log)
    content = path.read_bytes()
    path.write_bytes(content[:-9] + b"X" + content[-8:])
    assert "was changed after" in search(log, session).state_problem
    path.unlink()
    assert search(log, session).state_problem == ""


def test_a_damaged_state_is_refused(
    tmp_path: Path, session: MeasureSession, measured: Measured
) -> None:
    log = tmp_path / "log.json"
    rounds(search(log, session), 1)
    content = read_checkpoint(state_path(log))
    del content.settings["recorder"]["progress"]
    write_checkpoint(state_path(log), Content(content.settings, content.arrays))
    with pytest.raises(CheckpointError, match=r"progress.*Delete it"):
        search(log, session)


def test_the_model_of_tvms_search_is_saved_as_well(
    tmp_path: Path, session: MeasureSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_search(monkeypatch)
    log = tmp_path / "log.json"
    settings = TuneSettings(trials=2, round_size=1, measure=MeasureOptions(repeat=1))

    def sketch() -> NetworkTuner:
        return NetworkTuner(TASKS[:1], [1], "cdmpp", settings, log=log, session=session)

    first = sketch()
    rounds(first, 1)
    second = sketch()
    expected = first._given.content()
    found = second._given.content()
    assert json.dumps(found.settings) == json.dumps(expected.settings)
    assert found.arrays.keys() == expected.arrays.keys()
    for name, values in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], values)
    assert second._scheduler.task_cts == [1]
    assert second.results() == first.results()
