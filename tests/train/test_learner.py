"""How far weights learn from a few programs: as far as that predicts others better."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.models.programs import random_batch
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models import (
    AdaptConfig,
    AdditiveConfig,
    TrainedPredictor,
    TrainingRows,
    round_weights,
)
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.learner import Learner

DEVICE = DeviceSpec(name="new", kind="cpu", cores=64, clock_hz=1e9)
KNOWN = DeviceSpec(name="known", kind="cpu", cores=4)
QUICK = AdaptConfig(steps=40, programs=16, learning_rate=2e-3)
SHORT = TrainConfig(
    steps=10, learning_rate=1e-4, groups_per_batch=4, programs_per_group=8, window_batches=10,
    average=0.9, domain="cmd",
)  # fmt: skip
NONE = np.zeros(0, np.int64)


def a_start() -> TrainedPredictor:
    start = TrainedPredictor.untrained(AdditiveConfig(width=16, layers=1, hidden=16), 0)
    for expert in start.experts.values():
        round_weights(expert.network)
    return start


def moved(start: TrainedPredictor, rows: TrainingRows) -> float:
    """By how much the weights of what was learned differ; that is what they say of themselves."""
    learned, how = Learner(start=start, anchored=QUICK).learn(rows, rows.take(NONE))
    before, after = (each.experts["cpu"].network.state_dict() for each in (start, learned))
    difference = sum(float((after[n] - weight).abs().sum()) for n, weight in before.items())
    assert ("training" in how) == (difference > 0.0)
    return difference


@pytest.mark.parametrize("seed", range(3))
def test_weights_that_are_right_stay(seed: int) -> None:
    start, batch = a_start(), random_batch(60, seed=seed)
    latencies_s = 3.0 * start.predict(batch, DEVICE).latency_s
    assert moved(start, TrainingRows.on(DEVICE, batch, latencies_s, np.arange(60))) == 0.0


def test_weights_learn_what_others_confirm() -> None:
    start, batch = a_start(), random_batch(60, seed=0)
    other = a_start()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for weight in other.experts["cpu"].network.parameters():
            weight.add_(0.5 * torch.randn_like(weight))
    latencies_s = other.predict(batch, DEVICE).latency_s
    assert moved(start, TrainingRows.on(DEVICE, batch, latencies_s, np.arange(60))) > 0.0


def test_few_programs_tell_a_level_only() -> None:
    start, batch = a_start(), random_batch(11, seed=0)
    latencies_s = 5.0 * start.predict(batch, DEVICE).latency_s
    rows = TrainingRows.on(DEVICE, batch, latencies_s, np.arange(11))
    assert moved(start, rows) == 0.0
    learned, how = Learner(start=start).learn(rows, rows.take(NONE))
    assert "level" in how
    np.testing.assert_allclose(learned.predict(batch, DEVICE).latency_s, latencies_s, rtol=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_where_programs_tell_little_of_others_the_level_is_below_their_median(seed: int) -> None:
    start, batch = a_start(), random_batch(160, seed=seed)
    noise = np.exp(np.random.default_rng(seed).normal(0.7, 0.9, 160))
    latencies_s = noise * start.predict(batch, DEVICE).latency_s
    rows = TrainingRows.on(DEVICE, batch, latencies_s, np.arange(160))
    measured, others = rows.take(np.arange(100)), np.arange(100, 160)
    learned, _ = Learner(start=start, anchored=QUICK).learn(measured, rows.take(NONE))
    ratio = learned.predict(batch.take(others), DEVICE).latency_s / latencies_s[others]
    at_median = (
        start.predict(batch.take(others), DEVICE).latency_s / latencies_s[others] * np.exp(0.7)
    )
    assert np.abs(ratio - 1.0).mean() < 0.85 * np.abs(at_median - 1.0).mean()
    own_s = learned.predict(batch.take(np.arange(100)), DEVICE).latency_s
    np.testing.assert_allclose(own_s, latencies_s[:100], rtol=0.1)


def test_where_sums_are_predicted_the_level_is_the_median() -> None:
    start, batch = a_start(), random_batch(160, seed=0)
    noise = np.exp(np.random.default_rng(0).normal(0.7, 0.9, 160))
    rows = TrainingRows.on(
        DEVICE, batch, noise * start.predict(batch, DEVICE).latency_s, np.arange(160)
    )
    levels = []
    for weight in (0.0, 3.0):
        learner = Learner(start=start, anchored=QUICK, relative_weight=weight)
        learned, _ = learner.learn(rows.take(np.arange(100)), rows.take(NONE))
        others = batch.take(np.arange(100, 160))
        ratio = learned.predict(others, DEVICE).latency_s / start.predict(others, DEVICE).latency_s
        levels.append(float(np.median(np.log(ratio))))
    assert levels[0] == pytest.approx(0.7, abs=0.2)
    assert levels[1] < levels[0] - 0.15


def test_what_was_measured_comes_on_top_of_what_is_known_of_each_program() -> None:
    start, batch = a_start(), random_batch(40, seed=0)
    known = [replace(DEVICE, program_level=float(level)) for level in np.linspace(-2.0, 2.0, 40)]

    def predicted_s(predictor: TrainedPredictor) -> list[float]:
        return [
            float(predictor.predict(batch.take([place]), device).latency_s[0])
            for place, device in enumerate(known)
        ]

    measured_s = [3.0 * seconds for seconds in predicted_s(start)]
    rows = TrainingRows.join(
        [
            TrainingRows.on(
                device, batch.take([place]), measured_s[place : place + 1], np.array([place])
            )
            for place, device in enumerate(known)
        ]
    )
    learned, _ = Learner(start=start, anchored=QUICK).learn(rows, rows.take(NONE))
    np.testing.assert_allclose(predicted_s(learned), measured_s, rtol=0.05)


def test_programs_that_did_not_run_teach_nothing() -> None:
    start, batch = a_start(), random_batch(4, seed=0)
    rows = TrainingRows.on(DEVICE, batch, np.full(4, np.inf), np.arange(4))
    learned, how = Learner(start=start).learn(rows, rows.take(NONE))
    assert learned is start
    assert "nothing" in how


@pytest.mark.parametrize(("num_own", "beside_sources"), [(60, False), (20, False), (60, True)])
def test_programs_of_a_search_and_tvms_own_schedules_have_levels_of_their_own(
    num_own: int, beside_sources: bool
) -> None:
    start, batch = a_start(), random_batch(120, seed=0)
    on = {
        own: DEVICE.for_operator("conv2d", own="conv2d" if own else None) for own in (True, False)
    }
    factors, counts = {True: 4.0, False: 0.5}, {True: num_own, False: 80 - num_own}
    first, parts = 0, []
    for own, device in on.items():
        places = np.arange(first, first + counts[own])
        seconds = factors[own] * start.predict(batch.take(places), device).latency_s
        parts.append(TrainingRows.on(device, batch.take(places), seconds, places))
        first += counts[own]
    rows = TrainingRows.join(parts)
    others, sources = batch.take(np.arange(80, 120)), None
    if beside_sources:
        known = start.predict(batch, KNOWN).latency_s
        sources = TrainingRows.on(KNOWN, batch, known, np.arange(120))
    learner = Learner(start=start, sources=sources, config=SHORT, anchored=QUICK)
    learned, _ = learner.learn(rows, rows.take(NONE))
    for own, device in on.items():
        ratio = learned.predict(others, device).latency_s / start.predict(others, device).latency_s
        np.testing.assert_allclose(np.median(ratio), factors[own], rtol=0.1)
    left_s = learned.without_levels(rows).latencies_s
    np.testing.assert_allclose(left_s, start.predict(rows.batch(), DEVICE).latency_s, rtol=0.1)


def test_of_the_level_of_a_search_others_take_a_share_and_of_tvms_own_schedules_all() -> None:
    start, batch = a_start(), random_batch(120, seed=0)
    own_device = replace(DEVICE, own_schedule=True)
    parts = []
    for device, factor, places in (
        (DEVICE, 4.0, np.arange(40)),
        (own_device, 0.25, np.arange(40, 80)),
    ):
        seconds = factor * start.predict(batch.take(places), device).latency_s
        parts.append(TrainingRows.on(device, batch.take(places), seconds, places))
    rows, others = TrainingRows.join(parts), batch.take(np.arange(80, 120))
    learner = Learner(start=start, anchored=QUICK, searched_share=0.5)
    learned, _ = learner.learn(rows, rows.take(NONE))
    for device, expected in ((DEVICE, 2.0), (own_device, 0.25)):
        ratio = learned.predict(others, device).latency_s / start.predict(others, device).latency_s
        np.testing.assert_allclose(np.median(ratio), expected, rtol=0.1)
    itself_s = learned.predict(batch.take(np.arange(40)), DEVICE).latency_s
    np.testing.assert_allclose(itself_s, rows.latencies_s[:40], rtol=0.1)
