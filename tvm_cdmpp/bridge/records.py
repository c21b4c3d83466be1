"""Measure records of a log as TVM's objects, each line checked before TVM sees it.

TVM's own reader takes half a line for the record before it, and gives up on the first bad one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.data import COMMENT, NOT_JSON, LineError, parse_line, read_lines
from tvm_cdmpp.devices import Hardware
from tvm_cdmpp.errors import RecordError

tvm = load_tvm()
_measure_record = tvm.auto_scheduler.measure_record
_NUM_HARDWARE_PARAMETERS = len(fields(Hardware))


def read_records(
    log: Path, num_lines: int | None = None
) -> tuple[dict[int, tuple[Any, Any]], dict[int, RecordError]]:
    """Read a log, plain or packed.

    Parameters
    ----------
    log
        An Ansor log.
    num_lines
        Read only the first lines; all where it is not above 0, as in TVM.

    Returns
    -------
    records
        `MeasureInput` and `MeasureResult` by line number, from 1. Tasks have no DAG.
    problems
        What is wrong with the other lines but comments, by line number.

    Raises
    ------
    RecordError
        The file cannot be read.
    """
    records: dict[int, tuple[Any, Any]] = {}
    problems: dict[int, RecordError] = {}
    most = num_lines if num_lines and num_lines > 0 else None
    try:
        lines = enumerate(read_lines(log, lambda _: None), start=1)
        for number, (line, defect) in islice(lines, most):
            try:
                if defect:
                    raise RecordError(defect)
                _check_hardware(parse_line(line).hardware_parameters)
                records[number] = _measure_record.load_record_from_string(line.decode().strip())
            except LineError as error:
                if error.bin != COMMENT:
                    problems[number] = RecordError(str(error))
            except (RecordError, ValueError, tvm.TVMError) as error:
                reason = str(error).strip().splitlines() or ["TVM cannot read it"]
                problems[number] = RecordError(reason[-1].strip())
    except OSError as error:
        raise RecordError(f"The log '{log}' cannot be read: {error.strerror}.") from error
    return records, problems


def no_record_of(log: Path, problems: Mapping[int, object]) -> RecordError:
    """Return the error that says why a log holds no record to go by, and what to do.

    Parameters
    ----------
    log
        The log.
    problems
        What is wrong with its lines, by line number.
    """
    if not problems:
        return RecordError(
            f"The log {log} holds no measure record: it is empty, or has comments alone. Give one "
            "that has some, such as `tvm-cdmpp tune NETWORK --log FILE` writes."
        )
    first = min(problems)
    if all(str(problem).startswith(NOT_JSON) for problem in problems.values()):
        return RecordError(
            f"{log} is no Ansor log, whose lines are JSON; line {first}: {problems[first]}. Give a "
            "log such as `tvm-cdmpp tune NETWORK --log FILE` writes."
        )
    return RecordError(f"No record of the log {log} can be used; line {first}: {problems[first]}.")


def _check_hardware(parameters: Sequence[int]) -> None:
    """TVM has eight hardware parameters; the logs of old versions have none."""
    if len(parameters) not in (0, _NUM_HARDWARE_PARAMETERS):
        raise RecordError(
            f"expected {_NUM_HARDWARE_PARAMETERS} hardware parameters, or none; "
            f"got {len(parameters)}"
        )
