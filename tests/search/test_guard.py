"""Weights that are wrong here lose the say, and those that are right keep it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import spearmanr

from benchmarks.guard import spoil
from tests.models.programs import random_batch
from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models import (
    AdditiveConfig,
    Content,
    Machine,
    TrainedPredictor,
    TrainingRows,
    estimate_latency_s,
    read_checkpoint,
    write_checkpoint,
)
from tvm_cdmpp.search.guard import MEMBERS, Guard, GuardConfig

DEVICE = DeviceSpec(name="test", kind="cpu", cores=4)
PROGRAMS = random_batch(128)
SPREAD = np.random.default_rng(0).lognormal(0.0, 0.05, len(PROGRAMS))
LATENCIES_S = estimate_latency_s(PROGRAMS, DEVICE) * SPREAD
RIGHT = TrainedPredictor.untrained(AdditiveConfig(width=8, heads=1, layers=1, hidden=8), 0)
"""Predicts the analytic estimate, which is right here."""
REVERSED = spoil(RIGHT, "reversed", [])
OPERATORS = {0: "matmul", 1: "conv2d"}


def rows(first: int, last: int, task: int = 0) -> TrainingRows:
    places = np.arange(first, last)
    tasks = np.full(len(places), task)
    return TrainingRows.on(Machine(DEVICE), PROGRAMS.take(places), LATENCIES_S[places], tasks)


def taught(predictor: TrainedPredictor, *batches: TrainingRows) -> tuple[Guard, TrainingRows]:
    guard, known = Guard(predictor, seed=1), TrainingRows.join([])
    for batch in batches:
        guard.judge(predictor, batch, known, OPERATORS)
        known = TrainingRows.join([known, batch])
        guard.learn(known)
    return guard, known


def log_s(
    guard: Guard, predictor: TrainedPredictor, batch: CompactASTBatch, task: int = 0
) -> npt.NDArray[np.float64]:
    found = guard.predict(predictor, batch, DEVICE, task=task, operator=OPERATORS[task])
    return np.log(found.latency_s)


def agreement(found: npt.NDArray[np.float64], places: slice) -> float:
    return float(spearmanr(found, LATENCIES_S[places]).statistic)


def trust(guard: Guard, operator: str) -> float:
    """What the networks have, of weights that are sane."""
    weights = guard.weights(operator)
    assert tuple(weights) == MEMBERS
    assert min(weights.values()) >= 0
    assert sum(weights.values()) == pytest.approx(1.0)
    return weights["adapted"] + weights["prior"]


def test_the_network_alone_is_asked_at_first() -> None:
    expected = REVERSED.predict(PROGRAMS, DEVICE)
    found = Guard(REVERSED, 0).predict(REVERSED, PROGRAMS, DEVICE, task=0, operator="matmul")
    assert expected.leaf_s is not None
    for name in ("latency_s", "runs_probability", "spread", "leaf_s"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_network_that_is_right_keeps_the_say() -> None:
    guard, _ = taught(RIGHT, *(rows(first, first + 16) for first in range(0, 64, 16)))
    assert trust(guard, "matmul") > 0.9
    assert guard.overruled == ()


def test_another_level_costs_no_trust() -> None:
    slower = spoil(RIGHT, "slower", [])
    guard, _ = taught(slower, *(rows(first, first + 16) for first in range(0, 64, 16)))
    assert trust(guard, "matmul") > 0.9


def test_what_was_learned_since_is_not_taken_off_again() -> None:
    slower = spoil(RIGHT, "slower", [])
    guard = Guard(slower, seed=1, config=GuardConfig(trust=(0.5, 0.5, 1e-6, 1e-6)))
    guard.judge(slower, rows(0, 16), TrainingRows.join([]), OPERATORS)
    # RIGHT is what the adapted network has become; the prior is as far off as it was.
    assert abs(np.median(log_s(guard, RIGHT, PROGRAMS) - np.log(LATENCIES_S))) < 0.1


def test_trees_that_do_not_grow_are_judged_like_the_estimate() -> None:
    guard = Guard(RIGHT, seed=1, config=GuardConfig(trust=(1e-6, 1e-6, 0.5, 0.5)))
    slower = TrainingRows.on(
        Machine(DEVICE), PROGRAMS, 3.0 * LATENCIES_S, np.zeros(len(PROGRAMS), np.int64)
    )
    guard.judge(RIGHT, slower.take(np.arange(16)), TrainingRows.join([]), OPERATORS)
    found = log_s(guard, RIGHT, PROGRAMS)
    assert abs(np.median(found - np.log(slower.latencies_s))) < 0.1


def test_a_network_that_is_wrong_is_overruled() -> None:
    guard, _ = taught(REVERSED, rows(0, 16), rows(16, 32))
    (told,) = guard.overruled
    assert (told.operator, told.by in ("trees", "analytic")) == ("matmul", True)
    assert told.weight == pytest.approx(trust(guard, "matmul"))
    assert trust(guard, "matmul") < 0.05
    rest = slice(32, 128)
    batch = PROGRAMS.take(np.arange(32, 128))
    assert agreement(np.log(REVERSED.predict(batch, DEVICE).latency_s), rest) < -0.9
    found = log_s(guard, REVERSED, batch)
    assert agreement(found, rest) > 0.9
    # Its level is that of what was measured, not the one that predictions were reversed about.
    assert abs(np.median(found - np.log(LATENCIES_S[rest]))) < 0.5
    # A class that nothing is known of goes by all others.
    assert trust(guard, "conv2d") == trust(guard, "matmul")


def test_operators_are_judged_apart() -> None:
    def wrong(first: int) -> TrainingRows:
        right = rows(first, first + 16)
        return TrainingRows.on(
            Machine(DEVICE), right.batch(), 1e-9 / right.latencies_s, np.zeros(16, np.int64)
        )

    guard, _ = taught(RIGHT, wrong(0), rows(48, 96, task=1), wrong(16), wrong(32))
    assert trust(guard, "matmul") < 0.5 < 0.9 < trust(guard, "conv2d")
    assert [told.operator for told in guard.overruled] == ["matmul"]


@pytest.mark.parametrize("count", [1, 2])
def test_few_and_failed_programs(count: int) -> None:
    failed = TrainingRows.on(
        Machine(DEVICE), PROGRAMS.take(np.arange(4)), np.full(4, np.inf), np.zeros(4, np.int64)
    )
    guard, known = taught(RIGHT, failed)
    assert trust(guard, "matmul") > 0.97
    for first in range(4, 10):
        guard.judge(RIGHT, rows(first, first + count), known, OPERATORS)
    assert np.isfinite(log_s(guard, RIGHT, PROGRAMS)).all()


def test_a_saved_guard_goes_on(tmp_path: Path) -> None:
    guard, known = taught(REVERSED, rows(0, 16), rows(16, 32, task=1))
    write_checkpoint(tmp_path / "g", Content.under(guard=guard.content()))
    content = read_checkpoint(tmp_path / "g").part("guard")
    again = Guard.of_content(content, REVERSED)
    again.learn(known)
    for each in (guard, again):
        each.judge(REVERSED, rows(32, 48), known, OPERATORS)
    assert again.weights("matmul") == guard.weights("matmul")
    for task in (0, 1):
        np.testing.assert_array_equal(
            log_s(again, REVERSED, PROGRAMS, task), log_s(guard, REVERSED, PROGRAMS, task)
        )
