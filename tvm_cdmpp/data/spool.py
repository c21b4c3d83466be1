"""The first half of an import: one log in, its usable records in a file of their own out.

The text of the steps goes through batches of bounded size. The description next to the spooled
records is written last; where it exists, the log need not be read again.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tvm_cdmpp.data.inputs import LogFile
from tvm_cdmpp.data.lines import (
    FAILED,
    KEPT,
    MISFIT,
    UNKNOWN,
    UNREADABLE,
    WRONG_TARGET,
    LineError,
    LogRecord,
    parse_line,
    read_lines,
)
from tvm_cdmpp.data.schema import SPOOL
from tvm_cdmpp.data.workloads import Inspector, Workload, WorkloadBook
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.files import replacing

_BATCH_RECORDS = 4096
_BATCH_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class TaskKey:
    """What makes records comparable: same DAG, same kind of program, same device."""

    workload_id: str
    device: str
    target: str
    hardware_parameters: tuple[int, ...]
    layout_rewrite_option: int


@dataclass(kw_only=True, slots=True)
class Spooled:
    """What one log came to.

    Attributes
    ----------
    lines
        Lines read, each in one bin.
    bins
        Lines by bin; duplicates are found later.
    first
        Line number and reason of the first line in each bin but "kept".
    unknown
        Lines by workload key whose meaning is not known.
    tasks, workloads
        What the spooled records refer to.
    """

    lines: int = 0
    bins: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    tasks: list[TaskKey] = field(default_factory=list)
    workloads: list[Workload] = field(default_factory=list)

    def count(self, bin_: str, line: int, reason: str = "") -> None:
        """Put a line into a bin."""
        self.bins[bin_] = self.bins.get(bin_, 0) + 1
        if bin_ != KEPT:
            self.first.setdefault(bin_, f"{line}: {reason}" if reason else str(line))

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def load(path: Path) -> "Spooled":
        """Read what `save` wrote."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["tasks"] = [
            TaskKey(**{**task, "hardware_parameters": tuple(task["hardware_parameters"])})
            for task in content["tasks"]
        ]
        content["workloads"] = [
            Workload(
                **{
                    **workload,
                    "names": tuple(workload["names"]),
                    "networks": tuple((name, weight) for name, weight in workload["networks"]),
                }
            )
            for workload in content["workloads"]
        ]
        return Spooled(**content)


def spool_log(
    log: LogFile,
    spool: Path,
    book: WorkloadBook,
    inspector: Inspector,
    on_read: Callable[[int], None] = lambda _: None,
) -> Spooled:
    """Read a log, and write its usable records to `spool`, a Parquet file.

    Parameters
    ----------
    log, spool
        From where, and where to.
    book
        The meaning of workload keys.
    inspector
        Checks DAGs and steps, and rebuilds the DAGs of functions it knows by name.
    on_read
        Told the bytes read so far.
    """
    with (
        replacing(spool) as temporary,
        pq.ParquetWriter(temporary, SPOOL, compression="zstd") as writer,
    ):
        reader = _LogReader(log, book, inspector, writer)
        for number, (line, defect) in enumerate(read_lines(log.path, on_read), start=1):
            reader.take(number, line, defect)
        reader.flush()
    return reader.spooled


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    task: int
    record: LogRecord


