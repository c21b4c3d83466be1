"""Changes of the predictor: each does what it says, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import predictor_ablation
from tests.data.logs import book, import_all, log_file, records, write_log
from tests.models.programs import random_batch
from tvm_cdmpp.devices import DEVICE_FIELDS, DeviceSpec
from tvm_cdmpp.models.additive import AdditiveConfig
from tvm_cdmpp.models.analytic import estimate_latency_s
from tvm_cdmpp.models.rows import TrainingRows
from tvm_cdmpp.train.config import TrainConfig


def test_what_is_hidden_is_not_seen() -> None:
    batch = random_batch(6, seed=1)
    device = DeviceSpec(name="far", kind="cpu", clock_hz=1e9, cores=64)
    rows = TrainingRows.on(device, batch, np.ones(6), np.arange(6))
    blind = predictor_ablation.without_positions(rows)
    chosen = np.array([4, 0])
    assert not blind.asts.take(chosen).positions.any()
    assert np.array_equal(blind.asts.take(chosen).vectors, batch.take(chosen).vectors)
    assert np.array_equal(blind.asts.leaf_counts, batch.leaf_counts)

    (hidden,) = predictor_ablation.without_device_vector(rows).devices
    vector, clock = hidden.vector(), DEVICE_FIELDS.index("clock_hz")
    assert np.flatnonzero(vector).tolist() == [clock]
    assert vector[clock] == device.vector()[clock]
    assert np.array_equal(estimate_latency_s(batch, hidden), estimate_latency_s(batch, device))


def test_changes_are_of_fields_that_exist() -> None:
    for change in predictor_ablation.CHANGES.values():
        replace(AdditiveConfig(), **change.network)
        replace(TrainConfig(), **change.config)


def test_parts_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = [
        log_file(write_log(tmp_path / "a.json", records(12)), "x86-24t", network="alexnet"),
        log_file(write_log(tmp_path / "b.json", records(9, 80)), "x86-24t", network="vgg_16"),
        log_file(write_log(tmp_path / "c.json", records(7, 96)), "x86-24t", network="resnet_50"),
    ]
    import_all(tmp_path / "store", *logs, known=book(37, 80, 96))
    options = ["--changes", "nothing", "20 programs a task", "cmd", "--seeds", "1", "--steps", "2"]
    arguments = [str(tmp_path / "store"), "--out", str(tmp_path / "out"), *options]
    predictor_ablation.main(arguments)
    made = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "out").iterdir()}
    assert made.keys() == {"nothing-0", "20-programs-a-task-0", "cmd-0"}
    assert made["cmd-0"]["all"]["programs"] == 7
    monkeypatch.setattr(predictor_ablation, "make_ablation", None)
    predictor_ablation.main(arguments)
    with pytest.raises(SystemExit, match="other settings"):
        predictor_ablation.main([*arguments[:-1], "3"])
