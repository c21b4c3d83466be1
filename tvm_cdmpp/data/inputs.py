"""Which files to import, and what is known about each: device, origin, licence.

A sources file is JSON: `{"schema": 1, "files": [{"pattern": "gpu-t4.*", "device": "nvidia-t4",
"source": "where it was published", "licence": "MIT", "network": "resnet_50", "target": "cuda"}]}`.
The first entry whose glob fits a file's name counts; all but `pattern` may be left out.
"""

import fnmatch
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tvm_cdmpp.data.schema import MANIFEST
from tvm_cdmpp.data.sidecars import is_sidecar
from tvm_cdmpp.data.taskfiles import TASK_FILE
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.files import parse_json

SOURCES_NAME = "sources.json"
_WORKLOADS = re.compile(r"workloads\.jsonl?(\.gz|\.xz)?")
_LOG = re.compile(r".+\.(json|jsonl|log)(\.gz|\.xz)?")
_DEVICE = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
# TenSet: measure_records/<device>/([<hash>,<shape>...],<target>).json; DAGs are in network_info.
_TENSET_RECORDS, _TENSET_TASKS = "measure_records", "network_info"
_TENSET = re.compile(r"\(\[[0-9a-f]{32},.*\],(?P<target>\w+)\)\.json(\.gz|\.xz)?")
_TENSET_DEVICES = {
    "e5-2673": "intel-e5-2673",
    "epyc-7452": "amd-epyc-7452",
    "graviton2": "aws-graviton2",
    "k80": "nvidia-k80",
    "platinum-8272": "intel-platinum-8272",
    "t4": "nvidia-t4",
}
_TENSET_LICENCE = "CC-BY-4.0"
_FIELDS = ("pattern", "device", "source", "licence", "network", "target")


@dataclass(frozen=True, kw_only=True, slots=True)
class LogFile:
    """A log to import."""

    path: Path
    name: str
    """Its path below the folder that was given; what results call it."""
    device: str
    """Lower-case words with dashes, such as `nvidia-v100`."""
    source: str = ""
    """Where it was published."""
    licence: str = ""
    network: str = ""
    """The network it was made for."""
    target: str = ""
    """Kind of target its records must have; that of the first kept record if empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What some paths on the command line come down to."""

    logs: tuple[LogFile, ...]
    workloads: tuple[Path, ...]
    """Files that give the DAGs of workload keys."""
    ignored: tuple[str, ...]
    """Files that are no logs by their names, or are what commands write next to logs."""


def find_inputs(
    paths: Sequence[Path],
    device: str | None = None,
    sources: Path | None = None,
    workloads: Path | None = None,
) -> Inputs:
    """Find the logs under some paths.

    Parameters
    ----------
    paths
        Logs, or folders of them; TenSet's layout is known, from its top or from any folder of
        its `measure_records`.
    device
        Device of the logs about which the sources file says nothing.
    sources
        The sources file; `sources.json` next to the logs by default.
    workloads
        DAGs of workloads; by default `workloads.jsonl`, packed or not, next to the logs, and
        TenSet's `network_info` next to its `measure_records`.

    Raises
    ------
    ConfigError
        A path holds no log, the sources file is wrong, or nothing tells a log's device.
    """
    entries: dict[Path, list[dict[str, str]]] = {}
    logs: list[LogFile] = []
    found: dict[Path, None] = {workloads: None} if workloads else {}
    ignored: list[str] = []
    for path in paths:
        # TenSet's other folders hold programs that were not measured yet, and pickles.
        records = path / _TENSET_RECORDS
        given = records if records.is_dir() else path
        if not given.exists():
            raise ConfigError(f"{given} does not exist; give logs, or folders of logs")
        if not (given.is_dir() or given.is_file()):
            raise ConfigError(
                f"{given} is no file but a pipe or a device, and a log is read more than once; "
                "write it to a file first (logs packed by gz or xz are read as they are)"
            )
        root = given if given.is_dir() else given.parent
        chosen = _files_below(given) if root == given else [given]
        if workloads is None:
            found |= dict.fromkeys(_workloads_of(root.resolve()))
        file = sources or root / SOURCES_NAME
        if file not in entries:
            entries[file] = _read_sources(file) if sources or file.is_file() else []
        before = len(logs)
        for log in chosen:
            if _WORKLOADS.fullmatch(log.name) or log.name == SOURCES_NAME:
                continue
            name = _printable(log.relative_to(root))
            if is_sidecar(log.name) or (given.is_dir() and not _LOG.fullmatch(log.name)):
                ignored.append(name)
            else:
                logs.append(_describe(log, name, device, entries[file]))
        if len(logs) == before:
            raise ConfigError(
                f"{_printable(given)} holds no log (*.json, *.jsonl or *.log, plain, gz or xz)"
            )
    return Inputs(
        logs=tuple({log.path.resolve(): log for log in logs}.values()),
        workloads=tuple(found),
        ignored=tuple(ignored),
    )


