"""The first half of an import: one log in, its usable records in files of their own out.

The records go through batches of bounded size, into a file per segment of the log. After each
segment a description of all that was read so far is replaced; these lines need not be read again.
"""

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
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
    failure_name,
    parse_line,
    read_lines,
)
from tvm_cdmpp.data.schema import SPOOL
from tvm_cdmpp.data.workload_book import Inspector, Workload, WorkloadBook
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.files import replacing

_SEGMENT_LINES = 1 << 17
"""A kill costs that many lines, ten seconds of work; each segment rewrites the description."""
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
    """What one log came to, or as much of it as was read.

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
    tasks
        What the spooled records refer to.
    meanings
        By workload key: the workload, or why it is not known.
    target_kind
        That of all records.
    segments
        Names of the Parquet files with the spooled records, in order.
    finished
        Whether this is the whole log.
    """

    lines: int = 0
    bins: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    tasks: list[TaskKey] = field(default_factory=list)
    meanings: dict[str, Workload | str] = field(default_factory=dict)
    target_kind: str = ""
    segments: list[str] = field(default_factory=list)
    finished: bool = False

    @property
    def workloads(self) -> list[Workload]:
        """What the tasks refer to."""
        used = {task.workload_id for task in self.tasks}
        found = (meaning for meaning in self.meanings.values() if isinstance(meaning, Workload))
        return [workload for workload in found if workload.workload_id in used]

    def count(self, bin_: str, line: int, reason: str = "") -> None:
        """Put a line into a bin."""
        self.bins[bin_] = self.bins.get(bin_, 0) + 1
        if bin_ != KEPT:
            self.first.setdefault(bin_, f"{line}: {reason}" if reason else str(line))

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        with replacing(path) as temporary:
            temporary.write_bytes(orjson.dumps(self))

    @staticmethod
    def load(path: Path) -> "Spooled":
        """Read what `save` wrote; empty if that, or a segment next to it, is not there."""
        if not path.is_file():
            return Spooled()
        content: dict[str, Any] = orjson.loads(path.read_bytes())
        if not all(path.with_name(name).is_file() for name in content["segments"]):
            return Spooled()
        content["tasks"] = [
            TaskKey(**{**task, "hardware_parameters": tuple(task["hardware_parameters"])})
            for task in content["tasks"]
        ]
        content["meanings"] = {
            key: meaning if isinstance(meaning, str) else _workload(meaning)
            for key, meaning in content["meanings"].items()
        }
        return Spooled(**content)


def spool_log(
    log: LogFile,
    spooled: Spooled,
    description: Path,
    book: WorkloadBook,
    inspector: Inspector,
    on_read: Callable[[int], None] = lambda _: None,
    *,
    noisy_lines: Container[int] = frozenset(),
    only: Container[str] | None = None,
) -> None:
    """Read what is left of a log, and write its usable records and what it came to.

    Parameters
    ----------
    log
        From where.
    spooled
        What an earlier call came to; made complete.
    description
        Where `spooled` is saved after each segment; the segments go next to it.
    book
        The meaning of workload keys.
    inspector
        Checks DAGs and steps, and rebuilds the DAGs of functions it knows by name.
    on_read
        Told the bytes read so far.
    noisy_lines
        Those that were measured on a noisy machine.
    only
        Workload keys; lines of others are not counted. All by default.
    """
    reader = _LogReader(log, book, inspector, spooled, noisy_lines, only)
    lines = islice(enumerate(read_lines(log.path, on_read), start=1), spooled.lines, None)
    while not spooled.finished:
        name = f"{description.stem}-{len(spooled.segments)}.parquet"
        end = spooled.lines + _SEGMENT_LINES
        with (
            replacing(description.with_name(name)) as temporary,
            pq.ParquetWriter(temporary, SPOOL, compression="zstd") as writer,
        ):
            reader.read(islice(lines, _SEGMENT_LINES), writer)
        spooled.segments.append(name)
        spooled.finished = spooled.lines < end
        spooled.save(description)


def _workload(content: dict[str, Any]) -> Workload:
    names, networks = tuple(content["names"]), tuple(map(tuple, content["networks"]))
    return Workload(**{**content, "names": names, "networks": networks})


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    task: int
    record: LogRecord


