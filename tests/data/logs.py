"""Logs of real programs with invented measurements, and what is needed to import them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from tests.extract import sampling
from tvm_cdmpp.data.importer import Progress, import_logs
from tvm_cdmpp.data.inputs import LogFile
from tvm_cdmpp.data.reports import ImportReport
from tvm_cdmpp.data.workload_book import WorkloadBook
from tvm_cdmpp.extract.handover import dump_records
from tvm_cdmpp.workloads.inspector import TvmInspector

Record = dict[str, Any]
inspector = TvmInspector()


@cache
def task_of(size: int) -> Any:
    return sampling.make_task(sampling.matmul, args=(size, 48, 64))


@cache
def _programs(size: int, count: int) -> tuple[str, ...]:
    states = sampling.sample_states(task_of(size), count)
    lines = dump_records(task_of(size), states).decode().splitlines()
    assert len(lines) == count
    return tuple(lines)


def records(count: int, size: int = 37) -> list[Record]:
    """Distinct programs of a product; the time of each is its number."""
    made = [json.loads(line) for line in _programs(size, count)]
    for number, record in enumerate(made):
        record["r"] = [[1e-3 * (number + 1), 2e-3], 0, 0.5, 1000 + number]
    return made


def steps_of(record: Record) -> str:
    return json.dumps(record["i"][1][1], separators=(",", ":"))


def lines_of(made: Iterable[Record]) -> list[bytes]:
    return [json.dumps(record).encode() for record in made]


def write_log(path: Path, made: Iterable[Record]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines_of(made)))
    return path


def workload_entry(size: int = 37, files: Any = "*") -> dict[str, Any]:
    task = task_of(size)
    dag = sampling.tvm.ir.save_json(task.compute_dag.tensors)
    return {"workload_key": task.workload_key, "files": files, "dag": dag}


@cache
def book(*sizes: int) -> WorkloadBook:
    made = WorkloadBook("test")
    for size in sizes or (37,):
        made._add(workload_entry(size))
    return made


def log_file(path: Path, device: str = "test-cpu", **known: str) -> LogFile:
    return LogFile(path=path, name=path.name, device=device, **known)


def import_all(
    out: Path,
    *logs: Path | LogFile,
    known: WorkloadBook | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> ImportReport:
    files = [log if isinstance(log, LogFile) else log_file(log) for log in logs]
    return import_logs(files, out, known or book(), inspector, on_progress)
