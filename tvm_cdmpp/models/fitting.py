"""How the network learns: fit a predictor to measured programs, from scratch or onwards.

The loss is the squared error of the label plus a pairwise ranking term among programs of one task
(RankNet, Burges et al., 2005), because a search asks which of a task's programs is faster. Fast
programs weigh more: they are the ones that a search asks about. Failed programs train only the
"does it run" head.

Rows are prepared a window at a time, so that they need not fit into memory: a window is a random
part of them, all of them when they are few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models.labels import LabelTransform
from tvm_cdmpp.models.network import Inputs, Network, make_inputs, torch_threads
from tvm_cdmpp.models.rows import Ints, TrainingRows

if TYPE_CHECKING:
    from tvm_cdmpp.models.predictor import Predictor

_WARM_UP = 0.2 + 1e-9
"""Share of the steps; a whole step of five exactly would have PyTorch divide by zero."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How to fit."""

    steps: int = 100
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 5e-2
    ranking_weight: float = 1.0
    """Weight of the ranking term next to the squared error."""
    failure_weight: float = 0.1
    fast_exponent: float = 1.0
    """A program of r times its task's best latency weighs r^-exponent."""
    gradient_clip: float = 1.0
    window: int = 1 << 14
    """Rows to hold in memory at once; more are drawn anew when each was seen about once."""

    def __post_init__(self) -> None:
        """Reject settings that cannot train."""
        if self.steps < 0 or self.batch_size < 2 or self.window < self.batch_size:
            raise ConfigError(
                "steps must be at least 0, batch_size at least 2 and window at least batch_size; "
                f"got steps={self.steps}, batch_size={self.batch_size}, window={self.window}."
            )


