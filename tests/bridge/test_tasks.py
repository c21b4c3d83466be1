from typing import Any

import pytest

from tests.tiny_tasks import auto_scheduler, matmul, tvm
from tvm_cdmpp.bridge.target import default_target
from tvm_cdmpp.bridge.tasks import task_name, task_names
from tvm_cdmpp.networks.network import extract_tasks, load_network


def test_names_say_operators_shapes_and_type() -> None:
    tasks, _ = extract_tasks(load_network("mlp"), default_target())
    assert sorted(task_names(tasks)) == [
        "batch_matmul 1x1x128,1x64x128 float32",
        "batch_matmul 1x1x64,1x10x64 float32",
        "batch_matmul 1x1x784,1x128x784 float32",
        "softmax 1x10 float32",
    ]


@pytest.mark.parametrize(
    ("description", "operators"),
    [
        ("vm_mod_fused_nn_conv2d_add_nn_relu_12", "conv2d_add_relu"),
        ("vm_mod_fused_nn_contrib_conv2d_winograd_without_weight_transform", "conv2d_winograd"),
        ("", "tiny_matmul"),
    ],
)
def test_names_leave_out_what_all_share(description: str, operators: str) -> None:
    task = auto_scheduler.SearchTask(
        workload_key=matmul(4, 8, 16).workload_key,
        target=tvm.target.Target("llvm"),
        desc=description,
    )
    assert task_name(task).split() == [operators, "4x16,16x8", "float32"]


def slice_of(tensor: Any, step: int) -> Any:
    return tvm.te.compute((4,), lambda i: tensor[i * step], name="B")


def test_two_tasks_of_one_name_are_told_apart() -> None:
    te = tvm.te
    tasks = []
    for step in (1, 2):  # read alike, computed differently
        a = te.placeholder((8,), name="A")
        b = slice_of(a, step)
        key = auto_scheduler.workload_registry.register_workload_tensors(
            auto_scheduler.ComputeDAG([a, b]).workload_key(), [a, b]
        )
        tasks.append(auto_scheduler.SearchTask(workload_key=key, target="llvm", desc="slice"))
    names = task_names([*tasks, matmul(4, 8, 16)])
    assert len(set(names)) == 3
    assert all(name.startswith("slice 8 float32 #") for name in names[:2])
    assert names[2] == "tiny_matmul 4x16,16x8 float32"
