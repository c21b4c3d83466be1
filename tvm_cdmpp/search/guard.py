"""A guard against weights that are wrong here: those who were right so far have the say.

Four members say how long programs take:

- `adapted`: the network as this search has trained it on.
- `prior`: the network with the weights that the search came with.
- `trees`: a small ensemble that learned from this search alone, on top of the analytic estimate.
- `analytic`: that estimate.

Each has a weight, for every class of operator; weights are not negative and add up to one. At first
nearly all is the adapted network's, and as long as nobody else has a tenth, it is asked alone.
Before a batch is learned from, all members say what they think of it, and lose weight by what they
were wrong (exponential weights: Freund and Schapire, "A Decision-Theoretic Generalization of
On-Line Learning", 1997). What was long ago counts less. A class that nothing was measured of yet
has the weights of all programs together.

The combined latency is the geometric mean of the members', each without what it is off by as a
whole in the task, the median of late: only the order of a task's programs is voted on. Of those who
learn nothing remains to be taken off: they have seen these programs since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.errors import MissingDependencyError
from tvm_cdmpp.models import (
    Content,
    CostPredictor,
    Prediction,
    TrainedPredictor,
    TrainingRows,
    TreeOptions,
    TreePredictor,
    estimate_latency_s,
    thin,
)

Floats = npt.NDArray[np.float64]

MEMBERS = ("adapted", "prior", "trees", "analytic")
_NETWORKS = ("adapted", "prior")


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """How fast trust moves."""

    trust: tuple[float, ...] = (0.98, 0.009, 0.009, 0.002)
    """Weights of `MEMBERS` at first."""
    rate: float = 1.2
    """What a program that was all wrong takes off the logarithm of a weight."""
    half_life: float = 128.0
    """Measured programs after which a loss counts half."""
    least: float = 0.1
    """Members of less weight are not asked."""
    trees: TreeOptions = field(
        default_factory=lambda: TreeOptions(
            rounds=40, depth=6, learning_rate=0.2, max_bins=32, column_share=0.3
        )
    )
    most_rows: int = 1024
    """Measured programs that trees grow on; of more, as many of each task."""


@dataclass(frozen=True, slots=True)
class Overruled:
    """A class of operator where the network has lost the say."""

    operator: str
    by: str
    """The member, of `MEMBERS`, that has the most."""
    weight: float
    """What the networks have left."""


_LARGEST_LOSS = 64
"""Programs that one batch counts as, at most."""
_SAME = 0.02
"""Programs whose ln latencies differ by less may be in any order."""
_RECENT = 64
"""Errors of a task that its level is the median of."""
_FEW = 4
"""Errors that a level is not known from yet."""
_ALL = ""
"""Stands for all operators."""


class Guard:
    """The weights of the members of one search, and the members that learn in it.

    Parameters
    ----------
    predictor
        The network, as the search starts with it; copied.
    seed
        One seed and the same measurements give the same scores.
    config
        How fast trust moves.
    """

    def __init__(
        self, predictor: TrainedPredictor, seed: int, config: GuardConfig | None = None
    ) -> None:
        self._config = config or GuardConfig()
        self._prior = predictor.ahead()
        self._trees = TreePredictor(self._config.trees)
        self._seed = seed
        self._losses: dict[str, Floats] = {}
        """Of each operator and of all: the sum of each member's losses; (len(MEMBERS),)."""
        self._errors: dict[int, Floats] = {}
        """Of each task: ln measured over predicted seconds, of late; (n, len(MEMBERS))."""

    def weights(self, operator: str) -> dict[str, float]:
        """Return the weight of each member for a class of operator."""
        losses = self._losses.get(operator, self._losses.get(_ALL))
        logs = np.log(self._config.trust)
        if losses is not None:
            logs = logs - self._config.rate * (losses - losses.min())
        shares = np.exp(logs - logs.max())
        return dict(zip(MEMBERS, (shares / shares.sum()).tolist(), strict=True))

    @property
    def overruled(self) -> tuple[Overruled, ...]:
        """Where the networks have less than half of the weight now."""
        found = []
        for operator in self._losses:
            weights = self.weights(operator)
            left = sum(weights[name] for name in _NETWORKS)
            if operator != _ALL and left < 0.5:
                found.append(Overruled(operator, max(weights, key=weights.__getitem__), left))
        return tuple(found)

    def predict(
        self,
        predictor: CostPredictor,
        batch: CompactASTBatch,
        device: DeviceSpec,
        *,
        task: int,
        operator: str,
        num_threads: int = 1,
    ) -> Prediction:
        """Predict programs of one task.

        Parameters
        ----------
        predictor
            The network as it is now.
        batch
            Compact ASTs of n programs, each with at least one leaf.
        device
            Hardware to predict for.
        task, operator
            Number of the task, and its class.
        num_threads
            Threads to use.

        Returns
        -------
        prediction
            What the network says where it alone is trusted; else latencies by all that are, the
            network's spread as far as it has the say, and nothing of leaves.
        """
        said = predictor.predict(batch, device, num_threads=num_threads)
        asked = {n: w for n, w in self.weights(operator).items() if w >= self._config.least}
        if list(asked) == ["adapted"]:
            return said
        total = sum(asked.values())
        levels = dict(zip(MEMBERS, self._levels(task), strict=True))
        # These have learned from what they were judged by, trees only where XGBoost is installed.
        learning = ("adapted", *(("trees",) if self._trees.booster is not None else ()))
        log_s = np.zeros(len(batch))
        for name, weight in asked.items():
            if name == "adapted":
                of_member = np.log(said.latency_s)
            else:
                of_member = self._log_s(name, batch, device, num_threads)
            level = 0.0 if name in learning else levels[name]
            log_s += weight / total * (of_member + level)
        # Only the networks have an idea of their error, by which programs are ordered as well.
        share = sum(asked.get(name, 0.0) for name in _NETWORKS) / total
        spread = None if said.spread is None else share * said.spread
        return replace(said, latency_s=np.exp(log_s), spread=spread, leaf_s=None)

    def judge(
        self,
        predictor: CostPredictor,
        batch: TrainingRows,
        known: TrainingRows,
        operators: Mapping[int, str],
    ) -> None:
        """Let the members predict a measured batch, and move their weights.

        To be called before anybody learns from the batch.

        Parameters
        ----------
        predictor
            The network as it is now.
        batch
            What was measured.
        known
            What was measured before.
        operators
            The class of operator of each task.
        """
        for task, new in _of_tasks(batch):
            device = new.machines[int(new.machine_of[0])].device
            best = _best(known, task)
            rows = new if best is None else TrainingRows.join([new, best])
            log_s = np.stack(
                [np.log(predictor.predict(rows.batch(), device).latency_s)]
                + [self._log_s(name, rows.batch(), device, 1) for name in MEMBERS[1:]],
                axis=1,
            )
            measured = np.log(rows.latencies_s)
            self._lose(task, operators[task], log_s, measured, len(new))

    def learn(self, rows: TrainingRows) -> None:
        """Grow trees on all that was measured; without XGBoost there are none."""
        runs = np.flatnonzero(np.isfinite(rows.latencies_s))
        chosen = runs[thin(rows.groups[runs], self._config.most_rows)]
        self._trees = TreePredictor(self._config.trees)
        try:
            self._trees.fit(rows.take(chosen), seed=self._seed)
        except MissingDependencyError:
            return

    def content(self) -> Content:
        """Return what a checkpoint holds; trees grow again from the measured programs."""
        errors = {f"errors.{task}": found for task, found in self._errors.items()}
        losses = {operator: found.tolist() for operator, found in self._losses.items()}
        return Content({"losses": losses, "seed": self._seed}, errors)

    @staticmethod
    def of_content(content: Content, predictor: TrainedPredictor) -> Guard:
        """Make a guard of what a checkpoint holds; `learn` brings its trees back.

        Raises
        ------
        KeyError, TypeError, ValueError
            Something is missing or is not what it should be.
        """
        settings: Mapping[str, Any] = content.settings
        guard = Guard(predictor, int(settings["seed"]))
        guard._losses = {
            str(operator): np.array(found, np.float64).reshape(len(MEMBERS))
            for operator, found in settings["losses"].items()
        }
        guard._errors = {
            int(name.removeprefix("errors.")): found.reshape(-1, len(MEMBERS))
            for name, found in content.arrays.items()
        }
        return guard

    def _log_s(
        self, name: str, batch: CompactASTBatch, device: DeviceSpec, num_threads: int
    ) -> Floats:
        """Return ln seconds that a member says; not for the adapted network."""
        if name == "analytic":
            return np.log(estimate_latency_s(batch, device))
        member = self._prior if name == "prior" else self._trees
        return np.log(member.predict(batch, device, num_threads=num_threads).latency_s)

    def _levels(self, task: int) -> Floats:
        """Return what each member is off by as a whole in a task, as ln seconds."""
        if not self._errors:
            return np.zeros(len(MEMBERS))
        errors = self._errors.get(task)
        if errors is None:
            errors = np.stack([np.median(found, axis=0) for found in self._errors.values()])
        levels: Floats = np.median(errors, axis=0)
        return levels

    def _lose(
        self, task: int, operator: str, log_s: Floats, measured: Floats, num_new: int
    ) -> None:
        """Note the losses of members.

        Parameters
        ----------
        task, operator
            What the programs are of.
        log_s
            ln seconds that each member says of each program; (n, len(MEMBERS)).
        measured
            ln seconds; (n,).
        num_new
            Programs of the batch; those after them were known.
        """
        errors = measured[:num_new, None] - log_s[:num_new]
        before = self._errors.get(task, errors[:0])
        enough = before if len(before) >= _FEW else errors
        parts = []
        if len(before) >= _FEW or num_new > 1:
            off = np.abs(errors - np.median(enough, axis=0))
            parts.append(np.minimum(off, 1.0).mean(axis=0))
        order = _order_loss(log_s, measured)
        if order is not None:
            parts.append(order)
        self._errors[task] = np.concatenate([before, errors])[-_RECENT:]
        if not parts:
            return
        loss = np.mean(parts, axis=0) * min(num_new, _LARGEST_LOSS)
        kept = 0.5 ** (num_new / self._config.half_life)
        for name in (operator, _ALL):
            self._losses[name] = kept * self._losses.get(name, np.zeros(len(MEMBERS))) + loss


