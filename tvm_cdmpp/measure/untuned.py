"""Functions with TVM's own schedules, built so that TVM's runner times them as it times a search's.

So they run in the same processes, with the same empty caches and time limits, and on the same
devices, remote ones included.
"""

import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge import load_tvm, quiet_tvm, reason_of
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.extract import leaves_if_readable
from tvm_cdmpp.networks import (
    Network,
    class_of,
    lower_network,
    operator_of,
    own_operator_of,
    readable,
)

tvm = load_tvm()
_measure: Any = tvm.auto_scheduler.measure
_ErrorNo: Any = _measure.MeasureErrorNo

_WITHOUT_CHOICE = ("elementwise", "layout", "communication", "other")


@dataclass(frozen=True)
class OwnFunction:
    """A function of a network, with a schedule of TVM's own."""

    operator: str
    """Its class, as by `networks.own_operator_of`."""
    task_operator: str
    """The class that its task has, as by `networks.operator_of`."""
    name: str
    program: Any
    """`PrimFunc`."""
    leaves: Sequence[Any]
    """Of it, at least one, as from `extract.leaves_if_readable`."""

    @cached_property
    def key(self) -> str:
        """What names the program, whatever network it is of; one of TVM's versions has one."""
        program = self.program
        nameless = tvm.tir.PrimFunc(
            program.params, program.body, program.ret_type, program.buffer_map
        )
        return f"{self.operator} {int(tvm.ir.structural_hash(nameless)) % 2**64:016x}"

    def on(self, device: DeviceSpec) -> DeviceSpec:
        """Return a device as it is for this function."""
        return device.for_operator(self.task_operator, own=self.operator)


def own_functions(network: Network, target: Any, cores: int) -> list[OwnFunction]:
    """Return the functions of a network whose schedules matter, with TVM's own.

    Parameters
    ----------
    network
        Of which.
    target
        What to build for.
    cores
        Of the hardware that they are generated for.

    Raises
    ------
    NetworkError
        TVM cannot compile it for this target.
    """
    lowered = lower_network(network, target, None)
    functions = (
        OwnFunction(
            own_operator_of(name, program),
            operator_of(name),
            _name(name, program),
            program,
            leaves_if_readable(program, cores),
        )
        for name, program in lowered.programs.items()
        if class_of(name) not in _WITHOUT_CHOICE
    )
    return [function for function in functions if function.leaves]


def _name(function: str, program: Any) -> str:
    """Return a name with the sizes of what the function reads first, as tasks have it."""
    buffers = [program.buffer_map[parameter] for parameter in program.params[:2]]
    sizes = ("x".join(str(int(size)) for size in buffer.shape) for buffer in buffers)
    return f"{re.sub(r'_[0-9]+$', '', readable(function))} {','.join(sizes)} {buffers[0].dtype}"


def compile_function(function: OwnFunction, target: Any) -> Any:
    """Compile a function for a target; return TVM's module."""
    with quiet_tvm():
        return tvm.build(tvm.IRModule({"main": function.program}), target=target)


def build_function(function: OwnFunction, target: Any) -> Any:
    """Build a function as TVM's builder does a program; return its `BuildResult`.

    Parameters
    ----------
    function
        From `own_functions`.
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
