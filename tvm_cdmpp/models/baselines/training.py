"""How the networks among the baselines learn: one loop for all of them.

So they differ only in what they are, and in settings. A network gives each program a number z; the
latency is exp(mean + std * z) seconds, or that many times the analytic latency. Losses are those of
`losses`. Without one of the latency no level is learned: what ranking leaves open is settled by a
least-squares line from z to log latencies of the first window, so that z orders programs and the
line gives seconds.

Minibatches hold runs of programs of one group, so that there are pairs to rank. Rows are prepared a
window at a time, so that they need not fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models.baselines.inputs import NUM_INPUTS, WINDOW, ProgramInputs
from tvm_cdmpp.models.baselines.losses import Floats, LatencyLoss, latency_loss, ranking_loss
from tvm_cdmpp.models.network import torch_threads
from tvm_cdmpp.models.rows import Ints, TrainingRows

_LARGEST_INPUT = 8.0
_LEAST_SLOPE = 1e-3
_WARM_UP = 0.2 + 1e-9
"""Share of the steps; a whole step of five exactly would have PyTorch divide by zero."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a network learns."""

    loss: LatencyLoss = "huber"
    """Of the latency; see `losses`."""
    ranking_weight: float = 1.0
    """Weight of the ranking term next to it."""
    ranked: Literal["task", "machine"] = "task"
    """What programs are ranked among: those of their task and machine, or all of their machine."""
    over_estimate: bool = False
    """Learn the ratio to the analytic latency, not the latency itself. On unseen workloads of the
    networks that were trained on, it makes the error of every network here larger."""
    steps: int = 2000
    batch_size: int = 512
    group_size: int = 32
    """Programs of one task and machine that lie in a row in a minibatch, at most."""
    learning_rate: float = 1e-3
    schedule: Literal["cycle", "constant", "drop"] = "cycle"
    """Of the learning rate: up and down once, the same all along, or a fifth after half of it."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    weight_decay: float = 1e-4
    gradient_clip: float = 1.0
    window: int = WINDOW
    """Rows to hold in memory at once."""

    def __post_init__(self) -> None:
        """Reject settings that cannot train."""
        if self.steps < 0 or self.group_size < 1 or not 2 <= self.batch_size <= self.window:
            raise ConfigError(
                "steps must be at least 0, group_size at least 1, batch_size at least 2 and window "
                f"at least batch_size; got steps={self.steps}, group_size={self.group_size}, "
                f"batch_size={self.batch_size}, window={self.window}."
            )
        if self.loss == "none" and self.ranking_weight <= 0:
            raise ConfigError("a network without a loss of the latency needs a ranking_weight.")


class Estimated(Protocol):
    """Inputs of B programs, whatever they are."""

    @property
    def log_analytic_s(self) -> Floats:
        """Natural logarithms of their analytic latencies in seconds; (B,)."""


InputsT_contra = TypeVar("InputsT_contra", bound=Estimated, contravariant=True)
InputsT = TypeVar("InputsT", bound=Estimated)


@dataclass(frozen=True)
class LatencyScale:
    """From what a network says to log latencies; at first, its 0 is the analytic latency."""

    mean: float = 0.0
    std: float = 1.0
    over_estimate: bool = True

    def origin(self, inputs: Estimated) -> Floats:
        """Natural logarithms of the seconds that `mean` counts from; (B,)."""
        return inputs.log_analytic_s * self.over_estimate


@dataclass(frozen=True)
class Trained:
    """What training found out."""

    scale: LatencyScale | None
    """What the network's output means; None if no program ever ran."""
    programs_seen: int
    """Programs that the optimiser saw, each as often as it did."""


class ProgramNetwork(nn.Module, Generic[InputsT_contra]):
    """A network that gives programs a number; see the module."""

    def fit_scale(self, inputs: InputsT_contra) -> None:
        """Normalise inputs from now on as suits these."""
        raise NotImplementedError

    def scores(self, inputs: InputsT_contra, programs: Ints) -> Tensor:
        """Return z of some of the programs, 0 before training; (len(programs),)."""
        raise NotImplementedError


