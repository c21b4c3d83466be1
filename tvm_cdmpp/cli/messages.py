"""Keeping TVM's C++ messages out of the progress of a search, and of what is read and predicted.

Ansor tries schedules that do not work out, and for each TVM's C++ part writes a page to stderr:
the state, the error, a call stack. None of it is an error of the search.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TextIO

_STDOUT, _STDERR = 1, 2


def ensure_streams() -> None:
    """Point standard streams that are closed to nowhere.

    The next file that is opened, such as a log, would otherwise become stderr, and get what TVM's
    C++ part has to say.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = os.fdopen(_STDOUT, "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(_STDERR, "w", buffering=1)


@contextmanager
def divert_native_messages(path: Path, say: Callable[[str], object]) -> Iterator[None]:
    """Send what is not Python's own from stderr to a file; remove the file if it stays empty.

    Child processes started in between write there, too.

    Parameters
    ----------
    path
        The file; messages are appended.
    say
        Told, in the end, where the messages are, if there are any.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    sys.stderr.flush()
    terminal, python_stderr = os.dup(_STDERR), sys.stderr
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), _STDERR)
        if _is_native(python_stderr):
            _replace(python_stderr, os.fdopen(os.dup(terminal), "w", buffering=1))
        yield
    finally:
        if (replacement := sys.stderr) is not python_stderr:
            _replace(replacement, python_stderr)
            replacement.close()
        os.dup2(terminal, _STDERR)
        os.close(terminal)
        if path.is_file() and not path.stat().st_size:
            path.unlink()
        elif path.is_file():
            say(f"TVM's messages about schedules that did not work out: {path}")


def drop_native_messages() -> AbstractContextManager[None]:
    """Drop what is not Python's own from stderr, where nothing is built or measured.

    There TVM warns of devices that are not here, once for each record, and of schedules that it
    lowers all the same.
    """
    return divert_native_messages(Path(os.devnull), lambda _: None)


def messages_file(log: Path) -> Path:
    """Name the file for the messages of a search that writes this log."""
    return log.with_name(f"{log.name}.tvm.txt")


def _replace(old: TextIO, new: TextIO) -> None:
    """Let Python and its loggers write to another stream."""
    sys.stderr = new
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is old:
            handler.setStream(new)


def _is_native(stream: TextIO) -> bool:
    """Tell whether a stream writes to the process's stderr."""
    try:
        return stream.fileno() == _STDERR
    except (AttributeError, OSError, ValueError):
        return False
