"""Writing down what the workload keys of a log mean, for those who read the log later."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge import task_dag
from tvm_cdmpp.files import locked, write_atomically

_PATIENCE_S = 60.0


def write_workloads(log: Path, tasks: Sequence[Any]) -> None:
    """Write what the workload keys of a log mean into `workloads.jsonl` next to it.

    Lines of other logs and other workloads, which the file may hold already, are kept; searches
    that start side by side take turns.

    Parameters
    ----------
    log
        The log.
    tasks
        Its tasks (`SearchTask`).

    Raises
    ------
    OSError
        The file cannot be read or written.
    RecordError
        Another process is writing it, and does not end.
    """
    file = log.with_name("workloads.jsonl")
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(log.with_name(".workloads.jsonl.lock"), f"a change of {file}", wait_s=_PATIENCE_S):
        _add(file, log.name, tasks)


def _add(file: Path, log: str, tasks: Sequence[Any]) -> None:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    known = set(lines)
    for task in tasks:
        entry = {
            "workload_key": str(task.workload_key),
            "files": [log],
            "dag": task_dag(task),
        }
        line = json.dumps(entry)
        if line not in known:
            lines.append(line)
    write_atomically(file, "".join(f"{line}\n" for line in lines).encode())
