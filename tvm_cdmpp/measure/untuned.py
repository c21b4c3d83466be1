"""Functions with TVM's own schedules, built so that TVM's runner times them as it times a search's.

So they run in the same processes, with the same empty caches and time limits, and on the same
devices, remote ones included.
"""

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge import load_tvm, quiet_tvm, reason_of
from tvm_cdmpp.networks import OwnFunction

tvm = load_tvm()
_measure: Any = tvm.auto_scheduler.measure
_ErrorNo: Any = _measure.MeasureErrorNo


def compile_function(function: OwnFunction, target: Any) -> Any:
    """Compile a function for a target; return TVM's module."""
    with quiet_tvm():
        return tvm.build(tvm.IRModule({"main": function.program}), target=target)


def build_function(function: OwnFunction, target: Any) -> Any:
    """Build a function as TVM's builder does a program; return its `BuildResult`.

    Parameters
    ----------
    function
        From `networks.own_functions`.
    target
        What to build for.
    """
    begin, parameters = time.time(), function.program.params
    buffers = [function.program.buffer_map[parameter] for parameter in parameters]
    arguments = [tvm.te.placeholder(buffer.shape, buffer.dtype) for buffer in buffers]
    folder = Path(tempfile.mkdtemp(prefix="tvm-cdmpp-"))  # TVM's runner removes it
    packed = folder / "function.tar"
    error, message = _ErrorNo.NO_ERROR, None
    try:
        compile_function(function, target).export_library(str(packed), fcompile=tvm.contrib.tar.tar)
    except (RuntimeError, OSError, ValueError, TypeError) as failure:
        shutil.rmtree(folder)
        error, message = _ErrorNo.COMPILE_HOST, reason_of(failure)
    return _measure.BuildResult(str(packed), arguments, error, message, time.time() - begin)


def build_all(
    inputs: Sequence[Any], functions: Sequence[OwnFunction | None], builder: Any, target: Any
) -> list[Any]:
    """Build programs of a search, side by side, and functions with TVM's own schedules.

    Parameters
    ----------
    inputs
        `MeasureInput` of each; those of functions are not looked at.
    functions
        Of each; None for a program of a search.
    builder
        TVM's.
    target
        What to build for.

    Returns
    -------
    built
        One `BuildResult` each.
    """
    pairs = list(zip(inputs, functions, strict=True))
    searched = [measured for measured, function in pairs if function is None]
    built = iter(builder.build(searched, verbose=0) if searched else ())
    return [build_function(own, target) if own is not None else next(built) for _, own in pairs]
