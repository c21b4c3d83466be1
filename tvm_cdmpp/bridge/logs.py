"""Ansor logs: check, repair, append.

One record per line, as TVM writes them, so that `ApplyHistoryBest` reads the file. TVM's reader
gives up on the first bad line, and accepts some half lines as records of nothing, so a log is
checked here, line by line, before TVM sees it. TVM itself reads a line only where that line is not
as today's TVM writes it.

A corrupt line (mostly the half line of a killed process) is moved to `<log>.bad`, never dropped,
and so is one with an impossible cost, which TVM would take for the best program of all. Records are
appended here too, not by TVM's `RecordToFile`, which does not notice a full disk.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.data import (
    COMMENT,
    UNREADABLE,
    LineError,
    LogRecord,
    are_well_formed,
    packing_of,
    parse_line,
    read_lines,
)
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.files import replacing

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler


@dataclass(frozen=True, kw_only=True, slots=True)
class CorruptLine:
    """A line that is no measure record, or one of an impossible cost."""

    number: int
    """Position in the file, from 1."""
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LogReport:
    """What a log holds, seen from one network and target."""

    path: Path
    num_valid: int
    """Records of this network's tasks on this target, failed ones included."""
    num_programs: int
    """Different programs among these; a search measures some again."""
    num_failed: int
    """Those of them whose program failed to build or run."""
    corrupt: tuple[CorruptLine, ...]
    other_workloads: dict[str, int]
    """Records of tasks that are not this network's, by workload key."""
    other_targets: dict[str, int]
    """Records for other targets, by target."""
    is_tidy: bool
    """Whether the last line ends, and none is blank, which TVM cannot read."""


def check_log(path: Path, tasks: Sequence[Any], target: Any) -> LogReport:
    """Read every line of a log and tell what it holds; the file is not changed.

    Parameters
    ----------
    path
        The log. One that does not exist counts as empty.
    tasks
        The tasks (`SearchTask`) of the network.
    target
        The target they are tuned for.

    Raises
    ------
    RecordError
        The file cannot be read.
    """
    keys = {str(task.workload_key) for task in tasks}
    reader = _Reader()
    corrupt: list[CorruptLine] = []
    workloads: Counter[str] = Counter()
    targets: Counter[str] = Counter()
    num_valid = num_failed = 0
    programs: set[tuple[str, bytes]] = set()
    is_tidy = _ends_in_newline(path)
    for number, (line, defect) in enumerate(_lines_of(path), start=1):
        try:
            record, found = reader.read(line, defect)
        except LineError as error:
            is_tidy = is_tidy and bool(line.strip())
            if error.bin != COMMENT:
                corrupt.append(CorruptLine(number=number, reason=str(error)))
            continue
        if found != str(target):
            targets[found] += 1
        elif record.workload_key not in keys:
            workloads[record.workload_key] += 1
        else:
            num_valid += 1
            num_failed += record.error_no != 0
            programs.add((record.workload_key, record.steps))
    return LogReport(
        path=path,
        num_valid=num_valid,
        num_programs=len(programs),
        num_failed=num_failed,
        corrupt=tuple(corrupt),
        other_workloads=dict(workloads),
        other_targets=dict(targets),
        is_tidy=is_tidy,
    )


def prepare_log(path: Path, tasks: Sequence[Any], target: Any) -> LogReport:
    """Make a log fit to be continued: check it, and move corrupt lines to `<log>.bad`.

    Returns
    -------
    report
        What the log held before the repair.

    Raises
    ------
    RecordError
        The log is another target's or another network's, or no log at all (it is left as it is),
        or the files cannot be written.
    """
    report = check_log(path, tasks, target)
    _refuse_foreign(report, target)
    _check_writable(path)
    if report.corrupt or not report.is_tidy:
        _repair(report)
    return report


def append_records(path: Path, inputs: Iterable[Any], results: Iterable[Any]) -> None:
    """Append measured programs to a log and wait until they are on the disk.

    If they do not all fit, the log is cut back to where it was.

    Raises
    ------
    RecordError
        The log cannot be written, for instance because the disk is full.
    """
    text = "".join(map(_dump_line, inputs, results))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            _write_whole(file.fileno(), text.encode())
    except OSError as error:
        raise RecordError(
            f"the measured programs could not be written to {path}: {error.strerror}. The log "
            "holds all earlier records; free some space or choose another log, and run again."
        ) from error


