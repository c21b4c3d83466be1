"""Ctrl-C: ends a search well, the second time at once; and is not lost in C++."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from types import FrameType
from typing import Protocol

EXIT_INTERRUPTED = 130
"""What a shell expects of a program that Ctrl-C ended."""

_SHOW_CURSOR = "\x1b[?25h"


class Interrupts:
    """Whether Ctrl-C was pressed."""

    noted = False


@contextmanager
def note_interrupts() -> Iterator[Interrupts]:
    """Note each Ctrl-C, and raise `KeyboardInterrupt` as Python does.

    TVM loses that exception where it calls Python, which Python remarks on, and raises others in
    its place. Only the main thread may handle signals; elsewhere nothing is noted.
    """
    found = Interrupts()
    remark = sys.unraisablehook

    def remark_on_others(lost: "sys.UnraisableHookArgs") -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            remark(lost)

    def note(number: int, frame: FrameType | None) -> None:
        found.noted = True
        signal.default_int_handler(number, frame)

    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.default_int_handler or current_thread() is not main_thread():
        yield found  # somebody else's, or ignored: a shell does that for what it runs behind
        return
    signal.signal(signal.SIGINT, note)
    sys.unraisablehook = remark_on_others
    try:
        yield found
    finally:
        sys.unraisablehook = remark
        signal.signal(signal.SIGINT, previous)


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
