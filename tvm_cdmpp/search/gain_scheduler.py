"""Rounds go to the task that is expected to gain most, and none to a task that is done.

For policies that know what another round would gain them, as `EvolutionPolicy` does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from tvm_cdmpp.bridge import possible_latency_s
from tvm_cdmpp.measure import Pace, at_full_pace
from tvm_cdmpp.models import Content
from tvm_cdmpp.search.scheduler import FIRST_ATTEMPTS, UNKNOWN_COST, StepwiseScheduler

_MOST_AGAIN = 2
"""Programs of a round that are measured again, at most."""


class BatchMeasurer:
    """Builds and runs programs as TVM's `ProgramMeasurer` does, for a policy in Python.

    The policy is told what programs would have taken if the machine had never been slow; the
    recorder, what they took. A program that would be the best of its task but ran while the machine
    was slow is measured again after the others of the round, or of a later one.

    Parameters
    ----------
    builder, runner
        TVM's.
    recorder
        A `PythonBasedMeasureCallback` that gets every batch. With a pace, it has `again`, too, as
        `Recorder`.
    pace
        The pace of the session, where programs run on this machine's CPU.
    """

    def __init__(self, builder: Any, runner: Any, recorder: Any, pace: Pace | None = None) -> None:
        self._builder, self._runner, self._recorder = builder, runner, recorder
        self._pace = pace
        self._batch = 2 * (os.cpu_count() or 1)  # as many as TVM builds at once, twice
        self._best_s: dict[str, float] = {}
        """Of each task, as recorded."""
        self._doubtful: dict[str, list[tuple[float, Any]]] = {}
        """Programs of each task that ran while the machine was slow, and what they would take."""

    def measure(self, policy: Any, inputs: Sequence[Any]) -> list[Any]:
        """Return a `MeasureResult` for each `MeasureInput`."""
        measured: list[Any] = []
        for first in range(0, len(inputs), self._batch):
            batch = list(inputs[first : first + self._batch])
            results = self._run(batch)
            self._recorder.callback(policy, batch, results)
            measured += self._at_full_pace(batch, results)
        if self._pace is not None and inputs:
            self._measure_again(str(inputs[0].task.workload_key))
        return measured

    def _run(self, inputs: list[Any]) -> list[Any]:
        built = self._builder.build(inputs, verbose=0)
        with self._pace.watched() if self._pace is not None else nullcontext():
            return list(self._runner.run(inputs, built, 0))

    def _at_full_pace(self, inputs: list[Any], results: list[Any]) -> list[Any]:
        """Return what programs would have taken, and remember those that may be the best."""
        if self._pace is None:
            return results
        slowness = self._pace.slowness
        found = [at_full_pace(result, slowness) for result in results]
        for program, result, recorded in zip(inputs, found, results, strict=True):
            key, took_s = str(program.task.workload_key), possible_latency_s(recorded)
            self._best_s[key] = min(took_s, self._best_s.get(key, took_s))
            if slowness > 1.0:
                self._doubtful.setdefault(key, []).append((possible_latency_s(result), program))
        return found

    def _measure_again(self, key: str) -> None:
        known = sorted(self._doubtful.pop(key, []), key=lambda pair: pair[0])
        better = [(would_s, program) for would_s, program in known if would_s < self._best_s[key]]
        again = [program for _, program in better[:_MOST_AGAIN]]
        if not again:
            return
        assert self._pace is not None
        results = self._run(again)
        if self._pace.slowness > 1.0:
            self._doubtful[key] = better
            return
        self._recorder.again(again, results)
        self._doubtful[key] = better[_MOST_AGAIN:]
        self._best_s[key] = min(self._best_s[key], *map(possible_latency_s, results))


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
