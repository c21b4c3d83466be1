"""What is said of a `SearchTask`: its name."""

from typing import Any


def task_name(task: Any) -> str:
    """Return a short name of a task: TVM's description, or the workload's function."""
    return str(task.desc) or str(task.workload_key)