def _lines_of(path: Path) -> Iterator[tuple[bytes, str]]:
    if not path.exists():
        return
    if not path.is_file():
        raise RecordError(f"the log {path} is not a file; choose another log")
    try:
        if packing := packing_of(path):
            raise RecordError(
                f"the log {path} is {packing}, which TVM cannot continue; give a copy of it as "
                "plain UTF-8 text, or choose another log"
            )
        yield from read_lines(path, lambda _: None)
    except OSError as error:
        raise RecordError(f"the log {path} cannot be read: {error.strerror}") from error


def _ends_in_newline(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


class _Reader:
    """Reads the lines that TVM can read."""

    def __init__(self) -> None:
        self._targets: dict[str, str | LineError] = {}

    def read(self, line: bytes, defect: str) -> tuple[LogRecord, str]:
        """Return a record, and its target as TVM writes it; `LineError` if there is none."""
        if defect:
            raise LineError(UNREADABLE, defect)
        record = parse_line(line)
        if not (record.as_written and are_well_formed(record.steps)):
            try:
                auto_scheduler.measure_record.load_record_from_string(line.decode().rstrip("\r"))
            except (tvm.TVMError, ValueError) as error:
                raise LineError(UNREADABLE, f"TVM cannot read it: {_reason(error)}") from error
        if record.target not in self._targets:
            self._targets[record.target] = _target_text(record.target)
        target = self._targets[record.target]
        if isinstance(target, LineError):
            raise target
        return record, target


def _target_text(text: str) -> str | LineError:
    try:
        return str(tvm.target.Target(text))
    except (tvm.TVMError, ValueError, TypeError) as error:
        return LineError(UNREADABLE, f"TVM does not know the target '{text}': {_reason(error)}")


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[-1].strip()


def _refuse_foreign(report: LogReport, target: Any) -> None:
    if report.other_targets:
        held = "; ".join(f"{n} for {name!r}" for name, n in report.other_targets.items())
        raise RecordError(
            f"the log {report.path} holds records of another target: {held}; this search is for "
            f"'{target}'. Choose another log, or give the target that it was made for."
        )
    if report.other_workloads and not report.num_valid:
        raise RecordError(
            f"the log {report.path} holds {sum(report.other_workloads.values())} records of "
            f"{len(report.other_workloads)} tasks, none of which is in this network: it was made "
            "for another network, input shape or layout. Choose another log."
        )
    if report.corrupt and not (report.num_valid or report.other_workloads):
        first = report.corrupt[0]
        raise RecordError(
            f"{report.path} is not an Ansor log: none of its {len(report.corrupt)} lines is a "
            f"measure record (line {first.number}: {first.reason}). Choose another log, or remove "
            "this file."
        )


def _check_writable(path: Path) -> None:
    """Find out before the search, not after its first batch."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        raise RecordError(
            f"the log {path} cannot be written: {error.strerror}. Choose another log, or make its "
            "folder writable."
        ) from error


def _repair(report: LogReport) -> None:
    """Move corrupt lines to `<log>.bad`, drop blank ones, end the last; leave whole files only."""
    bad = {line.number for line in report.corrupt}
    path, aside = report.path, report.path.with_name(report.path.name + ".bad")
    moved = []
    try:
        with replacing(path) as temporary:
            with path.open("rb") as log, temporary.open("wb") as kept:
                for number, line in enumerate(log, start=1):
                    if number in bad:
                        moved.append(_end_line(line))
                    elif line.strip():
                        kept.write(_end_line(line))
            if moved:  # first: a crash in between leaves a line twice rather than never
                with aside.open("ab", buffering=0) as file:
                    _write_whole(file.fileno(), b"".join(moved))
    except OSError as error:
        raise RecordError(
            f"the log {path} has corrupt lines that could not be moved to {aside}: "
            f"{error.strerror}. The log was left as it was."
        ) from error


def _end_line(line: bytes) -> bytes:
    return line.rstrip(b"\r\n") + b"\n"


def _dump_line(measured: Any, result: Any) -> str:
    return (
        str(auto_scheduler.measure_record.dump_record_to_string(measured, result)).rstrip() + "\n"
    )


def _write_whole(descriptor: int, content: bytes) -> None:
    """Write all of it to the disk or nothing."""
    begin = os.lseek(descriptor, 0, os.SEEK_END)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        with suppress(OSError):  # the first error is the one to report
            os.ftruncate(descriptor, begin)
        raise
