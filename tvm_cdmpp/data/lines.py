"""The lines of a log: out of a file, however packed and damaged, and into a record.

Every line ends in exactly one bin; `BINS` are all of them.
"""

import gzip
import lzma
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeGuard

import orjson

KEPT = "kept"
FAILED = "failed measurement"
DUPLICATE = "duplicate"
UNKNOWN = "unknown workload"
MISFIT = "steps do not fit"
WRONG_TARGET = "wrong target"
IMPOSSIBLE = "impossible cost"
UNREADABLE = "unreadable"
COMMENT = "comment"
BINS = (
    KEPT, FAILED, DUPLICATE, UNKNOWN, MISFIT, WRONG_TARGET, IMPOSSIBLE, UNREADABLE, COMMENT,
)  # fmt: skip
"""Kept, failed and duplicate lines are in the store; the others are counted and named."""

VERSIONS = ("v0.3", "v0.4", "v0.5", "v0.6")
MAX_LINE_BYTES = 64 << 20
_BLOCK_BYTES = 1 << 20
_LONGEST_COST_S = 1e9
"""TVM writes 1e10 for a failed measurement."""
_LARGEST_INT = 2**53


class LineError(Exception):
    """Why a line is not kept.

    Attributes
    ----------
    bin
        Where the line belongs.
    """

    def __init__(self, bin_: str, reason: str) -> None:
        super().__init__(reason)
        self.bin = bin_


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One measurement as a log line tells it."""

    workload_key: str
    target: str
    hardware_parameters: tuple[int, ...]
    layout_rewrite_option: int
    steps: bytes
    """Transform steps as compact JSON."""
    costs_s: list[float]
    """Measured seconds of each repeat; empty if the measurement failed."""
    error_no: int
    timestamp_s: int


def read_lines(path: Path, on_read: Callable[[int], None]) -> Iterator[tuple[bytes, str]]:
    """Yield the lines of a plain, gz or xz file without their ends, and what is wrong with each.

    A file that is cut off or damaged gives all lines before the damage; what is left of the line in
    which it begins comes last, with the reason.

    Parameters
    ----------
    path
        Its content decides how it is packed.
    on_read
        Told the bytes of the file read so far.

    Yields
    ------
    line, defect
        The defect is empty for all but damaged and overlong lines.
    """
    with path.open("rb") as raw:
        stream = _unpacked(raw)
        rest, overlong = b"", ""
        while True:
            try:
                block = stream.read1(_BLOCK_BYTES)
            except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
                yield rest, f"the file is cut off or damaged from here on: {error}"
                return
            on_read(raw.tell())
            first, *others = block.split(b"\n")
            if overlong:
                first = b""
            if others:
                yield rest + first, overlong
                yield from ((line, "") for line in others[:-1])
                rest, overlong = others[-1], ""
            else:
                rest += first
            if len(rest) > MAX_LINE_BYTES:
                overlong = f"longer than {MAX_LINE_BYTES >> 20} MiB"
                rest = rest[:100]
            if not block:
                break
        if rest:
            yield rest, overlong


def _unpacked(raw: BufferedReader) -> Any:
    head = raw.peek(6)
    if head.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(raw)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    return raw


def parse_line(line: bytes) -> LogRecord:
    """Read a line of an Ansor log, version v0.3 to v0.6.

    Raises
    ------
    LineError
        The line is no such record, or its costs are impossible.
    """
    if line.startswith((b"#", b" ")):
        raise LineError(COMMENT, "TVM skips lines that begin like this")
    try:
        record = orjson.loads(line)
    except ValueError as error:
        raise LineError(UNREADABLE, f"not JSON: {error}" if line else "empty line") from None
    try:
        (task, (_, steps)), result, version = record["i"], record["r"], record["v"]
        key, target, *described = task
        costs, error_no, _, timestamp = result
    except (KeyError, TypeError, ValueError):
        raise LineError(UNREADABLE, "not a measure record (expected i, r and v)") from None
    if version not in VERSIONS:
        raise LineError(UNREADABLE, f"expected version {' or '.join(VERSIONS)}; got {version!r}")
    hardware = described[0] if described else []
    layout = described[2] if len(described) > 2 else 0
    _check(isinstance(key, str) and key, "workload key", key)
    _check(isinstance(target, str) and target.split(), "target", target)
    _check(isinstance(hardware, list) and all(map(_is_int, hardware)), "hardware", hardware)
    _check(layout in (0, 1, 2) and _is_int(layout), "layout rewrite option", layout)
    _check(_are_steps(steps), "transform steps", steps)
    _check(_is_int(error_no) and 0 <= error_no < 128, "error number", error_no)
    _check(_is_number(timestamp) and 0 <= timestamp < _LARGEST_INT, "time", timestamp)
    _check(isinstance(costs, list) and costs and all(map(_is_number, costs)), "costs", costs)
    if error_no:
        costs = []
    elif not all(0 < cost < _LONGEST_COST_S for cost in costs):
        raise LineError(IMPOSSIBLE, f"expected seconds; got {_shown(costs)}")
    return LogRecord(
        key, target, tuple(hardware), layout, orjson.dumps(steps), costs, error_no, int(timestamp)
    )


def _check(fine: object, what: str, found: object) -> None:
    if not fine:
        raise LineError(UNREADABLE, f"not a measure record: its {what} is {_shown(found)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_int(value: object) -> TypeGuard[int]:
    return type(value) is int and abs(value) < _LARGEST_INT


def _is_number(value: object) -> bool:
    return _is_int(value) or (type(value) is float and math.isfinite(value))


def _are_steps(steps: object) -> bool:
    return isinstance(steps, list) and all(
        isinstance(step, list) and step and isinstance(step[0], str) for step in steps
    )
