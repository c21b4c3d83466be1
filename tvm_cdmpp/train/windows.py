"""Rows to train on, a window at a time.

A window holds programs of groups, a group being one task on one machine; groups are drawn so that
rare operators are not drowned. A batch holds several programs of each of several groups, which
gives the ranking term its pairs.

A window depends on the seed and its number alone, so that a run that was killed goes on as if it
had not been.

Where all rows are kept, as in the memory of a GPU, a window is but their places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tvm_cdmpp.models import NUM_INPUTS, Ints, Leaves, TrainingRows, leaf_inputs, stack_devices
from tvm_cdmpp.train.config import PROGRAMS_PER_GROUP, TrainConfig


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
    keep_on
        Where all rows are kept, as PyTorch calls the device; None reads those of every window anew.
    """

    def __init__(
        self,
        rows: TrainingRows,
        operators: npt.NDArray[np.str_],
        config: TrainConfig,
        seed: int,
        emphasis: tuple[Ints, float] | None = None,
        keep_on: str | None = None,
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
        self._kept: Window | None = None
        if keep_on is not None:
            every = prepare(rows, np.arange(len(rows)), self._devices, np.empty((0, 0), np.int64))
            self._kept = every.to(torch.device(keep_on))

    def draw(self, number: int) -> Window:
        """Return a window; the same for the same number."""
        generator = np.random.default_rng((self.seed, number))
        repeats = PROGRAMS_PER_GROUP // self._config.programs_per_group
        num_groups = -(-self._config.window_batches * self._config.groups_per_batch // repeats)
        groups = generator.choice(len(self._sizes), num_groups, p=self._shares)
        chosen = np.concatenate([self._draw_group(g, generator) for g in groups.tolist()])
        order = _batches(num_groups, self._config, generator)
        if self._kept is not None:
            return self._kept.deal(chosen, order)
        return prepare(self._rows, chosen, self._devices, order)

    def _draw_group(self, group: int, generator: np.random.Generator) -> Ints:
        size, start = self._sizes[group], self._starts[group]
        places = generator.choice(size, PROGRAMS_PER_GROUP, replace=size < PROGRAMS_PER_GROUP)
        taken: Ints = self._order[start + places]
        return taken


def _batches(num_groups: int, config: TrainConfig, generator: np.random.Generator) -> Ints:
    """Deal the programs of a window into batches; (batches, groups x programs per group)."""
    size = config.programs_per_group
    parts = np.arange(num_groups * PROGRAMS_PER_GROUP).reshape(-1, size)
    parts = parts[generator.permutation(len(parts))]
    whole = config.window_batches * config.groups_per_batch
    return parts[:whole].reshape(config.window_batches, config.groups_per_batch * size)


@dataclass(frozen=True)
class Window:
    """Programs in memory, and how they are dealt into batches."""

    leaves: Leaves
    """Leaves may lie in another order than programs, and serve several."""
    firsts: Tensor
    """First leaf of each program; (n,)."""
    log_latency: Tensor
    """Natural logarithm of measured seconds, infinite for failed programs; (n,)."""
    batches: Ints

    def __iter__(self) -> Iterator[tuple[Leaves, Tensor]]:
        """Yield batches: programs and their measured log latency."""
        for chosen in self.batches:
            yield self.take(torch.from_numpy(chosen).to(self.firsts.device))

    def to(self, torch_device: torch.device) -> Window:
        """Return the same where PyTorch is to compute."""
        leaves, firsts = self.leaves.to(torch_device), self.firsts.to(torch_device)
        return Window(leaves, firsts, self.log_latency.to(torch_device), self.batches)

    def deal(self, programs: Ints, batches: Ints) -> Window:
        """Return a window of some of these programs; their leaves are not copied."""
        at, every = torch.from_numpy(programs).to(self.firsts.device), self.leaves
        leaves = Leaves(every.inputs, every.positions, every.counts[at], every.device[at])
        return Window(leaves, self.firsts[at], self.log_latency[at], batches)

    def all(self) -> tuple[Leaves, Tensor]:
        """Return all programs, each as often as it was drawn."""
        return self.take(torch.arange(len(self.log_latency), device=self.firsts.device))

    def take(self, programs: Tensor) -> tuple[Leaves, Tensor]:
        """Return some programs and their measured log latency."""
        return self.leaves.take(programs, self.firsts), self.log_latency[programs]


def prepare(rows: TrainingRows, chosen: Ints, devices: Tensor, batches: Ints) -> Window:
    """Bring rows into memory, in the given order."""
    unique, back = np.unique(chosen, return_inverse=True)
    batch = rows.asts.take(unique)
    machine_of = rows.machine_of[unique]
    machine_of_leaf = np.repeat(machine_of, batch.leaf_counts)
    inputs = np.empty((len(machine_of_leaf), NUM_INPUTS), np.float32)
    for machine in np.unique(machine_of).tolist():
        programs = batch.take(np.flatnonzero(machine_of == machine))
        inputs[machine_of_leaf == machine] = leaf_inputs(programs, rows.machines[machine].device)
    at = torch.from_numpy(back)
    leaves = Leaves(
        torch.from_numpy(inputs),
        torch.from_numpy(batch.positions),
        torch.from_numpy(batch.leaf_counts)[at],
        devices[torch.from_numpy(rows.machine_of[chosen])],
    )
    return Window(
        leaves,
        torch.from_numpy(batch.offsets[:-1])[at],
        torch.from_numpy(np.log(rows.latencies_s[chosen]).astype(np.float32)),
        batches,
    )
