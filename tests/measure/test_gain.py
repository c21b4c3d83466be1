"""Real networks, really timed; what the machine did meanwhile is invented."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_cdmpp.bridge.target import default_target
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.measure import gain as gain_module
from tvm_cdmpp.measure.gain import (
    GainConfig,
    Timing,
    _noisy_rounds,
    _timing,
    _verdict,
    measure_gain,
    measure_latency,
)
from tvm_cdmpp.networks.deployment import deploy
from tvm_cdmpp.networks.network import load_network


class Turns:
    """Stands for the process of the networks: their latencies are given."""

    def __init__(self, *latencies_s: float) -> None:
        self.latencies_s = latencies_s
        self.asked: list[int] = []

    def time(self, index: int) -> float:
        self.asked.append(index)
        return self.latencies_s[index]


def test_a_network_is_as_fast_as_itself() -> None:
    deployed = deploy(load_network("mlp"), default_target())
    config = GainConfig(rounds=3, most_rounds=3)
    gain = measure_gain(deployed, deployed, config, measure_calibration=lambda: 1.0)
    assert (gain.rounds, gain.noisy_rounds, gain.quiet) == (3, 0, True)
    assert gain.outputs_agree
    assert gain.max_relative_difference == 0
    for timing in (gain.untuned, gain.tuned):
        assert 0 < timing.low_s <= timing.latency_s <= timing.high_s
    assert 0 < measure_latency(deployed, rounds=2).latency_s < 1
    assert gain.speedup == pytest.approx(gain.untuned.latency_s / gain.tuned.latency_s)


def test_rounds_next_to_a_noisy_calibration_do_not_count() -> None:
    assert _noisy_rounds([1.0, 1.05, 2.0, 1.0, 0.99]) == [False, True, True, False]
    # A lower one shows that the machine was busy before.
    assert _noisy_rounds([1.0, 1.0, 0.5]) == [True, True]


def test_rounds_go_on_until_enough_are_quiet() -> None:
    turns, calibrations = Turns(2.0, 1.0), itertools.chain([1, 1, 1, 5], itertools.repeat(1.0))
    config = GainConfig(rounds=4, most_rounds=30)
    rounds, noisy = gain_module._time_in_turns(turns, lambda: next(calibrations), config)  # type: ignore[arg-type]
    assert noisy == [False, True, True, False, False, False]
    assert rounds == [(2.0, 1.0)] * 6
    assert turns.asked[:8] == [0, 1, 1, 0, 0, 1, 1, 0]  # who comes first alternates


@pytest.mark.parametrize(("budget_s", "expected"), [(0.0, 3), (1e9, 7)])
def test_a_busy_machine_ends_the_rounds(budget_s: float, expected: int) -> None:
    busy = itertools.chain([1.0, 1.0], itertools.repeat(9.0))
    config = GainConfig(rounds=5, most_rounds=7, budget_s=budget_s)
    rounds, noisy = gain_module._time_in_turns(Turns(1.0, 1.0), lambda: next(busy), config)  # type: ignore[arg-type]
    assert len(rounds) == expected
    assert all(noisy)


@given(st.lists(st.floats(1e-6, 1e3), min_size=3, max_size=40))
def test_the_range_holds_the_median(samples_s: list[float]) -> None:
    timing = _timing(samples_s)
    assert min(samples_s) <= timing.low_s <= timing.latency_s <= timing.high_s <= max(samples_s)
    if len(samples_s) < 9:
        assert (timing.low_s, timing.high_s) == (min(samples_s), max(samples_s))


@pytest.mark.parametrize("n", [6, 10, 17, 30])
def test_the_range_is_right_in_95_of_100_cases(n: int) -> None:
    draws = np.random.default_rng(0).lognormal(size=(4000, n))  # of median 1
    timings = [_timing(row.tolist()) for row in draws]
    right = np.mean([timing.low_s <= 1 <= timing.high_s for timing in timings])
    assert right >= 0.94
    # And no wider than it must be: one sample less on both sides would be too narrow.
    k = next(k for k in range(n) if 2 * sum(math.comb(n, i) for i in range(k + 1)) > 0.05 * 2**n)
    assert timings[0].low_s == np.sort(draws[0])[k - 1]


@pytest.mark.parametrize(
    ("untuned", "tuned", "verdict"),
    [
        ((2.0, 3.0), (0.5, 1.0), "faster"),
        ((0.5, 1.0), (2.0, 3.0), "slower"),
        ((1.0, 3.0), (0.5, 1.0), "no significant difference"),
        ((1.0, 2.0), (0.5, 3.0), "no significant difference"),
    ],
)
def test_nothing_is_claimed_where_ranges_overlap(
    untuned: tuple[float, float], tuned: tuple[float, float], verdict: str
) -> None:
    timings = (Timing(latency_s=sum(r) / 2, low_s=r[0], high_s=r[1]) for r in (untuned, tuned))
    assert _verdict(*timings) == verdict


@pytest.mark.parametrize("wrong", [{"rounds": 1}, {"most_rounds": 9}, {"budget_s": -1}])
def test_too_few_rounds_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="rounds"):
        GainConfig(**wrong)
