"""Batches of programs that are good and not alike, and what the next one would gain."""

import numpy as np
import pytest

from tests.search.evolve.spaces import space, wandered
from tvm_cdmpp.search.evolve.choice import _difference, _parts, choose, expected_gain, spread_within


def test_the_best_that_are_not_alike() -> None:
    made, evolution = wandered("conv2d")
    programs = evolution.programs
    worth = np.arange(len(programs), 0, -1.0)
    chosen = choose(programs, worth, 12, made.skeletons, 2)
    assert chosen[0] == 0
    assert chosen == sorted(chosen)  # by worth
    parts = [_parts(programs, place, made.skeletons) for place in chosen]
    differences = [_difference(a, b) for n, a in enumerate(parts) for b in parts[:n]]
    assert min(differences) >= 2
    left_out = next(n for n in range(len(programs)) if n not in chosen)
    if left_out < chosen[-1]:
        own = _parts(programs, left_out, made.skeletons)
        assert min(_difference(own, other) for other in parts) < 2
    # Without the limit there are just the best.
    assert choose(programs, worth, 12, made.skeletons, 0) == list(range(12))


def test_programs_that_are_alike_where_there_are_no_others() -> None:
    made, programs = space("norm")
    worth = np.arange(len(programs), dtype=float)
    chosen = choose(programs, worth, len(programs) + 5, made.skeletons, 3)
    assert sorted(chosen) == list(range(len(programs)))


def test_expected_gain() -> None:
    def gain(ratios: list[float], spread: float) -> float:
        return expected_gain(np.array(ratios), spread, np.random.default_rng(0))

    assert gain([], 0.2) == 0.0
    assert gain([0.1, 0.5], 0.0) == 0.0
    assert gain([np.log(0.8), 0.5], 0.0) == pytest.approx(0.2)
    # Of a standard normal error, half of the mean absolute value is gain.
    assert gain([0.0], 1e-3) == pytest.approx(1e-3 * np.sqrt(1 / (2 * np.pi)), rel=0.2)
    assert gain([0.0] * 8, 0.1) > gain([0.0], 0.1) > gain([0.3], 0.1) > 0


def test_spread_is_learned() -> None:
    assert spread_within([], 0.15) == pytest.approx(0.15)
    # A level that is off is no spread.
    assert spread_within([2.0] * 100, 0.15) < 0.05
    residuals = np.random.default_rng(0).normal(0.5, 0.4, 200).tolist()
    assert spread_within(residuals, 0.15) == pytest.approx(0.4, rel=0.15)
