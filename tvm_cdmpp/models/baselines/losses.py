"""What the networks among the baselines minimise.

Losses of the latency, all of its logarithm and averaged over programs:

- `huber`: Huber's (1964) of the error of the logarithm, linear beyond `_HUBER_NATS`.
- `mape`: the absolute percentage error |predicted / measured - 1|; from predictions that are
  exp(`_LARGEST_LOG_RATIO`) times too long on it grows linearly with the logarithm.
- `none`: nothing; ranking alone is learned from.

A ranking term may be added: LambdaRank (Burges, 2010) among the programs of one task and machine,
or among all of one machine in a minibatch, as TenSet and TLP have it. Of two, the truly slower one
(relative to the best of its task) shall be predicted slower; a pair weighs what exchanging its
predicted places would change in the discounted gain, where the gain of a program is
2^(best / latency).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tvm_cdmpp.models.rows import Ints

Floats = npt.NDArray[np.float64]
LatencyLoss = Literal["huber", "mape", "none"]

_HUBER_NATS = 0.3
"""About the error that good predictors are left with: 35 %."""
_RANKING_NATS = 0.1
"""Programs predicted this far apart count as told apart by 73 %; measurements repeat to within."""
_LARGEST_LOG_RATIO = 5.0


def latency_loss(predicted: Tensor, measured: Tensor, kind: LatencyLoss) -> Tensor:
    """Return the loss of predicted logarithms of latencies, both (B,); see the module."""
    error = predicted - measured
    if kind == "huber":
        zero = torch.zeros_like(error)
        return nn.functional.huber_loss(error, zero, delta=_HUBER_NATS) / _HUBER_NATS
    if kind == "mape":
        bounded = error.clamp(max=_LARGEST_LOG_RATIO)
        beyond = math.exp(_LARGEST_LOG_RATIO) * (error - bounded)
        return (torch.expm1(bounded).abs() + beyond).mean()
    return 0.0 * error.sum()


def ranking_loss(predicted: Tensor, gains: Floats, groups: Ints) -> Tensor:
    """Return the LambdaRank loss of predicted logarithms of latencies; see the module.

    Parameters
    ----------
    predicted
        Of shape (B,).
    gains
        Best latency of the group over that of the program, in (0, 1]; (B,).
    groups
        Programs of one number are compared; (B,).
    """
    order = np.lexsort((predicted.detach().cpu().numpy(), groups))
    _, first, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    place = np.empty(len(order))
    place[order] = np.arange(len(order)) - np.repeat(first, sizes)
    better, worse = np.nonzero((groups[:, None] == groups) & (gains[:, None] > gains))
    if not better.size:
        return 0.0 * predicted.sum()
    gain, discount = np.exp2(gains), 1.0 / np.log2(2.0 + place)
    weights = (gain[better] - gain[worse]) * np.abs(discount[better] - discount[worse])
    device = predicted.device
    slower, faster = (torch.from_numpy(places).to(device) for places in (worse, better))
    gap = (predicted[faster] - predicted[slower]) / _RANKING_NATS
    losses = torch.from_numpy(weights / weights.sum()).to(device) * nn.functional.softplus(gap)
    return losses.sum() * _RANKING_NATS
