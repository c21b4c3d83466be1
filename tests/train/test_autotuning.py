"""The search for a setting: real trials, a study that goes on, and what is kept of it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.data.logs import book, import_all, log_file, records, write_log
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.errors import ConfigError, MissingDependencyError
from tvm_cdmpp.models.additive import AdditiveConfig
from tvm_cdmpp.train.autotuning import SPACE, AutotuneSettings, autotune
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.pretraining import PretrainSettings, Progress
from tvm_cdmpp.train.setting import read_setting

SETTINGS = AutotuneSettings(
    kinds=("cpu",),
    base=PretrainSettings(
        split=None,
        config=TrainConfig(steps=16, groups_per_batch=2, programs_per_group=4, window_batches=4),
    ),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    folder = tmp_path_factory.mktemp("autotune")
    log = log_file(write_log(folder / "a.json", [*records(9), *records(9, 80)]), "x86-8t")
    import_all(folder / "store", log, known=book(37, 80))
    return RecordStore.open(folder / "store")


def tried(summary: dict[str, Any]) -> list[Any]:
    return [(each["setting"], each["errors"]) for each in summary["trials"]]


def test_a_study_that_was_killed_goes_on_as_if_never_left(
    store: RecordStore, tmp_path: Path
) -> None:
    straight = autotune(store, tmp_path / "a", SETTINGS, trials=3)

    def kill(number: int, progress: Progress) -> None:
        if number == 1 and progress.step == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        autotune(store, tmp_path / "b", SETTINGS, trials=3, on_progress=kill)
    steps: list[tuple[int, int]] = []
    again = autotune(
        store,
        tmp_path / "b",
        SETTINGS,
        trials=3,
        on_progress=lambda n, p: steps.append((n, p.step)),
    )
    assert steps == [(1, 16), *((2, step) for step in (4, 8, 12, 16))]
    assert tried(again) == tried(straight)
    # The default is tried first, so that the best is never worse.
    first = straight["trials"][0]["setting"]
    assert first["network.width"] == AdditiveConfig().width
    assert first["config.ranking_weight"] == TrainConfig().ranking_weight
    assert straight["best"]["error"] == min(t["error"] for t in straight["trials"])
    assert json.loads((tmp_path / "b" / "summary.json").read_text()) == again
    assert list((tmp_path / "b" / "networks").iterdir()) == []
    over = autotune(store, tmp_path / "b", SETTINGS, trials=3, on_progress=kill)
    assert tried(over) == tried(again)
    network, config = read_setting(tmp_path / "b" / "summary.json")
    best = over["best"]["setting"]
    assert network.layers == best["network.layers"]
    assert config.learning_rate == best["config.learning_rate"]
    assert config.steps == TrainConfig().steps, "a study is shorter than a training"


def test_another_study_is_not_gone_on_with(store: RecordStore, tmp_path: Path) -> None:
    autotune(store, tmp_path, SETTINGS, trials=1)
    other = AutotuneSettings(kinds=("gpu",), base=SETTINGS.base)
    with pytest.raises(ConfigError, match="study of other settings or other data"):
        autotune(store, tmp_path, other, trials=1)


def test_bad_settings(store: RecordStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trials must be at least 1"):
        autotune(store, tmp_path, SETTINGS, trials=0)
    with pytest.raises(ConfigError, match="kinds must be some of"):
        AutotuneSettings(kinds=("tpu",))


def test_without_optuna(
    store: RecordStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match=r"tvm-cdmpp\[autotune\]"):
        autotune(store, tmp_path, SETTINGS, trials=1)


def test_the_space_is_of_settings_that_exist() -> None:
    known = {
        **{f"network.{name}": value for name, value in asdict(AdditiveConfig()).items()},
        **{f"config.{name}": value for name, value in asdict(TrainConfig()).items()},
    }
    for name, choice in SPACE.items():
        default = known[name]
        assert default in choice.values or choice.low <= default <= choice.high
        for value in choice.values:
            assert isinstance(value, type(default))