class LeafNetwork(ProgramNetwork[ProgramInputs]):
    """A network over leaves of programs that have as many; normalisation of inputs is part of it.

    Its `forward` takes inputs that are not scaled, (B, L, NUM_INPUTS), and returns z, (B,), which
    is 0 before training.
    """

    input_mean: Tensor
    input_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("input_mean", torch.zeros(NUM_INPUTS))
        self.register_buffer("input_scale", torch.ones(NUM_INPUTS))

    def scaled(self, leaves: Tensor) -> Tensor:
        """Normalise inputs; those far beyond what was trained on are cut."""
        scaled: Tensor = (leaves - self.input_mean) * self.input_scale
        return scaled.clamp_(-_LARGEST_INPUT, _LARGEST_INPUT)

    def fit_scale(self, inputs: ProgramInputs) -> None:
        """Centre inputs and scale them to unit variance; those that hardly vary are left small."""
        leaves = torch.from_numpy(inputs.leaves)
        self.input_mean.copy_(leaves.mean(dim=0))
        self.input_scale.copy_(1.0 / leaves.std(dim=0, correction=0).clamp(min=0.25))

    def scores(self, inputs: ProgramInputs, programs: Ints) -> Tensor:
        """Return z of some programs, those of one leaf count at a time; (len(programs),)."""
        places, parts = [], []
        for chosen, leaves in inputs.by_leaf_count(programs):
            places.append(chosen)
            parts.append(self(torch.from_numpy(leaves).to(self.input_mean.device)))
        back = np.argsort(np.concatenate(places))
        return torch.cat(parts)[torch.from_numpy(back).to(self.input_mean.device)]


def layers_of(
    *widths: int, activation: type[nn.Module] = nn.ReLU, dropout: float = 0.0
) -> nn.Sequential:
    """Return linear layers of these widths, each followed by the activation and dropout."""
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), activation()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


def score_layer(width: int) -> nn.Linear:
    """Return the last layer of a network; it says 0 until something is learned."""
    layer = nn.Linear(width, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def train(
    network: ProgramNetwork[InputsT],
    rows: TrainingRows,
    read: Callable[[Ints], InputsT],
    training: Training,
    scale: LatencyScale | None,
    seed: int,
    torch_device: str = "cpu",
) -> Trained:
    """Train a network in place, on one thread.

    Parameters
    ----------
    network
        What it knows is where it starts.
    rows
        Failed programs are left out.
    read
        Returns the inputs of some rows.
    training, seed
        How; one seed gives one result.
    scale
        Of an earlier training; None lets the first window of rows say it, and the network's scale
        of inputs.
    torch_device
        Where PyTorch computes; afterwards the network is on the CPU.

    Returns
    -------
    trained
        With the scale as given if no program ran.
    """
    runs = np.flatnonzero(np.isfinite(rows.latencies_s))
    if not runs.size:
        return Trained(scale, 0)
    gains = _gains(rows.latencies_s, rows.groups)
    ranked = rows.groups if training.ranked == "task" else rows.machine_of
    minibatches = _minibatches(rows, read, runs, training, np.random.default_rng(seed))
    window, chosen = next(minibatches)
    first_window = window  # no other is sure to be as large
    if scale is None:
        scale = _first_scale(window, training)
        network.fit_scale(window.inputs)
    device, seen = torch.device(torch_device), 0
    network.to(device).train()
    optimizer = _OPTIMIZERS[training.optimizer](
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    schedule = make_schedule(optimizer, training)
    with torch_threads(1), torch.random.fork_rng(devices=[device] if device.type != "cpu" else []):
        torch.manual_seed(seed)  # dropout
        for _ in range(training.steps):
            origin = torch.from_numpy(scale.origin(window.inputs)[chosen] + scale.mean).to(device)
            predicted = origin + scale.std * network.scores(window.inputs, chosen)
            measured = torch.from_numpy(window.log_s[chosen]).to(device)
            loss = latency_loss(predicted, measured, training.loss)
            if training.ranking_weight:
                at = window.rows[chosen]
                ranking = ranking_loss(predicted, gains[at], ranked[at])
                loss = loss + training.ranking_weight * ranking
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), training.gradient_clip)
            optimizer.step()
            schedule.step()
            seen += len(chosen)
            window, chosen = next(minibatches)
    network.cpu().eval()
    if training.loss == "none":
        scale = _calibrated(network, first_window, scale)
    return Trained(scale, seen)


