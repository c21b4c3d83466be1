"""Measure records of published Ansor logs, with the compute DAGs of their workloads.

A folder of logs holds `<name>.jsonl.xz` files of records, as Ansor writes them, and
`workloads.jsonl.xz`, whose lines give the DAG of a workload key: `dag` is `tvm.ir.save_json` of its
tensors, and `files` is "*" or the list of the logs in which the key has this meaning.

Logs are streamed and sampled while they are read, so memory is bounded by what is kept. Every line
that is not kept is counted under a reason, and the first line of each reason is named.

Networks that the project keeps for its final evaluation are never read: neither their logs nor any
workload that occurs in them.
"""

import lzma
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from tvm_cdmpp.tvm_runtime import load_tvm

tvm = load_tvm()

RESERVED_NETWORKS = ("resnet_50", "mobilenet_v2", "bert")
_RESERVED = re.compile(
    r"(?<!wide[_-])resnet[_-]?50|mobilenet[_-]?v?2|bert|Lurkrazy|FamilySeer", re.IGNORECASE
)
"""Also the two sources whose logs mix these networks with others."""

_REFUSED_OPTIONS = re.compile(r"\s*-(link-params=\S+|mcpu=apple-latest)")
"""Options of older targets that TVM 0.17 does not know."""


@dataclass
class Skipped:
    """Lines that were not kept.

    Attributes
    ----------
    counts
        How many, by reason.
    first
        File, line and detail of the first one, by reason.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, where: str, n: int = 1) -> None:
        """Count lines under a reason."""
        self.counts[reason] += n
        self.first.setdefault(reason, where)

    def to_json(self) -> dict[str, Any]:
        """Return counts and first examples."""
        return {
            reason: {"count": count, "first": self.first[reason]}
            for reason, count in self.counts.most_common()
        }


@dataclass
class TaskRecords:
    """Successful records of one workload on one device.

    Attributes
    ----------
    target
        As TVM 0.17 accepts it.
    parameters
        TVM's hardware parameters.
    lines
        The log lines, without newlines.
    latencies_s
        Mean measured seconds of each line.
    dag
        `tvm.ir.save_json` of the DAG's tensors.
    """

    key: str
    target: str
    parameters: tuple[int, ...]
    layout_rewrite_option: int
    dag: str
    lines: list[bytes] = field(default_factory=list)
    costs_s: list[float] = field(default_factory=list)
    num_seen: int = 0

    @property
    def latencies_s(self) -> npt.NDArray[np.float64]:
        """Mean measured seconds of each line."""
        return np.array(self.costs_s)

    def compute_dag(self) -> Any:
        """Return the workload's `ComputeDAG`."""
        return tvm.auto_scheduler.ComputeDAG(list(tvm.ir.load_json(self.dag)))


def sample_records(
    folder: Path, patterns: Sequence[str], per_workload: int, seed: int, skipped: Skipped
) -> list[TaskRecords]:
    """Draw successful records from logs, at most so many of each workload.

    Parameters
    ----------
    folder
        Holds the logs and `workloads.jsonl.xz`.
    patterns
        Globs of the logs of one device; those of reserved networks are left out.
    per_workload
        Records to keep of each workload, drawn without replacement.
    seed
        One seed, one sample.
    skipped
        Where lines that are not kept are counted.

    Returns
    -------
    tasks
        By workload key; in the order of the logs.
    """
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    files = [path for path in files if not _RESERVED.search(path.name)]
    if not files:
        raise FileNotFoundError(f"{folder} holds no log that fits {', '.join(patterns)}")
    reserved = _reserved_keys(folder)
    tasks: dict[str, TaskRecords] = {}
    for path in files:
        dags = _load_dags(folder, path.name)
        # A generator per file, so that a file's sample does not depend on the others.
        generator = random.Random(f"{seed} {path.name}")
        for record in _records(path, skipped):
            key, where = record.key, record.where
            if key in reserved:
                skipped.add("workload of a reserved network", f"{where}: {key}")
                continue
            if key not in dags:
                skipped.add("workload without a DAG", f"{where}: {key}")
                continue
            if key not in tasks:
                accepted = _REFUSED_OPTIONS.sub("", record.target)
                tasks[key] = TaskRecords(
                    key, accepted, record.parameters, record.layout_rewrite_option, dags[key]
                )
            task = tasks[key]
            if (record.parameters, record.layout_rewrite_option) != (
                task.parameters,
                task.layout_rewrite_option,
            ):
                skipped.add("other hardware or layout option than the first", f"{where}: {key}")
            elif not _keep(task, record, per_workload, generator):
                skipped.add("not drawn", where)
    return list(tasks.values())


@dataclass(frozen=True)
class _Record:
    """A line that holds a successful measurement, and where it is."""

    where: str
    line: bytes
    key: str
    target: str
    parameters: tuple[int, ...]
    layout_rewrite_option: int
    latency_s: float


def _records(path: Path, skipped: Skipped) -> Iterator[_Record]:
    """Read a log, and count the lines that are not successful measurements."""
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path.name}:{number}"
        try:
            record = orjson.loads(line)
            (key, target, parameters, _, option, *_), _ = record["i"]
            costs_s, error_no, *_ = record["r"]
            latency_s = float(np.mean(costs_s))
        except (ValueError, KeyError, TypeError) as error:
            skipped.add("not a measure record", f"{where}: {error}")
            continue
        if error_no != 0:
            skipped.add("measurement failed", f"{where}: error {error_no}")
        elif not (np.isfinite(latency_s) and latency_s > 0):
            skipped.add("latency not positive", f"{where}: {latency_s}")
        else:
            yield _Record(where, line, key, target, tuple(parameters), option, latency_s)


def _keep(task: TaskRecords, record: _Record, capacity: int, generator: random.Random) -> bool:
    """Offer a record to a task's reservoir; false if it, or one for it, was left out."""
    task.num_seen += 1
    if len(task.lines) < capacity:
        task.lines.append(record.line)
        task.costs_s.append(record.latency_s)
        return True
    place = generator.randrange(task.num_seen)
    if place < capacity:
        task.lines[place] = record.line
        task.costs_s[place] = record.latency_s
    return False


def _lines(path: Path) -> Iterator[bytes]:
    with lzma.open(path) as file:
        for line in file:
            yield line.rstrip(b"\r\n")


def _workloads(folder: Path) -> Iterable[dict[str, Any]]:
    return map(orjson.loads, _lines(folder / "workloads.jsonl.xz"))


def _load_dags(folder: Path, file_name: str) -> dict[str, str]:
    """Return the DAG of every workload key as this log means it."""
    general: dict[str, str] = {}
    specific: dict[str, str] = {}
    for workload in _workloads(folder):
        if workload["files"] == "*":
            general[workload["workload_key"]] = workload["dag"]
        elif file_name in workload["files"]:
            specific[workload["workload_key"]] = workload["dag"]
    return {**general, **specific}


def _reserved_keys(folder: Path) -> frozenset[str]:
    """Return the workload keys of reserved networks: by their logs, and by what the DAGs say."""
    keys = {
        workload[name]
        for workload in _workloads(folder)
        if _RESERVED.search(str(workload["derived_from"]))
        for name in ("workload_key", "key_in_tvm_0_17")
        if name in workload
    }
    for path in folder.glob("*.jsonl.xz"):
        if _RESERVED.search(path.name):
            keys.update(orjson.loads(line)["i"][0][0] for line in _lines(path))
    return frozenset(keys)
