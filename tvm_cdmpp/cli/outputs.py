"""Files that commands write: none may be one that is read, or that is written otherwise."""

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from tvm_cdmpp.cli.messages import messages_file
from tvm_cdmpp.errors import ConfigError, RecordError

Taken = tuple[str, Path]
"""What a file is, as in "that of --log", and the file, or a folder with all that is in it."""

WORKLOADS = "workloads.jsonl"
_WITH_LOG = (
    "{name}", "{name}.own.jsonl", "{name}.calibration.jsonl", "{name}.curve.jsonl", "{name}.bad",
    "{name}.state.safetensors", ".{name}.lock", "{stem}.history.json", "comparison.json",
    WORKLOADS, f"{WORKLOADS}.gz", f"{WORKLOADS}.xz", f"{WORKLOADS}.bad", f".{WORKLOADS}.lock",
)  # fmt: skip
"""A log and what commands keep next to it, by the log's name, but for TVM's messages."""


def check_outputs(outputs: Iterable[tuple[str, Path | None]], taken: Iterable[Taken] = ()) -> None:
    """Refuse what cannot be written, or must not, before anything takes time.

    Parameters
    ----------
    outputs
        The option and the file of each; None where it is left out.
    taken
        What the command reads, or writes otherwise.

    Raises
    ------
    ConfigError
        A file is taken, by another output as well, or is none that could be written.
    """
    others = list(taken)
    for option, path in outputs:
        if path is None:
            continue
        if path.exists() and not path.is_file():
            found = "a folder" if path.is_dir() else "a pipe or a device"
            raise ConfigError(f"{option} must be a file; {path} is {found}")
        for what, other in others:
            if _is_of(path, other):
                raise ConfigError(f"{option} must be a file of its own; {path} is {what}")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir():
            raise _cannot_be_written(option, path, f"{folder} is no folder")
        if not os.access(folder, os.W_OK):
            raise _cannot_be_written(option, path, os.strerror(errno.EACCES))
        others.append((f"that of {option}", path))


def make_folder_of(option: str, path: Path) -> None:
    """Make the folder that a file goes to.

    Raises
    ------
    ConfigError
        It cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_written(option, path, str(error.strerror)) from error


def check_is_log(option: str, path: Path) -> None:
    """Refuse a file to go on from that holds lines, but no record.

    Raises
    ------
    RecordError
        It does.
    """
    from tvm_cdmpp.data import COMMENT, LineError, parse_line, read_lines

    if not path.exists():
        return
    first = ""
    for number, (line, defect) in enumerate(read_lines(path, lambda _: None), start=1):
        try:
            parse_line(line)
            return
        except LineError as error:
            if error.bin != COMMENT:
                first = first or f"line {number} of {path} is no record: {defect or error}"
    if first:
        raise RecordError(f"{option} must be an Ansor log; {first}")


def files_of_networks(networks: Sequence[str], what: str) -> list[Taken]:
    """Return the files among networks, which may be names; `what` says where they are given."""
    return [(what, Path(name)) for name in networks if Path(name).is_file()]


def files_of_log(log: Path, what: str) -> list[Taken]:
    """Return a log and all that commands keep next to it; `what` says which log it is.

    None for a folder, or a path without a name: it is refused where it is read.
    """
    if not log.name or log.is_dir():
        return []
    names = [name.format(name=log.name, stem=log.stem) for name in _WITH_LOG]
    files = [*map(log.with_name, names), messages_file(log)]
    return [(f"{what}, or one next to it", file) for file in files]


def _is_of(path: Path, other: Path) -> bool:
    """Tell whether a path is another one, or in that folder."""
    mine, its = path.resolve(), other.resolve()
    return its in (mine, *mine.parents) or (
        path.exists() and other.exists() and path.samefile(other)
    )


def _cannot_be_written(option: str, path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{option}: {path} cannot be written: {reason}. Choose another file, or make its folder "
        "writable."
    )
