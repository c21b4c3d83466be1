"""Noise that was put into made-up measurements must come out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.logs import import_all, records, write_log
from tests.data.measurements import measured
from tvm_cdmpp.data.noise import LEAST_PAIRS, Noise, compare_alike, estimate_noise, noise_by
from tvm_cdmpp.data.quality import Floats, Measurements, read_measurements
from tvm_cdmpp.data.store import RecordStore

PROGRAMS = 40_000


def true_latencies_s(seed: int = 0) -> Floats:
    return np.exp(np.random.default_rng(seed).normal(-7, 2, PROGRAMS))


def noise_of(made: Measurements) -> Noise:
    return estimate_noise(made, np.full(len(made.row), True))


def in_two_logs(first_s: Floats, second_s: Floats) -> Measurements:
    """Every program measured twice."""
    rows = np.tile(np.arange(len(first_s)), 2)
    return measured(rows, np.concatenate([first_s, second_s]), np.repeat([0, 1], len(first_s)))


@pytest.mark.parametrize("sigma", [0.01, 0.05])
def test_the_floor_is_what_a_perfect_predictor_has(sigma: float) -> None:
    """From two noisy measurements of each program, the error of its true latency."""
    rng = np.random.default_rng(0)
    true_s = true_latencies_s()
    labels = [true_s * np.exp(rng.normal(0, sigma, PROGRAMS)) for _ in range(2)]
    noise = noise_of(in_two_logs(*labels))
    errors = np.abs(true_s / labels[0] - 1)
    assert noise.basis == "between logs"
    assert noise.between_logs.pairs == PROGRAMS
    # A little low, as the module says.
    assert noise.floor_mape == pytest.approx(errors.mean() * (1 - 1.25 * sigma), rel=0.02)
    assert noise.floor_median_ape == pytest.approx(np.median(errors) * (1 - sigma), rel=0.03)
    differences = 1 - np.minimum(*labels) / np.maximum(*labels)
    assert noise.between_logs.difference_median == pytest.approx(np.median(differences))
    assert noise.between_logs.difference_mean == pytest.approx(differences.mean())


def test_far_outliers_count_once() -> None:
    """One measurement in twenty takes ten times as long: 90 % off, not a factor of ten."""
    rng = np.random.default_rng(1)
    true_s = true_latencies_s()
    labels = [
        true_s
        * np.exp(rng.normal(0, 0.01, PROGRAMS))
        * np.where(rng.random(PROGRAMS) < 0.05, 10, 1)
        for _ in range(2)
    ]
    noise = noise_of(in_two_logs(*labels))
    errors = np.abs(true_s / labels[0] - 1)
    assert noise.floor_mape == pytest.approx(errors.mean(), rel=0.06)
    assert noise.floor_median_ape == pytest.approx(np.median(errors), rel=0.06)


@given(st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3)), min_size=LEAST_PAIRS))
def test_no_predictor_is_below_half_the_mean_difference(made: list[tuple[float, float]]) -> None:
    """Not even one that is told, for each program, the best answer for its two labels."""
    first_s, second_s = (np.array(column) for column in zip(*made, strict=True))
    noise = noise_of(in_two_logs(first_s, second_s))
    guesses = np.stack([first_s, second_s, (first_s + second_s) / 2, np.sqrt(first_s * second_s)])
    errors = (np.abs(guesses / first_s - 1) + np.abs(guesses / second_s - 1)) / 2
    bound = noise.between_logs.difference_mean
    assert bound is not None
    assert noise.floor_mape is not None
    assert errors.min(axis=0).mean() >= bound / 2 - 1e-9
    assert bound / 2 - 1e-9 <= noise.floor_mape <= 0.5


def test_pairs_between_logs_and_within_a_log_are_told_apart() -> None:
    """Two logs that differ by 10 %, each measuring every program twice, 2 % apart."""
    true_s = true_latencies_s()[:50]
    runs = [true_s, true_s / 0.98, true_s / 0.9, true_s / 0.9 / 0.98]
    rows, logs = np.tile(np.arange(50), 4), np.repeat([3, 3, 7, 7], 50)
    noise = noise_of(measured(rows, np.concatenate(runs), logs))
    assert (noise.between_logs.pairs, noise.within_a_log.pairs) == (50, 100)
    assert noise.within_a_log.difference_median == pytest.approx(0.02)
    # The first of one log against the last of the other.
    assert noise.between_logs.difference_median == pytest.approx(1 - 0.9 * 0.98)
    assert noise.basis == "between logs"
    assert noise.floor_mape == noise.between_logs.floor_mape


def test_programs_measured_once_in_other_logs_are_no_pairs() -> None:
    """One log within itself only: a lower bound, and none of the next log's programs."""
    true_s = true_latencies_s()[:30]
    rows = np.concatenate([np.arange(30), np.arange(30), np.arange(30, 60)])
    logs = np.repeat([0, 0, 1], 30)
    noise = noise_of(measured(rows, np.concatenate([true_s, true_s * 1.1, true_s]), logs))
    assert (noise.between_logs.pairs, noise.within_a_log.pairs) == (0, 30)
    assert noise.between_logs.difference_mean is None
    assert noise.basis == "within a log"


