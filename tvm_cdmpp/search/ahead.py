"""The best programs by prediction alone: found, built, and not measured.

They go to a log of their own, whose costs are predictions; TVM applies it like any other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge import load_tvm, task_names
from tvm_cdmpp.errors import MeasureError
from tvm_cdmpp.files import replacing
from tvm_cdmpp.measure import MeasureSession
from tvm_cdmpp.search.baselines import check_search, make_cost_model
from tvm_cdmpp.search.evolve.choice import ChoiceConfig
from tvm_cdmpp.search.evolve.policy import EvolutionPolicy
from tvm_cdmpp.search.reports import TaskResult, TimeSplit, TuneSettings

auto_scheduler = load_tvm().auto_scheduler

_CHOICES = 4
"""Programs of a task, of which the first that can be built is taken."""
_ANY_TO_BUILD = ChoiceConfig(build_weight=0.0, explored=0.0)
"""Few programs are built, so their time does not matter; nothing is learned from strange ones."""
_REMARK = b"# Predicted programs: the costs are what a model says, nothing was measured.\n"


def first_candidates(task: Any, model: Any, number: int, *, seed: int) -> list[Any]:
    """Return what a search would measure of a task before it knows anything, without measuring it.

    Parameters
    ----------
    task
        The `SearchTask`.
    model
        A CDMPP model.
    number
        How many programs.
    seed
        One seed and the same weights give the same programs.

    Returns
    -------
    states
        Those that are bred first, in turns with less bred ones; fewer where the task has no more.
    """
    policy = EvolutionPolicy(task, model, seed=1 + seed, choice=_ANY_TO_BUILD)
    return [each.state for each in policy.find(number)]


class AheadSearch:
    """Chooses a program for each task of a network without any measurement.

    Parameters
    ----------
    tasks
        The network's tasks (`SearchTask`), all for one target.
    weights
        How often each occurs in the network.
    model
        A kind of CDMPP model for `make_cost_model`, or one that was made.
    settings
        The seed, and how programs are built.
    log
        Where to write the programs; what is there is replaced.
    session
        An entered session.

    Attributes
    ----------
    trials, saved_s, overruled
        Nothing, as there is no search.
    elapsed
        The time so far.

    Raises
    ------
    ConfigError
        The model cannot score programs that TVM has not applied.
    """

    trials = 0
    saved_s = 0.0
    overruled = ()

    def __init__(
        self,
        tasks: Sequence[Any],
        weights: Sequence[int],
        model: Any,
        settings: TuneSettings,
        *,
        log: Path,
        session: MeasureSession,
    ) -> None:
        self.elapsed = TimeSplit()
        self._tasks, self._weights, self._log = list(tasks), list(weights), log
        self._settings, self._session = settings, session
        if settings.tasks is not None:
            self._tasks = [self._tasks[index] for index in settings.tasks]
            self._weights = [self._weights[index] for index in settings.tasks]
        if isinstance(model, str):
            check_search(model, "evolve")
            model = make_cost_model(
                model, seed=settings.seed, num_measures_per_round=1, num_tasks=len(tasks)
            )
        self._model = model
        self._builder = settings.measure.builder()
        self._results: list[TaskResult] = []

    def run(self) -> Iterator[TaskResult]:
        """Choose task by task, then write the log.

        Yields
        ------
        result
            Of each task; its latency is the predicted one, None where no program could be built.

        Raises
        ------
        MeasureError
            No program of any task could be built.
        """
        lines = []
        for index, name in enumerate(task_names(self._tasks)):
            task, begin, built_s = self._tasks[index], time.perf_counter(), self._session.build_s
            policy = EvolutionPolicy(
                task, self._model, seed=1 + self._settings.seed, choice=_ANY_TO_BUILD
            )
            chosen = self._first_built(task, policy)
            latency_s = None
            if chosen is not None:
                measured, latency_s = chosen
                result = auto_scheduler.MeasureResult([latency_s], 0, "", 0.0, time.time())
                line = auto_scheduler.measure_record.dump_record_to_string(measured, result)
                lines.append(str(line).rstrip() + "\n")
            built_s = self._session.build_s - built_s
            searched_s = time.perf_counter() - begin - built_s
            self.elapsed += TimeSplit(search_s=searched_s, build_s=built_s)
            self._results.append(
                TaskResult(
                    name=name,
                    weight=int(self._weights[index]),
                    flops=float(task.compute_dag.flop_ct),
                    trials=0,
                    latency_s=latency_s,
                    tuned=True,
                )
            )
            yield self._results[-1]
        if not lines:
            raise MeasureError(
                f"no program of {len(self._tasks)} tasks could be built; run `tvm-cdmpp doctor`."
            )
        with replacing(self._log) as new:
            new.write_bytes(_REMARK + "".join(lines).encode())

    def results(self) -> tuple[TaskResult, ...]:
        """Return what was chosen so far."""
        return tuple(self._results)

    @property
    def network_latency_s(self) -> float | None:
        """Sum of weight times predicted latency; None while a task has no program."""
        known = [(r.weight, r.latency_s) for r in self._results if r.latency_s is not None]
        if len(known) < len(self._tasks):
            return None
        return sum(weight * latency_s for weight, latency_s in known)

    def _first_built(self, task: Any, policy: EvolutionPolicy) -> tuple[Any, float] | None:
        """Return the first program that TVM can build, and its predicted seconds."""
        for each in policy.find(_CHOICES):
            measured = auto_scheduler.MeasureInput(task, each.state)
            if int(self._builder.build([measured], verbose=0)[0].error_no) == 0:
                return measured, math.exp(each.log_s)
        return None
