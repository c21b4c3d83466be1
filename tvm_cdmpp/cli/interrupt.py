"""Ctrl-C while a search runs: once to end it well, twice to end it at once."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

EXIT_INTERRUPTED = 130
"""What a shell expects of a program that Ctrl-C ended."""

_SHOW_CURSOR = "\x1b[?25h"


class Stoppable(Protocol):
    """What can be asked to end well."""

    def stop(self) -> None:
        """End after what is in flight; called from a signal handler."""


@contextmanager
def stop_on_interrupt(work: Stoppable) -> Iterator[None]:
    """Turn the first Ctrl-C into `work.stop()`; the second one ends the process.

    A `KeyboardInterrupt` would be of no use: most of a search runs in C++, which loses it.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        work.stop()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        # The second Ctrl-C leaves no time to give the terminal its cursor back.
        cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
        message = "stopping after the programs in flight; Ctrl-C again to stop at once"
        with suppress(BrokenPipeError):
            print(f"{cursor}tvm-cdmpp: {message}", file=sys.stderr, flush=True)

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
