"""Stand-ins for interfaces of the package that are about to land; then this module goes.

`dump_records` moves to `tvm_cdmpp.extract.handover`, `StepReplayer` and `Hardware` to
`tvm_cdmpp.extract.replayer`, and `group_of(field)` becomes `field.group`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.ast.schema import ACCESS_SLOTS, Field
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract import replayer
from tvm_cdmpp.extract.stage import TaskGraph
from tvm_cdmpp.tvm_runtime import load_tvm

auto_scheduler = load_tvm().auto_scheduler

_PLACEHOLDER_RESULT = auto_scheduler.MeasureResult([0.0], 0, "", 0.0, 0.0)


def dump_records(task: Any, states: Sequence[Any]) -> bytes:
    """Return the log lines of states, separated by newlines."""
    dump = auto_scheduler.measure_record.dump_record_to_string
    lines = (dump(auto_scheduler.MeasureInput(task, s), _PLACEHOLDER_RESULT) for s in states)
    return "\n".join(line.rstrip("\n") for line in lines).encode()


@dataclass(frozen=True)
class Hardware:
    """What TVM's hardware parameters say; not used yet."""

    target_kind: str
    parameters: tuple[int, ...]


class StepReplayer:
    """Today's replayer behind the coming interface."""

    def __init__(
        self, graph: TaskGraph, *, hardware: Hardware, rewrites_layout: bool = False
    ) -> None:
        self.hardware = hardware
        self.seconds = {"parse": 0.0, "replay": 0.0, "features": 0.0}
        self._inner = replayer.StepReplayer(graph, rewrites_layout=rewrites_layout)

    def extract(self, records: bytes) -> tuple[CompactASTBatch, dict[int, RecordError]]:
        """Return the compact ASTs of log lines of this task, and what went wrong by line."""
        begin = time.perf_counter()
        programs = [orjson.loads(line)["i"][1][1] for line in records.split(b"\n")]
        parsed = time.perf_counter()
        result = self._inner.extract(programs)
        self.seconds["parse"] += parsed - begin
        self.seconds["features"] += time.perf_counter() - parsed
        return result


_GROUPS = {
    "arithmetic": ("_ops", "is_init", "is_copy"),
    "gpu": ("block_extent", "thread_extent", "vthread_extent"),
    "parallelism": ("parallel_extent", "task_executions"),
    "annotations": ("unroll", "is_vectorized", "vector_extent"),
    "allocation": ("buffer_bytes", "num_accesses"),
    "traffic": ("traffic_",),
    "reuse": ("_reuse", "_tile_bytes", "_unique_bytes"),
}


def group_of(field: Field) -> str:
    """Return the group that a field belongs to."""
    for group, marks in _GROUPS.items():
        if any(mark in field.name for mark in marks):
            return group
    return "memory" if field.name.split("_")[0] in ACCESS_SLOTS else "loops"
