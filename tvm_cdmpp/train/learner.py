"""How weights learn from a few measured programs of one device, to be written as its weights.

See `Learner`. What a search learns meanwhile is in `search.online`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tvm_cdmpp.models import (
    AdaptConfig,
    Expert,
    Neighbours,
    TrainedPredictor,
    TrainingRows,
    adapt,
    round_weights,
)
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.evaluation import evaluate
from tvm_cdmpp.train.finetuning import FINETUNE_CONFIG, finetune


class Learned(NamedTuple):
    """What programs taught."""

    weights: TrainedPredictor
    how: str
    """In words."""


@dataclass(frozen=True)
class _Way:
    """To learn without sources."""

    share: float
    """Of the way from the weights of the start to those that were trained on."""
    interpolate: bool
    """Whether measured programs say something of others."""
    how: str


_LEVEL = "the device's level"
_OTHERS = f"{_LEVEL}, and what measured programs say of others"
_WAYS = (
    _Way(0.0, False, f"{_LEVEL}, and the measured programs themselves"),
    _Way(0.0, True, _OTHERS),
    _Way(0.5, True, f"{_OTHERS}, with half of what training changes"),
    _Way(1.0, True, f"{_OTHERS}, with training"),
)
"""From the least to the most."""
_FEW = _WAYS[1]
"""Where there are too few to tell."""
_BESIDE_SOURCES = "training beside the sources"
_NOTHING = "nothing, as none of the measured programs ran"
_FOLDS = 3
_NO_LEVELS = np.zeros(2)
_LEVELS = 101
"""Quantiles of residuals that a level is chosen from."""
_LEAST_TO_TRAIN = 12
"""Programs that ran; fewer cannot tell whether training pays, nor fewer tasks what others will be
off by."""

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """Turns measured programs of one device into weights, always from the same start.

    The levels of a device that was calibrated are taken from its latencies, and count on top of
    what is learned. The level of what is left comes first, in closed form; programs of a search and
    those with TVM's own schedules have one each. With `sources`, their
    programs are trained on as well, and CMD keeps the latent vectors of programs that were not
    measured near theirs (`finetune`); so the weights stay good elsewhere. Without, an anchor keeps
    the weights near the start, as in a search, the level of this device is theirs for all devices
    of its kind, and measured programs say what others of their kind of schedule are off by.
    """

    start: TrainedPredictor
    sources: TrainingRows | None = None
    config: TrainConfig = field(default_factory=lambda: replace(FINETUNE_CONFIG, domain="cmd"))
    anchored: AdaptConfig = field(
        default_factory=lambda: AdaptConfig(
            steps=200,
            steps_per_program=1.0,
            least_steps=60,
            programs=16,
            programs_per_task=4,
            learning_rate=5e-4,
            last_layer=False,
        )
    )
    """Small steps: with all of a few dozen programs in each, what one of them says is overrated."""
    relative_weight: float = FINETUNE_CONFIG.relative_weight
    """Of the relative error in the loss that tells how much is learned without sources, as in
    training ahead. It draws levels down, as an error upward has no bound in percent; 0 where sums
    of programs are to be predicted, as in a network: there errors up and down cancel."""
    searched_share: float = 1.0
    """Of the level of programs of a search, what counts for others, without sources. Which programs
    are measured decides over it, as favourites of the weights are slower than they say; half where
    a calibration has measured others, which are chosen otherwise: so both count the same."""
    seed: int = 0

    def learn(self, measured: TrainingRows, unlabelled: TrainingRows) -> Learned:
        """Return weights that learned from some programs; the start where none of these ran.

        The levels that devices have for the start count for them, too.

        Parameters
        ----------
        measured
            Programs of one kind of device.
        unlabelled
            Others of that device; their latencies are not looked at.
        """
        if not np.isfinite(measured.latencies_s).any():
            return Learned(self.start, _NOTHING)
        kind = "cpu" if measured.devices[0].kind == "cpu" else "gpu"
        expert = self.start.experts[kind]
        rest = self.start.without_levels(measured)
        if self.sources is None:
            found, how = self._anchored(expert, rest)
            found.neighbours = (*expert.neighbours, *found.neighbours)
        else:
            levels = _levels_by_schedule(expert, rest)
            found = finetune(
                expert, _without(rest, levels), self.sources, config=self.config,
                unlabelled=unlabelled.uncalibrated(), seed=self.seed,
            )  # fmt: skip
            found.neighbours = (  # what they add was taken out
                *expert.neighbours,
                *(Neighbours.of_level(level, own) for own, level in levels.items()),
            )
            how = _BESIDE_SOURCES
        found.ahead = expert.network.state_dict() if expert.ahead is None else expert.ahead
        weights = TrainedPredictor({**self.start.experts, kind: found}, self.start.about)
        return Learned(weights, how)

    def _anchored(self, expert: Expert, measured: TrainingRows) -> tuple[Expert, str]:
        """Train as far as that pays, and interpolate what is left if that does.

        The weights are between those of the start and those after all steps (Wortsman et al.,
        Robust Fine-Tuning of Zero-Shot Models, CVPR 2022). Tasks that were left out tell how far:
        of all ways that are as good as the best, but for one standard error, the least (Breiman et
        al., Classification and Regression Trees, 1984). They tell as well by how much to move the
        level, as those of one's own programs are off by less than others will be.
        """
        ran = np.flatnonzero(np.isfinite(measured.latencies_s))
        way, levels = _FEW, np.zeros(2)
        if len(ran) >= _LEAST_TO_TRAIN:
            off = np.zeros((len(_WAYS), len(ran)))
            fold_of = self._folds(measured.tasks[ran])
            for fold in range(_FOLDS):
                out = ran[fold_of == fold]
                others = measured.take(np.setdiff1d(np.arange(len(measured)), out))
                for number, found in enumerate(self._learned(expert, others, _WAYS)):
                    off[number, fold_of == fold] = _log_residuals(found, measured.take(out))
            own = measured.own[ran].astype(np.int64)
            of_ways = np.array([self._levels(of_way, own) for of_way in off])
            lost = self._lost(off - of_ways[:, own])
            worse = lost - lost[lost.mean(axis=1).argmin()]
            limits = worse.std(axis=1) / len(ran) ** 0.5
            chosen = int((worse.mean(axis=1) <= limits).argmax())
            way, levels = _WAYS[chosen], of_ways[chosen]
        (found,) = self._learned(expert, measured, [way], levels, self.searched_share)
        return found, way.how

    def _folds(self, tasks: Ints) -> Ints:
        """Return which fold each program is in: that of its task, if there are enough tasks."""
        numbers, of_task = np.unique(tasks, return_inverse=True)
        if len(numbers) < _LEAST_TO_TRAIN:
            numbers, of_task = np.arange(len(tasks)), np.arange(len(tasks))
        order = np.random.default_rng(self.seed).permutation(len(numbers))
        folds: Ints = (order % _FOLDS)[of_task]
        return folds

    def _lost(self, off: Floats) -> Floats:
        """Return CDMPP's hybrid loss of ln(measured / predicted).

        Of a relative error of more than e - 1, the rest counts as its logarithm.
        """
        relative = np.abs(np.expm1(np.minimum(-off, 1.0))) + np.maximum(-off - 1.0, 0.0)
        lost: Floats = np.abs(off) + self.relative_weight * relative
        return lost

    def _levels(self, off: Floats, own: Ints) -> Floats:
        """Return the levels of programs of a search and of those with TVM's own schedules; (2,)."""
        return np.array([self._level(off[own == number]) for number in range(2)])

    def _level(self, off: Floats) -> float:
        """Return what brings that loss down most; a quantile of the residuals, or nothing."""
        if not len(off):
            return 0.0
        levels = np.append(np.quantile(off, np.linspace(0.0, 1.0, _LEVELS)), 0.0)
        return float(levels[self._lost(off - levels[:, None]).sum(axis=1).argmin()])

    def _learned(
        self,
        expert: Expert,
        measured: TrainingRows,
        ways: Sequence[_Way],
        levels: Floats = _NO_LEVELS,
        searched_share: float = 1.0,
    ) -> list[Expert]:
        """Return what learned from programs, in each of some ways.

        Levels, as of `_levels`, are added to what is said of others.
        """
        start = expert.network.state_dict()
        trained = copy.deepcopy(expert.network)
        if any(way.share > 0.0 for way in ways):
            centred = _without(measured, _levels_by_schedule(expert, measured))
            adapt(trained, start, centred, self.anchored, self.seed, len(measured))
        ran = measured.take(np.flatnonzero(np.isfinite(measured.latencies_s)))
        by_schedule = [(own, np.flatnonzero(ran.own == own)) for own in np.unique(ran.own).tolist()]
        found = []
        for way in ways:
            network = copy.deepcopy(trained)
            with torch.no_grad():
                for name, weight in network.named_parameters():
                    weight.copy_(torch.lerp(start[name], weight, way.share))
            round_weights(network)
            learned = Expert(
                network, expert.spread_factor, expert.predicts_failure or len(ran) < len(measured)
            )
            off = _log_residuals(learned, ran)
            rest = tuple(
                Neighbours.fit(
                    ran.take(places).batch(),
                    off[places],
                    interpolate=way.interpolate,
                    level=float(levels[int(own)]),
                    share=1.0 if own else searched_share,
                    own=own if len(by_schedule) > 1 else None,
                )
                for own, places in by_schedule
            )
            found.append(replace(learned, neighbours=rest))
        return found


