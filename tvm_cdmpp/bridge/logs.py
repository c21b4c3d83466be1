"""Ansor logs: check, repair, append.

One record per line, as TVM writes them, so that `ApplyHistoryBest` reads the file. TVM's reader
gives up on the first bad line, and accepts some half lines as records of nothing, so a log is
checked here, line by line, before TVM sees it: JSON first, then the shape of a record, then TVM.

A corrupt line (mostly the half line of a killed process) is moved to `<log>.bad`, never dropped.
Records are appended here too, not by TVM's `RecordToFile`, which does not notice a full disk.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.errors import RecordError

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler


@dataclass(frozen=True, kw_only=True, slots=True)
class CorruptLine:
    """A line that is no measure record."""

    number: int
    """Position in the file, from 1."""
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LogReport:
    """What a log holds, seen from one network and target."""

    path: Path
    num_valid: int
    """Records of this network's tasks on this target, failed ones included."""
    num_failed: int
    """Those of them whose program failed to build or run."""
    corrupt: tuple[CorruptLine, ...]
    other_workloads: dict[str, int]
    """Records of tasks that are not this network's, by workload key."""
    other_targets: dict[str, int]
    """Records for other targets, by target."""
    ends_in_newline: bool


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
    lines = _read_lines(path)
    corrupt: list[CorruptLine] = []
    workloads: Counter[str] = Counter()
    targets: Counter[str] = Counter()
    num_valid = num_failed = 0
    for number, line in enumerate(lines, start=1):
        if line.startswith((b"#", b" ")):  # a comment to TVM
            continue
        try:
            task, failed = _parse_record(line)
        except _LineError as error:
            corrupt.append(CorruptLine(number=number, reason=str(error)))
            continue
        if str(task.target) != str(target):
            targets[str(task.target)] += 1
        elif task.workload_key not in keys:
            workloads[str(task.workload_key)] += 1
        else:
            num_valid += 1
            num_failed += failed
    return LogReport(
        path=path,
        num_valid=num_valid,
        num_failed=num_failed,
        corrupt=tuple(corrupt),
        other_workloads=dict(workloads),
        other_targets=dict(targets),
        ends_in_newline=not lines or lines[-1].endswith(b"\n"),
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
    if report.corrupt or not report.ends_in_newline:
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


class _LineError(Exception):
    """Why a line is no record."""


def _read_lines(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    if not path.is_file():
        raise RecordError(f"the log {path} is not a file; choose another log")
    try:
        return path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise RecordError(f"the log {path} cannot be read: {error.strerror}") from error


def _parse_record(line: bytes) -> tuple[Any, bool]:
    """Return the task of a record and whether its program failed."""
    if not line.strip():
        raise _LineError("empty line")
    try:
        record = json.loads(line)
    except ValueError as error:
        raise _LineError(f"not JSON: {error}") from error
    if not _is_record(record):
        raise _LineError("not a measure record (expected the keys i, r and v)")
    try:
        measured, result = auto_scheduler.measure_record.load_record_from_string(
            line.decode().rstrip("\r\n")
        )
        return measured.task, int(result.error_no) != 0
    except (tvm.TVMError, ValueError) as error:
        reason = str(error).strip().splitlines() or ["no reason given"]
        raise _LineError(f"TVM cannot read it: {reason[-1].strip()}") from error


def _is_record(record: object) -> bool:
    """Check the outer shape; TVM's parser takes objects without these keys for records."""
    if not isinstance(record, dict) or set(record) != {"i", "r", "v"}:
        return False
    measured, result = record["i"], record["r"]
    return (
        isinstance(measured, list)
        and [type(part) for part in measured] == [list, list]
        and len(measured[0]) >= 2
        and len(measured[1]) == 2
        and isinstance(result, list)
        and len(result) == 4
        and isinstance(result[0], list)
        and bool(result[0])
    )


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
    """Move corrupt lines to `<log>.bad` and end the last line, each step leaving whole files."""
    bad = {line.number for line in report.corrupt}
    lines = list(enumerate(_read_lines(report.path), start=1))
    moved = b"".join(_end_line(line) for number, line in lines if number in bad)
    kept = b"".join(_end_line(line) for number, line in lines if number not in bad)
    temporary = report.path.with_name(report.path.name + ".tmp")
    try:
        if moved:  # first: a crash in between leaves a line twice rather than never
            with report.path.with_name(report.path.name + ".bad").open("ab", buffering=0) as file:
                _write_whole(file.fileno(), moved)
        with temporary.open("wb", buffering=0) as file:
            _write_whole(file.fileno(), kept)
        temporary.replace(report.path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RecordError(
            f"the log {report.path} has corrupt lines that could not be moved to "
            f"{report.path}.bad: {error.strerror}. The log was left as it was."
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
