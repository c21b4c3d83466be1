"""The lines of an Ansor log: out of a file, however packed and damaged, and into a record.

This is the only parser of logs; TVM's own gives up on the first bad line, takes some half lines for
records of nothing, and needs fifteen times as long. Every line ends in exactly one bin; `BINS` are
all of them.
"""

import codecs
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
COPY = "copy"
UNKNOWN = "unknown workload"
MISFIT = "steps do not fit"
WRONG_TARGET = "wrong target"
IMPOSSIBLE = "impossible cost"
UNREADABLE = "unreadable"
COMMENT = "comment"
NOT_JSON = "not JSON"
"""What the reason of a line that is none begins with."""
BINS = (
    KEPT, FAILED, DUPLICATE, COPY, UNKNOWN, MISFIT, WRONG_TARGET, IMPOSSIBLE, UNREADABLE, COMMENT,
)  # fmt: skip
"""What is in the store: the measurements of kept and failed lines, those of duplicates (programs
that were measured before), and, once, those of copies (the same measurement, of whatever log). The
other lines are counted and named."""

FAILURES = {
    1: "schedule does not apply",
    2: "build failed",
    3: "load failed",
    4: "run failed",
    5: "wrong answer",
    6: "build timeout",
    7: "run timeout",
}
"""TVM's `MeasureErrorNo`, in words."""

VERSIONS = ("v0.3", "v0.4", "v0.5", "v0.6")
MAX_LINE_BYTES = 64 << 20
_BLOCK_BYTES = 1 << 20
_LONGEST_COST_S = 1e9
"""TVM writes 1e10 for a failed measurement."""
_LARGEST_INT = 2**53
_HARDWARE_PARAMETERS = 8
_MARK = codecs.BOM_UTF8
_PACKINGS = {
    b"\xfd7zXZ\x00": "packed by xz",
    b"\x1f\x8b": "packed by gzip",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    _MARK: "UTF-8 with a byte order mark",
}
# The values of each kind of transform step: int, text, list of ints, bool as 0 or 1.
_STEPS = {
    "AN": "iii", "FU": "il", "PR": "iit", "RE": "il", "SP": "iiilb", "FSP": "iiii", "FFSP": "iilib",
    "SA": "iiii", "CA": "iii", "CI": "i", "CR": "i", "CHR": "itl", "CHW": "it", "RF": "iii",
}  # fmt: skip


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
    as_written: bool
    """Whether the line, its steps apart, is as today's TVM writes it."""


def packing_of(path: Path) -> str:
    """Tell how a file differs from plain text, such as `packed by xz`; empty if it does not."""
    with path.open("rb") as file:
        return _packing(file.read(6))