def _levels_by_schedule(expert: Expert, measured: TrainingRows) -> dict[bool, float]:
    """Return the level of programs with TVM's own schedules, and that of others, if there are both.

    The network cannot tell them apart, and what it is off by differs by more than what it has to
    learn: it has learned from no program with TVM's own schedule.
    """
    off = _log_residuals(Expert(expert.network), measured)
    kinds = ((own, off[(measured.own == own) & np.isfinite(off)]) for own in (False, True))
    levels = {own: float(np.median(ran)) for own, ran in kinds if len(ran)}
    return levels if len(levels) > 1 else {}


def _without(measured: TrainingRows, levels: Mapping[bool, float]) -> TrainingRows:
    """Take levels out of what was measured."""
    added = np.zeros(len(measured))
    for own, level in levels.items():
        added[measured.own == own] = level
    return replace(measured, latencies_s=measured.latencies_s * np.exp(-added))


def _log_residuals(expert: Expert, rows: TrainingRows) -> Floats:
    """Return ln(measured / predicted) of programs of one kind of device; (n,)."""
    kind = "cpu" if rows.devices[0].kind == "cpu" else "gpu"
    predicted_s = evaluate(TrainedPredictor({kind: expert}), rows).latency_s
    found: Floats = np.log(rows.latencies_s) - np.log(predicted_s)
    return found