class _LogReader:
    """Sorts the lines of one log into bins."""

    def __init__(
        self, log: LogFile, book: WorkloadBook, inspector: Inspector, writer: pq.ParquetWriter
    ) -> None:
        self.spooled = Spooled()
        self._log = log
        self._book = book
        self._inspector = inspector
        self._writer = writer
        self._target_kind = log.target
        self._workloads: dict[str, Workload | str] = {}
        self._tasks: dict[TaskKey, int] = {}
        self._rows: list[_Row] = []
        self._bytes = 0

    def take(self, number: int, line: bytes, defect: str) -> None:
        self.spooled.lines += 1
        try:
            if defect:
                raise LineError(UNREADABLE, defect)
            record = parse_line(line)
            task = self._task_of(record)
        except LineError as error:
            self.spooled.count(error.bin, number, str(error))
            return
        self._rows.append(_Row(number, task, record))
        self._bytes += len(line)
        if len(self._rows) >= _BATCH_RECORDS or self._bytes >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Check the steps of the records at hand, and write those that fit."""
        misfits = self._misfits()
        kept = []
        for row in self._rows:
            if row.line in misfits:
                self.spooled.count(MISFIT, row.line, misfits[row.line])
            elif row.record.error_no:
                self.spooled.count(FAILED, row.line, f"error {row.record.error_no}")
                kept.append(row)
            else:
                self.spooled.count(KEPT, row.line)
                kept.append(row)
        if kept:
            self._writer.write_table(_table(kept))
        self._rows, self._bytes = [], 0

    def _task_of(self, record: LogRecord) -> int:
        workload = self._workloads.get(record.workload_key)
        if workload is None:
            workload = self._look_up(record)
            self._workloads[record.workload_key] = workload
        if isinstance(workload, str):
            unknown = self.spooled.unknown
            unknown[record.workload_key] = unknown.get(record.workload_key, 0) + 1
            raise LineError(UNKNOWN, workload)
        kind = record.target.split()[0]
        self._target_kind = self._target_kind or kind
        if kind != self._target_kind:
            raise LineError(WRONG_TARGET, f"expected {self._target_kind}; got {record.target}")
        key = TaskKey(
            workload.workload_id, self._log.device, record.target, record.hardware_parameters,
            record.layout_rewrite_option,
        )  # fmt: skip
        if key not in self._tasks:
            self._tasks[key] = len(self._tasks)
            self.spooled.tasks.append(key)
            if workload not in self.spooled.workloads:
                self.spooled.workloads.append(workload)
        return self._tasks[key]

    def _look_up(self, record: LogRecord) -> Workload | str:
        """Return what a record's key means in this log, or why that is not known.

        Functions of one name take their arguments in different orders: the first meaning that the
        steps fit counts.
        """
        key, log_name = record.workload_key, Path(self._log.name).name
        candidates = self._book.candidates(key, record.target, log_name, self._inspector)
        if not candidates:
            return f"no DAG is known for {key}"
        described = record.hardware_parameters, record.layout_rewrite_option, [record.steps]
        fitting = (w for w in candidates if not self._inspector.misfits(w.dag, *described))
        try:
            chosen = next(fitting, candidates[0]) if len(candidates) > 1 else candidates[0]
            return self._book.checked(chosen, key, self._inspector)
        except RecordError as error:
            return str(error)

    def _misfits(self) -> dict[int, str]:
        """Tell which measured programs are of another workload, by line number.

        Programs that failed may have failed for that very reason, and are not checked.
        """
        by_task: dict[int, list[_Row]] = {}
        for row in self._rows:
            if not row.record.error_no:
                by_task.setdefault(row.task, []).append(row)
        misfits: dict[int, str] = {}
        dags = {workload.workload_id: workload.dag for workload in self.spooled.workloads}
        for number, rows in by_task.items():
            task = self.spooled.tasks[number]
            found = self._inspector.misfits(
                dags[task.workload_id], task.hardware_parameters, task.layout_rewrite_option,
                [row.record.steps for row in rows],
            )  # fmt: skip
            misfits |= {rows[place].line: reason for place, reason in found.items()}
        return misfits


def _table(rows: list[_Row]) -> pa.Table:
    columns = [
        [row.line for row in rows],
        [row.task for row in rows],
        pa.array([row.record.steps for row in rows], pa.binary()).cast(pa.string()),
        [[row.record.costs_s] for row in rows],
        [[row.record.error_no] for row in rows],
        [[row.record.timestamp_s] for row in rows],
        [[0]] * len(rows),
    ]
    arrays = [
        c if isinstance(c, pa.Array) else pa.array(c, f.type)
        for c, f in zip(columns, SPOOL, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=SPOOL)
