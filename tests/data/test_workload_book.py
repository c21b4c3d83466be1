"""The identity of a DAG, and what keys mean in which log."""

import json
from pathlib import Path

import pytest

from tests.data.logs import inspector, task_of, workload_entry
from tests.extract import sampling
from tests.extract.sampling import te
from tvm_cdmpp.data.sidecars import add_workloads
from tvm_cdmpp.data.workload_book import WorkloadBook, is_hash, operator_class, workload_id
from tvm_cdmpp.errors import RecordError


def dag(n: int = 8, dtype: str = "float32", name: str = "A") -> str:
    a = te.placeholder((n, 4), dtype, name)
    b = te.placeholder((4, 6), dtype, f"{name}2")
    axis = te.reduce_axis((0, 4), name=f"k_{name}")
    c = te.compute(
        (n, 6), lambda i, j: te.sum(a[i, axis] * b[axis, j], axis=axis), name=f"C_{name}"
    )
    return str(sampling.tvm.ir.save_json([a, b, c]))


def write(path: Path, *entries: object) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_names_do_not_matter_but_types_do() -> None:
    assert workload_id(dag()) == workload_id(dag(name="other"))
    assert workload_id(dag()) != workload_id(dag(9))
    half = dag(dtype="float16")
    assert inspector.describe(half).workload_key == inspector.describe(dag()).workload_key
    assert workload_id(half) != workload_id(dag())


@pytest.mark.parametrize(
    ("builder", "operator"),
    [
        ("conv2d_nchw", "conv2d"),
        ("conv2d_winograd", "conv2d_winograd"),
        ("depthwise", "depthwise_conv2d"),
        ("conv3d_ncdhw", "conv3d"),
        ("batch_matmul", "batch_matmul"),
        ("dense", "matmul"),
        ("softmax", "softmax"),
        ("max_pool", "pool"),
        ("matmul", "reduction"),
        ("elementwise", "elementwise"),
    ],
)
def test_operator_classes(builder: str, operator: str) -> None:
    tensors = getattr(sampling, builder)()
    assert operator_class(str(sampling.tvm.ir.save_json(list(tensors)))) == operator


def test_one_key_may_mean_something_else_in_one_log(tmp_path: Path) -> None:
    plain = {"workload_key": '["f", 8]', "files": "*", "dag": dag(8)}
    special = {"workload_key": '["f", 8]', "files": ["a.json"], "dag": dag(9)}
    book = WorkloadBook.read([write(tmp_path / "w.jsonl", plain, special)])
    found, other = book.find('["f", 8]', "a.json"), book.find('["f",[8]]', "b.json")
    assert found is not None
    assert other is not None
    assert (found.dag, other.dag) == (dag(9), dag(8))
    assert book.find('["g", 8]', "a.json") is None
    assert len(book) == 2


def test_a_hash_means_what_it_meant_in_a_log_that_is_gone(tmp_path: Path) -> None:
    key = inspector.describe(dag()).workload_key
    entries = [{"workload_key": key, "files": [name], "dag": dag()} for name in ("a", "b")]
    half = {"workload_key": key, "files": ["c"], "dag": dag(dtype="float16")}
    name = {"workload_key": '["f", 8]', "files": ["a"], "dag": dag()}
    book = WorkloadBook.read([write(tmp_path / "one.jsonl", *entries, name)])
    found = book.find_renamed(key, {"b", "renamed"})
    assert found is not None
    assert found.dag == dag()
    assert book.find_renamed(key, {"a", "b", "of other types"}) is None
    assert book.find_renamed('["f", 8]', {"renamed"}) is None
    assert not book.candidates(key, "llvm", "renamed", inspector)
    book = WorkloadBook.read([write(tmp_path / "two.jsonl", *entries, half)])
    assert book.find_renamed(key, {"renamed"}) is None


def test_blank_lines_are_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "w.jsonl", {"workload_key": '["f", 8]', "files": "*", "dag": dag(8)})
    path.write_text(f"\n{path.read_text()}\r\n  \n{{\n")
    with pytest.raises(RecordError, match=r"w\.jsonl:5 is no workload: .* Remove the line"):
        WorkloadBook.read([path])
    path.write_text(path.read_text().removesuffix("{\n"))
    assert len(WorkloadBook.read([path])) == 1


def test_a_hash_must_be_that_of_its_dag() -> None:
    entry = workload_entry()
    good = inspector.describe(entry["dag"]).workload_key
    wrong = good.replace(good[2:10], "01234567")
    assert is_hash(good)
    assert not is_hash(task_of(37).workload_key)
    book = WorkloadBook()
    for key in (good, wrong):
        book._add({**entry, "workload_key": key})
    assert (
        book.checked(book.candidates(good, "llvm", "", inspector)[0], good, inspector).flops
        == 2 * 37 * 48 * 64
    )
    with pytest.raises(RecordError, match="is that of"):
        book.checked(book.candidates(wrong, "llvm", "", inspector)[0], wrong, inspector)


@pytest.mark.parametrize("content", ["{", "[]\n", '{"workload_key": "x"}\n', "7\n"])
def test_a_wrong_file_of_workloads_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "w.jsonl"
    path.write_text(content)
    with pytest.raises(RecordError, match=r"w\.jsonl:1 is no workload"):
        WorkloadBook.read([path])


def test_half_a_line_is_moved_aside_when_workloads_are_added(tmp_path: Path) -> None:
    log, path = tmp_path / "log.json", tmp_path / "workloads.jsonl"
    add_workloads(log, [('["f", 8]', dag(8)), ('["f", 9]', dag(9))])
    whole = path.read_text()
    path.write_text(whole[: len(whole) - 40])
    torn = path.read_text().splitlines()[-1]
    for _ in range(2):
        add_workloads(log, [('["f", 8]', dag(8)), ('["f", 9]', dag(9))])
        assert path.read_text() == whole
        assert (tmp_path / "workloads.jsonl.bad").read_text() == f"{torn}\n"
    assert len(WorkloadBook.read([path])) == 2
