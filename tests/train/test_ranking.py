"""Losses of an order: what they count, and what they do not look at."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from tvm_cdmpp.train.ranking import list_mle_loss, pairwise_loss

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
LOSSES = (pairwise_loss, list_mle_loss)
TARGET = torch.tensor([[0.0, 2.0, 1.0, 3.0], [1.0, 0.5, 0.0, 0.7]])
ALL_RUN = torch.ones(2, 4, dtype=torch.bool)


def test_list_mle_is_the_likelihood_of_an_order() -> None:
    predicted = torch.tensor([[0.3, -0.2, 0.1]])
    runs = torch.ones(1, 3, dtype=torch.bool)
    likelihoods = []
    for order in itertools.permutations(range(3)):
        target = torch.empty(1, 3)
        target[0, list(order)] = torch.arange(3.0)
        mean = list_mle_loss(predicted, target, runs, 2.0)
        likelihoods.append(math.exp(-3 * 2.0 * float(mean)))
    assert sum(likelihoods) == pytest.approx(1.0)
    # The program that is predicted to be the fastest is the most likely one to be first.
    assert max(likelihoods) == likelihoods[list(itertools.permutations(range(3))).index((1, 2, 0))]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_right_order_loses_least_and_levels_do_not_count(loss: Loss) -> None:
    right = loss(TARGET, TARGET, ALL_RUN, 5.0)
    assert right < loss(torch.zeros(2, 4), TARGET, ALL_RUN, 5.0) < loss(-TARGET, TARGET, ALL_RUN, 5)
    levels = torch.tensor([[7.0], [-3.0]])
    assert torch.allclose(loss(TARGET + levels, TARGET, ALL_RUN, 5.0), right, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_failed_programs_are_not_looked_at(loss: Loss) -> None:
    runs = ALL_RUN.clone()
    runs[0, 1] = False
    predicted = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = loss(predicted, TARGET, runs, 5.0)
    other = predicted.detach().clone()
    other[0, 1] = 99.0
    assert torch.allclose(loss(other, TARGET, runs, 5.0), found, atol=1e-6)
    (gradient,) = torch.autograd.grad(found, predicted)
    assert torch.isfinite(gradient).all()
    assert gradient[0, 1] == 0
    none = loss(predicted, TARGET, torch.zeros_like(ALL_RUN), 5.0)
    (gradient,) = torch.autograd.grad(none, predicted)
    assert none == 0
    assert not gradient.any()
