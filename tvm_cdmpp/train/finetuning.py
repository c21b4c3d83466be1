"""Training on for a network or a device, without forgetting the others.

Rows of the target and of the sources are trained on together, with a small learning rate. Programs
of the target need no measurement to help: `TrainConfig.domain` keeps their latent vectors near
those of the sources, as CDMPP does (Hu et al., EuroSys 2024).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.models import Expert, TrainingRows
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.loop import Trainer
from tvm_cdmpp.train.windows import Windows

FINETUNE_CONFIG = TrainConfig(
    steps=400, learning_rate=3e-4, window_batches=20, warm_up=0.2, average=0.98
)


def finetune(
    expert: Expert,
    target: TrainingRows,
    sources: TrainingRows,
    *,
    config: TrainConfig = FINETUNE_CONFIG,
    target_share: float = 0.5,
    unlabelled: TrainingRows | None = None,
    seed: int = 0,
    on_step: Callable[[int], None] = lambda _: None,
) -> Expert:
    """Return an expert that was trained on; the given one stays as it is.

    Parameters
    ----------
    expert
        Where training starts.
    target
        Measured programs of the target; may be none if there are unlabelled ones.
    sources
        Some of the programs that the expert was trained on; in memory, so a few of each task.
    config
        How to train.
    target_share
        Share of the groups that are drawn from the target, in [0, 1].
    unlabelled
        Programs of the target, for `TrainConfig.domain`; their latencies are not looked at.
    seed
        One seed gives one result.
    on_step
        Told the number of steps taken.

    Raises
    ------
    RecordError
        There is nothing to train on.
    ConfigError
        `target_share` is not a share.
    """
    if not 0 <= target_share <= 1:
        raise ConfigError(f"target_share must be in [0, 1]; got {target_share}.")
    parts = [part for part in (target, sources) if np.isfinite(part.latencies_s).any()]
    if not parts:
        raise RecordError("neither the target nor the sources have a program that ran")
    rows = _joined(parts)
    is_target = np.arange(len(rows)) < (len(target) if parts[0] is target else 0)
    emphasis = (np.unique(rows.groups[is_target]), target_share) if is_target.any() else None
    windows = Windows(rows, _one_operator(rows), config, seed, emphasis)
    others = None
    if unlabelled is not None and config.domain != "none":
        others = Windows(unlabelled, _one_operator(unlabelled), config, seed + 1)
    network = copy.deepcopy(expert.network)
    trainer = Trainer(network, windows, config, unlabelled=others)
    while not trainer.done:
        trainer.train_window()
        on_step(trainer.step)
    return Expert(trainer.averaged, expert.spread_factor, expert.predicts_failure)


def _joined(parts: list[TrainingRows]) -> TrainingRows:
    """Join rows; tasks of different parts get numbers of their own."""
    renumbered, first = [], 0
    for part in parts:
        moved = TrainingRows(
            part.asts, part.latencies_s, part.tasks + first, part.machines, part.machine_of
        )
        renumbered.append(moved)
        first += int(part.tasks.max(initial=0)) + 1
    return TrainingRows.join(renumbered)


def _one_operator(rows: TrainingRows) -> npt.NDArray[np.str_]:
    return np.full(len(rows), "any")