class _LogReader:
    """Sorts the lines of one log into bins."""

    def __init__(
        self,
        log: LogFile,
        book: WorkloadBook,
        inspector: Inspector,
        spooled: Spooled,
        noisy_lines: Container[int],
        only: Container[str] | None,
    ) -> None:
        self._log = log
        self._noisy_lines = noisy_lines
        self._only = only
        self._book = book
        self._inspector = inspector
        self._spooled = spooled
        self._tasks = {task: number for number, task in enumerate(spooled.tasks)}
        self._rows: list[_Row] = []
        self._bytes = 0

    def read(
        self, lines: Iterable[tuple[int, tuple[bytes, str]]], writer: pq.ParquetWriter
    ) -> None:
        """Take numbered lines, and write the records of those that are usable."""
        for number, (line, defect) in lines:
            self._take(number, line, defect)
            if len(self._rows) >= _BATCH_RECORDS or self._bytes >= _BATCH_BYTES:
                self._flush(writer)
        self._flush(writer)

    def _take(self, number: int, line: bytes, defect: str) -> None:
        self._spooled.lines += 1
        record = None
        try:
            if defect:
                raise LineError(UNREADABLE, defect)
            record = parse_line(line)
            if self._only is not None and record.workload_key not in self._only:
                return
            task = self._task_of(record)
        except LineError as error:
            if self._only is None or record is not None:
                self._spooled.count(error.bin, number, str(error))
            return
        self._rows.append(_Row(number, task, record))
        self._bytes += len(line)

    def _flush(self, writer: pq.ParquetWriter) -> None:
        """Check the steps of the records at hand, and write those that fit."""
        misfits = self._misfits()
        kept = []
        for row in self._rows:
            if row.line in misfits:
                self._spooled.count(MISFIT, row.line, misfits[row.line])
            elif row.record.error_no:
                self._spooled.count(FAILED, row.line, failure_name(row.record.error_no))
                kept.append(row)
            else:
                self._spooled.count(KEPT, row.line)
                kept.append(row)
        if kept:
            writer.write_table(_table(kept, self._noisy_lines))
        self._rows, self._bytes = [], 0

    def _task_of(self, record: LogRecord) -> int:
        spooled = self._spooled
        workload = spooled.meanings.get(record.workload_key)
        if workload is None:
            workload = self._look_up(record)
            spooled.meanings[record.workload_key] = workload
        if isinstance(workload, str):
            unknown = spooled.unknown
            unknown[record.workload_key] = unknown.get(record.workload_key, 0) + 1
            raise LineError(UNKNOWN, workload)
        kind = record.target.split()[0]
        spooled.target_kind = spooled.target_kind or self._log.target or kind
        if kind != spooled.target_kind:
            raise LineError(WRONG_TARGET, f"expected {spooled.target_kind}; got {record.target}")
        key = TaskKey(
            workload.workload_id, self._log.device, record.target, record.hardware_parameters,
            record.layout_rewrite_option,
        )  # fmt: skip
        if key not in self._tasks:
            self._tasks[key] = len(self._tasks)
            spooled.tasks.append(key)
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
        dags = {workload.workload_id: workload.dag for workload in self._spooled.workloads}
        for number, rows in by_task.items():
            task = self._spooled.tasks[number]
            steps = [row.record.steps for row in rows]
            try:
                found = self._inspector.misfits(
                    dags[task.workload_id], task.hardware_parameters, task.layout_rewrite_option,
                    steps,
                )  # fmt: skip
            except RecordError as error:  # of the workload as a whole
                found = dict.fromkeys(range(len(rows)), str(error))
            misfits |= {rows[place].line: reason for place, reason in found.items()}
        return misfits


def _table(rows: list[_Row], noisy_lines: Container[int]) -> pa.Table:
    columns = [
        [row.line for row in rows],
        [row.task for row in rows],
        pa.array([row.record.steps for row in rows], pa.binary()).cast(pa.string()),
        [[row.record.costs_s] for row in rows],
        [[row.record.error_no] for row in rows],
        [[row.record.timestamp_s] for row in rows],
        [[0]] * len(rows),
        [[row.line in noisy_lines] for row in rows],
    ]
    arrays = [
        c if isinstance(c, pa.Array) else pa.array(c, f.type)
        for c, f in zip(columns, SPOOL, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=SPOOL)
