"""Files of results: where each comes from, and how a stopped run goes on with it."""

import json
import sys
from collections.abc import Sequence
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


def resume(
    fresh: dict[str, Any], path: Path, same: Sequence[str] = ("settings",)
) -> dict[str, Any]:
    """Return the content of a result file that a stopped run left; `fresh` if there is none.

    Parameters
    ----------
    fresh
        What the file of a new run holds at first.
    path
        The file.
    same
        Entries that must be as in `fresh`; else the run starts anew, and that is printed.
    """
    if not path.exists():
        return fresh
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    expected = json.loads(json.dumps(fresh))
    if all(found.get(name) == expected[name] for name in same):
        return found
    print(f"{path.name} is of other {' or '.join(same)}; starting anew", flush=True)
    return fresh


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Return the content of the result files of a folder, by name; all of the same settings.

    Raises
    ------
    ValueError
        They are of different settings.
    """
    files = sorted(folder.glob("*.json"))
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    others = [
        file.name
        for file, result in zip(files, found, strict=True)
        if result["settings"] != found[0]["settings"]
    ]
    if others:
        raise ValueError(
            f"{', '.join(others)} in '{folder}' must be of the settings of {files[0].name}; remove "
            "what is old, or measure it anew"
        )
    return found


def _version(package: str) -> str:
    """Return the version of a distribution, or of the one for CPUs that stands in for it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return version(f"{package}-cpu")


def _portable(arguments: list[str]) -> list[str]:
    """Replace folders of this machine by their last part."""
    return [Path(word).name if word.startswith("/") else word for word in arguments]
