"""What Ansor tells a search about the machine."""

import json
from typing import Any

import pytest

from tests import tiny_tasks
from tvm_cdmpp.devices.hardware import Hardware

FIGURES = (4, 32, 128, 49152, 65536, 1024, 8, 16)


def parameters(*figures: int) -> Any:
    return tiny_tasks.auto_scheduler.HardwareParams(*figures)


def test_of_reads_every_parameter() -> None:
    assert Hardware.of(parameters(*FIGURES)) == Hardware(
        cores=4, vector_bytes=32, line_bytes=128, shared_bytes=49152, local_bytes=65536,
        threads=1024, vthreads=8, warp=16,
    )  # fmt: skip


def test_values_are_in_the_order_of_logs() -> None:
    auto_scheduler = tiny_tasks.auto_scheduler
    task = auto_scheduler.SearchTask(
        func=tiny_tasks.tiny_matmul, args=(8, 8, 8), target=tiny_tasks.TARGET,
        hardware_params=parameters(*FIGURES),
    )  # fmt: skip
    line = auto_scheduler.measure_record.dump_record_to_string(
        auto_scheduler.MeasureInput(task, task.compute_dag.init_state),
        auto_scheduler.MeasureResult([1.0], 0, "", 0.1, 1.0),
    )
    logged = json.loads(line)["i"][0][2]
    assert list(Hardware(*logged).values()) == logged == list(FIGURES)


def test_values_can_be_divided_by() -> None:
    """A GPU's task has no cores to speak of, and a hand-made one may leave all at zero."""
    assert Hardware.of(parameters(-1, 16, 64, 1, 2, 3, 4, 5)).values() == (
        -1,
        16,
        64,
        1,
        2,
        3,
        4,
        5,
    )
    assert Hardware.of(parameters(*[0] * 8)).values() == (0, 1, 1, 0, 0, 0, 0, 0)
    assert all(isinstance(value, float) for value in Hardware().values())


@pytest.mark.parametrize(("target", "has_warps"), [("llvm", False), ("cuda -arch=sm_80", True)])
def test_of_a_task(target: str, has_warps: bool) -> None:
    tvm = tiny_tasks.tvm
    limits = parameters(-1, 16, 64, 49152, 2**31 - 1, 1024, 8, 32) if has_warps else None
    task = tiny_tasks.auto_scheduler.SearchTask(
        func=tiny_tasks.tiny_matmul, args=(8, 8, 8), target=tvm.target.Target(target),
        hardware_params=limits,
    )  # fmt: skip
    hardware = Hardware.of(task.hardware_params)
    assert hardware.vector_bytes > 0
    assert hardware.line_bytes > 0
    assert (hardware.warp > 1) == has_warps
