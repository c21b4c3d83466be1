"""Training ahead of any search: from a store's rows to weights.

Rows are drawn a window at a time. A window holds programs of groups, a group being one task on one
machine; groups are drawn so that rare operators are not drowned. A batch holds several programs of
each of several groups, which gives the ranking term its pairs.

A window depends on the seed and its number alone, so that a run that was killed goes on as if it
had not been.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models import (
    AdditiveNetwork,
    Content,
    Ints,
    Leaves,
    Output,
    TrainingRows,
    leaf_inputs,
    stack_devices,
    torch_threads,
)
from tvm_cdmpp.train.domains import central_moment_discrepancy, maximum_mean_discrepancy

_SEEDS_APART = 1_000_003
_PROGRAMS_PER_GROUP = 64
"""Programs of a group in a window."""


Domain = Literal["none", "cmd", "mmd"]
DomainLayer = Literal["features", "encoder"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train."""

    steps: int = 8_000
    groups_per_batch: int = 24
    programs_per_group: int = 16
    window_batches: int = 80
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warm_up: float = 0.1
    huber_delta: float = 0.3
    """Errors of the log latency beyond which they count linearly."""
    relative_weight: float = 0.3
    """Of the relative error, the other part of CDMPP's hybrid loss."""
    ranking_weight: float = 0.3
    ranking_scale: float = 5.0
    spread_weight: float = 0.1
    failure_weight: float = 0.1
    gradient_clip: float = 1.0
    average: float = 0.999
    """Decay of the running mean of the weights, which is what is kept."""
    rare_exponent: float = 0.5
    """A group weighs (groups of its operator)^-exponent."""
    domain: Domain = "none"
    """Distance between the latent vectors of the rows trained on and those of unlabelled rows."""
    domain_weight: float = 0.1
    domain_layer: DomainLayer = "features"
    """Which latent vectors: `features`, what the last layer is linear in, or `encoder`."""

    def __post_init__(self) -> None:
        """Reject settings that cannot train."""
        if min(self.steps, self.groups_per_batch, self.window_batches) < 1:
            raise ConfigError("steps, groups_per_batch and window_batches must be at least 1.")
        if not 2 <= self.programs_per_group <= _PROGRAMS_PER_GROUP:
            raise ConfigError(
                f"programs_per_group must be 2 to {_PROGRAMS_PER_GROUP}; "
                f"got {self.programs_per_group}."
            )


