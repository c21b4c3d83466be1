"""TenSet's layout: logs beside pickles of tasks, which are read but never unpickled."""

import pickle  # noqa: TID251 (TenSet's files are pickles)
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.data.logs import import_all, records, task_of, write_log
from tests.extract import sampling
from tvm_cdmpp.data.inputs import find_inputs
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.data.taskfiles import read_task_file
from tvm_cdmpp.data.workload_book import WorkloadBook
from tvm_cdmpp.errors import RecordError

NETWORK = "((bert_tiny,[(1,128)]),llvm).task.pkl"


def hashed(size: int) -> Any:
    """Return a task under the hash of its DAG, as tasks of networks are."""
    dag = task_of(size).compute_dag
    return sampling.tvm.auto_scheduler.SearchTask(
        compute_dag=dag, workload_key=dag.workload_key(), target=task_of(size).target
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tasks = [hashed(37), hashed(80)]
    logs, info = tmp_path / "measure_records" / "epyc-7452", tmp_path / "network_info"
    logs.mkdir(parents=True)
    info.mkdir()
    (tmp_path / "to_measure_programs").mkdir()
    for task, size in zip(tasks, (37, 80), strict=True):
        made = records(3, size)
        for record in made:
            record["i"][0][0] = task.workload_key
        name = task.workload_key.replace('"', "").replace(" ", "")
        write_log(logs / f"({name},llvm).json", made)
        write_log(tmp_path / "to_measure_programs" / f"({name},llvm).json", made)
    (info / NETWORK).write_bytes(pickle.dumps((tasks, [1, 2])))
    other = info / NETWORK.replace("bert_tiny", "bert_base")
    other.write_bytes(pickle.dumps(([hashed(80)], [3])))
    return tmp_path


@pytest.mark.parametrize("given", [".", "measure_records", "measure_records/epyc-7452"])
def test_tenset_is_imported_from_anywhere_in_it(folder: Path, given: str) -> None:
    found = find_inputs([folder / given])
    assert {log.device for log in found.logs} == {"amd-epyc-7452"}
    assert not found.ignored
    out = folder / "store"
    report = import_all(out, *found.logs, known=WorkloadBook.read(found.workloads))
    assert [log.bins for log in report.inputs] == [{"kept": 3}, {"kept": 3}]
    networks = {
        tuple(row["names"]): sorted(row["networks"])
        for row in RecordStore.open(out).workloads.to_pylist()
    }
    assert networks == {
        (hashed(37).workload_key,): ["bert_tiny (1,128)"],
        (hashed(80).workload_key,): ["bert_base (1,128)", "bert_tiny (1,128)"],
    }


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_all_tasks_are_read(tmp_path: Path, protocol: int) -> None:
    tasks = [hashed(size) for size in (37, 80, 96)]
    path = tmp_path / NETWORK
    path.write_bytes(pickle.dumps((tasks, [1] * 3), protocol))
    entries = list(read_task_file(path))
    assert [entry["workload_key"] for entry in entries] == [t.workload_key for t in tasks]
    for entry, task in zip(entries, tasks, strict=True):
        assert entry["dag"] == sampling.tvm.ir.save_json(task.compute_dag.tensors)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_in_a_task_file_is_run(tmp_path: Path) -> None:
    path, sprung = tmp_path / NETWORK, tmp_path / "sprung"
    path.write_bytes(pickle.dumps(([hashed(37), Trap(sprung)], [1, 1])))
    assert len(WorkloadBook.read([path])) == 1
    assert not sprung.exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", None])
def test_a_damaged_task_file_is_named(folder: Path, content: bytes | None) -> None:
    path = folder / "network_info" / NETWORK
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(RecordError, match=r"bert_tiny.*cannot be read as a task file"):
        WorkloadBook.read([path])


def test_logs_without_task_files(folder: Path) -> None:
    shutil.rmtree(folder / "network_info")
    found = find_inputs([folder])
    assert not found.workloads
    assert len(found.logs) == 2
