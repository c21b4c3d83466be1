"""TVM's task scheduler, one round at a time.

`TaskScheduler.tune` chooses tasks and tunes them in one loop that runs to the end. Here the same
method only chooses: called anew for every round, it is left at the moment when it would tune a
task. All it decides by (costs, histories, similarity groups, dead tasks) lives in attributes that
it finds again, so the strategy is TVM's own, not a copy of it. What differs is said below.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models import Content

auto_scheduler = load_tvm().auto_scheduler
_TaskScheduler: Any = auto_scheduler.TaskScheduler

# TVM's cost of a task without a valid program.
UNKNOWN_COST = 1e10
# TVM drops a task for good when its first round found no valid program; here it gets more.
FIRST_ATTEMPTS = 3


class _TaskChosen(Exception):  # noqa: N818 -- no error, a way out of `TaskScheduler.tune`
    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class StepwiseScheduler(_TaskScheduler):
    """A `TaskScheduler` with the gradient strategy whose rounds the caller runs.

    It differs from TVM's in two points: a task without any valid program is given up after three
    rounds instead of one, and counts nothing in the objective (TVM counts 1e10 seconds, next to
    which the costs of the other tasks lose their digits).

    Parameters
    ----------
    tasks
        Tasks to tune.
    weights
        How often each of them occurs in the network.
    policies
        One search policy per task.
    measurer
        The `ProgramMeasurer` that all rounds share.
    round_size
        Programs per round.
    """

    def __init__(
        self,
        tasks: Sequence[Any],
        weights: Sequence[float],
        *,
        policies: Sequence[Any],
        measurer: Any,
        round_size: int,
    ) -> None:
        if not tasks:
            raise ConfigError("a search needs at least one task, got none")

        def objective(costs: Sequence[float]) -> float:
            known = (c * w for c, w in zip(costs, weights, strict=True) if c < UNKNOWN_COST)
            return float(sum(known))

        super().__init__(list(tasks), objective_func=objective, callbacks=[])
        self._weights = list(weights)
        self._policies = list(policies)
        self._measurer = measurer
        self._round_size = round_size
        self._choosing = False
        self.early_stopping_task = 1e20
        self._options = auto_scheduler.TuningOptions(
            num_measure_trials=round_size * len(tasks),  # enough for TVM to keep the round size
            num_measures_per_round=round_size,
            verbose=0,
        )

    def restore(self, log: Path) -> None:
        """Take over the costs and counts that a log holds for these tasks."""
        self._restore_status(str(log), self._round_size)

    def count(self, inputs: Sequence[Any]) -> None:
        """Count rounds that were measured in another run, given what they measured."""
        for index, task in enumerate(self.tasks):
            found = sum(measured.task.workload_key == task.workload_key for measured in inputs)
            self.task_cts[index] += -(-found // self._round_size)

    def content(self) -> Content:
        """Return what a checkpoint holds: counts and costs by task."""
        tasks = {
            str(task.workload_key): {
                "rounds": self.task_cts[index],
                "best_round": self.task_best_cts[index],
                "cost_s": float(self.best_costs[index]),
                "costs_s": [float(cost) for cost in self.task_costs_history[index]],
                "is_dead": index in self.dead_tasks,
            }
            for index, task in enumerate(self.tasks)
        }
        return Content({"tasks": tasks}, {})

    def restore_content(self, content: Content) -> None:
        """Continue from what a checkpoint holds, with the tasks that are in it."""
        for index, task in enumerate(self.tasks):
            found = content.settings["tasks"].get(str(task.workload_key))
            if found is None:
                continue
            self.task_cts[index] = int(found["rounds"])
            self.task_best_cts[index] = int(found["best_round"])
            self.best_costs[index] = float(found["cost_s"])
            self.task_costs_history[index] = [float(cost) for cost in found["costs_s"]]
            if found["is_dead"]:
                self.dead_tasks.add(index)
        self.cur_score = self._compute_score(self.best_costs)

    def preload(self, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        """Hand measured programs of these tasks to policies that do not read logs themselves."""

    def next_task(self) -> int | None:
        """Return the index of the task to tune next; None when no task has anything left."""
        if all(self.task_cts):
            for index, cost in enumerate(self.best_costs):
                attempts = self.task_cts[index]
                live = index not in self.dead_tasks
                if live and cost == UNKNOWN_COST and attempts < FIRST_ATTEMPTS:
                    return index
        self._choosing = True
        try:
            self.tune(self._options, search_policy=self._policies)
        except _TaskChosen as chosen:
            return chosen.index
        finally:
            self._choosing = False
        return None

    def tune_task(self, index: int, num_programs: int) -> None:
        """Search and measure one round for a task.

        Parameters
        ----------
        index
            Index of the task.
        num_programs
            Programs to measure, at most the round size.
        """
        warming_up = not all(self.task_cts)
        self.search_policies, self.measurer = self._policies, self._measurer
        self.num_measures_per_round = num_programs
        self.ct = 0  # TVM's own count of programs, which nothing here reads
        super()._tune_task(index)
        if not warming_up:
            self._adjust_similarity_group(index)

    def _tune_task(self, task_idx: int) -> None:
        if self._choosing:
            raise _TaskChosen(int(task_idx))
        super()._tune_task(task_idx)
