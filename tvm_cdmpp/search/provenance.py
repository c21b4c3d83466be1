"""Where a result comes from: this machine, its versions, and the commit of this package."""

import platform
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import tvm_cdmpp
from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.devices import read_host_cpu


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, system and versions, ready for JSON."""
    cpu = read_host_cpu()
    return {
        "cpu": cpu.name,
        "cpu_generation": cpu.generation,
        "physical_cores": cpu.physical_cores,
        "system": platform.platform(),
        "python": platform.python_version(),
        "tvm": str(load_tvm().__version__),
        "tvm_cdmpp": tvm_cdmpp.__version__,
    }


def find_commit() -> str | None:
    """Return the commit of this package, marked if files differ from it; None outside of git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with suppress(OSError, subprocess.CalledProcessError):
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails outside of our checkout
        return git("describe", "--always", "--dirty", "--abbrev=12")
    return None