def read_lines(path: Path, on_read: Callable[[int], None]) -> Iterator[tuple[bytes, str]]:
    """Yield the lines of a plain, gz or xz file without their ends, and what is wrong with each.

    A byte order mark is left out, and UTF-16 read.

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
        blocks = _blocks(raw)
        rest, overlong = b"", ""
        while True:
            try:
                block = next(blocks, b"")
            except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, UnicodeError) as error:
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


def _packing(head: bytes) -> str:
    return next((name for magic, name in _PACKINGS.items() if head.startswith(magic)), "")


def _unpacked(raw: BufferedReader) -> Any:
    packing = _packing(raw.peek(6)[:6])
    if packing == "packed by xz":
        return lzma.LZMAFile(raw)
    if packing == "packed by gzip":
        return gzip.GzipFile(fileobj=raw)
    return raw


def _blocks(raw: BufferedReader) -> Iterator[bytes]:
    """Yield the content in pieces, none of them empty: unpacked, and as UTF-8 without a mark."""
    stream = _unpacked(raw)
    block = stream.read1(_BLOCK_BYTES)
    if _packing(block[:3]) == "UTF-16":
        decoder = codecs.getincrementaldecoder("utf-16")()
        while block:
            if text := decoder.decode(block):
                yield text.encode()
            block = stream.read1(_BLOCK_BYTES)
        decoder.decode(b"", final=True)
        return
    block = block.removeprefix(_MARK)
    while block:
        yield block
        block = stream.read1(_BLOCK_BYTES)


def parse_line(line: bytes) -> LogRecord:
    """Read a line of an Ansor log, version v0.3 to v0.6.

    Raises
    ------
    LineError
        The line is no such record, or its costs are impossible.
    """
    if line.startswith((b"#", b" ")) or not line.strip():
        raise LineError(COMMENT, "a comment or a blank line")
    try:
        record = orjson.loads(line)
    except ValueError as error:
        why = "it is no text" if "UTF-8" in str(error) else error
        raise LineError(UNREADABLE, f"{NOT_JSON}: {why}") from None
    try:
        (task, (stages, steps)), result, version = record["i"], record["r"], record["v"]
        key, target, *described = task
        costs, error_no, elapsed_s, timestamp = result
    except (KeyError, TypeError, ValueError):
        raise LineError(UNREADABLE, "not a measure record (expected i, r and v)") from None
    if version not in VERSIONS:
        raise LineError(UNREADABLE, f"expected version {' or '.join(VERSIONS)}; got {version!r}")
    hardware = described[0] if described else []
    layout = described[2] if len(described) > 2 else 0
    _check(isinstance(key, str) and key, "workload key", key)
    _check(isinstance(target, str) and target.split(), "target", target)
    _check(
        _is_hardware(hardware), f"hardware, up to {_HARDWARE_PARAMETERS} whole numbers,", hardware
    )
    _check(layout in (0, 1, 2) and _is_int(layout), "layout rewrite option", layout)
    _check(_are_steps(steps), "transform steps", steps)
    _check(_is_int(error_no) and 0 <= error_no < 128, "error number", error_no)
    _check(_is_number(timestamp) and 0 <= timestamp < _LARGEST_INT, "time", timestamp)
    _check(isinstance(costs, list) and costs and all(map(_is_number, costs)), "costs", costs)
    if error_no:
        costs = []
    elif not all(0 < cost < _LONGEST_COST_S for cost in costs):
        raise LineError(IMPOSSIBLE, f"expected seconds; got {_shown(costs)}")
    as_written = (
        len(record) == 3 and version == VERSIONS[-1] and stages == []
        and len(hardware) == _HARDWARE_PARAMETERS and len(described) == 4 and described[1] == ""
        and isinstance(described[3], list) and all(isinstance(n, str) for n in described[3])
        and _is_number(elapsed_s) and _is_int32(timestamp)
        # TVM knows few escapes.
        and b"\\" not in line.replace(b'\\"', b"")
    )  # fmt: skip
    return LogRecord(
        key, target, tuple(hardware), layout, orjson.dumps(steps), costs, error_no,
        int(timestamp), as_written,
    )  # fmt: skip


def are_well_formed(steps: bytes) -> bool:
    """Tell whether all steps of a record have the values that their kinds have."""
    return all(
        len(values) == len(_STEPS.get(kind, ""))
        and all(map(_fits, _STEPS[kind], values))
        for kind, *values in orjson.loads(steps)
    )  # fmt: skip


def failure_name(error_no: int) -> str:
    """Return what TVM's error number means, in words."""
    return FAILURES.get(error_no, f"error {error_no}")


def _fits(kind: str, value: object) -> bool:
    if kind == "l":
        return isinstance(value, list) and all(map(_is_int32, value))
    if kind == "t":
        return isinstance(value, str)
    return _is_int32(value) and (kind == "i" or value in (0, 1))


def _check(fine: object, what: str, found: object) -> None:
    if not fine:
        raise LineError(UNREADABLE, f"not a measure record: its {what} is {_shown(found)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_int(value: object) -> TypeGuard[int]:
    return type(value) is int and abs(value) < _LARGEST_INT


def _is_int32(value: object) -> bool:
    return type(value) is int and -(2**31) <= value < 2**31


def _is_hardware(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= _HARDWARE_PARAMETERS
        and all(map(_is_int32, value))
    )  # fmt: skip


def _is_number(value: object) -> bool:
    return _is_int(value) or (type(value) is float and math.isfinite(value))


def _are_steps(steps: object) -> bool:
    return isinstance(steps, list) and all(
        isinstance(step, list) and step and isinstance(step[0], str) for step in steps
    )
