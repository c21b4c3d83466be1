"""Programs for this machine are linked where they are built.

TVM packs what it builds, and unpacks and links it before it runs, one program after the other. That
takes half of the time of measuring a small operator; as part of building it is done on all cores.
The process that loads a program has all libraries loaded but the compiler's own. The mathematical
library is named nevertheless: without its symbols' versions the oldest would be called, which are
slower than those that the program would call elsewhere. A compiler without that library, or without
its own, leaves linking to TVM.

TVM has one build function in a process, that of the builder made last. Builders from here leave it
alone, and have a kind of their own, so that a session can tell them from a user's.
"""

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tvm_cdmpp.bridge import load_tvm

_tvm = load_tvm()
_scheduler: Any = _tvm.auto_scheduler
_BuildFunc: Any = _scheduler.measure.BuildFunc
_cc = _tvm.contrib.cc

link: Any = _cc.cross_compiler(_cc.create_shared, options=["-nostdlib", "-lm", "-lgcc"])
"""Links object files or sources, as TVM takes a build function."""
_PACKED, _LINKED = "default", "tvm_cdmpp.linked"
_FUNCTIONS = {_PACKED: _tvm.contrib.tar.tar, _LINKED: link}


class SessionBuilder(_scheduler.LocalBuilder):
    """TVM's `LocalBuilder`, one build per core at a time, for use in a `MeasureSession`.

    Parameters
    ----------
    timeout_s
        Time after which a build counts as failed.
    is_local
        Whether programs run on this machine.
    """

    def __init__(self, timeout_s: int, *, is_local: bool) -> None:
        is_linking = is_local and sys.platform == "linux" and can_link(_cc.get_cc())
        self.__init_handle_by_constructor__(
            _scheduler._ffi_api.LocalBuilder,
            timeout_s,
            multiprocessing.cpu_count(),
            _LINKED if is_linking else _PACKED,
        )


@cache
def can_link(compiler: str | None) -> bool:
    """Tell whether a compiler has all that `link` asks of it, by linking once.

    What is linked calls a function that only the process knows, as programs do.
    """
    try:
        with TemporaryDirectory() as folder:
            source = Path(folder, "call.c")
            source.write_text(
                "int puts(const char *);\nint call(void) { return puts(__FILE__); }\n"
            )
            link(str(source.with_suffix(".so")), [str(source)])
    except (OSError, RuntimeError):
        return False
    return True


@contextmanager
def build_func_of(kind: str) -> Iterator[None]:
    """Let TVM pack or link as a builder of this kind expects; that of others is left as it is.

    TVM keeps one build function for all threads, so builds are for one thread at a time.
    """
    before = _BuildFunc.name, _BuildFunc.build_func
    if kind in _FUNCTIONS:
        _BuildFunc.name, _BuildFunc.build_func = kind, _FUNCTIONS[kind]
    try:
        yield
    finally:
        _BuildFunc.name, _BuildFunc.build_func = before
