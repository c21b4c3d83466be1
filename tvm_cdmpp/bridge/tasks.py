"""What is said of a `SearchTask`: its name, its key, its DAG."""

from dataclasses import astuple
from typing import Any

from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.devices.hardware import Hardware
from tvm_cdmpp.errors import RecordError

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler


def task_name(task: Any) -> str:
    """Return a short name of a task: TVM's description, or the workload's function."""
    return str(task.desc) or str(task.workload_key)


def task_key(task: Any) -> str:
    """Return what tells tasks apart: workload, target, layout option and hardware parameters."""
    parameters = task.hardware_params  # None where a log has none
    hardware = None if parameters is None else astuple(Hardware.of(parameters))
    return f"{task.workload_key} {task.target} {int(task.layout_rewrite_option)} {hardware}"


def with_dag(task: Any) -> Any:
    """Return the task itself, or one rebuilt from its workload key if it comes from a log.

    Raises
    ------
    RecordError
        Its workload is not registered.
    """
    if task.compute_dag is not None:
        return task
    try:
        return auto_scheduler.SearchTask(
            workload_key=task.workload_key,
            target=task.target,
            hardware_params=task.hardware_params,
            layout_rewrite_option=task.layout_rewrite_option,
        )
    except (KeyError, ValueError, tvm.TVMError) as error:
        raise RecordError(
            f"The workload {task.workload_key} of a record is not registered; extract the tasks "
            "of its network first, or register its function."
        ) from error
