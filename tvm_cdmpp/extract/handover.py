"""Handing candidates over: search states in, the lines of an Ansor log out.

TVM writes all states of a call at once into a file in memory, which costs less than asking for
them one by one, and far less than looking at their steps from Python.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvm_cdmpp.tvm_runtime import load_tvm

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler

_PLACEHOLDER_RESULT = auto_scheduler.MeasureResult([0.0], 0, "", 0.0, 0.0)


def dump_records(task: Any, states: Sequence[Any]) -> bytes:
    """Return one line of an Ansor log per state, in order.

    Parameters
    ----------
    task
        The search task of all states.
    states
        `State` or `StateObject` of this task.
    """
    inputs = [auto_scheduler.MeasureInput(task, state) for state in states]
    results = [_PLACEHOLDER_RESULT] * len(inputs)
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("records"), "rb") as file:
            _save(f"/proc/self/fd/{file.fileno()}", inputs, results)
            return file.read()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.json"
        _save(str(path), inputs, results)
        return path.read_bytes()


def _save(path: str, inputs: list[Any], results: list[Any]) -> None:
    auto_scheduler.measure_record.save_records(path, inputs, results)
