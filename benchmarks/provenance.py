"""Where a result comes from: date, command, commit, machine and versions."""

import json
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tvm_cdmpp.search import describe_machine, find_commit

RESULTS = Path(__file__).parent / "results"


def provenance(*packages: str) -> dict[str, Any]:
    """Return what a result file says about its origin.

    Parameters
    ----------
    packages
        Distributions whose versions are listed next to Python's and TVM's.
    """
    module = Path(sys.argv[0]).stem
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python -m", f"benchmarks.{module}", *_portable(sys.argv[1:])]),
        "commit": find_commit(),
        "machine": {**describe_machine(), **{name: _version(name) for name in packages}},
    }


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write a result in one step, so that a killed run leaves a whole file; make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def _version(package: str) -> str:
    """Return the version of a distribution, or of the one for CPUs that stands in for it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return version(f"{package}-cpu")


def _portable(arguments: list[str]) -> list[str]:
    """Replace folders of this machine by their last part."""
    return [Path(word).name if word.startswith("/") else word for word in arguments]
