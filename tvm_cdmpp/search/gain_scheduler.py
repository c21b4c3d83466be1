"""Rounds go to the task that is expected to gain most, and none to a task that is done.

For policies that know what another round would gain them, as `EvolutionPolicy` does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from tvm_cdmpp.models import Content
from tvm_cdmpp.search.scheduler import FIRST_ATTEMPTS, UNKNOWN_COST, StepwiseScheduler


class BatchMeasurer:
    """Builds and runs programs as TVM's `ProgramMeasurer` does, for a policy in Python.

    Parameters
    ----------
    builder, runner
        TVM's.
    recorder
        A `PythonBasedMeasureCallback` that gets every batch.
    """

    def __init__(self, builder: Any, runner: Any, recorder: Any) -> None:
        self._builder, self._runner, self._recorder = builder, runner, recorder
        self._batch = 2 * (os.cpu_count() or 1)  # as many as TVM builds at once, twice

    def measure(self, policy: Any, inputs: Sequence[Any]) -> list[Any]:
        """Return a `MeasureResult` for each `MeasureInput`."""
        measured: list[Any] = []
        for first in range(0, len(inputs), self._batch):
            batch = list(inputs[first : first + self._batch])
            results = list(self._runner.run(batch, self._builder.build(batch, verbose=0), 0))
            self._recorder.callback(policy, batch, results)
            measured += results
        return measured


class GainScheduler(StepwiseScheduler):
    """Chooses the task with the largest weight x latency x share that another round would gain.

    A task without any round comes first, in order; one without a valid program gets some more.
    """

    def preload(self, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        """Hand measured programs to the policies of their tasks."""
        for task, policy in zip(self.tasks, self._policies, strict=True):
            own = [
                pair
                for pair in zip(inputs, results, strict=True)
                if pair[0].task.workload_key == task.workload_key
            ]
            if own:
                policy.preload(*zip(*own, strict=True))

    def content(self) -> Content:
        """Return what a checkpoint holds: counts and costs by task, and the policies' state."""
        policies = {
            f"policy{index}": policy.content()
            for index, policy in enumerate(self._policies)
            if self.task_cts[index]
        }
        names = {str(self.tasks[int(name[6:])].workload_key): name for name in policies}
        own = Content({"names": names, **super().content().settings}, {})
        return Content.under(scheduler=own, **policies)

    def restore_content(self, content: Content) -> None:
        """Continue from what a checkpoint holds, with the tasks that are in it."""
        own = content.part("scheduler")
        super().restore_content(own)
        for task, policy in zip(self.tasks, self._policies, strict=True):
            name = own.settings["names"].get(str(task.workload_key))
            if name is not None:
                policy.restore(content.part(name))

    def next_task(self) -> int | None:
        """Return the index of the task to tune next; None when no task would gain anything."""
        live = [n for n in range(len(self.tasks)) if n not in self.dead_tasks]
        for index in live:
            if not self.task_cts[index]:
                return index
        for index in live:
            if self.best_costs[index] >= UNKNOWN_COST and self.task_cts[index] < FIRST_ATTEMPTS:
                return index
        gains = {
            n: self._weights[n] * float(self.best_costs[n]) * self._policies[n].gain
            for n in live
            if self.best_costs[n] < UNKNOWN_COST and not self._policies[n].is_done
        }
        return max(gains, key=lambda n: gains[n], default=None)
