"""What is said of a `SearchTask`: its name, its key, its DAG."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.devices import Hardware
from tvm_cdmpp.errors import RecordError

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler

_NAMED_INPUTS = 2  # data and weight


def task_name(task: Any) -> str:
    """Return a short name of a task: its operators, the shapes of data and weight, the type.

    An example is `conv2d_add_relu 1x56x56x64,3x3x64x64 float32`.
    """
    tensors = list(with_dag(task).compute_dag.tensors)
    reads = [t for t in tensors if isinstance(t.op, tvm.te.PlaceholderOp)] or tensors
    return f"{_operators(task)} {named_shapes(reads)} {tensors[-1].dtype}"


def named_shapes(inputs: Sequence[Any]) -> str:
    """Return the shapes that a name gives of some tensors or buffers: those of data and weight."""
    return ",".join("x".join(map(str, each.shape)) for each in inputs[:_NAMED_INPUTS])


def task_names(tasks: Sequence[Any]) -> tuple[str, ...]:
    """Return names of tasks that tell them apart: two alike get the start of their workload's hash.

    Where that is the same, too, one workload comes twice.
    """
    names = [task_name(task) for task in tasks]
    times = Counter(names)
    return tuple(
        f"{name} #{_digest(task)}" if times[name] > 1 else name
        for name, task in zip(names, tasks, strict=True)
    )


def task_dag(task: Any) -> str:
    """Return a task's DAG as TVM's JSON."""
    return str(tvm.ir.save_json(task.compute_dag.tensors))


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
            f"The workload {task.workload_key} of a record is not registered; extract the tasks of "
            "its network first, or register its function"
        ) from error


def _operators(task: Any) -> str:
    """Return TVM's name without what many such names share, or the workload's function."""
    name = str(task.desc) or str(json.loads(task.workload_key)[0])
    for pattern in (r"^vm_mod_", r"^fused_", r"\bnn_|(?<=_)nn_", r"contrib_", r"_\d+$",
                    r"_without_weight_transform"):  # fmt: skip
        name = re.sub(pattern, "", name)
    return name


def _digest(task: Any) -> str:
    return hashlib.blake2b(str(task.workload_key).encode(), digest_size=2).hexdigest()
