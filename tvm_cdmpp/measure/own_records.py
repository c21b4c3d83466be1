"""What functions with TVM's own schedules took, one JSON line each, next to an Ansor log.

They have no transform steps, so an Ansor log cannot hold them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.files import append_lines, parse_json


@dataclass(frozen=True, slots=True)
class OwnRecord:
    """A measured function."""

    function: str
    """Its `OwnFunction.key`; earlier versions wrote its class and a space before that."""
    name: str
    latency_s: float | None
    """Mean seconds; None for one that failed."""
    failure: str = ""
    """Kind of failure."""
    noisy: bool = False
    """Whether the machine was noisy to the last, and the batch was kept all the same."""

    def __post_init__(self) -> None:
        """Reject what nothing can have taken, and leave out what is not of the key."""
        object.__setattr__(self, "function", self.function.rpartition(" ")[2])
        if self.latency_s is not None and not 0 < self.latency_s < math.inf:
            raise RecordError(
                f"a latency must be seconds above 0, or null for a failure; got {self.latency_s}"
            )


def own_records_file(log: Path) -> Path:
    """Return where the functions measured beside a log are."""
    return log.with_name(f"{log.name}.own.jsonl")


def append_own_records(file: Path, records: Iterable[OwnRecord]) -> None:
    """Append records; of none, nothing is written.

    Raises
    ------
    RecordError
        The file cannot be written.
    """
    lines = [json.dumps(asdict(record)) for record in records]
    if not lines:
        return
    try:
        append_lines(file, lines)
    except OSError as error:
        raise RecordError(f"{file} cannot be written: {error.strerror}") from error


def read_own_records(file: Path) -> tuple[list[OwnRecord], int]:
    """Return the records of a file, none where there is no such file, and how many lines are torn.

    Raises
    ------
    RecordError
        The file cannot be read, or holds something else.
    """
    found, torn = list[OwnRecord](), 0
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{file} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            values = parse_json(line)
        except json.JSONDecodeError:
            torn += 1  # of a run that was killed
            continue
        try:
            found.append(OwnRecord(**values))
        except (TypeError, RecordError) as error:
            raise RecordError(
                f"{file}:{number} is no record of a function with TVM's own schedule: {error}. "
                "Move the file away to measure its functions again."
            ) from error
    return found, torn
