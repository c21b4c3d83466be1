"""Distances of domains: reference values, and what is true of every distance."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.train.domains import central_moment_discrepancy, maximum_mean_discrepancy

X = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 8.0]], dtype=torch.float64)
Y = torch.tensor([[1.0, 1.0], [2.0, 5.0]], dtype=torch.float64)

Distance = Callable[[Tensor, Tensor], Tensor]
both = pytest.mark.parametrize("distance", [central_moment_discrepancy, maximum_mean_discrepancy])


def test_central_moments_by_hand() -> None:
    terms = [1.118034, 5.255288, 12.0, 97.246557, 260.0]
    for moments in range(1, 6):
        found = central_moment_discrepancy(X, Y, moments=moments)
        assert float(found) == pytest.approx(sum(terms[:moments]), abs=1e-5)
    assert float(central_moment_discrepancy(X, Y)) == pytest.approx(375.619880, abs=1e-6)


def test_the_bound_scales_activations() -> None:
    found = central_moment_discrepancy(X, Y, bound=8.0)
    assert float(found) == pytest.approx(float(central_moment_discrepancy(X / 8, Y / 8)))


def test_kernels_by_hand() -> None:
    assert float(maximum_mean_discrepancy(X, Y)) == pytest.approx(0.877802, abs=1e-6)
    narrow = maximum_mean_discrepancy(X, X[:1] + 100, scales=(1.0,))
    # Rows far from each other are like themselves only: 3 of 9 pairs, none, 1 of 1.
    assert float(narrow) == pytest.approx(1 / 3 + 1, abs=1e-3)


@both
def test_a_distance_is_zero_between_equals_and_the_same_both_ways(distance: Distance) -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.rand(50, 30, generator=generator)
    order = torch.randperm(50, generator=generator)
    assert float(distance(wide, wide)) == 0.0
    assert float(distance(wide, wide[order])) == pytest.approx(0.0, abs=1e-5)
    assert float(distance(X, Y)) == pytest.approx(float(distance(Y, X)))
    assert float(distance(wide, wide[:20] + 0.5)) > float(distance(wide, wide[:20] + 0.1)) > 0


@both
def test_one_sample_has_a_mean_and_no_spread(distance: Distance) -> None:
    assert float(distance(X[:1], X[:1])) == 0.0
    assert float(central_moment_discrepancy(X[:1], Y[:1])) == 1.0
    expected = 2 * (3 - sum(torch.exp(torch.tensor([-1.0, -0.1, -0.001]))))
    assert float(maximum_mean_discrepancy(X[:1], Y[:1])) == pytest.approx(float(expected))


@both
def test_gradients_bring_sets_together(distance: Distance) -> None:
    assert torch.autograd.gradcheck(
        lambda x: distance(x, Y / 4), ((X / 4).requires_grad_(True),), atol=1e-6
    )
    moving = (X / 4).requires_grad_(True)
    before = distance(moving, Y / 4)
    before.backward()  # type: ignore[no-untyped-call]
    assert moving.grad is not None
    after = distance((moving - 1e-3 * moving.grad).detach(), Y / 4)
    assert float(after) < before.item()


@both
def test_gradients_are_finite_where_sets_are_equal(distance: Distance) -> None:
    x = X.clone().requires_grad_(True)
    distance(x, X).backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@both
@pytest.mark.parametrize("other", [X[:0], X[:, :1], X[0]])
def test_sets_that_cannot_be_compared(distance: Distance, other: Tensor) -> None:
    for x, y in ((X, other), (other, X)):
        with pytest.raises(ConfigError, match="shapes"):
            distance(x, y)


def test_settings_out_of_range() -> None:
    for moments, bound in ((0, 1.0), (5, 0.0), (5, float("nan"))):
        with pytest.raises(ConfigError, match="bound"):
            central_moment_discrepancy(X, Y, moments=moments, bound=bound)
    for scales in ((), (1.0, 0.0)):
        with pytest.raises(ConfigError, match="scales"):
            maximum_mean_discrepancy(X, Y, scales=scales)
