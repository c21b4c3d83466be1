"""Rows of a store: each with its label, task and machine, read when they are asked for."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.logs import book, import_all, log_file, records, write_log
from tvm_cdmpp.data.quality import make_labels
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import UnknownDeviceError
from tvm_cdmpp.models.fitting import FitConfig
from tvm_cdmpp.models.network import PredictorConfig
from tvm_cdmpp.models.predictor import Predictor
from tvm_cdmpp.models.rows import TrainingRows
from tvm_cdmpp.train.features import StoredFeatures, load_features
from tvm_cdmpp.train.rows import rows_of_store, sample_tasks

HERE = DeviceSpec(name="here", kind="cpu", cores=2)
THERE = DeviceSpec(name="there", kind="cpu", cores=64)
DEVICES = {"here": HERE, "there": THERE}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordStore:
    monkeypatch.setattr("tvm_cdmpp.data.merge.ROWS_PER_PART", 10)
    made = [*records(12), *records(12, 80)]
    made[5]["r"] = [[1e10], 1, 0, 0]
    logs = [
        log_file(write_log(tmp_path / "a.json", made), "here"),
        log_file(write_log(tmp_path / "b.json", made[12:]), "there"),
    ]
    import_all(tmp_path / "store", *logs, known=book(37, 80))
    return RecordStore.open(tmp_path / "store")


def test_rows_are_those_of_the_store(store: RecordStore) -> None:
    features = load_features(store)
    rows, used = rows_of_store(store, features, np.arange(len(store)), devices=DEVICES)
    assert used.tolist() == np.flatnonzero(features.leaf_counts > 0).tolist()
    labels = make_labels(store).latency_s[used]
    np.testing.assert_array_equal(np.isinf(rows.latencies_s), np.isnan(labels))
    assert np.isinf(rows.latencies_s).sum() == 1
    valid = np.isfinite(rows.latencies_s)
    np.testing.assert_array_equal(rows.latencies_s[valid], labels[valid])
    device = store.columns("device").column("device").to_pylist()
    assert [rows.devices[m].name for m in rows.machine_of] == [device[row] for row in used]
    some = np.array([7, 0, 20])
    taken, expected = rows.take(some).asts, features.take(used[some])
    np.testing.assert_array_equal(taken.take(np.arange(3)).vectors, expected.vectors)


def test_training_holds_a_window_at_a_time(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = load_features(store)
    rows, _ = rows_of_store(store, features, np.arange(len(store)), devices=DEVICES)
    sizes: list[int] = []
    take = StoredFeatures.take

    def watched(self: StoredFeatures, wanted: np.ndarray) -> object:
        sizes.append(len(wanted))
        return take(self, wanted)

    monkeypatch.setattr(StoredFeatures, "take", watched)
    predictor = Predictor.untrained(PredictorConfig(), seed=0)
    predictor.fit_config = FitConfig(steps=9, batch_size=4, window=12)
    predictor.fit(rows, seed=0)
    assert sizes == [12, 12, 12]
    # All of them at once come to the same as rows that are in memory.
    streamed, in_memory = (Predictor.untrained(PredictorConfig(), seed=0) for _ in range(2))
    for each, its_rows in ((streamed, rows), (in_memory, TrainingRows.join([rows]))):
        each.fit_config = FitConfig(steps=5)
        each.fit(its_rows, seed=0)
    batch = features.take(np.arange(12, 20))
    np.testing.assert_array_equal(
        streamed.predict(batch, HERE).latency_s, in_memory.predict(batch, HERE).latency_s
    )


def test_unknown_devices_are_named(store: RecordStore) -> None:
    with pytest.raises(UnknownDeviceError, match="got 'here'"):
        rows_of_store(store, load_features(store), np.arange(len(store)))


def test_some_programs_of_each_task(store: RecordStore) -> None:
    rows = np.array([0, 2, 4, 6, 12, 13, 35])
    chosen = sample_tasks(store, rows, 2, seed=1)
    assert np.isin(chosen, rows).all()
    tasks = [store.rows_of(task) for task in range(store.tasks.num_rows)]
    assert [sum(row in task for row in chosen) for task in tasks] == [2, 2, 1]
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, sample_tasks(store, rows, 2, seed=1))
    drawn = {row for seed in range(20) for row in sample_tasks(store, rows, 1, seed=seed).tolist()}
    assert drawn == set(rows.tolist())
    np.testing.assert_array_equal(sample_tasks(store, rows, 9), rows)
    assert len(sample_tasks(store, rows[:0], 9)) == 0
