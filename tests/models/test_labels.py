"""The label space of latencies."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.models.labels import LabelTransform

LATENCIES = st.lists(st.floats(1e-7, 10.0), min_size=1, max_size=60).map(np.array)


@given(LATENCIES)
def test_inverse_undoes_forward(latencies_s: npt.NDArray[np.float64]) -> None:
    labels = LabelTransform.fit(latencies_s)
    forward = labels.forward(latencies_s)
    np.testing.assert_allclose(labels.inverse(forward), latencies_s, rtol=1e-6)
    assert labels.low == forward.min()
    assert labels.high == forward.max()


@given(LATENCIES, st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_inverse_is_monotone_finite_and_positive(
    latencies_s: npt.NDArray[np.float64], wanted: list[float]
) -> None:
    labels = LabelTransform.fit(latencies_s)
    latencies = labels.inverse(np.sort([*wanted, *np.linspace(-60, 60, 200)]))
    assert np.isfinite(latencies).all()
    assert (latencies > 0).all()
    assert (np.diff(latencies) >= 0).all()


@given(LATENCIES)
def test_order_is_kept_some_way_beyond_what_was_seen(
    latencies_s: npt.NDArray[np.float64],
) -> None:
    labels = LabelTransform.fit(latencies_s)
    beyond = np.linspace(labels.low - 8, labels.high + 8, 50)
    assert (np.diff(labels.inverse(beyond)) > 0).all()


@given(LATENCIES)
def test_forward_is_normal(latencies_s: npt.NDArray[np.float64]) -> None:
    forward = LabelTransform.fit(latencies_s).forward(latencies_s)
    assert abs(forward.mean()) < 1e-6
    assert np.isfinite(forward).all()
    if latencies_s.max() / latencies_s.min() > 1.001:
        assert forward.std() == pytest.approx(1, abs=1e-3)


def test_power_takes_the_skew_out() -> None:
    # Squares of normal numbers have square roots that are normal.
    latencies_s = np.random.default_rng(0).normal(10, 2, 500) ** 2
    assert LabelTransform.fit(latencies_s).power == pytest.approx(0.5, abs=0.15)
    logs = np.exp(np.random.default_rng(0).normal(-8, 1, 500))
    assert LabelTransform.fit(logs).power == pytest.approx(0, abs=0.1)


def test_power_is_the_likeliest() -> None:
    """The likelihood of Box and Cox (1964), equation 8, tried on a grid."""
    latencies_s = np.random.default_rng(0).gamma(4.0, 1e-4, 400)
    logs, powers = np.log(latencies_s), np.linspace(-0.45, 0.45, 181)
    labels = [(latencies_s**p - 1) / p if p else logs for p in powers]
    likelihoods = [
        (p - 1) * logs.sum() - logs.size / 2 * np.log(label.var())
        for p, label in zip(powers, labels, strict=True)
    ]
    best = powers[int(np.argmax(likelihoods))]
    assert LabelTransform.fit(latencies_s).power == pytest.approx(best, abs=0.005)


def test_power_is_limited() -> None:
    latencies_s = np.append(np.full(100, 1e-3) + np.linspace(0, 1e-5, 100), 50.0)
    assert abs(LabelTransform.fit(latencies_s).power) == 0.5


def test_few_samples_are_logarithms() -> None:
    labels = LabelTransform.fit(np.array([1e-4, 1e-3, 1e-2]))
    assert labels.power == 0
    np.testing.assert_allclose(labels.forward(np.array([1e-3])), [0], atol=1e-12)
    assert labels.inverse(np.array([0.0]))[0] == pytest.approx(1e-3)


def test_one_sample_and_equal_samples() -> None:
    for count in (1, 100):
        labels = LabelTransform.fit(np.full(count, 3e-4))
        assert labels.std == 1
        assert labels.inverse(np.zeros(1))[0] == pytest.approx(3e-4)


def test_narrow_measurements_do_not_blow_up_what_lies_beyond() -> None:
    """With two measurements within a percent, a label is a percent, far outside as well."""
    labels = LabelTransform.fit(np.array([1.00e-5, 1.01e-5]))
    latencies_s = np.array([1e-6, 2e-6, 1e-4, 2e-4])
    np.testing.assert_allclose(labels.inverse(labels.forward(latencies_s)), latencies_s)


def test_no_cliff_below_the_fastest() -> None:
    # Most are fast and some slow: one deviation below the fastest, the square root is negative.
    latencies_s = np.append(np.full(30, 1e-5), np.linspace(1e-5, 1e-2, 30))
    labels = LabelTransform(*(lambda t: (0.5, t.mean(), t.std()))(2 * (latencies_s**0.5 - 1)))
    normal = labels.forward(latencies_s)
    fitted = LabelTransform(0.5, labels.mean, labels.std, normal.min(), normal.max())
    assert fitted.inverse(normal.min(keepdims=True) - 1)[0] > 1e-6


def test_unfitted_is_the_logarithm() -> None:
    latencies_s = np.array([1e-6, 1.0, 20.0])
    np.testing.assert_allclose(LabelTransform().forward(latencies_s), np.log(latencies_s))
    np.testing.assert_allclose(LabelTransform().inverse(np.log(latencies_s)), latencies_s)


@pytest.mark.parametrize("bad", [[], [0.0], [1.0, -1.0], [np.nan, 1.0], [1.0, np.inf]])
def test_unusable_latencies(bad: list[float]) -> None:
    with pytest.raises(RecordError, match="finite and positive"):
        LabelTransform.fit(np.array(bad))