class Windows:
    """Draws windows of rows.

    Parameters
    ----------
    rows
        Training rows.
    operators
        Class of operator of each row; (n,).
    config
        Sizes and weights.
    seed
        One seed gives one sequence of windows.
    emphasis
        Which groups, as numbered in the rows, get a share of the windows, and which share.
    """

    def __init__(
        self,
        rows: TrainingRows,
        operators: npt.NDArray[np.str_],
        config: TrainConfig,
        seed: int,
        emphasis: tuple[Ints, float] | None = None,
    ) -> None:
        self.seed = seed
        self._rows, self._config = rows, config
        order = np.argsort(rows.groups, kind="stable")
        groups, starts, self._sizes = np.unique(
            rows.groups[order], return_index=True, return_counts=True
        )
        self._order, self._starts = order, starts
        _, of_group, counts = np.unique(
            operators[order[starts]], return_inverse=True, return_counts=True
        )
        weights = counts[of_group] ** -config.rare_exponent
        if emphasis is not None:
            chosen = np.isin(groups, emphasis[0])
            for part, share in ((chosen, emphasis[1]), (~chosen, 1.0 - emphasis[1])):
                weights[part] *= share / max(weights[part].sum(), 1e-12)
        self._shares = weights / weights.sum()
        self._devices = stack_devices(rows.devices)

    def draw(self, number: int) -> Window:
        """Return a window; the same for the same number."""
        generator = np.random.default_rng((self.seed, number))
        repeats = _PROGRAMS_PER_GROUP // self._config.programs_per_group
        num_groups = -(-self._config.window_batches * self._config.groups_per_batch // repeats)
        groups = generator.choice(len(self._sizes), num_groups, p=self._shares)
        chosen = np.concatenate([self._draw_group(g, generator) for g in groups.tolist()])
        order = _batches(num_groups, self._config, generator)
        return prepare(self._rows, chosen, self._devices, order)

    def _draw_group(self, group: int, generator: np.random.Generator) -> Ints:
        size, start = self._sizes[group], self._starts[group]
        places = generator.choice(size, _PROGRAMS_PER_GROUP, replace=size < _PROGRAMS_PER_GROUP)
        taken: Ints = self._order[start + places]
        return taken


def _batches(num_groups: int, config: TrainConfig, generator: np.random.Generator) -> Ints:
    """Deal the programs of a window into batches; (batches, groups x programs per group)."""
    size = config.programs_per_group
    parts = np.arange(num_groups * _PROGRAMS_PER_GROUP).reshape(-1, size)
    parts = parts[generator.permutation(len(parts))]
    whole = config.window_batches * config.groups_per_batch
    return parts[:whole].reshape(config.window_batches, config.groups_per_batch * size)


@dataclass(frozen=True)
class Window:
    """Programs in memory, and how they are dealt into batches."""

    inputs: Tensor
    positions: Tensor
    offsets: Tensor
    counts: Tensor
    device: Tensor
    log_latency: Tensor
    """Natural logarithm of measured seconds, infinite for failed programs; (n,)."""
    batches: Ints

    def __iter__(self) -> Iterator[tuple[Leaves, Tensor]]:
        """Yield batches: programs and their measured log latency."""
        for chosen in self.batches:
            yield self.take(torch.from_numpy(chosen))

    def take(self, programs: Tensor) -> tuple[Leaves, Tensor]:
        """Return some programs and their measured log latency."""
        counts = self.counts[programs]
        firsts = torch.cumsum(counts, 0) - counts
        within = torch.arange(int(counts.sum())) - torch.repeat_interleave(firsts, counts)
        leaves = torch.repeat_interleave(self.offsets[programs], counts) + within
        return Leaves(
            self.inputs[leaves], self.positions[leaves], counts, self.device[programs]
        ), self.log_latency[programs]


def prepare(rows: TrainingRows, chosen: Ints, devices: Tensor, batches: Ints) -> Window:
    """Bring rows into memory, in the given order."""
    unique, back = np.unique(chosen, return_inverse=True)
    batch = rows.asts.take(unique)
    machine_of = rows.machine_of[unique]
    parts: list[npt.NDArray[np.float32]] = []
    order: list[Ints] = []
    for machine in np.unique(machine_of).tolist():
        programs = np.flatnonzero(machine_of == machine)
        order.append(programs)
        parts.append(leaf_inputs(batch.take(programs), rows.machines[machine].device))
    by_machine = np.concatenate(order)
    # Place of each unique program among the parts, which are ordered by machine.
    place = np.empty(len(unique), np.int64)
    place[by_machine] = np.arange(len(unique))
    joined = batch.take(by_machine)
    at = torch.from_numpy(place[back])
    return Window(
        torch.from_numpy(np.concatenate(parts)),
        torch.from_numpy(joined.positions),
        torch.from_numpy(joined.offsets[:-1])[at],
        torch.from_numpy(joined.leaf_counts)[at],
        devices[torch.from_numpy(rows.machine_of[chosen])],
        torch.from_numpy(np.log(rows.latencies_s[chosen]).astype(np.float32)),
        batches,
    )


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
    error = nn.functional.huber_loss(
        residual, torch.zeros_like(residual), delta=c.huber_delta, reduction="sum"
    )
    loss: Tensor = error / (count * c.huber_delta)
    if c.relative_weight:
        # Beyond a factor of e it grows like the logarithm: one absurd label must not rule a batch.
        relative = torch.where(
            residual < 1.0, torch.expm1(residual.clamp(max=1.0)), residual * 1.7183
        )
        loss = loss + c.relative_weight * relative.abs().sum() / count
    if c.ranking_weight:
        loss = loss + c.ranking_weight * _ranking(found.log_latency, target, runs, c)
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


_DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cmd": partial(central_moment_discrepancy, bound=2.0),
    "mmd": maximum_mean_discrepancy,
}


def _ranking(predicted: Tensor, target: Tensor, runs: Tensor, c: TrainConfig) -> Tensor:
    """Pairwise logistic loss within groups (RankNet, Burges et al., 2005)."""
    shape = (-1, c.programs_per_group)
    p, t, r = predicted.view(shape), target.view(shape), runs.view(shape)
    difference = t[:, :, None] - t[:, None, :]
    pairs = (difference > 0) & r[:, :, None] & r[:, None, :]
    weights = difference.clamp(max=1.0) * pairs
    gap = c.ranking_scale * (p[:, :, None] - p[:, None, :])
    lost = nn.functional.softplus(-gap) / c.ranking_scale
    return (weights * lost).sum() / weights.sum().clamp(min=1e-6)


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
    ) -> None:
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
        self._optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)

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
        with torch_threads(1), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._windows.seed * _SEEDS_APART + number)  # dropout and noise
            others = iter(() if self._unlabelled is None else self._unlabelled.draw(number))
            for leaves, measured in self._windows.draw(number):
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
                losses.append(float(loss.detach()))
        programs = len(losses) * config.groups_per_batch * config.programs_per_group
        self.samples_per_s = programs / (time.perf_counter() - begin)
        return float(np.mean(losses))

    def copy_of_averaged(self) -> AdditiveNetwork:
        """Return the network with averaged weights as it is now."""
        return copy.deepcopy(self.averaged)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self._config.average, self.step / (self.step + 10.0))
        pairs = zip(self.averaged.parameters(), self._network.parameters(), strict=True)
        for mean, value in pairs:
            mean.lerp_(value, 1.0 - decay)

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
    return {f"{owner}:{name}": tensor.numpy() for name, tensor in tensors.items()}


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
    devices = stack_devices(rows.devices)
    with torch_threads(1), torch.inference_mode():
        for first in range(0, len(rows), at_once):
            chosen = np.arange(first, min(first + at_once, len(rows)))
            window = prepare(rows, chosen, devices, chosen[None])
            found = network(window.take(torch.arange(len(chosen)))[0])
            log_latency[chosen] = found.log_latency.numpy()
            log_spread[chosen] = found.log_spread.numpy()
    return log_latency, log_spread
