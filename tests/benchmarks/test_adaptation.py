"""Curves of adaptation: what is measured is not scored, and a run goes on where it was."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks import target_network
from benchmarks.adaptation import Settings, load_targets, run
from benchmarks.adaptation_tables import adaptation_section, target_section
from benchmarks.adapting import (
    CLOSED_FORM,
    Adaptation,
    Adapted,
    Adapting,
    FineTuning,
    Target,
    make_target,
)
from tests.data.logs import book, import_all, log_file, records, write_log
from tests.models.contract import CPU, MeanOfLeafCount
from tests.models.programs import random_batch
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.models.additive import AdditiveConfig
from tvm_cdmpp.models.network import PredictorConfig
from tvm_cdmpp.models.predictor import Predictor
from tvm_cdmpp.models.rows import TrainingRows
from tvm_cdmpp.models.trained import TrainedPredictor

SETTINGS = Settings(store="s", weights="p", per_task=20, seeds=2, budgets=(0, 8, 40))


def target(factor: float = 3.0, device: str = "cpu") -> Target:
    """Programs of six tasks that take `factor` times as long as the predictor says."""
    batch = random_batch(120)
    predictor = Predictor.untrained(PredictorConfig(), seed=0)
    noise = np.random.default_rng(0).lognormal(0, 0.05, 120)
    latencies_s = predictor.predict(batch, CPU).latency_s * factor * noise
    tasks = np.repeat(np.arange(6), 20)
    rows = TrainingRows.on(CPU, batch, latencies_s, tasks)
    return make_target(device, rows, np.array(["conv2d", "dense"])[tasks % 2], predictor)


def targets() -> Iterator[tuple[Target, dict[str, int]]]:
    yield target(), {"failed": 0}


def read(folder: Path) -> Any:
    return json.loads((folder / "cpu.json").read_text(encoding="utf-8"))


def test_errors_fall_with_measured_programs(tmp_path: Path) -> None:
    run(targets(), SETTINGS, tmp_path)
    result = read(tmp_path)
    # Two seeds of: nothing measured, then two budgets with each method that needs no spread.
    assert len(result["runs"]) == 2 * (1 + 2 * 3) * len(CLOSED_FORM)
    for outcome in result["runs"]:
        scores = outcome["scores"]
        assert outcome["measured_programs"] == outcome["budget"]
        assert scores["all"]["programs"] == 120 - outcome["budget"]
        assert scores["never"]["programs"] == 60
        assert scores["never"]["tasks"] == 3
        error = scores["never"]["mape"]
        if outcome["budget"] == 0 or outcome["adaptation"] == "none":
            assert error == pytest.approx(2 / 3, abs=0.02)
        elif outcome["budget"] == 40:
            assert error < 0.3
    lines = list(adaptation_section(tmp_path))
    assert "| none | random | 67 / 67 % | 67 / 67 % | 67 / 67 % |" in lines
    assert "| cpu | none | 67 / 67 % | 67 / 67 % | 67 / 67 % |" in lines
    assert sum(line.startswith("| levels | ") for line in lines) == 3


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    asked: list[int] = []

    def stop_at(limit: int) -> Any:
        def adapt(target: Target, measured: npt.NDArray[np.int64]) -> Adapted:
            if len(asked) == limit:
                raise KeyboardInterrupt
            asked.append(len(measured))
            return target.log_predicted, None

        return {"mine": adapt}

    with pytest.raises(KeyboardInterrupt):
        run(targets(), SETTINGS, tmp_path, stop_at(5))
    run(targets(), SETTINGS, tmp_path, stop_at(99))
    assert len(asked) == len(read(tmp_path)["runs"]) == 2 * (1 + 2 * 3)
    run(targets(), SETTINGS, tmp_path, stop_at(14))
    other = Settings(store="other", weights="p", per_task=20, seeds=1, budgets=(0,))
    run(targets(), other, tmp_path, stop_at(99))
    assert len(read(tmp_path)["runs"]) == 1


def test_devices_are_apart_and_told_together(tmp_path: Path) -> None:
    assert not list(adaptation_section(tmp_path))
    run(targets(), SETTINGS, tmp_path)
    alone = (tmp_path / "cpu.json").read_bytes()
    run(iter([(target(2.0, "near"), {"failed": 0})]), SETTINGS, tmp_path)
    assert (tmp_path / "cpu.json").read_bytes() == alone
    lines = list(adaptation_section(tmp_path))
    assert "| none | random | 59 / 58 % | 59 / 58 % | 59 / 58 % |" in lines
    assert "| near | none | 50 / 50 % | 50 / 50 % | 50 / 50 % |" in lines
    other = Settings(store="other", weights="p", per_task=20, seeds=1, budgets=(0,))
    run(targets(), other, tmp_path)
    with pytest.raises(ValueError, match=r"near\.json .* settings of cpu\.json"):
        list(adaptation_section(tmp_path))


def test_targets_are_the_held_out_devices(tmp_path: Path) -> None:
    made = [*records(12), *records(9, 80)]
    made[2]["r"] = [[1e10], 1, 0, 0]
    logs = [
        log_file(write_log(tmp_path / "a.json", made), "cortex-a72"),
        log_file(write_log(tmp_path / "b.json", [*records(8, 96), *records(8, 64)]), "x86-24t"),
    ]
    import_all(tmp_path / "store", *logs, known=book(37, 80, 96, 64))
    store = RecordStore.open(tmp_path / "store")
    with pytest.raises(SystemExit, match="takes cortex-a72; got a100"):
        next(load_targets(store, MeanOfLeafCount(), 10, ["cortex-a72", "a100"]))
    found = list(load_targets(store, MeanOfLeafCount(), per_task=10))
    assert len(found) == 1
    device, not_used = found[0]
    assert device.device == "cortex-a72"
    assert not_used == {"failed": 1, "not drawn": 1}
    assert sorted(np.unique(device.rows.tasks, return_counts=True)[1].tolist()) == [9, 10]
    assert set(device.operators.tolist()) == {"matmul"}
    assert device.spread is None
    np.testing.assert_allclose(device.log_predicted, np.log(1e-3))
    assert (device.last_layer**2)[:, 1:].sum(axis=1).mean() == pytest.approx(1.0)


def test_fine_tuning_learns_the_target_and_is_judged_on_the_sources(tmp_path: Path) -> None:
    logs = [
        log_file(write_log(tmp_path / f"{size}.json", records(12, size)), device)
        for size, device in ((37, "x86-24t"), (80, "x86-24t"), (96, "cortex-a72"))
    ]
    import_all(tmp_path / "store", *logs, known=book(37, 80, 96))
    store = RecordStore.open(tmp_path / "store")
    predictor = TrainedPredictor.untrained(AdditiveConfig(width=16, layers=1, hidden=16), 0)
    tuning = FineTuning.of_store(store, predictor)
    assert (len(tuning.sources["cpu"]), len(tuning.validation["cpu"])) == (12, 10)
    ((target, _),) = load_targets(store, predictor, per_task=12)
    before, error = tuning(target, np.zeros(0, np.int64))
    np.testing.assert_allclose(before, target.log_predicted, rtol=1e-5)
    assert error is not None
    assert error > 0
    after, error = tuning(target, np.arange(6))
    off = [np.abs(found - target.log_measured)[6:].mean() for found in (before, after)]
    assert off[1] < 0.9 * off[0]
    assert error is not None


def test_measured_programs_of_a_network_are_not_scored() -> None:
    predictor = TrainedPredictor.untrained(AdditiveConfig(), seed=0)
    adaptations: dict[str, Adaptation] = {**CLOSED_FORM, "adapt": Adapting(predictor)}
    runs = target_network._compare(target(), adaptations, 24, 0)
    assert len(runs) == 2 * len(adaptations)
    assert {run["scores"]["programs"] for run in runs} == {120 - 24}
    error = {run["adaptation"]: run["scores"]["mape"] for run in runs if run["method"] == "random"}
    assert error["none"] == pytest.approx(2 / 3, abs=0.02)
    assert error["levels"] < 0.3
    result = {
        "device": "cpu",
        "programs": 120,
        "tasks": 6,
        "runs": runs,
        "date": "2026-01-01",
        "commit": "c",
        "command": "m",
        "machine": {"tvm": "", "physical_cores": 2, "cpu": ""},
    }
    lines = list(target_section(Path("target-network.json"), result))
    (line,) = [line for line in lines if line.startswith("| 24 | none | random |")]
    assert f" {100 * error['none']:.1f} / " in line
