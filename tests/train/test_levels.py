"""Levels and the last layer: exact, shrunk where little is known, hard to upset."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.train.levels import LastLayer, LevelCorrection, LevelVariances

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

VARIANCES = LevelVariances(device=0.5, operator=0.2, task=0.1, noise=0.3)
OPERATORS = np.array(["conv2d", "conv2d", "dense", "softmax"])
"""Of the tasks 0 to 3."""


def dense_posterior(
    residuals: Floats, tasks: Ints, counts_as: Floats, variances: LevelVariances
) -> tuple[Floats, Floats]:
    """The expected levels of the tasks 0 to 3, and their variances, from all covariances."""
    same_operator = OPERATORS[:, None] == OPERATORS
    prior = variances.device + variances.operator * same_operator + variances.task * np.eye(4)
    observed = prior[np.ix_(tasks, tasks)] + np.diag(variances.noise / counts_as)
    gain = np.linalg.solve(observed, prior[tasks])
    return gain.T @ residuals, np.diag(prior - prior[:, tasks] @ gain)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 1000))
def test_levels_are_the_posterior_mean(measured: list[int], seed: int) -> None:
    """With each residual counting as Student's t has it, given those levels."""
    tasks = np.array(measured)
    residuals = np.random.default_rng(seed).standard_t(2, len(tasks))
    found = LevelCorrection.fit(residuals, OPERATORS[tasks], tasks, VARIANCES)
    levels = found.apply(OPERATORS, np.arange(4))
    assert found.variances == VARIANCES
    counts_as = np.ones(len(tasks))
    for _ in range(100):
        expected, variance = dense_posterior(residuals, tasks, counts_as, VARIANCES)
        squares = (residuals - expected[tasks]) ** 2 + variance[tasks]
        counts_as = 3.0 / (2.0 + squares / VARIANCES.noise)
    np.testing.assert_allclose(levels, expected, atol=1e-4)


def test_nothing_measured_corrects_nothing() -> None:
    found = LevelCorrection.fit(np.zeros(0), OPERATORS[:0], np.zeros(0, np.int64))
    assert found.apply(OPERATORS, np.arange(4)).tolist() == [0.0] * 4
    assert found.apply(OPERATORS[:0], np.arange(0)).shape == (0,)


def test_one_program_says_less_of_what_is_further_away() -> None:
    found = LevelCorrection.fit(np.array([0.8]), OPERATORS[:1], np.zeros(1, np.int64), VARIANCES)
    measured, same_operator, other = found.apply(OPERATORS[:3], np.arange(3))
    assert 0.8 > measured > same_operator > other > 0
    assert other == found.device


def test_many_programs_leave_nothing_of_the_prior() -> None:
    generator = np.random.default_rng(0)
    level = np.array([2.0, -1.0, 0.3, 3.0])  # far beyond what the variances expect
    tasks = np.repeat(np.arange(4), 20_000)
    residuals = level[tasks] + generator.uniform(-0.5, 0.5, len(tasks))
    found = LevelCorrection.fit(residuals, OPERATORS[tasks], tasks, VARIANCES)
    np.testing.assert_allclose(found.apply(OPERATORS, np.arange(4)), level, atol=0.01)


def test_unknown_tasks_and_operators_take_the_level_above() -> None:
    tasks = np.repeat([4, 9], 50)
    operators = np.repeat([7, 8], 50)  # numbers name operators as well
    found = LevelCorrection.fit(np.repeat([1.0, -1.0], 50), operators, tasks, VARIANCES)
    unknown = found.apply(np.array([7, 8, 99]), np.array([100, 101, 102]))
    assert unknown.tolist() == [found.operators[7], found.operators[8], found.device]
    assert found.apply(np.array([8]), np.array([9])) == found.tasks[9] < found.operators[8] < 0


@pytest.mark.parametrize(("others", "limit"), [(1, 1.7), (5, 0.07)])
def test_one_absurd_residual_moves_little(others: int, limit: float) -> None:
    variances = replace(VARIANCES, noise=0.01)
    tasks = np.concatenate([np.zeros(others, np.int64), np.repeat([1, 2, 3], 10)])
    residuals = np.full(len(tasks), 0.2)
    calm = LevelCorrection.fit(residuals, OPERATORS[tasks], tasks, variances)
    residuals[0] = 1e6
    upset = LevelCorrection.fit(residuals, OPERATORS[tasks], tasks, variances)
    moved = abs(upset.apply(OPERATORS, np.arange(4)) - calm.apply(OPERATORS, np.arange(4)))
    assert moved[0] < limit
    assert moved[2:].max() < 0.2


def test_rows_that_fit_no_level() -> None:
    tasks = np.array([0, 0])
    names = np.array(["dense", "dense"])
    for residuals in (np.array([0.1, np.inf]), np.array([np.nan, 0.1])):
        with pytest.raises(RecordError, match="failed"):
            LevelCorrection.fit(residuals, names, tasks)
    with pytest.raises(RecordError, match="shape"):
        LevelCorrection.fit(np.zeros(3), names, tasks)
    with pytest.raises(RecordError, match="one operator"):
        LevelCorrection.fit(np.zeros(2), OPERATORS[1:3], tasks)
    for wrong in ({"noise": 0.0}, {"task": -1.0}):
        with pytest.raises(ConfigError, match="Variances"):
            LevelVariances(**wrong)


