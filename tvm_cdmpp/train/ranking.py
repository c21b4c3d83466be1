"""Losses of an order: they look at programs of one task at a time, and at no level.

Shapes: G groups, P programs in each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pairwise_loss(predicted: Tensor, target: Tensor, runs: Tensor, scale: float) -> Tensor:
    """Pairwise logistic loss (RankNet, Burges et al., "Learning to Rank", ICML 2005).

    A pair weighs as much as its latencies differ, up to a factor of e.

    Parameters
    ----------
    predicted, target
        Ln of seconds; (G, P).
    runs
        Whether the program ran; others are in no pair; (G, P).
    scale
        How much a predicted difference counts: with a larger one, smaller differences are enough.

    Returns
    -------
    loss
        Mean over pairs, a scalar; 0 where there is none.
    """
    difference = target[:, :, None] - target[:, None, :]
    pairs = (difference > 0) & runs[:, :, None] & runs[:, None, :]
    weights = difference.clamp(max=1.0) * pairs
    gap = scale * (predicted[:, :, None] - predicted[:, None, :])
    lost = nn.functional.softplus(-gap) / scale
    return (weights * lost).sum() / weights.sum().clamp(min=1e-6)


def list_mle_loss(predicted: Tensor, target: Tensor, runs: Tensor, scale: float) -> Tensor:
    """Negative log likelihood of the measured order (ListMLE, Xia et al., ICML 2008).

    In the model of Plackett and Luce, the fastest program is drawn first, each with a probability
    proportional to exp(-scale x predicted), then the next one of those that are left.

    Parameters
    ----------
    predicted, target, runs, scale
        As for `pairwise_loss`.

    Returns
    -------
    loss
        Mean over programs that ran, divided by the scale; a scalar, 0 where there is none.
    """
    last = torch.where(runs, target, torch.inf)
    order = last.argsort(dim=1, stable=True)
    score = (-scale * predicted).gather(1, order)
    ran = runs.gather(1, order)
    score = score.masked_fill(~ran, torch.finfo(score.dtype).min)
    left = score.flip(1).logcumsumexp(dim=1).flip(1)
    lost = torch.where(ran, left - score, 0.0)
    return lost.sum() / (ran.sum().clamp(min=1) * scale)
