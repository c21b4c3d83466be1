"""XGBoost on Ansor's features: they are TVM's, kept in files, and taken as TVM takes them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import ansor_features
from benchmarks.ansor_features import NUM_FEATURES, AnsorFeatures, read_features
from benchmarks.ansor_trees import AnsorTrees
from benchmarks.stored import StoredPrograms
from tests.data.logs import import_all, log_file, records, write_log
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.models.rows import Ints
from tvm_cdmpp.train import load_features, rows_of_store


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> StoredPrograms:
    folder = tmp_path_factory.mktemp("store")
    import_all(folder / "s", log_file(write_log(folder / "a.json", records(12)), "x86-24t"))
    store = RecordStore.open(folder / "s")
    rows, used = rows_of_store(store, load_features(store), np.arange(store.num_records))
    return StoredPrograms(store, used, rows)


def test_features_are_computed_once(
    programs: StoredPrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    compute = ansor_features.compute_features

    def count(store: RecordStore, task: dict[str, Any], rows: Ints) -> AnsorFeatures:
        asked.append(rows.tolist())
        return compute(store, task, rows)

    monkeypatch.setattr(ansor_features, "compute_features", count)
    some = read_features(programs.store, np.array([5, 1]), tmp_path)
    more = read_features(programs.store, np.array([1, 3, 5]), tmp_path)
    assert asked == [[1, 5], [3]]
    assert some.stores.shape[1] == NUM_FEATURES
    assert some.is_lowered.all()
    for found, expected in ((some.take(np.array([1, 0])), more.take(np.array([0, 2]))),):
        np.testing.assert_array_equal(found.stores, expected.stores)
        np.testing.assert_array_equal(found.counts, expected.counts)
    assert (some.take(np.array([0])).stores != some.take(np.array([1])).stores).any()


@pytest.mark.parametrize("label", ["throughput", "log"])
def test_learns_what_it_has_seen(label: Any, programs: StoredPrograms, tmp_path: Path) -> None:
    model = AnsorTrees(label, tmp_path, rounds=60)
    model.fit(programs, seed=0)
    found = model.predict(programs)
    measured = programs.rows.latencies_s
    assert model.programs_seen == 60 * np.isfinite(measured).sum()
    order = np.corrcoef(np.log(found.latency_s), np.log(measured))[0, 1]
    assert order > 0.9
    if label == "log":
        assert np.median(abs(found.latency_s / measured - 1)) < 0.1
    model.save(tmp_path / "m")


def test_programs_that_are_not_lowered() -> None:
    stores = np.zeros((3, NUM_FEATURES), np.float32)
    stores[2, 0] = 1.0
    features = AnsorFeatures(stores, np.array([1, 2]))
    assert features.is_lowered.tolist() == [False, True]
