"""The training loop: what is a minibatch, what is a loss, and that the loop learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from tests.models.baselines.examples import CPU, rows_by_tile, small
from tests.models.baselines.test_inputs import Counting
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models.baselines.base import NetworkPredictor
from tvm_cdmpp.models.baselines.graph import GraphPredictor
from tvm_cdmpp.models.baselines.habitat import HabitatPredictor
from tvm_cdmpp.models.baselines.lstm import RecursiveLSTMPredictor
from tvm_cdmpp.models.baselines.mlp import MLPPredictor
from tvm_cdmpp.models.baselines.training import Training, draw_order, make_schedule
from tvm_cdmpp.models.rows import TrainingRows


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        (MLPPredictor, "tuned"),
        (MLPPredictor, "paper"),
        (RecursiveLSTMPredictor, "tuned"),
        (RecursiveLSTMPredictor, "paper"),
        (HabitatPredictor, "tuned"),
        (HabitatPredictor, "paper"),
        (GraphPredictor, "skip"),
        (GraphPredictor, "plain"),
    ],
)
def test_learns_what_the_estimate_does_not_know(kind: Any, setting: str) -> None:
    model, rows, unseen = small(kind, setting, steps=200), rows_by_tile(300), rows_by_tile(60, 9)

    def order(model: NetworkPredictor) -> float:
        predicted = model.predict(unseen.batch(), CPU).latency_s
        return float(spearmanr(predicted, unseen.latencies_s).statistic)

    assert order(model) < 0.5
    model.fit(rows, seed=0)
    assert order(model) > 0.7
    if model.training.loss == "huber":
        error = model.predict(unseen.batch(), CPU).latency_s / unseen.latencies_s - 1.0
        assert np.median(abs(error)) < 0.25


def test_ranking_alone_keeps_its_order_in_seconds() -> None:
    """The line that gives seconds rises even where slower tasks happen to have lower scores."""
    rows = rows_by_tile()
    model = small(MLPPredictor, "paper")
    model.fit(replace(rows, latencies_s=rows.latencies_s[::-1].copy()), seed=0)
    assert model.scale is not None
    assert model.scale.std > 0
    logs = np.log(model.predict(rows.batch(), CPU).latency_s)
    assert abs(logs.mean() - np.log(rows.latencies_s).mean()) < 0.3


def test_rows_need_not_fit_into_memory() -> None:
    rows = rows_by_tile(100)
    source = Counting(rows.batch())
    model = small(MLPPredictor, steps=20, batch_size=16, window=32)
    model.fit(replace(rows, asts=source), seed=0)
    assert max(source.taken) == 32
    # Four windows a pass, seven minibatches of which the last is small, and one drawn ahead.
    assert len(source.taken) == 12


def test_seconds_do_not_come_from_the_rest_of_a_pass() -> None:
    """A line through the one row of the second window would have the slope 1."""
    model = small(MLPPredictor, "paper", steps=3, batch_size=64, window=64)
    model.fit(rows_by_tile(65), seed=0)
    assert model.scale is not None
    assert model.scale.std != 1.0


def test_few_rows_are_read_once() -> None:
    rows = rows_by_tile(100)
    source = Counting(rows.batch())
    small(MLPPredictor, steps=20, batch_size=16).fit(replace(rows, asts=source), seed=0)
    assert source.taken == [100]


def test_failed_programs_change_nothing() -> None:
    rows = rows_by_tile(60)
    some = rows.latencies_s.copy()
    some[::4] = np.inf
    kept = np.flatnonzero(np.isfinite(some))
    found = []
    for given in (replace(rows, latencies_s=some), rows.take(kept)):
        model = small(MLPPredictor, steps=10)
        model.fit(given, seed=0)
        found.append(model.predict(rows.batch(), CPU).latency_s)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_training_goes_on_from_what_is_known() -> None:
    rows = rows_by_tile()
    model = small(MLPPredictor, steps=150)
    model.fit(rows, seed=0)
    before = model.predict(rows.batch(), CPU).latency_s
    model.fit(rows, seed=1, training=Training(steps=1, learning_rate=1e-9, batch_size=64))
    np.testing.assert_allclose(model.predict(rows.batch(), CPU).latency_s, before, rtol=1e-3)


def test_order_has_every_row_once_in_runs_of_one_group() -> None:
    groups = np.repeat([5, 1, 9], [10, 3, 40])
    groups = groups[np.random.default_rng(1).permutation(53)]
    order = draw_order(groups, 8, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(order), np.arange(53))
    drawn = groups[order]
    runs = np.split(drawn, np.flatnonzero(np.diff(drawn)) + 1)
    # A run of at most 8; two of one group may meet.
    assert len(runs) <= 8
    assert not (np.diff(drawn) >= 0).all()
    assert (draw_order(groups, 8, np.random.default_rng(2)) != order).any()
    alone = draw_order(np.zeros(20, np.int64), 1, np.random.default_rng(0))
    assert (np.diff(alone) != 1).any()


def test_programs_of_other_tasks_may_be_ranked_too() -> None:
    """In minibatches with one program of a task each, there is nobody else to compare with."""
    rows = rows_by_tile(60)
    pairs = replace(rows, tasks=np.arange(60) // 2)
    for ranked, learns in (("task", False), ("machine", True)):
        model = small(MLPPredictor, "paper", steps=1, ranked=ranked, batch_size=2, group_size=1)
        model.fit(pairs, seed=0)
        assert bool(model.content().arrays["score.weight"].any()) == learns


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("constant", [1.0, 1.0, 1.0, 1.0]), ("drop", [1.0, 1.0, 0.2, 0.2])],
)
def test_learning_rates_of_published_settings(schedule: Any, rates: list[float]) -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    steps = make_schedule(optimizer, Training(steps=4, schedule=schedule, learning_rate=1.0))
    found = []
    for _ in rates:
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        steps.step()
    assert found == pytest.approx(rates)


def test_what_the_optimiser_saw_is_counted() -> None:
    model = small(MLPPredictor, steps=3, batch_size=16)
    model.fit(rows_by_tile(40), seed=0)
    assert model.programs_seen == 16 + 16 + 8


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": -1},
        {"group_size": 0},
        {"batch_size": 1},
        {"batch_size": 64, "window": 32},
        {"loss": "none", "ranking_weight": 0.0},
    ],
)
def test_settings_that_cannot_train(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Training(**wrong)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_any_number_of_steps(steps: int) -> None:
    model = small(MLPPredictor, steps=steps)
    rows = rows_by_tile(30)
    model.fit(rows, seed=0)
    if not steps:  # the level is known, nothing else
        ratio = np.log(model.predict(rows.batch(), CPU).latency_s / rows.latencies_s)
        assert abs(ratio.mean()) < 1e-6


def test_groups_without_a_program_that_runs() -> None:
    rows = rows_by_tile(40, num_tasks=2)
    latencies_s = np.where(rows.tasks == 1, np.inf, rows.latencies_s)
    model = small(MLPPredictor, steps=5)
    model.fit(TrainingRows.on(CPU, rows.batch(), latencies_s, rows.tasks), seed=0)
    assert np.isfinite(model.predict(rows.batch(), CPU).latency_s).all()
