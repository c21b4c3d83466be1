"""Many states at once, as the lines of a log."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.extract import sampling
from tvm_cdmpp.extract.dag import analyse
from tvm_cdmpp.extract.extractor import StepExtractor
from tvm_cdmpp.extract.handover import dump_records

OPEN_FILES = Path("/proc/self/fd")
measure_record = sampling.auto_scheduler.measure_record


@pytest.fixture(scope="module")
def task() -> Any:
    return sampling.make_task(sampling.matmul)


@pytest.fixture(scope="module")
def states(task: Any) -> list[Any]:
    return sampling.sample_states(task, 24, seed=4)


def single_dump(task: Any, state: Any) -> dict[str, Any]:
    inputs = sampling.auto_scheduler.MeasureInput(task, state)
    result = sampling.auto_scheduler.MeasureResult([0.0], 0, "", 0.0, 0.0)
    line: dict[str, Any] = json.loads(measure_record.dump_record_to_string(inputs, result))
    return line


@pytest.mark.parametrize("count", [0, 1, 24])
def test_lines_are_those_of_single_dumps(task: Any, states: list[Any], count: int) -> None:
    text = dump_records(task, states[:count])
    lines = text.splitlines()
    assert text.count(b"\n") == len(lines) == count
    assert [json.loads(line) for line in lines] == [
        single_dump(task, state) for state in states[:count]
    ]


def test_many(task: Any, states: list[Any]) -> None:
    many = [states[n % len(states)] for n in range(3000)]
    lines = dump_records(task, many).splitlines()
    assert len(lines) == 3000
    assert lines[:24] * 125 == lines


def test_without_files_in_memory(
    task: Any, states: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = dump_records(task, states)
    monkeypatch.delattr(os, "memfd_create", raising=False)
    assert dump_records(task, states) == expected
    assert dump_records(task, []) == b""


@pytest.mark.skipif(not OPEN_FILES.is_dir(), reason="nothing lists open files")
def test_nothing_stays_open(task: Any, states: list[Any]) -> None:
    before = len(list(OPEN_FILES.iterdir()))
    for _ in range(20):
        dump_records(task, states[:2])
    assert len(list(OPEN_FILES.iterdir())) == before


def test_kinds_of_states_and_what_is_made_of_them(task: Any, states: list[Any]) -> None:
    objects = [getattr(state, "state_object", state) for state in states]
    text = dump_records(task, objects)
    assert text == dump_records(task, states)
    batch, errors = StepExtractor(analyse(task.compute_dag)).extract(text)
    assert len(batch) == len(states)
    assert errors == {}


def test_a_state_without_steps(task: Any) -> None:
    (line,) = dump_records(task, [task.compute_dag.get_init_state()]).splitlines()
    assert json.loads(line)["i"][1] == [[], []]
