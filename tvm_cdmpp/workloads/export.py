"""Writing down what the workload keys of a log mean, for those who read the log later."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge import task_dag
from tvm_cdmpp.data import add_workloads


def write_workloads(log: Path, tasks: Sequence[Any]) -> None:
    """Write what the workload keys of a log mean, as `add_workloads` does.

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
    # A log does not have the names of tasks, so that they would be called otherwise by its readers.
    functions = {str(task.workload_key): str(task.desc) for task in tasks if task.desc}
    add_workloads(log, ((str(task.workload_key), task_dag(task)) for task in tasks), functions)
