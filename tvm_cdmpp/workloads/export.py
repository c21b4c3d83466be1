"""Writing down what the workload keys of a log mean, for those who read the log later."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.files import write_atomically

tvm = load_tvm()


def write_workloads(log: Path, tasks: Sequence[Any]) -> None:
    """Write what the workload keys of a log mean into `workloads.jsonl` next to it.

    Lines of other logs and other workloads, which the file may hold already, are kept.

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
    """
    file = log.with_name("workloads.jsonl")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    known = set(lines)
    for task in tasks:
        entry = {
            "workload_key": str(task.workload_key),
            "files": [log.name],
            "dag": tvm.ir.save_json(task.compute_dag.tensors),
        }
        line = json.dumps(entry)
        if line not in known:
            lines.append(line)
    write_atomically(file, "".join(f"{line}\n" for line in lines).encode())
