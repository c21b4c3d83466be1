"""Keep TVM from downloading schedules and from talking: while it compiles, and in its errors.

Without a context of AutoTVM's, every compilation looks for TopHub's schedules on the internet,
three times. An empty one stops that; operators then take their default schedules, which also keeps
a result from depending on what could be downloaded. Some GPU operators go on to look for logs of
similar devices, and fail where there is no internet; they are told that there are none.
"""

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

from tvm_cdmpp.bridge.runtime import load_tvm

tvm = load_tvm()

# Loggers that report, operator by operator, that nothing was tuned yet.
_CHATTY = ("autotvm", "auto_scheduler", "strategy", "te_compiler", "topi")


@contextlib.contextmanager
def quiet_tvm() -> Iterator[None]:
    """Compile with default schedules and without chatter, until the end of the `with` block."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with (
            warnings.catch_warnings(),
            tvm.autotvm.task.ApplyHistoryBest([]),
            _without_reference_logs(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _without_reference_logs() -> Iterator[None]:
    versions = tvm.autotvm.tophub.PACKAGE_VERSION
    saved = dict(versions)
    versions.clear()
    try:
        yield
    finally:
        versions.update(saved)


@contextlib.contextmanager
def errors_of_threads() -> Iterator[None]:
    """Raise what ends a thread that was started in the `with` block.

    TVM extracts tasks in a thread of its own; an error there that is not its own kind would only be
    printed, and the tasks found before it taken for all.

    Raises
    ------
    TVMError
        At the end of the block, for the first thread that failed.
    """
    old_hook, old_threads = threading.excepthook, set(threading.enumerate())
    failures: list[BaseException] = []

    def note(args: threading.ExceptHookArgs) -> None:
        if args.thread in old_threads or args.exc_value is None:
            old_hook(args)
        else:
            failures.append(args.exc_value)

    threading.excepthook = note
    try:
        yield
    finally:
        threading.excepthook = old_hook
    if failures:
        raise tvm.TVMError(f"{type(failures[0]).__name__}: {failures[0]}") from failures[0]


def reason_of(error: Exception) -> str:
    """Return the last line of an error of TVM's: its reason, without the C++ call stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".:") if lines else type(error).__name__