def fit(predictor: Predictor, rows: TrainingRows, config: FitConfig, seed: int) -> None:
    """Fit a predictor in place; what it knows already is where training starts.

    The label transform, the scale of the inputs and the base line are fitted on the given rows, the
    latter two on the first window of them.

    Parameters
    ----------
    predictor
        Untrained or trained.
    rows
        Training rows; at least one latency must be finite, else nothing happens.
    config, seed
        How to fit; one seed gives one result.
    """
    valid = np.isfinite(rows.latencies_s)
    if not valid.any():
        return
    network = predictor.network
    predictor.labels = LabelTransform.fit(rows.latencies_s[valid])
    predictor.predicts_failure = bool((~valid).any())
    weights = _weights(rows, valid, config)
    generator = torch.Generator().manual_seed(seed)
    window = _draw_window(valid, config.window, np.random.default_rng(seed))
    inputs = _inputs(rows, window, network)
    _fit_base(predictor, inputs, rows.latencies_s[window])
    _fit_input_scale(network, inputs)
    targets = _Targets.of(predictor, rows, inputs, window, weights)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=max(config.steps, 1), pct_start=_WARM_UP
    )
    steps_in_window = max(1, config.window // config.batch_size)
    network.train()
    with torch_threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout
        for step in range(config.steps):
            if step and step % steps_in_window == 0 and len(rows) > len(window):
                window = _draw_window(valid, config.window, np.random.default_rng((seed, step)))
                inputs = _inputs(rows, window, network)
                targets = _Targets.of(predictor, rows, inputs, window, weights)
            chosen = torch.randperm(len(inputs), generator=generator)[: config.batch_size]
            loss = _loss(network, inputs, targets, chosen, config)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
            optimizer.step()
            schedule.step()
    network.eval()


def _draw_window(valid: npt.NDArray[np.bool_], size: int, generator: np.random.Generator) -> Ints:
    """Draw rows, ascending; one program that runs is always among them."""
    if len(valid) <= size:
        return np.arange(len(valid))
    drawn = generator.choice(len(valid), size, replace=False)
    if not valid[drawn].any():
        drawn[0] = generator.choice(np.flatnonzero(valid))
    return np.sort(drawn)


def _inputs(rows: TrainingRows, window: Ints, network: Network) -> Inputs:
    asts = rows.batch() if len(window) == len(rows) else rows.asts.take(window)
    return make_inputs(asts, rows.devices, network.config, rows.machine_of[window])


def _weights(
    rows: TrainingRows, valid: npt.NDArray[np.bool_], config: FitConfig
) -> npt.NDArray[np.float64]:
    """Weigh fast programs more, and failed ones not at all; one on average of those that run."""
    _, group = np.unique(rows.groups, return_inverse=True)
    best = np.full(group.max() + 1, np.inf)
    np.minimum.at(best, group, rows.latencies_s)
    with np.errstate(invalid="ignore"):
        weights = (best[group] / rows.latencies_s) ** config.fast_exponent
    weights = np.where(valid, weights, 0.0)
    normal: npt.NDArray[np.float64] = weights / weights[valid].mean()
    return normal


@dataclass(frozen=True)
class _Targets:
    """What the loss compares with, per program; all (n,)."""

    labels: Tensor
    runs: Tensor
    weights: Tensor
    tasks: Tensor
    base: Tensor

    @staticmethod
    def of(
        predictor: Predictor,
        rows: TrainingRows,
        inputs: Inputs,
        window: Ints,
        weights: npt.NDArray[np.float64],
    ) -> _Targets:
        latencies_s = rows.latencies_s[window]
        valid = np.isfinite(latencies_s)
        labels = np.zeros(len(valid))
        labels[valid] = predictor.labels.forward(latencies_s[valid])
        return _Targets(
            torch.from_numpy(labels.astype(np.float32)),
            torch.from_numpy(valid.astype(np.float32)),
            torch.from_numpy(weights[window].astype(np.float32)),
            torch.from_numpy(rows.groups[window]),
            predictor.base(inputs),
        )


def _loss(
    network: Network, inputs: Inputs, targets: _Targets, chosen: Tensor, config: FitConfig
) -> Tensor:
    predicted, logits = network(inputs.take(chosen), targets.base[chosen])
    labels, weights = targets.labels[chosen], targets.weights[chosen]
    runs = targets.runs[chosen]
    loss: Tensor = (weights * (predicted - labels) ** 2).sum() / weights.sum().clamp(min=1.0)
    # Pairs of one task in which the first program is the slower one.
    difference = labels[:, None] - labels[None, :]
    same = targets.tasks[chosen][:, None] == targets.tasks[chosen][None, :]
    pairs = same & (difference > 0) & (runs[:, None] * runs[None, :] > 0)
    if pairs.any():
        gap = (predicted[:, None] - predicted[None, :])[pairs]
        pair_weights = (difference * torch.maximum(weights[:, None], weights[None, :]))[pairs]
        ranking = (pair_weights * nn.functional.softplus(-gap)).sum() / pair_weights.sum()
        loss = loss + config.ranking_weight * ranking
    if bool((runs == 0).any()):
        failure = nn.functional.binary_cross_entropy_with_logits(logits, runs)
        loss = loss + config.failure_weight * failure
    return loss


def _fit_base(predictor: Predictor, inputs: Inputs, latencies_s: npt.NDArray[np.float64]) -> None:
    """Least-squares line from analytic to measured labels; the slope stays between 0.2 and 1.2."""
    valid = np.isfinite(latencies_s)
    analytic = predictor.labels.forward(inputs.analytic_s[valid])
    measured = predictor.labels.forward(latencies_s[valid])
    centred = analytic - analytic.mean()
    spread = float((centred**2).sum())
    slope = float((centred * measured).sum()) / spread if spread > 1e-9 else 1.0
    predictor.base_slope = float(np.clip(slope, 0.2, 1.2))
    predictor.base_shift = float(measured.mean() - predictor.base_slope * analytic.mean())


def _fit_input_scale(network: Network, inputs: Inputs) -> None:
    """Centre inputs and scale them to unit variance; inputs that hardly vary are left small."""
    leaves = inputs.leaves[inputs.mask]
    network.input_mean.copy_(leaves.mean(dim=0))
    network.input_scale.copy_(1.0 / leaves.std(dim=0, correction=0).clamp(min=0.25))
