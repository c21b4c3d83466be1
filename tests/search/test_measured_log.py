"""Logs as a reader sees them: DAGs from beside the log, nothing left out in silence."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.search.logs import TARGET, write_tiny_log
from tests.tiny_tasks import auto_scheduler, invent, tiny_matmul
from tvm_cdmpp.bridge import append_records, task_name
from tvm_cdmpp.devices import DeviceCalibration, Levels, find_device
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.search import read_measured_log
from tvm_cdmpp.workloads import write_workloads


def test_programs_keep_their_lines_and_failures_are_counted(tmp_path: Path) -> None:
    log = read_measured_log(write_tiny_log(tmp_path / "log.json"))
    assert [list(task.lines) for task in log.tasks] == [list(range(1, 10)), list(range(10, 19))]
    assert log.num_records == 18
    assert not log.problems
    for task in log.tasks:
        assert task.failures == {"build failed": 1}
        assert np.isinf(task.latencies_s).tolist() == [False, True] + [False] * 7
        assert task.best == 8
        assert (task.asts.leaf_counts > 0).all()
        assert task.machine.device.name == "epyc-7452"
        assert (task.spent_s > 0).all()
    assert log.of_line(12) == (log.tasks[1], 2)


def test_a_task_has_the_calibrated_level_of_its_operator(tmp_path: Path) -> None:
    levels = Levels(weights="some", level=0.25, operators={"matmul": 1.0})
    device = replace(find_device("epyc-7452"), calibration=DeviceCalibration(levels=(levels,)))
    log = read_measured_log(write_tiny_log(tmp_path / "log.json"), device)
    assert [task.machine.device.level("some") for task in log.tasks] == [1.0, 1.0]


def test_each_line_has_its_own_hardware(tmp_path: Path) -> None:
    """As lines of two machines in one log; what cannot be is a problem of its line alone."""
    path = write_tiny_log(tmp_path / "log.json")
    before = read_measured_log(path)
    lines = path.read_bytes().splitlines()
    cores = before.tasks[0].machine.hardware.cores
    hardware = b"[%d, 64, 64, " % cores
    assert hardware in lines[0] and hardware in lines[1]
    lines[0] = lines[0].replace(hardware, b"[%d, 64, 64, " % (cores + 1))
    lines[1] = lines[1].replace(hardware, b"[%d, -64, 64, " % cores)
    path.write_bytes(b"\n".join(lines) + b"\n")
    log = read_measured_log(path)
    assert set(log.problems) == {2}
    assert [task.lines[0] for task in log.tasks] == [1, 3, 10]
    assert [task.machine.hardware.cores for task in log.tasks] == [cores + 1, cores, cores]
    assert (log.tasks[2].asts.vectors == before.tasks[1].asts.vectors).all()


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = write_tiny_log(tmp_path / "log.json")
    lines = path.read_bytes().splitlines()
    unknown = lines[4].replace(b"tiny_matmul", b"no_such_function")
    foreign = lines[5].replace(b'["SP", 2', b'["SP", 77', 1)
    path.write_bytes(b"\n".join([*lines[:4], unknown, foreign, b"{", *lines[7:]]) + b"\n")
    log = read_measured_log(path)
    assert set(log.problems) == {5, 6, 7}
    assert "no_such_function" in log.problems[5]
    assert log.num_records == 15
    with pytest.raises(RecordError, match=r"Line 7 of .*log\.json cannot be used"):
        log.of_line(7)
    with pytest.raises(RecordError, match="no such record"):
        log.of_line(99)


def test_a_renamed_log_is_read_and_a_moved_one_lacks_its_workloads(tmp_path: Path) -> None:
    graph = auto_scheduler.ComputeDAG(tiny_matmul(64, 32, 16))
    task = auto_scheduler.SearchTask(
        compute_dag=graph, workload_key=graph.workload_key(), target=TARGET
    )
    path = tmp_path / "log.json"
    append_records(path, *invent(task, [1e-5, 2e-5]))
    write_workloads(path, [task])
    renamed, moved = path.rename(tmp_path / "renamed.json"), tmp_path / "other" / "log.json"
    assert read_measured_log(renamed).num_records == 2
    renamed.with_name("log.json").write_text("")  # the name is another log's now
    with pytest.raises(RecordError, match=r"workloads\.jsonl does not say .* in renamed\.json"):
        read_measured_log(renamed)
    alone = tmp_path / "alone" / "copy.json"
    alone.parent.mkdir()
    for file in (renamed, renamed.with_name("workloads.jsonl")):
        shutil.copy(file, alone.parent)
    (alone.parent / renamed.name).rename(alone)
    assert read_measured_log(alone).num_records == 2  # with no other log there
    moved.parent.mkdir()
    renamed.rename(moved)
    with pytest.raises(RecordError, match=rf"{moved.with_name('workloads.jsonl')} is missing"):
        read_measured_log(moved)


def test_tasks_are_called_as_in_the_search(tmp_path: Path) -> None:
    graph = auto_scheduler.ComputeDAG(tiny_matmul(64, 32, 16))
    path = tmp_path / "log.json"
    for desc, name in (("", "reduction"), ("vm_mod_fused_nn_dense_add", "dense_add")):
        task = auto_scheduler.SearchTask(
            compute_dag=graph, workload_key=graph.workload_key(), target=TARGET, desc=desc
        )
        append_records(path, *invent(task, [1e-5]))
        write_workloads(path, [task])
        (found,) = read_measured_log(path).tasks
        assert found.name == f"{name} 64x16,16x32 float32"
    assert found.name == task_name(task)
    assert len((tmp_path / "workloads.jsonl").read_text().splitlines()) == 1


def test_a_log_of_which_nothing_can_be_used_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text("{}\n{\n")
    with pytest.raises(RecordError, match=r"No record of the log .* can be used; line 1: "):
        read_measured_log(path)
    path.write_bytes(b"\x08\x08onnx\xff\n")
    with pytest.raises(
        RecordError, match=r"log.json is no Ansor log.* line 1: .*it is no text\. Gi"
    ):
        read_measured_log(path)
    for nothing in ("", "# a comment\n\n"):
        path.write_text(nothing)
        with pytest.raises(RecordError, match=r"no measure record: it is empty.* Give one"):
            read_measured_log(path)


def test_lines_for_another_kind_of_device_are_counted(tmp_path: Path) -> None:
    path = write_tiny_log(tmp_path / "log.json", 2)
    first = path.read_text().splitlines()[0]
    path.write_text(path.read_text() + re.sub(r"llvm [^\"]*", "cuda -arch=sm_70", first) + "\n")
    log = read_measured_log(path, find_device("epyc-7452"))
    assert (log.num_records, list(log.problems)) == (4, [5])
    assert "'epyc-7452' is a cpu, and programs for cuda" in log.problems[5]
