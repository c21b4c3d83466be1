"""What onboarding is worth: every strategy on a tiny store, and a run that goes on."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import onboarding
from benchmarks.choice_tables import onboarding_section
from benchmarks.onboarding import STRATEGIES, Device, Settings, load_devices, run
from benchmarks.provenance import read_results
from tests.data.logs import book, import_all, log_file, records, write_log
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.models.adaptation import AdaptConfig
from tvm_cdmpp.models.additive import AdditiveConfig
from tvm_cdmpp.models.rows import Ints
from tvm_cdmpp.models.trained import TrainedPredictor
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.learner import Learner

SETTINGS = Settings(store="s", split="devices", weights="w", per_task=20, seeds=1)
NETWORKS = {96: "alexnet", 64: "vgg_16"}


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Device:
    folder = tmp_path_factory.mktemp("onboarding")
    logs = [
        log_file(
            write_log(folder / f"{size}.json", records(12, size)), "cortex-a72", network=network
        )
        for size, network in NETWORKS.items()
    ]
    for size in (37, 80):
        path = write_log(folder / f"{size}.json", records(12, size))
        logs.append(log_file(path, "x86-24t"))
    import_all(folder / "store", *logs, known=book(*NETWORKS, 37, 80))
    start = TrainedPredictor.untrained(AdditiveConfig(width=16, layers=1, hidden=16), 0)
    quick = pytest.MonkeyPatch()
    quick.setattr(onboarding, "_INNER", TrainConfig(steps=2))
    quick.setattr(onboarding, "_ROUNDS", 3)
    (found,) = load_devices(RecordStore.open(folder / "store"), start, 12, ["cortex-a72"])
    quick.undo()
    return found


def test_every_strategy_keeps_to_its_budget(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onboarding, "_SCRATCH", TrainConfig(steps=5))
    monkeypatch.setattr(onboarding, "_BATCH", 8)
    config, anchored = TrainConfig(steps=3, domain="cmd"), AdaptConfig(steps=2)
    quick = partial(Learner, config=config, anchored=anchored)
    monkeypatch.setattr(onboarding, "Learner", quick)
    run(iter([device]), SETTINGS, tmp_path, budgets=(8,))
    (result,) = read_results(tmp_path)
    assert [r["strategy"] for r in result["runs"]] == ["none", *STRATEGIES]
    for outcome in result["runs"]:
        assert outcome["measured_programs"] == outcome["budget"]
        # The other half of the tasks is never measured.
        assert outcome["scores"]["never"]["programs"] == 12
    by_name = {r["strategy"]: r for r in result["runs"]}
    assert by_name["one network"]["measured_tasks"] == 1
    table = "\n".join(onboarding_section(tmp_path))
    assert "| 8 | meta-learned |" in table


def test_a_stopped_run_goes_on(device: Device, tmp_path: Path) -> None:
    asked: list[int] = []

    def stop_at(limit: int) -> dict[str, Any]:
        def learn(_: Device, pool: Ints, budget: int, seed: int) -> Any:
            if len(asked) == limit:
                raise KeyboardInterrupt
            asked.append(budget)
            return pool[:budget], device.start

        return {"mine": learn, "other": learn}

    with pytest.raises(KeyboardInterrupt):
        run(iter([device]), SETTINGS, tmp_path, stop_at(1), (2, 4))
    run(iter([device]), SETTINGS, tmp_path, stop_at(9), (2, 4))
    (result,) = read_results(tmp_path)
    assert asked == [2, 2, 4, 4]
    assert len(result["runs"]) == 1 + 4


def test_preparing_changes_weights_that_stay_finite(device: Device) -> None:
    before, after = (p.experts["cpu"].network for p in (device.start, device.prepared))
    weights = [np.concatenate([w.detach().numpy().ravel() for w in n.parameters()])
               for n in (before, after)]  # fmt: skip
    assert np.isfinite(weights[1]).all()
    assert 0 < np.abs(weights[1] - weights[0]).max() < 1
