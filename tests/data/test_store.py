"""What readers get, and how a store that cannot be read says so."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.data.logs import book, import_all, records, steps_of, task_of, write_log
from tvm_cdmpp.data import schema
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract.dag import analyse
from tvm_cdmpp.extract.extractor import StepExtractor


@pytest.fixture
def made() -> list[dict[str, Any]]:
    """Records of two tasks in turns, one of them failed."""
    pairs = zip(records(12), records(12, 80), strict=True)
    made = [record for pair in pairs for record in pair]
    made[0]["r"] = [[1e10], 4, 0.1, 5]
    return made


@pytest.fixture
def store(
    tmp_path: Path, made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> RecordStore:
    """A store of several parts, of several row groups each."""
    for name in ("tvm_cdmpp.data.merge.ROWS_PER_PART", "tvm_cdmpp.data.merge.ROWS_PER_GROUP"):
        monkeypatch.setattr(name, 10 if name.endswith("PART") else 3)
    import_all(tmp_path / "store", write_log(tmp_path / "a.json", made), known=book(37, 80))
    return RecordStore.open(tmp_path / "store")


def test_rows_are_sorted_by_task(store: RecordStore, made: list[dict[str, Any]]) -> None:
    assert store.part_starts.tolist() == [0, 10, 20, 24]
    expected = [steps_of(record) for record in (*made[0::2], *made[1::2])]
    assert [text.decode() for text in store.steps()] == expected
    assert store.columns("task")["task"].to_pylist() == [0] * 12 + [1] * 12
    assert [task["rows"] for task in store.iter_tasks()] == [range(12), range(12, 24)]
    assert store.rows_of(1) == range(12, 24)
    assert len(store) == 24


@pytest.mark.parametrize("rows", [range(24), range(0), range(9, 11), range(4, 5), range(10, 24)])
def test_columns_of_some_rows(store: RecordStore, rows: range) -> None:
    names = ("steps", "workload_id", "costs_s", "flops", "task")
    whole = store.columns(*names).to_pylist()
    found = store.columns(*names, rows=rows)
    assert found.column_names == list(names)
    assert found.to_pylist() == whole[rows.start : rows.stop]


def test_lines_in_any_order(store: RecordStore, made: list[dict[str, Any]]) -> None:
    order = [23, 0, 5, 5, 12, 19]
    lines = [json.loads(line) for line in store.records(order).splitlines()]
    originals = [[*made[0::2], *made[1::2]][row] for row in order]
    for line, original in zip(lines, originals, strict=True):
        assert line["i"][1] == original["i"][1]
        assert line["i"][0][1:5] == original["i"][0][1:5]
        assert (line["r"][:2], line["r"][3]) == (original["r"][:2], original["r"][3])


def test_the_replayer_takes_the_lines(store: RecordStore) -> None:
    graph = analyse(task_of(80).compute_dag)
    batch, errors = StepExtractor(graph).extract(store.records(store.rows_of(1)))
    assert errors == {}
    assert len(batch) == 12


def test_wrong_requests_are_named(store: RecordStore) -> None:
    with pytest.raises(RecordError, match="no column 'colour'; known are task, steps"):
        store.columns("colour")
    for rows in (range(25), range(0, 4, 2)):
        with pytest.raises(RecordError, match="24 records"):
            store.columns("task", rows=rows)
    with pytest.raises(RecordError, match="24 records"):
        store.records([24])


def test_several_processes_read_at_once(store: RecordStore) -> None:
    code = (
        "import sys; from tvm_cdmpp.data.store import RecordStore; "
        "s = RecordStore.open(sys.argv[1]); s.verify(); print(len(s.steps())); "
        "print('tvm' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(store.path)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate()[0].split() for run in runs] == [["24", "False"]] * 2


def change_manifest(store: RecordStore, **changes: object) -> None:
    path = store.path / schema.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_log_is_no_store(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.json", records(1))
    with pytest.raises(RecordError, match=rf"got {log}, which is a file.*data import {log}"):
        RecordStore.open(log)


def test_a_newer_store_is_refused(store: RecordStore) -> None:
    change_manifest(store, schema_version=schema.SCHEMA_VERSION + 1, package_version="9.9")
    with pytest.raises(RecordError, match=r"schema 3, of tvm_cdmpp 9\.9; .*install that version"):
        RecordStore.open(store.path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", pytest.param("[" * 100_000, id="deep")])
def test_a_damaged_manifest_is_named(store: RecordStore, content: str) -> None:
    (store.path / schema.MANIFEST).write_text(content)
    with pytest.raises(RecordError, match=r"store\.json cannot be read"):
        RecordStore.open(store.path)


def test_a_missing_part_is_named(store: RecordStore) -> None:
    path = next(store.path.glob("records-*"))
    path.unlink()
    with pytest.raises(RecordError, match=f"{path.name} is missing"):
        RecordStore.open(store.path)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_part_is_named_and_the_others_are_read(store: RecordStore, damage: str) -> None:
    path = store.path / store._files["parts"][1]["file"]
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        steps = pq.read_metadata(path).row_group(0).column(1)
        content[steps.data_page_offset + steps.total_compressed_size - 4] ^= 0xFF
    path.write_bytes(content)
    damaged = RecordStore.open(store.path)
    assert len(damaged.steps(range(10))) == 10
    with pytest.raises(RecordError, match=f"damaged: {path.name}"):
        damaged.verify()
    with pytest.raises(RecordError, match=f"{path.name} cannot be read"):
        damaged.columns(*schema.RECORDS.names)
