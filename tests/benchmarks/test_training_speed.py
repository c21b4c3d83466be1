"""How fast models train: the rate is that of a training under way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import training_speed
from benchmarks.accuracy import Model, known_models
from benchmarks.predictor_tables import speed_section
from benchmarks.pretrained import Pretrained
from benchmarks.stored import StoredPrograms
from benchmarks.tlp import TLP
from tests.models.baselines.examples import rows_by_tile
from tvm_cdmpp.models.baselines.mlp import MLPPredictor
from tvm_cdmpp.models.contract import Prediction
from tvm_cdmpp.train.config import TrainConfig


class Clock:
    """A clock that only models move."""

    now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


class Slow(TLP):
    """It takes five seconds to start, a hundredth for each program, a fiftieth to predict one."""

    clock: Clock

    def fit(self, programs: StoredPrograms, *, seed: int, torch_device: str = "cpu") -> None:
        self.programs_seen = self.training.steps * self.training.batch_size
        self.clock.now_s += 5.0 + 0.01 * self.programs_seen

    def predict(self, programs: StoredPrograms) -> Prediction:
        self.clock.now_s += 0.02 * len(programs.rows)
        return Prediction(np.ones(len(programs.rows)), np.ones(len(programs.rows)))


def test_starting_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(training_speed, "time", clock)
    monkeypatch.setattr(Slow, "clock", clock, raising=False)
    programs: Any = StoredPrograms(None, np.arange(30), rows_by_tile(30))  # type: ignore[arg-type]
    made = TLP.untrained("paper")
    known = Model(lambda _: Slow(made.config, made.training), reads_store=True)
    learned, predicted = training_speed.measure(known, programs, programs)
    assert learned == pytest.approx(100.0)
    assert predicted == pytest.approx(50.0)


@pytest.mark.parametrize("name", training_speed.MODELS)
def test_models_train_for_whole_windows(name: str) -> None:
    one, three = (training_speed.shortened(known_models()[name].make(0), n) for n in (1, 3))
    if isinstance(one, Pretrained):
        assert one.settings.config.steps == TrainConfig().window_batches
        assert three.settings.config.steps == 3 * TrainConfig().window_batches
    elif isinstance(one, TLP | MLPPredictor):
        assert one.training.steps * one.training.batch_size == one.training.window
        assert three.training.steps == 3 * one.training.steps


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    asked: list[str] = []

    def measure(name: str) -> tuple[float, float]:
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(name)
        return 10.0 * len(asked), 1.0

    def again(name: str) -> tuple[float, float]:
        asked.append(name)
        return 10.0 * len(asked), 1.0

    path, settings = tmp_path / "r.json", {"rounds": 2}
    with pytest.raises(KeyboardInterrupt):
        training_speed.run(["trees", "cdmpp"], settings, path, measure)
    training_speed.run(["trees", "cdmpp"], settings, path, again)
    training_speed.run(["trees", "cdmpp"], settings, path, again)
    assert asked == ["trees", "cdmpp", "trees", "cdmpp"]
    ours, trees = json.loads(path.read_text(encoding="utf-8"))["rates"]
    assert (ours["model"], ours["trained_per_s_range"]) == ("cdmpp", [20.0, 40.0])
    assert (trees["model"], trees["trained_per_s"]) == ("trees", 20.0)
    training_speed.run(["trees"], {"rounds": 1}, path, again)
    assert len(json.loads(path.read_text(encoding="utf-8"))["rates"]) == 1


def test_the_table_compares_with_ours() -> None:
    rates = [
        training_speed.summary("cdmpp", [(100.0, 10.0), (90.0, 20.0), (400.0, 30.0)]),
        training_speed.summary("tlp-paper", [(9.0, 1.0), (10.0, 2.0), (11.0, 3.0)]),
    ]
    machine = {"cpu": "a", "physical_cores": 1, "tvm": "0.17"}
    about = {"date": "2026-01-01", "commit": "c", "command": "x", "machine": machine}
    page = "\n".join(
        speed_section(Path("a.json"), {"rates": rates, "settings": {"rounds": 3}, **about})
    )
    assert "| cdmpp | 100 (90 to 400) | 20 (10 to 30) |" in page
    assert "| tlp-paper | 10 (9 to 11) | 2 (1 to 3) | 10 times as many |" in page