def test_variances_are_found_in_residuals() -> None:
    generator = np.random.default_rng(0)
    per_task = generator.integers(3, 8, 4000)
    operator_of_task = np.arange(4000) // 20
    level = 0.6 + generator.normal(0, 0.4, 200)
    of_task = level[operator_of_task] + generator.normal(0, 0.05, 4000)
    tasks = np.repeat(np.arange(4000), per_task)
    residuals = of_task[tasks] + 0.02 * generator.standard_t(2, len(tasks))
    found = LevelCorrection.fit(residuals, operator_of_task[tasks], tasks).variances
    assert found.noise == pytest.approx(0.02**2, rel=0.25)
    assert found.task == pytest.approx(0.05**2, rel=0.25)
    assert found.operator == pytest.approx(0.4**2, rel=0.3)


def test_levels_of_a_device_that_is_predicted_well_move_little() -> None:
    """One residual in twenty is far off, as those of recorded programs are."""
    generator = np.random.default_rng(0)
    tasks = np.arange(200) % 50
    residuals = generator.normal(0, 0.05, 200)
    residuals[::20] += 1.5
    found = LevelCorrection.fit(residuals, OPERATORS[tasks % 4], tasks)
    assert np.abs(found.apply(OPERATORS[tasks % 4], tasks)).max() < 0.06
    assert found.variances.task < 0.01


def linear(count: int, seed: int = 0, noise: float = 0.1) -> tuple[Floats, Floats, Floats]:
    """Features, residuals and the weights between them."""
    generator = np.random.default_rng(seed)
    weights = np.array([0.5, -0.3, 0.0, 0.2])
    features = generator.normal(size=(count, 4))
    return features, features @ weights + generator.normal(0, noise, count), weights


@given(st.integers(0, 40))
def test_two_updates_are_one(cut: int) -> None:
    features, residuals, _ = linear(40)
    prior = LastLayer.of_prior(np.full(4, 3.0))
    once = prior.update(features, residuals)
    twice = prior.update(features[:cut], residuals[:cut]).update(features[cut:], residuals[cut:])
    np.testing.assert_allclose(once.predict(features), twice.predict(features), rtol=1e-9)
    assert prior.predict(features)[0].tolist() == [0.0] * 40


def test_the_last_layer_is_the_posterior() -> None:
    features, residuals, _ = linear(12)
    precision, noise = np.array([1.0, 2.0, 3.0, 4.0]), 0.05
    layer = LastLayer.of_prior(precision, noise_variance=noise).update(features, residuals)
    asked = np.random.default_rng(5).normal(size=(6, 4))
    prior = features / precision @ features.T + noise * np.eye(12)
    cross = asked / precision @ features.T
    variance = (asked**2 / precision).sum(axis=1) + noise
    variance -= np.einsum("ij,ij->i", cross, np.linalg.solve(prior, cross.T).T)
    mean, std = layer.predict(asked)
    np.testing.assert_allclose(mean, cross @ np.linalg.solve(prior, residuals))
    np.testing.assert_allclose(std, np.sqrt(variance))


def test_it_begins_at_zero_and_ends_at_the_truth() -> None:
    features, residuals, weights = linear(50_000)
    prior = LastLayer.of_prior(np.ones(4), noise_variance=0.01)
    mean, std = prior.predict(features[:3])
    assert mean.tolist() == [0.0] * 3
    np.testing.assert_allclose(std, np.sqrt((features[:3] ** 2).sum(axis=1) + 0.01))
    mean, std = prior.update(features, residuals).predict(features[:100])
    np.testing.assert_allclose(mean, features[:100] @ weights, atol=0.01)
    np.testing.assert_allclose(std, 0.1, rtol=0.01)


def test_absurd_residuals_count_as_the_clip() -> None:
    features, residuals, _ = linear(30)
    layer = LastLayer.of_prior(np.ones(4), clip=1.0)
    upset = np.where(np.arange(30) == 3, 1e6, residuals)
    clipped = np.where(np.arange(30) == 3, 1.0, np.clip(residuals, -1, 1))
    found, expected = (layer.update(features, given) for given in (upset, clipped))
    np.testing.assert_array_equal(found.predict(features), expected.predict(features))


def test_rows_that_do_not_fit_the_layer() -> None:
    features, residuals, _ = linear(5)
    layer = LastLayer.of_prior(np.ones(4))
    with pytest.raises(RecordError, match=r"\(n, 4\)"):
        layer.predict(features[:, :3])
    with pytest.raises(RecordError, match="finite"):
        layer.predict(np.full((1, 4), np.nan))
    with pytest.raises(RecordError, match="residuals"):
        layer.update(features, residuals[:4])
    with pytest.raises(RecordError, match="residuals"):
        layer.update(features, np.full(5, np.inf))
    for precision, noise in ((np.zeros(4), 0.1), (np.ones((2, 2)), 0.1), (np.ones(4), 0.0)):
        with pytest.raises(ConfigError, match="above"):
            LastLayer.of_prior(precision, noise_variance=noise)
