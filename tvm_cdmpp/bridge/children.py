"""What TVM's child processes need in their environment, given to them as they start.

TVM builds and measures programs, and serves RPC, in child processes that import `tvm` afresh. The
environment of this process, which is the user's, stays as it is.
"""

import inspect
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tvm_cdmpp.bridge import child
from tvm_cdmpp.devices import read_host_cpu


@dataclass(frozen=True, slots=True)
class Children:
    """What is put into the environment of child processes; nothing is taken out of it."""

    python_path: tuple[Path, ...] = ()
    """Folders that come first."""
    library_path: tuple[Path, ...] = ()
    """Folders that come first, but for the last one."""
    stub: Path | None = None
    """The folder of the driver's stub, which comes last: a real driver wins."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables that TVM reads while it is imported."""

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that is started now."""
        added = {
            "PYTHONPATH": _joined("PYTHONPATH", self.python_path),
            "LD_LIBRARY_PATH": _joined("LD_LIBRARY_PATH", self.library_path, self.stub),
        }
        given = {name: value for name, value in added.items() if value}
        return {**_num_threads(), **os.environ, **given, **self.settings}

    def equip(self, module: ModuleType) -> None:
        """Let a module start its processes in this environment; it calls `subprocess.Popen`."""
        module.subprocess = _Subprocess(self)  # type: ignore[attr-defined]

    @contextmanager
    def settings_here(self) -> Iterator[None]:
        """Set the variables in this process, too, until the end of the `with` block."""
        before = {name: os.environ.get(name) for name in self.settings}
        os.environ.update(self.settings)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def use_physical_cores() -> None:
    """Let programs that this process itself runs use all physical cores.

    TVM would take half of the logical ones, one core too few without hyper-threading. This sets
    `TVM_NUM_THREADS` unless it is set: for a program's own process, not for a library. The child
    processes that measure have it in any case.
    """
    for name, value in _num_threads().items():
        os.environ.setdefault(name, value)


class _Subprocess:
    """Stands for the module `subprocess` where TVM starts child processes, and equips these."""

    def __init__(self, children: Children) -> None:
        self._children = children

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def Popen(self, command: list[str], **kwargs: Any) -> Any:  # noqa: N802 -- the module's name
        """Start a process in the environment of TVM's children."""
        if command[1:3] == ["-m", "tvm.exec.popen_worker"]:
            command = [command[0], "-c", inspect.getsource(child), *command[3:]]
        return subprocess.Popen(command, **{"env": self._children.environment(), **kwargs})


def _num_threads() -> dict[str, str]:
    return {"TVM_NUM_THREADS": str(read_host_cpu().physical_cores)}


def _joined(name: str, first: Sequence[Path], last: Path | None = None) -> str:
    """Return a variable that holds folders, with further ones at its ends."""
    value = os.environ.get(name, "")
    front, back = [str(folder) for folder in first], [] if last is None else [str(last)]
    old = value.split(os.pathsep) if value else []
    return os.pathsep.join([*front, *(f for f in old if f not in (*front, *back)), *back])
