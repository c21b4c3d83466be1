"""Handing candidates over: search states in, the lines of an Ansor log out.

TVM writes all states of a call at once into a file in memory, which costs less than asking for
them one by one, and far less than looking at their steps from Python. Taking the states out of
TVM's array costs as much again from Python, so compiled code does it.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.extract.native import TVMFunctions, hand_over

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
        `State` or `StateObject` of this task; TVM's own array of them is the fastest.
    """
    if not isinstance(states, tvm.ir.Array):
        states = tvm.runtime.convert([getattr(state, "state_object", state) for state in states])
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("records"), "rb") as file:
            _save(f"/proc/self/fd/{file.fileno()}", task, states)
            return file.read()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.json"
        _save(str(path), task, states)
        return path.read_bytes()


def _save(path: str, task: Any, states: Any) -> None:
    result = _PLACEHOLDER_RESULT
    if not hand_over(_functions(), task.handle, states.handle, len(states), result.handle, path):
        tvm._ffi.base.check_call(-1)  # raises TVM's last error


@cache
def _functions() -> TVMFunctions:
    """Look up what is called in TVM."""
    library = tvm._ffi.base._LIB
    packed = (
        "runtime.ArrayGetItem",
        "runtime.Array",
        "auto_scheduler.MeasureInput",
        "auto_scheduler.SaveRecords",
    )
    return TVMFunctions(
        ctypes.cast(library.TVMFuncCall, ctypes.c_void_p),
        ctypes.cast(library.TVMObjectFree, ctypes.c_void_p),
        *(tvm.get_global_func(name).handle for name in packed),
    )
