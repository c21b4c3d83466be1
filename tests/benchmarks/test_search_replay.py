"""Picking from recorded pools: what is picked, what it is worth, and going on after a kill."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search_replay import Arm, Settings, known_arms, pick, regrets, run
from benchmarks.search_tables import search_section
from tests.data.logs import book, import_all, log_file, records, write_log
from tests.models.contract import CPU, MeanOfLeafCount
from tests.models.programs import random_batch
from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.models.contract import CostPredictor, Prediction
from tvm_cdmpp.models.rows import TrainingRows


class Known(MeanOfLeafCount):
    """Says what it was told of the pool: these are the latencies."""

    def predict(
        self, batch: CompactASTBatch, device: DeviceSpec, *, num_threads: int = 1
    ) -> Prediction:
        latency_s = np.array(self.mean_s["all"])
        return Prediction(latency_s, np.where(np.arange(len(batch)) == 3, 0.0, 1.0))


def pool(latencies_s: list[float]) -> TrainingRows:
    count = len(latencies_s)
    return TrainingRows.on(CPU, random_batch(count), latencies_s, np.zeros(count, np.int64))


def test_the_best_predicted_come_first_and_what_will_not_run_last() -> None:
    latencies_s = [5e-3, 4e-3, 2e-3, 1e-3, 3e-3]
    model = Known({"all": latencies_s})  # type: ignore[dict-item]
    picked = pick(Arm(lambda: model), pool(latencies_s), batch=2, count=9, seed=0)
    assert picked.tolist() == [2, 4, 1, 0, 3]


def test_an_arm_that_learns_is_told_what_was_picked() -> None:
    told: list[list[float]] = []

    def learn(_: CostPredictor | None, rows: TrainingRows, seed: int) -> CostPredictor:
        told.append(rows.latencies_s.tolist())
        return Known({"all": np.arange(6, 0, -1) * 1e-3})  # type: ignore[dict-item]

    latencies_s = (np.arange(6) + 1.0).tolist()
    picked = pick(Arm(lambda: None, learn), pool(latencies_s), batch=2, count=6, seed=0)
    assert sorted(picked.tolist()) == list(range(6))
    assert [len(some) for some in told] == [2, 4]
    assert told[1][:2] == told[0] == [latencies_s[n] for n in picked[:2]]
    rest = [n for n in picked[2:] if n != 3]
    assert rest == sorted(rest, reverse=True)


def test_regret() -> None:
    latencies_s = np.array([4.0, np.inf, 2.0, 1.0])
    found = regrets(latencies_s, np.array([1, 0, 2, 3]), (1, 2, 3, 4, 64))
    assert found.tolist() == [1.0, 0.75, 0.5, 0.0, 0.0]


def test_devices_are_replayed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = [
        log_file(write_log(tmp_path / f"{size}.json", records(12, size)), device, network=network)
        for size, device, network in (
            (37, "x86-24t", "alexnet"),
            (80, "x86-24t", "vgg_16"),
            (96, "x86-24t", "resnet_50"),
            (64, "x86-8t", "resnet_50"),
        )
    ]
    import_all(tmp_path / "store", *logs, known=book(37, 80, 96, 64))
    store, out = RecordStore.open(tmp_path / "store"), tmp_path / "search-replay.json"
    settings = Settings(store="s", least=10, seeds=1, batch=4, recorded=5)
    first = run(store, settings, ["x86-24t"], tmp_path, out)
    assert (first["devices"]["x86-24t"]["tasks"], len(first["devices"])) == (1, 1)
    assert first["devices"]["x86-24t"]["trained_tasks"] == 1
    names = list(first["devices"]["x86-24t"]["arms"])
    assert names == list(known_arms(MeanOfLeafCount(), MeanOfLeafCount()))
    monkeypatch.setattr("benchmarks.search_replay.TreePredictor.fit", None)
    monkeypatch.setattr(
        "benchmarks.search_replay.known_arms",
        lambda *_: {name: Arm(lambda: None) for name in names},
    )
    second = run(store, settings, ["x86-24t", "x86-8t"], tmp_path, out)
    assert second["devices"]["x86-24t"] == first["devices"]["x86-24t"]
    assert second["devices"]["x86-8t"]["trained_tasks"] == 0
    assert json.loads(out.read_text()) == second
    for of_device in second["devices"].values():
        for found in of_device["arms"].values():
            means = [found[number]["mean"] for number in ("1", "5", "10", "32", "64")]
            assert means == sorted(means, reverse=True)
            assert means[-1] == 0.0
    table = "\n".join(search_section(out, second))
    assert "| x86-8t | 1 | no |" in table