_OPTIMIZERS: Mapping[str, type[torch.optim.Adam]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
}


def make_schedule(
    optimizer: torch.optim.Optimizer, training: Training
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return what changes the learning rate after each step; see `Training.schedule`."""
    if training.schedule == "cycle":
        steps = max(training.steps, 1)
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, training.learning_rate, total_steps=steps, pct_start=_WARM_UP
        )
    later = 1.0 if training.schedule == "constant" else 0.2
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: later if step >= training.steps // 2 else 1.0
    )


@dataclass(frozen=True)
class _Window(Generic[InputsT]):
    """Some rows, prepared: their places, inputs and log latencies."""

    rows: Ints
    inputs: InputsT
    log_s: Floats


def _minibatches(
    rows: TrainingRows,
    read: Callable[[Ints], InputsT],
    runs: Ints,
    training: Training,
    generator: np.random.Generator,
) -> Iterator[tuple[_Window[InputsT], Ints]]:
    """Yield places of minibatches in windows of rows, pass after pass over all of them."""
    window: _Window[InputsT] | None = None
    while True:
        order = runs[draw_order(rows.groups[runs], training.group_size, generator)]
        for first in range(0, len(order), training.window):
            drawn = order[first : first + training.window]
            if window is None or len(order) > training.window:
                ascending = np.sort(drawn)  # as files are read
                log_s = np.log(rows.latencies_s[ascending])
                window = _Window(ascending, read(ascending), log_s)
            places = np.searchsorted(window.rows, drawn)
            for begin in range(0, len(places), training.batch_size):
                yield window, places[begin : begin + training.batch_size]


def draw_order(groups: Ints, run_length: int, generator: np.random.Generator) -> Ints:
    """Shuffle rows, but keep runs of one group together.

    Parameters
    ----------
    groups
        Number of each row's group; (n,).
    run_length
        Longest run.
    generator
        Says the order of runs, and which rows of a group make one.

    Returns
    -------
    order
        Every row once; (n,).
    """
    shuffled = generator.permutation(len(groups))
    order: Ints = shuffled[np.argsort(groups[shuffled], kind="stable")]
    _, first, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    in_group = np.arange(len(order)) - np.repeat(first, sizes)
    run = np.cumsum(in_group % run_length == 0) - 1
    return order[np.argsort(generator.permutation(run[-1] + 1)[run], kind="stable")]


def _gains(latencies_s: Floats, groups: Ints) -> Floats:
    """Best latency of the group over that of the program; meaningless where all of it failed."""
    _, group = np.unique(groups, return_inverse=True)
    best = np.full(group.max() + 1, np.inf)
    np.minimum.at(best, group, latencies_s)
    with np.errstate(invalid="ignore"):
        gains: Floats = best[group] / latencies_s
    return gains


def _first_scale(window: _Window[InputsT], training: Training) -> LatencyScale:
    scale = LatencyScale(over_estimate=training.over_estimate)
    logs = window.log_s - scale.origin(window.inputs)
    return LatencyScale(float(logs.mean()), max(float(logs.std()), 0.1), training.over_estimate)


def _calibrated(
    network: ProgramNetwork[InputsT], window: _Window[InputsT], scale: LatencyScale
) -> LatencyScale:
    """Fit a rising line from z to the log latencies of a window."""
    with torch_threads(1), torch.inference_mode():
        z = network.scores(window.inputs, np.arange(len(window.rows))).numpy().astype(np.float64)
    logs = window.log_s - scale.origin(window.inputs)
    centred = z - z.mean()
    spread = float((centred**2).sum())
    slope = float((centred * logs).sum()) / spread if spread > 1e-9 else 1.0
    slope = max(slope, _LEAST_SLOPE)
    return LatencyScale(float(logs.mean() - slope * z.mean()), slope, scale.over_estimate)