@pytest.mark.parametrize(("between", "within", "repeats", "basis"), [
    (LEAST_PAIRS, LEAST_PAIRS, 10, "between logs"),
    (LEAST_PAIRS - 1, LEAST_PAIRS, 10, "within a log"),
    (LEAST_PAIRS - 1, LEAST_PAIRS - 1, 10, "repeats"),
    (LEAST_PAIRS - 1, LEAST_PAIRS - 1, 1, "unknown"),
])  # fmt: skip
def test_the_basis(between: int, within: int, repeats: int, basis: str) -> None:
    rows = [n for n in range(between + within) for _ in range(2)]
    logs = [0, 1] * between + [0, 0] * within
    made = measured(rows, np.tile([1.0, 1.25], between + within), logs)
    if repeats > 1:
        variation = np.full(len(rows), 0.1)
        made = replace(made, repeats=np.full(len(rows), repeats), variation=variation)
    noise = noise_of(made)
    assert noise.basis == basis
    assert (noise.between_logs.pairs, noise.within_a_log.pairs) == (between, within)
    # Differences are told however few; floors are not.
    assert noise.between_logs.difference_mean == pytest.approx(0.2)
    floor = {"repeats": 0.1 * np.sqrt(2 / np.pi / 10), "unknown": None}
    assert noise.floor_mape == pytest.approx(floor.get(basis, (1 - 0.8 ** np.sqrt(2)) / 2))


def test_the_floor_of_repeats_is_that_of_their_mean() -> None:
    rng = np.random.default_rng(2)
    costs = np.exp(rng.normal(0, 0.05, (PROGRAMS, 10)))
    mean_s = costs.mean(axis=1)
    made = replace(
        measured(np.arange(PROGRAMS), mean_s),
        variation=costs.std(axis=1, ddof=1) / mean_s,
        repeats=np.full(PROGRAMS, 10),
    )
    noise = noise_of(made)
    expected = np.abs(np.exp(0.05**2 / 2) / mean_s - 1).mean()
    assert noise.basis == "repeats"
    assert noise.floor_mape == pytest.approx(expected, rel=0.04)


def test_programs_that_look_alike() -> None:
    """The first and last of 30 groups of three, apart in the store; ten look like no other."""
    alike = np.concatenate([np.tile(np.arange(30), 3), np.arange(90, 100)])
    first_s = true_latencies_s()[:30]
    mean_s = np.concatenate([first_s, first_s * 7, first_s / 0.8, np.ones(10)])
    # Of a program that was measured again, the first measurement counts.
    rows = np.concatenate([np.arange(100), [0, 60, 99]])
    made = measured(rows, np.concatenate([mean_s, [9e9] * 3]))
    found = compare_alike(made, np.full(103, True), alike)
    assert found.pairs == 30
    assert found.difference_median == pytest.approx(0.2)
    assert found.difference_mean == pytest.approx(0.2)
    assert found.floor_mape == pytest.approx((1 - 0.8 ** np.sqrt(2)) / 2)
    some = compare_alike(made, made.row % 30 < 5, alike)
    assert (some.pairs, some.floor_mape) == (5, None)
    assert some.difference_mean == pytest.approx(0.2)
    none = compare_alike(made, np.full(103, True), np.arange(100))
    assert (none.pairs, none.difference_mean) == (0, None)


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    """Program 0 failed; 1 was measured in two logs, and twice in the first; the others once."""
    first, second = records(6), records(2)
    again = records(2)[1]
    first[0]["r"] = [[1e10], 4, 0.1, 5]
    for record, costs in ((first[1], [2e-3, 4e-3]), (again, [3.2e-3]), (second[1], [9e-3])):
        record["r"][0] = costs
    logs = [
        write_log(tmp_path / f"{name}.json", made)
        for name, made in (("a", [*first, again]), ("b", second[1:]))
    ]
    import_all(tmp_path / "store", *logs)
    return RecordStore.open(tmp_path / "store")


def test_noise_of_a_store(store: RecordStore) -> None:
    found = read_measurements(store)
    noise = noise_by(store, found, "device")[("test-cpu",)]
    assert noise.between_logs.difference_mean == pytest.approx(1 - 3 / 9)
    assert noise.within_a_log.difference_mean == pytest.approx(1 - 3 / 3.2)
    assert (noise.between_logs.pairs, noise.within_a_log.pairs) == (1, 1)
    within = found.variation[~np.isnan(found.variation)]
    assert noise.variation_median == pytest.approx(np.median(within))
    assert noise.variation_p90 == pytest.approx(np.quantile(within, 0.9))
    assert noise.basis == "repeats"
    by_log = noise_by(store, found, "name")
    assert [by_log[name,].within_a_log.pairs for name in ("a.json", "b.json")] == [1, 0]
    assert by_log["b.json",].to_json()["basis"] == "unknown"