def _of_tasks(rows: TrainingRows) -> Iterator[tuple[int, TrainingRows]]:
    """Yield the programs of each task that ran."""
    runs = np.isfinite(rows.latencies_s)
    for task in np.unique(rows.tasks[runs]).tolist():
        yield task, rows.take(np.flatnonzero(runs & (rows.tasks == task)))


def _best(rows: TrainingRows, task: int) -> TrainingRows | None:
    """Return the fastest program of a task."""
    of_task = np.flatnonzero((rows.tasks == task) & np.isfinite(rows.latencies_s))
    if not of_task.size:
        return None
    return rows.take(of_task[[int(rows.latencies_s[of_task].argmin())]])


def _order_loss(log_s: Floats, measured: Floats) -> Floats | None:
    """Return the share of pairs that each member has in the wrong order; (len(MEMBERS),).

    Pairs weigh by how much they differ, those that take nearly as long nothing; ties are half
    wrong. None without a pair.
    """
    one, other = np.triu_indices(len(measured), 1)
    gaps = measured[one] - measured[other]
    weights = np.where(np.abs(gaps) < _SAME, 0.0, np.minimum(np.abs(gaps), 1.0))
    if not weights.sum():
        return None
    agreement = np.sign(log_s[one] - log_s[other]) * np.sign(gaps)[:, None]
    loss: Floats = weights @ (0.5 - 0.5 * agreement) / weights.sum()
    return loss
