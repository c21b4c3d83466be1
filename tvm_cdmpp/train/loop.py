"""Training ahead of any search: the loss, a run that can be taken up again, and predicting.

Rows come in windows, see `windows`.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tvm_cdmpp.models import (
    AdditiveNetwork,
    Content,
    Leaves,
    Output,
    TrainingRows,
    stack_devices,
    torch_threads,
)
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.domains import central_moment_discrepancy, maximum_mean_discrepancy
from tvm_cdmpp.train.ranking import list_mle_loss, pairwise_loss
from tvm_cdmpp.train.windows import Windows, prepare

_SEEDS_APART = 1_000_003
_LOG_UNIT = math.log(1e-4)
"""Of latencies in a Box-Cox label: ln of a common one, so that its gradients are those of a log."""


def loss_of(
    network: AdditiveNetwork,
    leaves: Leaves,
    measured: Tensor,
    c: TrainConfig,
    unlabelled: Leaves | None = None,
) -> Tensor:
    """Return the loss of a batch: error of the log latency, order, spread, failures, domain."""
    found: Output = network(leaves)
    runs = torch.isfinite(measured)
    target = torch.where(runs, measured, 0.0)
    residual = torch.where(runs, found.log_latency - target, 0.0)
    count = runs.sum().clamp(min=1)
    off = residual
    if c.label_power:
        off = torch.where(runs, _label(found.log_latency, c) - _label(target, c), 0.0)
    error = nn.functional.huber_loss(
        off, torch.zeros_like(off), delta=c.huber_delta, reduction="sum"
    )
    loss: Tensor = error / (count * c.huber_delta)
    if c.relative_weight:
        # Beyond a factor of e it grows like the logarithm: one absurd label must not rule a batch.
        relative = torch.where(
            residual < 1.0, torch.expm1(residual.clamp(max=1.0)), residual * 1.7183
        )
        loss = loss + c.relative_weight * relative.abs().sum() / count
    if c.ranking_weight:
        p, t, r = (x.view(-1, c.programs_per_group) for x in (found.log_latency, target, runs))
        loss = loss + c.ranking_weight * _RANKINGS[c.ranking](p, t, r, c.ranking_scale)
    # The likelihood of a Laplace distribution around the prediction, for its width alone.
    scale = found.log_spread
    spread = (residual.detach().abs() * torch.exp(-scale) + scale) * runs
    loss = loss + c.spread_weight * spread.sum() / count
    if not bool(runs.all()):
        failure = nn.functional.binary_cross_entropy_with_logits(found.runs, runs.float())
        loss = loss + c.failure_weight * failure
    if unlabelled is not None and c.domain != "none":
        distance = _DISTANCES[c.domain]
        here, there = (getattr(each, c.domain_layer) for each in (found, network(unlabelled)))
        # Both distances are meant for bounded activations.
        loss = loss + c.domain_weight * distance(torch.tanh(here), torch.tanh(there))
    return loss


def _label(log_latency: Tensor, c: TrainConfig) -> Tensor:
    return torch.expm1(c.label_power * (log_latency - _LOG_UNIT)) / c.label_power


_RANKINGS: Mapping[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "pairwise": pairwise_loss,
    "listmle": list_mle_loss,
}

_DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cmd": partial(central_moment_discrepancy, bound=2.0),
    "mmd": maximum_mean_discrepancy,
}


def fork_rng(torch_device: torch.device) -> AbstractContextManager[None]:
    """Leave PyTorch's generators as they are outside."""
    return torch.random.fork_rng(devices=[torch_device] if torch_device.type == "cuda" else [])


