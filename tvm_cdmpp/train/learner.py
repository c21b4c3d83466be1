"""How weights learn from a few measured programs of one device, to be written as its weights.

See `Learner`. What a search learns meanwhile is in `search.online`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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

_SHARES = (0.0, 0.5, 1.0)
"""Of the way from the weights of the start to those that were trained on."""
_FOLDS = 3
_LEAST_TO_TRAIN = 12
"""Programs that ran; fewer cannot tell whether training pays."""

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """Turns measured programs of one device into weights, always from the same start.

    The levels of a device that was calibrated are taken from its latencies, and count on top of
    what is learned. The level of what is left comes first, in closed form. With `sources`, their
    programs are trained on as well, and CMD keeps the latent vectors of programs that were not
    measured near theirs (`finetune`); so the weights stay good elsewhere. Without, an anchor keeps
    the weights near the start, as in a search, and the level of this device is theirs for all
    devices of its kind.
    """

    start: TrainedPredictor
    sources: TrainingRows | None = None
    config: TrainConfig = field(default_factory=lambda: replace(FINETUNE_CONFIG, domain="cmd"))
    anchored: AdaptConfig = field(
        default_factory=lambda: AdaptConfig(
            steps=200, steps_per_program=1.0, least_steps=60, programs=16, programs_per_task=4
        )
    )
    """Small steps: with all of a few dozen programs in each, what one of them says is overrated."""
    seed: int = 0

    def learn(self, measured: TrainingRows, unlabelled: TrainingRows) -> TrainedPredictor:
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
            return self.start
        kind = "cpu" if measured.devices[0].kind == "cpu" else "gpu"
        expert = self.start.experts[kind]
        rest = self.start.without_levels(measured)
        if self.sources is None:
            found = self._anchored(expert, rest)
            found.neighbours = (*expert.neighbours, *found.neighbours)
        else:
            found = finetune(
                expert, rest, self.sources, config=self.config,
                unlabelled=unlabelled.uncalibrated(), seed=self.seed,
            )  # fmt: skip
            found.neighbours = expert.neighbours  # what they add was taken out
        found.ahead = expert.network.state_dict() if expert.ahead is None else expert.ahead
        return TrainedPredictor({**self.start.experts, kind: found}, self.start.about)

    def _anchored(self, expert: Expert, measured: TrainingRows) -> Expert:
        """Train as far as that pays, and interpolate what is left.

        The weights are between those of the start and those after all steps, at the share at which
        programs that were left out are predicted best (Wortsman et al., Robust Fine-Tuning of
        Zero-Shot Models, CVPR 2022): all of the way on a device that was not known, often none of
        it on one that was.
        """
        ran = np.flatnonzero(np.isfinite(measured.latencies_s))
        share = _SHARES[0]
        if len(ran) >= _LEAST_TO_TRAIN:
            off = np.zeros(len(_SHARES))
            fold_of = np.random.default_rng(self.seed).permutation(len(ran)) % _FOLDS
            for fold in range(_FOLDS):
                left_out = measured.take(ran[fold_of == fold])
                others = measured.take(np.setdiff1d(np.arange(len(measured)), ran[fold_of == fold]))
                each = self._between(expert, others, _SHARES)
                off += [np.abs(_log_residuals(one, left_out)).sum() for one in each]
            share = _SHARES[int(off.argmin())]
        (found,) = self._between(expert, measured, [share])
        return found

    def _between(
        self, expert: Expert, measured: TrainingRows, shares: Sequence[float]
    ) -> list[Expert]:
        """Return what learned from programs, at shares of the way from the start."""
        start = expert.network.state_dict()
        trained = copy.deepcopy(expert.network)
        if max(shares) > 0.0:
            adapt(trained, start, measured, self.anchored, self.seed, len(measured))
        ran = measured.take(np.flatnonzero(np.isfinite(measured.latencies_s)))
        found = []
        for share in shares:
            network = copy.deepcopy(trained)
            with torch.no_grad():
                for name, weight in network.named_parameters():
                    weight.copy_(torch.lerp(start[name], weight, share))
            round_weights(network)
            learned = Expert(
                network, expert.spread_factor, expert.predicts_failure or len(ran) < len(measured)
            )
            interpolated = Neighbours.fit(ran.batch(), _log_residuals(learned, ran))
            found.append(replace(learned, neighbours=(interpolated,)))
        return found


def _log_residuals(expert: Expert, rows: TrainingRows) -> Floats:
    """Return ln(measured / predicted) of programs of one kind of device; (n,)."""
    kind = "cpu" if rows.devices[0].kind == "cpu" else "gpu"
    predicted_s = evaluate(TrainedPredictor({kind: expert}), rows).latency_s
    found: Floats = np.log(rows.latencies_s) - np.log(predicted_s)
    return found
