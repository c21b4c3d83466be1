"""Training on for a network or a device, without forgetting the others.

Rows of the target and of the sources are trained on together. A device that the sources were not
measured on has a level of its own, which a few programs tell in closed form (see `levels`); what
the sources' programs would take there, by the weights as they were and this level, is trained on as
well, so that neither the level nor what is known of the order has to be learned from so few.

Programs of the target need no measurement to help: `TrainConfig.domain` keeps their latent vectors
near those of the sources, as CDMPP does (Hu et al., EuroSys 2024).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import SCHEMA_VERSION
from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.models import (
    AdditiveNetwork,
    Content,
    Expert,
    TrainingRows,
    read_checkpoint,
    write_checkpoint,
)
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.levels import LevelCorrection
from tvm_cdmpp.train.loop import Trainer, predict
from tvm_cdmpp.train.windows import Windows

FINETUNE_CONFIG = TrainConfig(
    steps=120,
    groups_per_batch=48,
    window_batches=40,
    learning_rate=5e-4,
    weight_decay=1e-2,
    warm_up=0.2,
    relative_weight=3.0,
    ranking_weight=0.3,
    average=0.98,
)
_LARGEST_SHARE = 0.8
"""Of the groups that are drawn from measured programs of the target, where these are many."""
_HALF_SHARE_PROGRAMS = 100
"""Measured programs with which it is half of that: of fewer, each would be seen too often."""
_EXPECTED_EVERY = 3
"""Of how many source tasks one is also trained on as it should run on a new device."""


def finetune(
    expert: Expert,
    target: TrainingRows,
    sources: TrainingRows,
    *,
    config: TrainConfig = FINETUNE_CONFIG,
    unlabelled: TrainingRows | None = None,
    seed: int = 0,
    file: Path | None = None,
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
    unlabelled
        Programs of the target, for `TrainConfig.domain`; their latencies are not looked at.
    seed
        One seed gives one result.
    file
        Where the state of the run is kept after every window; one that is there is gone on with.
    on_step
        Told the number of steps taken.

    Raises
    ------
    RecordError
        There is nothing to train on.
    ConfigError
        The file holds another run.
    """
    expected = _as_on_new_devices(expert.network, target, sources)
    parts = [part for part in (target, *expected, sources) if np.isfinite(part.latencies_s).any()]
    if not parts:
        raise RecordError("neither the target nor the sources have a program that ran")
    rows = _joined(parts)
    is_target = np.arange(len(rows)) < (len(target) if parts[0] is target else 0)
    share = _LARGEST_SHARE * len(target) / (len(target) + _HALF_SHARE_PROGRAMS)
    emphasis = (np.unique(rows.groups[is_target]), share) if is_target.any() else None
    windows = Windows(rows, _one_operator(rows), config, seed, emphasis)
    others, read = None, [rows]
    if unlabelled is not None and len(unlabelled) and config.domain != "none":
        others = Windows(unlabelled, _one_operator(unlabelled), config, seed + 1)
        read.append(unlabelled)
    network = copy.deepcopy(expert.network)
    for place in np.unique(target.machine_of).tolist():
        network.tell_apart(target.devices[place])
    trainer = Trainer(network, windows, config, unlabelled=others)
    identity = _identity(expert.network, read, config, seed)
    if file is not None and file.exists():
        _take_up(trainer, file, identity)
    while not trainer.done:
        trainer.train_window()
        if file is not None:
            own = Content({"identity": identity}, {})
            write_checkpoint(file, Content.under(run=own, trainer=trainer.content()))
        on_step(trainer.step)
    return Expert(trainer.averaged, expert.spread_factor, expert.predicts_failure)


def _as_on_new_devices(
    network: AdditiveNetwork, target: TrainingRows, sources: TrainingRows
) -> list[TrainingRows]:
    """Return the sources' programs with what they should take on devices that are new to them."""
    groups = np.unique(sources.groups, return_inverse=True)[1]
    some = sources.take(np.flatnonzero(groups % _EXPECTED_EVERY == 0))
    known = {sources.machines[place].device for place in np.unique(sources.machine_of).tolist()}
    residuals = np.log(target.latencies_s) - (predict(network, target)[0] if len(target) else 0.0)
    made = []
    for place in np.unique(target.machine_of).tolist():
        machine = target.machines[place]
        here = np.flatnonzero((target.machine_of == place) & np.isfinite(residuals))
        if machine.device in known or not len(here) or not len(some):
            continue
        levels = LevelCorrection.fit(residuals[here], np.zeros(len(here)), target.tasks[here])
        moved = TrainingRows.on(machine, some.asts, np.ones(len(some)), some.tasks)
        expected_s = np.exp(predict(network, moved)[0] + levels.device)
        made.append(replace(moved, latencies_s=expected_s))
    return made


def _take_up(trainer: Trainer, file: Path, identity: str) -> None:
    content = read_checkpoint(file)
    if content.part("run").settings["identity"] != identity:
        raise ConfigError(
            f"{file} is the state of a run with other settings or other data; give the same ones, "
            "or remove it."
        )
    trainer.restore(content.part("trainer"))


def _identity(
    network: AdditiveNetwork, parts: Sequence[TrainingRows], config: TrainConfig, seed: int
) -> str:
    """Name a run by all that it depends on."""
    digest = hashlib.sha256(json.dumps([SCHEMA_VERSION, asdict(config), seed]).encode())
    for weight in network.state_dict().values():
        digest.update(weight.numpy().tobytes())
    for part in parts:
        for array in (part.batch().vectors, part.latencies_s, part.groups):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


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
