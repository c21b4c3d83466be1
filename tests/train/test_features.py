"""Features of a store are those of its records, and extracted once."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.logs import book, import_all, log_file, records, task_of, write_log
from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.devices.hardware import Hardware
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract.dag import analyse
from tvm_cdmpp.extract.extractor import StepExtractor
from tvm_cdmpp.extract.stage import LayoutRewrite
from tvm_cdmpp.train.features import extract_rows, find_features, group_alike, load_features


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordStore:
    monkeypatch.setattr("tvm_cdmpp.data.merge.ROWS_PER_PART", 10)
    made = [*records(12), *records(12, 80)]
    # A failed measurement, whose steps may be anything.
    made[3]["i"][1][1] = [["SP", 99, 0, 8, [1], 1]]
    made[3]["r"] = [[1e10], 1, 0, 0]
    import_all(tmp_path / "store", write_log(tmp_path / "a.json", made), known=book(37, 80))
    return RecordStore.open(tmp_path / "store")


def direct(store: RecordStore, task: int, size: int) -> CompactASTBatch:
    made = task_of(size)
    extractor = StepExtractor(
        analyse(made.compute_dag),
        Hardware.of(made.hardware_params),
        LayoutRewrite(int(made.layout_rewrite_option)),
    )
    return extractor.extract(store.records(store.rows_of(task)))[0]


def test_they_are_those_of_the_fast_path(store: RecordStore) -> None:
    features = load_features(store)
    assert len(features) == 24
    assert (features.num_failed, features.first_failure.split(":")[0]) == (1, "record 3")
    for task, size in ((0, 37), (1, 80)):
        expected = direct(store, task, size)
        found = features.take(store.rows_of(task))
        np.testing.assert_array_equal(found.vectors, expected.vectors)
        np.testing.assert_array_equal(found.positions, expected.positions)
        np.testing.assert_array_equal(found.offsets, expected.offsets)
    assert features.leaf_counts[3] == 0


def test_some_rows_are_extracted_and_not_kept(store: RecordStore) -> None:
    rows = np.array([1, 3, 9, 10, 14, 23])
    found, errors = extract_rows(store, rows)
    assert list(errors) == [1]
    assert find_features(store) is None
    expected = load_features(store).take(rows)
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    assert len(extract_rows(store, rows[:0])[0]) == 0


def test_rows_in_any_order(store: RecordStore) -> None:
    features = load_features(store)
    rows = [23, 3, 0, 11, 11, 9, 20]
    found = features.take(rows)
    assert found.leaf_counts.tolist() == features.leaf_counts[rows].tolist()
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(found.vectors_of(place), features.take([row]).vectors)
    assert len(features.take([])) == 0


def test_they_are_extracted_once_and_go_on_after_a_kill(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(rows: int) -> None:
        if rows == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_features(store, stop)
    asked: list[range] = []
    steps = RecordStore.steps

    def recording(self: RecordStore, rows: range) -> list[bytes]:
        asked.append(rows)
        return steps(self, rows)

    monkeypatch.setattr(RecordStore, "steps", recording)
    load_features(store)
    assert min(rows.start for rows in asked) == 10
    asked.clear()
    features = load_features(store)
    assert asked == []
    assert isinstance(features._parts[0].vectors, np.memmap)


def test_those_of_replaced_stores_are_removed(store: RecordStore, tmp_path: Path) -> None:
    old = load_features(store)
    old_leaves = old.take([0]).vectors.copy()
    foreign = old.folder.parent / "notes"
    foreign.mkdir()
    more = records(13)
    import_all(store.path, write_log(tmp_path / "b.json", more[12:]), known=book(37, 80))
    assert old.folder.is_dir()
    new = load_features(RecordStore.open(store.path))
    assert new.folder != old.folder
    assert sorted(old.folder.parent.iterdir()) == sorted([foreign, new.folder])
    np.testing.assert_array_equal(old.take([0]).vectors, old_leaves)


def test_programs_that_look_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows 0 and 2 are one program written in two ways; another device's programs are others.

    Row 3 has the steps of row 0 but for a loop of another kind; row 4 does not fit its DAG.
    """
    monkeypatch.setattr("tvm_cdmpp.train.features._ROWS_AT_ONCE", 2)
    inner = [["SP", 2, 2, 64, [1, 4], 1], ["SP", 2, 2, 64, [4, 1], 1]]
    steps = [[inner[0]], [["SP", 2, 2, 64, [2, 4], 1]], [inner[1]],
             [inner[0], ["AN", 2, 4, 1]], [["SP", 99, 0, 8, [1], 1]]]  # fmt: skip
    made = records(5)
    for record, program in zip(made, steps, strict=True):
        record["i"][1][1] = program
    made[4]["r"] = [[1e10], 1, 0, 0]
    logs = []
    for device in "ab":
        made[0]["r"][3] += 1  # a log that is the same to the byte would be left out
        logs.append(log_file(write_log(tmp_path / f"{device}.json", made), device))
    import_all(tmp_path / "store", *logs)
    store = RecordStore.open(tmp_path / "store")
    done: list[int] = []
    alike = group_alike(store, done.append)
    assert alike.tolist() == [0, 1, 0, 3, 4, 5, 6, 5, 8, 9]
    assert done == [5, 10]
    assert find_features(store) is None
    load_features(store)
    assert group_alike(store).tolist() == alike.tolist()


def test_a_damaged_array_is_named(store: RecordStore) -> None:
    features = load_features(store)
    (features.folder / "00001.vectors.npy").write_bytes(b"damaged")
    with pytest.raises(RecordError, match="Remove the folder"):
        load_features(store).take([12])
