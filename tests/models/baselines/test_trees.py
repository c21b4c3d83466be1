"""Trees: they learn, from windows of rows, and say what is missing."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models.baselines.examples import CPU, rows_by_tile
from tests.models.baselines.test_inputs import Counting
from tests.models.programs import random_batch
from tvm_cdmpp.errors import CheckpointError, ConfigError, MissingDependencyError
from tvm_cdmpp.models.analytic import estimate_latency_s
from tvm_cdmpp.models.baselines import trees
from tvm_cdmpp.models.baselines.trees import TreeOptions, TreePredictor
from tvm_cdmpp.models.checkpoint import Content, write_checkpoint

OPTIONS = TreeOptions(rounds=100, depth=4)


def median_error(model: TreePredictor, seed: int = 9) -> float:
    rows = rows_by_tile(60, seed=seed)
    ratio = model.predict(rows.batch(), CPU).latency_s / rows.latencies_s
    return float(np.median(abs(ratio - 1.0)))


def test_learn_what_the_estimate_does_not_know() -> None:
    model = TreePredictor(OPTIONS)
    before = median_error(model)
    model.fit(rows_by_tile(300), seed=0)
    assert median_error(model) < 0.15 < before


def test_without_trees_the_estimate_is_left() -> None:
    batch = random_batch(10)
    np.testing.assert_allclose(
        TreePredictor().predict(batch, CPU).latency_s, estimate_latency_s(batch, CPU), rtol=1e-9
    )


def test_rows_need_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_by_tile(100)
    source = Counting(rows.batch())
    whole, windowed = TreePredictor(OPTIONS), TreePredictor(OPTIONS)
    whole.fit(rows, seed=0)
    monkeypatch.setattr(trees, "WINDOW", 32)
    windowed.fit(replace(rows, asts=source), seed=0)
    assert max(source.taken) == 32
    found = windowed.predict(rows.batch(), CPU).latency_s
    assert np.median(abs(np.log(found / whole.predict(rows.batch(), CPU).latency_s))) < 0.02


def test_trees_are_added_to_those_that_are_there() -> None:
    rows = rows_by_tile(200)
    model = TreePredictor(replace(OPTIONS, rounds=20))
    model.fit(rows, seed=0)
    once, nodes = median_error(model, seed=0), model.size().parameters
    model.fit(rows, seed=1)
    assert model.booster.num_boosted_rounds() == 40
    assert median_error(model, seed=0) < 0.6 * once
    assert model.size().parameters > nodes


def test_size() -> None:
    model = TreePredictor(TreeOptions(rounds=1, depth=1))
    assert model.size().parameters == model.size().num_bytes == 0
    model.fit(rows_by_tile(50), seed=0)
    assert model.size().parameters == 3
    assert model.size().num_bytes == len(model.booster.save_raw("ubj"))


def test_without_xgboost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = TreePredictor(replace(OPTIONS, rounds=1))
    model.fit(rows_by_tile(20), seed=0)
    model.save(tmp_path / "trees")
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(MissingDependencyError, match="pip install xgboost"):
        TreePredictor().fit(rows_by_tile(20), seed=0)
    with pytest.raises(MissingDependencyError, match="pip install xgboost"):
        TreePredictor.load(tmp_path / "trees")
    assert len(TreePredictor().predict(random_batch(3), CPU).latency_s) == 3


def test_damaged_trees_are_refused(tmp_path: Path) -> None:
    settings = {"kind": "trees", "options": {}}
    broken = {"trees": np.frombuffer(b"no trees", np.uint8)}
    write_checkpoint(tmp_path / "broken", Content(settings, broken))
    write_checkpoint(tmp_path / "lacking", Content({"kind": "trees"}, {}))
    for name in ("broken", "lacking"):
        with pytest.raises(CheckpointError, match=name):
            TreePredictor.load(tmp_path / name)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"depth": 0}, {"num_threads": 0}])
def test_options_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        TreeOptions(**wrong)
