"""Lines of an Ansor log made from transform steps written by hand."""

from __future__ import annotations

import json
from typing import Any

from tests.extract import sampling
from tvm_cdmpp.ast.leaf import Leaf
from tvm_cdmpp.extract.tir import leaves_of, lower

Steps = list[list[Any]]
measure_record = sampling.auto_scheduler.measure_record
_NO_TASK = ["", "", [], "", 0, []]


def record_of(steps: Any, task: Any = _NO_TASK) -> bytes:
    """Return one line, its newline included."""
    line = {"i": [task, [[], steps]], "r": [[0.1], 0, 0.1, 0], "v": "v0.6"}
    return json.dumps(line).encode() + b"\n"


def records_of(*programs: Any) -> bytes:
    """Return one line per list of steps."""
    return b"".join(record_of(steps) for steps in programs)


def exact_leaves(task: Any, steps: Steps, cores: int) -> list[Leaf]:
    """Have TVM apply the steps and lower the program, for so many cores."""
    result = sampling.auto_scheduler.MeasureResult([0.1], 0, "", 0.1, 0)
    inputs = sampling.auto_scheduler.MeasureInput(task, task.compute_dag.get_init_state())
    dumped = json.loads(measure_record.dump_record_to_string(inputs, result))
    line = record_of(steps, dumped["i"][0]).decode()
    loaded, _ = measure_record.load_record_from_string(line)
    return leaves_of(lower(task, loaded.state), cores)
