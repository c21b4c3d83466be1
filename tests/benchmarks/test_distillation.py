"""Distilled labels: told by teachers that have not seen the workload, and to the trained rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import distillation, pretrained
from benchmarks.stored import StoredPrograms
from tests.data.logs import book, import_all, log_file, records, write_log
from tests.models.contract import CPU
from tests.models.programs import random_batch
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.models.contract import Prediction
from tvm_cdmpp.models.rows import TrainingRows
from tvm_cdmpp.train.features import load_features
from tvm_cdmpp.train.rows import rows_of_store


class Teacher:
    """It keeps what it has seen, and says so many seconds as its number is."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fit(self, rows: TrainingRows, *, seed: int) -> None:
        self.seen = rows.latencies_s

    def predict(self, batch: Any, device: Any, *, num_threads: int = 1) -> Prediction:
        return Prediction(np.full(len(batch), 1.0 + self.number), np.ones(len(batch)))


def test_teachers_have_not_seen_the_workload() -> None:
    teachers: list[Any] = []

    def make() -> Any:
        teachers.append(Teacher(len(teachers)))
        return teachers[-1]

    workloads = np.array([7, 3, 9, 3, 8, 5, 7, 9, 3, 5])
    measured = workloads * 1e-3 + np.arange(10) * 1e-6
    measured[4] = np.inf
    rows = TrainingRows.on(CPU, random_batch(10), measured, np.arange(10))
    labels = distillation.distil(rows, workloads, 0, make)
    assert np.flatnonzero(~np.isfinite(labels)).tolist() == [4]
    assert len(teachers) == distillation.FOLDS
    for row in np.flatnonzero(np.isfinite(labels)):
        teacher = teachers[round(labels[row] ** 2 / measured[row]) - 1]
        taught_by = workloads[np.isin(measured, teacher.seen)]
        assert workloads[row] not in taught_by
        assert len(np.unique(taught_by)) >= 3


def test_validation_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (37, 64, 80, 96)
    logs = [
        log_file(write_log(tmp_path / f"{size}.json", records(9, size)), "x86-24t")
        for size in sizes
    ]
    import_all(tmp_path / "store", *logs, known=book(*sizes))
    store = RecordStore.open(tmp_path / "store")
    rows, used = rows_of_store(store, load_features(store), np.arange(36))
    programs = StoredPrograms(store, used, rows)
    given: list[Any] = []

    def keep(parts: Any, *_: Any, **__: Any) -> Any:
        given.append(parts)
        raise InterruptedError

    def double(rows: TrainingRows, workloads: Any, seed: int) -> Any:
        assert (np.unique(workloads, return_counts=True)[1] == 9).all()
        return 2 * rows.latencies_s

    monkeypatch.setattr(pretrained, "pretrain_on", keep)
    for relabel in (None, double):
        with pytest.raises(InterruptedError):
            pretrained.Pretrained().fit(programs, seed=0, relabel=relabel)
    before, after = given
    assert len(before.validation) > 0
    assert np.array_equal(after.validation.latencies_s, before.validation.latencies_s)
    assert np.array_equal(after.train.latencies_s, 2 * before.train.latencies_s)