def check_device_name(name: str) -> str:
    """Return a device's name if it is one.

    Raises
    ------
    ConfigError
        It is not made of lower-case words with dashes.
    """
    if not _DEVICE.fullmatch(name):
        raise ConfigError(
            f"a device is named by lower-case words with dashes, such as nvidia-v100; got '{name}'"
        )
    return name


def _files_below(folder: Path) -> list[Path]:
    """Return all files below a folder, but those of record stores."""
    files: list[Path] = []
    for root, folders, names in os.walk(folder):
        if MANIFEST in names:
            folders.clear()
        else:
            files += (Path(root, name) for name in names)
    return sorted(path for path in files if path.is_file())


def _printable(path: Path) -> str:
    """Return a path as text; a name may be any bytes."""
    return os.fsencode(path.as_posix()).decode(errors="backslashreplace")


def _workloads_of(folder: Path) -> list[Path]:
    """Return the files that give DAGs of the logs in a folder."""
    beside = [path for path in sorted(folder.iterdir()) if _WORKLOADS.fullmatch(path.name)]
    for above in (folder, *folder.parents):
        if above.name == _TENSET_RECORDS:
            tasks = sorted((above.parent / _TENSET_TASKS).glob("*.task.pkl"))
            return [*beside, *(path for path in tasks if TASK_FILE.fullmatch(path.name))]
    return beside


def _describe(
    path: Path, name: str, device: str | None, entries: Sequence[dict[str, str]]
) -> LogFile:
    log = LogFile(path=path, name=name, device=device or "")
    tenset = _TENSET.fullmatch(path.name)
    if tenset:
        log = replace(
            log, device=log.device or _TENSET_DEVICES.get(path.parent.name, ""), source="TenSet",
            licence=_TENSET_LICENCE, target=tenset["target"],
        )  # fmt: skip
    for entry in entries:
        if fnmatch.fnmatchcase(path.name, entry["pattern"]):
            known: dict[str, Any] = {k: v for k, v in entry.items() if k != "pattern"}
            log = replace(log, **known)
            break
    if not log.device:
        raise ConfigError(
            f"the device of {_printable(path)} is not known: give --device NAME, or name it in a "
            "sources file"
        )
    check_device_name(log.device)
    return log


def _read_sources(path: Path) -> list[dict[str, str]]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the sources file {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != 1:
        raise ConfigError(f"the sources file {path} must be an object with 'schema': 1")
    entries = content.get("files")
    if not isinstance(entries, list):
        raise ConfigError(f"the sources file {path} must hold a list 'files'")
    for number, entry in enumerate(entries):
        if (
            not isinstance(entry, dict)
            or "pattern" not in entry
            or not all(k in _FIELDS and isinstance(v, str) for k, v in entry.items())
        ):
            raise ConfigError(
                f"entry {number} of 'files' in {path} must give a pattern and may give "
                f"{', '.join(_FIELDS[1:])}, all of them texts; got {entry!r}"
            )
    return entries
