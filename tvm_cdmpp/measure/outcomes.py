"""What became of measured programs: which results may be recorded, and failures in words."""

import errno
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge import append_records, build_timed_out, failed, timed_out
from tvm_cdmpp.data import failure_name
from tvm_cdmpp.errors import MeasureError

HOPELESS = 32
"""So many programs without a valid one, from two tasks or more, and measuring itself is broken."""

# How it looks in the message of a program that failed.
_DISK_FULL = os.strerror(errno.ENOSPC)

_RUN_TIMEOUT = 7  # of TVM's `MeasureErrorNo`


class Failures:
    """Counts failures by kind.

    Attributes
    ----------
    counts
        Failed programs by kind of failure.
    example
        The message of the last one that had a message.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.example = ""

    def count(self, result: Any) -> bool:
        """Take a `MeasureResult` into the count; return whether it is a failure."""
        if not (failure := failure_of(result)):
            return False
        self.counts[failure] += 1
        self.example = _last_line(str(result.error_msg)) or self.example
        return True


def record_batch(log: Path, inputs: Sequence[Any], results: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Append a measured batch to a log, without what a full disk did to it.

    A full disk says nothing about a program, so such failures must not get into the log.

    Returns
    -------
    recorded
        The pairs that are in the log now; fewer than given when the disk is full, which the
        caller passes to `check_disk`.

    Raises
    ------
    RecordError
        The log cannot be written.
    """
    kept = [pair for pair in zip(inputs, results, strict=True) if not disk_was_full(pair[1])]
    if kept:
        append_records(log, *zip(*kept, strict=True))
    return kept


def check_disk(log: Path, num_recorded: int, num_measured: int) -> None:
    """Raise `MeasureError` if `record_batch` left programs out."""
    if num_recorded < num_measured:
        raise MeasureError(
            f"the disk is full: {num_measured - num_recorded} programs could not be built in "
            f"{tempfile.gettempdir()}. The log {log} holds all others; free some "
            "space, or point TMPDIR to another folder, and run again."
        )


def hopeless_error(log: Path, num_programs: int, failures: Failures) -> MeasureError:
    """Return the error to raise when no program at all is valid."""
    kinds = ", ".join(f"{number} x {kind}" for kind, number in failures.counts.most_common())
    return MeasureError(
        f"none of {num_programs} programs could be built and run on this machine ({kinds}); "
        f"for example: {failures.example or 'no message'}. Run `tvm-cdmpp doctor`, which tests the "
        f"compiler, too. Then start again with another log than {log}: it keeps these failures, "
        "and they count as trials."
    )


def disk_was_full(result: Any) -> bool:
    """Tell whether a program was not measured because there was no room to build it."""
    return _DISK_FULL in str(result.error_msg)


def failure_of(result: Any) -> str:
    """Return the kind of a `MeasureResult`'s failure, empty for none."""
    if not failed(result):
        return ""
    error_no = int(result.error_no)
    if timed_out(result) and not build_timed_out(result):
        error_no = _RUN_TIMEOUT  # which some TVMs call an error of the run
    return failure_name(error_no)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
