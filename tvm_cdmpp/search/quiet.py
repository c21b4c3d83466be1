"""Keep TVM from downloading schedules and from talking: while it compiles, and in its errors.

Without a context of AutoTVM's, every compilation looks for TopHub's schedules on the internet,
three times. An empty one is enough to stop that; operators then take their default schedules,
which also keeps a result from depending on what could be downloaded.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator

from tvm_cdmpp.tvm_runtime import load_tvm

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
        with warnings.catch_warnings(), tvm.autotvm.task.ApplyHistoryBest([]):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def reason_of(error: Exception) -> str:
    """Return the last line of an error of TVM's: its reason, without the C++ call stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".:") if lines else type(error).__name__
