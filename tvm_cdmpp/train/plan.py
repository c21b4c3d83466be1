"""What to measure on a device that is onboarded: the whole budget first, then each batch of that.

- Tasks that stand for the others, and programs of each (see `select_programs`).
- Functions with TVM's own schedules have a share of their own, by how many tasks and how many
  functions there are.
- Where it is known what networks run how often, three quarters are of the tasks that take most of
  their time, as predicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models import Ints, TrainedPredictor, TrainingRows
from tvm_cdmpp.train.evaluation import evaluate
from tvm_cdmpp.train.selection import program_features, select_programs

_HEAVIEST = 0.75
"""Of what is measured where networks are known, the part that is of the tasks that take most of
their time; what stands for all others is the rest."""

Mask = npt.NDArray[np.bool_]


class Bench(Protocol):
    """What programs of a device can be measured with."""

    @property
    def candidates(self) -> TrainingRows:
        """Programs to choose from; their latencies are not to be looked at.

        Those with schedules of TVM's own are tasks of their own.
        Where calls are known, those of a task that are to be measured first come first.
        """

    @property
    def open(self) -> Mask:
        """Which candidates have not been measured; (candidates,)."""

    @property
    def measured(self) -> TrainingRows:
        """All that was measured, in that order, earlier runs first; tasks as in `candidates`."""

    @property
    def calls(self) -> Ints | None:
        """How often each network runs each task of the candidates, (networks, tasks), if known."""

    @property
    def wake_s(self) -> float | None:
        """What waking a CPU's threads took between batches; None where that was not measured."""

    def measure(self, programs: Ints) -> None:
        """Measure some candidates and keep the records; none when it was asked to stop."""

    def stop(self) -> None:
        """Do not wait for a quieter machine; called from a signal handler."""


@dataclass(frozen=True, kw_only=True)
class OnboardSettings:
    """How much is measured."""

    budget: int
    """Records in all, those of earlier runs among them."""
    batch: int = 64
    """Programs measured before the weights learn again."""
    seed: int = 0
    programs_per_task: int = 4
    """Measured of each task that is chosen, where there is room for them."""
    fastest_share: float = 1.0
    """Of the programs of a task that ran, those that are learned from and predicted; one at least.
    1 where any program is to be predicted."""
    whole_plan: bool = False
    """Whether it ends early only when each task that was chosen has a record."""

    def __post_init__(self) -> None:
        """Reject a budget without a batch, and what takes nothing."""
        if not 0 < self.fastest_share <= 1:
            raise ConfigError(
                f"fastest_share must be above 0 and at most 1; got {self.fastest_share}"
            )
        for name in ("budget", "batch", "programs_per_task"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.budget < self.batch:
            raise ConfigError(
                f"the budget must be at least one batch of {self.batch} programs; got "
                f"{self.budget}. Give more, or smaller batches."
            )


class MeasurePlan:
    """Chooses what to measure.

    Parameters
    ----------
    bench
        Has the candidates.
    start
        Predicts what they take.
    settings
        How much is measured.

    Attributes
    ----------
    own_tasks
        Tasks of functions with TVM's own schedules.
    num_searched
        How many other tasks there are.
    planned
        Which candidates the whole budget should buy; (candidates,).
    """

    def __init__(self, bench: Bench, start: TrainedPredictor, settings: OnboardSettings) -> None:
        self._bench, self._settings = bench, settings
        candidates = bench.candidates
        self._features = program_features(candidates.batch())
        self.own_tasks = np.unique(candidates.tasks[candidates.own])
        self.num_searched = len(np.setdiff1d(candidates.tasks, self.own_tasks))
        self._worth = None if bench.calls is None else self._shares_of_time(bench.calls, start)
        self._own_share = len(self.own_tasks) / (len(self.own_tasks) + self.num_searched)
        # By the seed alone, so that a run that goes on has the same plan.
        every = np.arange(len(candidates))
        self.planned: Mask = np.isin(every, self.choose(every, settings.budget, settings.seed))

    def choose(self, pool: Ints, number: int, seed: int) -> Ints:
        """Choose so many candidates of a pool; of those with TVM's own schedules, their share.

        Parameters
        ----------
        pool
            Places of candidates.
        number
            How many, of the pool at most.
        seed
            Of the clusters.

        Returns
        -------
        chosen
            Their places, ascending.
        """
        own = self._bench.candidates.own[pool]
        num_own = min(int(own.sum()), round(self._own_share * number))
        num_own = max(num_own, number - int((~own).sum()))
        chosen = [
            self._representative(pool[~own], number - num_own, seed),
            self._representative(pool[own], num_own, seed),
        ]
        return np.sort(np.concatenate(chosen))

    def _shares_of_time(self, calls: Ints, start: TrainedPredictor) -> npt.NDArray[np.float64]:
        """Return the share of a network's predicted time that each task takes, over networks.

        Of a network with TVM's own schedules and of one of a search, by the task's fastest.
        """
        candidates = self._bench.candidates
        fastest_s = np.full(calls.shape[1], np.inf)
        predicted_s = evaluate(start, candidates).latency_s
        np.minimum.at(fastest_s, candidates.tasks, predicted_s)
        fastest_s[np.isinf(fastest_s)] = 0.0  # tasks without a candidate
        is_own = np.isin(np.arange(calls.shape[1]), self.own_tasks)
        worth = np.zeros(calls.shape[1])
        for part in (is_own, ~is_own):
            spent_s = calls * np.where(part, fastest_s, 0.0)
            in_all_s = spent_s.sum(axis=1, keepdims=True)
            worth += (spent_s / np.where(in_all_s > 0, in_all_s, 1.0)).sum(axis=0)
        return worth

    def _representative(self, pool: Ints, number: int, seed: int) -> Ints:
        """Choose programs of the heaviest tasks, then programs that stand for the others."""
        if self._worth is None:
            return self._clustered(pool, number, seed)
        tasks = self._bench.candidates.tasks
        first = pool[_places(tasks[pool]) < self._settings.programs_per_task]
        heaviest = np.argsort(-self._worth[tasks[first]], kind="stable")
        chosen = first[heaviest[: round(_HEAVIEST * number)]]
        left = number - len(chosen)
        rest = np.setdiff1d(first, chosen)
        if len(rest) < left:
            rest = np.setdiff1d(pool, chosen)
        return np.concatenate([chosen, self._clustered(rest, left, seed)])

    def _clustered(self, pool: Ints, number: int, seed: int) -> Ints:
        tasks = self._bench.candidates.tasks[pool]
        found: Ints = pool[
            select_programs(
                self._features[pool], tasks, number, "kmeans", seed,
                programs_per_task=self._settings.programs_per_task,
            )
        ]  # fmt: skip
        return found


def _places(tasks: Ints) -> Ints:
    """Return the place of each program among those of its task."""
    by_task = np.argsort(tasks, kind="stable")
    _, starts, counts = np.unique(tasks[by_task], return_index=True, return_counts=True)
    places: Ints = np.empty(len(tasks), np.int64)
    places[by_task] = np.arange(len(tasks)) - np.repeat(starts, counts)
    return places
