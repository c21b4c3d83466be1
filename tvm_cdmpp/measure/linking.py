"""Programs for this machine are linked where they are built.

TVM packs what it builds, and unpacks and links it before it runs, one program after the other. That
takes half of the time of measuring a small operator; as part of building it is done on all cores.
The process that loads a program has all libraries loaded but the compiler's own. The mathematical
library is named nevertheless: without its symbols' versions the oldest would be called, which are
slower than those that the program would call elsewhere.
"""

import sys
from typing import Any

from tvm_cdmpp.bridge import load_tvm

_tvm = load_tvm()
_BuildFunc: Any = _tvm.auto_scheduler.measure.BuildFunc
_FUNCTIONS: dict[str, Any] = {
    "default": _tvm.contrib.tar.tar,
    "custom": _tvm.contrib.cc.cross_compiler(
        _tvm.contrib.cc.create_shared, options=["-nostdlib", "-lm", "-lgcc"]
    ),
}
"""By the names that TVM has for kinds of functions: what packs, and what links."""


def local_build_func() -> Any:
    """Return what `LocalBuilder` takes as its function for programs that run on this machine."""
    return _FUNCTIONS["custom"] if sys.platform == "linux" else "default"


def use_build_func(kind: str) -> None:
    """Let TVM pack or link as a builder expects; it knows only what the last one made expects."""
    if kind in _FUNCTIONS and kind != _BuildFunc.name:
        _BuildFunc.name, _BuildFunc.build_func = kind, _FUNCTIONS[kind]