class Trainer:
    """A training run; what it has done so far can be kept, and taken up again.

    Parameters
    ----------
    network
        Trained in place.
    windows
        What to train on.
    config
        How.
    workers
        Other processes that train with this one; none by default.
    unlabelled
        Programs of the domain that is to look like the others, for `TrainConfig.domain`.
    torch_device
        Where PyTorch computes, such as "cuda"; the network is moved there.

    Attributes
    ----------
    averaged
        The network with the running mean of the weights.
    step
        Steps taken.
    samples_per_s
        Programs per second in the last window, reading them included.
    """

    def __init__(
        self,
        network: AdditiveNetwork,
        windows: Windows,
        config: TrainConfig,
        workers: Workers | None = None,
        unlabelled: Windows | None = None,
        torch_device: str = "cpu",
    ) -> None:
        self._device = torch.device(torch_device)
        network.to(self._device)
        self.averaged = copy.deepcopy(network)
        self.averaged.eval()
        self.step = 0
        self.samples_per_s = 0.0
        self._network, self._windows, self._config = network, windows, config
        self._workers = workers or Workers()
        self._unlabelled = unlabelled
        decayed = [p for p in network.parameters() if p.dim() > 1]
        plain = [p for p in network.parameters() if p.dim() <= 1]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)

    @property
    def done(self) -> bool:
        """Whether all steps were taken."""
        return self.step >= self._config.steps

    def train_window(self) -> float:
        """Train on the next window; return the mean loss."""
        config, losses = self._config, []
        begin = time.perf_counter()
        self._network.train()
        number = self.step // config.window_batches * self._workers.count + self._workers.rank
        with torch_threads(1), fork_rng(self._device):
            torch.manual_seed(self._windows.seed * _SEEDS_APART + number)  # dropout and noise
            others = iter(
                () if self._unlabelled is None else self._unlabelled.draw(number).to(self._device)
            )
            for leaves, measured in self._windows.draw(number).to(self._device):
                if self.done:
                    break
                for group in self._optimizer.param_groups:
                    group["lr"] = config.learning_rate * learning_share(self.step, config)
                other = next(others, (None, None))[0]
                loss = loss_of(self._network, leaves, measured, config, other)
                self._optimizer.zero_grad(set_to_none=False)
                loss.backward()  # type: ignore[no-untyped-call]
                self._workers.average_gradients(self._network)
                nn.utils.clip_grad_norm_(self._network.parameters(), config.gradient_clip)
                self._optimizer.step()
                self.step += 1
                self._average()
                losses.append(loss.detach())
        programs = len(losses) * config.groups_per_batch * config.programs_per_group
        self.samples_per_s = programs / (time.perf_counter() - begin)
        return float(torch.stack(losses).mean())

    def copy_of_averaged(self) -> AdditiveNetwork:
        """Return the network with averaged weights as it is now."""
        return copy.deepcopy(self.averaged)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self._config.average, self.step / (self.step + 10.0))
        networks = self.averaged, self._network
        means, values = (list[Tensor](network.parameters()) for network in networks)
        torch._foreach_lerp_(means, values, 1.0 - decay)

    def content(self) -> Content:
        """Return what a checkpoint holds of this run."""
        arrays = {
            **_arrays_of("network", self._network.state_dict()),
            **_arrays_of("averaged", self.averaged.state_dict()),
        }
        for number, state in self._optimizer.state_dict()["state"].items():
            arrays |= _arrays_of(f"optimizer.{number}", state)
        return Content({"step": self.step}, arrays)

    def restore(self, content: Content) -> None:
        """Take up what a checkpoint holds of a run with the same settings."""
        self.step = int(content.settings["step"])
        parts: dict[str, dict[str, Tensor]] = {}
        for name, array in content.arrays.items():
            owner, _, key = name.partition(":")
            parts.setdefault(owner, {})[key] = torch.from_numpy(array)
        self._network.load_state_dict(parts.pop("network"))
        self.averaged.load_state_dict(parts.pop("averaged"))
        known = self._optimizer.state_dict()
        known["state"] = {int(owner.split(".")[1]): state for owner, state in parts.items()}
        self._optimizer.load_state_dict(known)


def _arrays_of(owner: str, tensors: Mapping[str, Tensor]) -> dict[str, npt.NDArray[np.float32]]:
    return {f"{owner}:{name}": tensor.cpu().numpy() for name, tensor in tensors.items()}


def learning_share(step: int, config: TrainConfig) -> float:
    """Return the learning rate of a step as a share of the largest: up in a line, down a cosine."""
    progress = (step + 1) / config.steps
    if progress < config.warm_up:
        return progress / config.warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (progress - config.warm_up) / (1.0 - config.warm_up)))


@dataclass(frozen=True)
class Workers:
    """The processes of one training run, as `torchrun` starts them; by default this one alone."""

    rank: int = 0
    count: int = 1

    def average_gradients(self, network: nn.Module) -> None:
        """Give all processes the mean of their gradients."""
        if self.count == 1:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def predict(
    network: AdditiveNetwork, rows: TrainingRows, at_once: int = 4096
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Predict rows where they were measured: log latency and log spread; both (n,)."""
    log_latency, log_spread = np.empty(len(rows)), np.empty(len(rows))
    devices, torch_device = stack_devices(rows.devices), network.input_mean.device
    with torch_threads(1), torch.inference_mode():
        for first in range(0, len(rows), at_once):
            chosen = np.arange(first, min(first + at_once, len(rows)))
            window = prepare(rows, chosen, devices, chosen[None]).to(torch_device)
            found = network(window.all()[0])
            log_latency[chosen] = found.log_latency.cpu().numpy()
            log_spread[chosen] = found.log_spread.cpu().numpy()
    return log_latency, log_spread
