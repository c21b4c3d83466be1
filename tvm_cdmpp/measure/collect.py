"""Measuring programs of many tasks, to train a predictor on.

The tasks take turns, a batch each, those with the fewest programs first. After each batch the
calibration program is measured: if the machine was noisy the batch is measured again after a
pause, and the run stops, or goes on and marks the batch, if it stays so. Only then the batch is
written, so a killed run loses the one in flight. The model that evolution asks learns from each.

A log that exists is continued: its records count, and none of its programs is measured again.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tvm_cdmpp.arguments import check_seed
from tvm_cdmpp.bridge import LogReport, load_tvm, prepare_log, task_names
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.measure.calibration import CalibrationConfig
from tvm_cdmpp.measure.outcomes import HOPELESS, Failures, check_disk, hopeless_error
from tvm_cdmpp.measure.quiet import QuietMachine
from tvm_cdmpp.measure.reports import BatchReport
from tvm_cdmpp.measure.sampling import ProgramSampler, SampleMix
from tvm_cdmpp.measure.session import MeasureOptions

auto_scheduler = load_tvm().auto_scheduler


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectConfig:
    """What is measured, and how."""

    programs: int = 64
    """Programs of each task, those in the log included."""
    batch_size: int = 16
    """Programs measured between two calibrations."""
    seed: int = 0
    mix: SampleMix = field(default_factory=SampleMix)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    measure: MeasureOptions = field(default_factory=MeasureOptions)

    def __post_init__(self) -> None:
        """Reject what cannot be meant."""
        for name in ("programs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        check_seed(self.seed)


@dataclass(kw_only=True, slots=True)
class CollectedTask:
    """What there is of one task, the log from before included."""

    name: str
    programs: int = 0
    failed: int = 0
    """Those of them that failed."""
    exhausted: bool = False
    """Whether the task had no new programs left."""
    best_latency_s: float | None = None
    """Of the valid programs; None without one, as for the worst."""
    worst_latency_s: float | None = None

    def add(self, result: Any) -> float:
        """Take in a `MeasureResult`; return its mean latency, infinite for a failure."""
        self.programs += 1
        if int(result.error_no) != 0:
            self.failed += 1
            return np.inf
        latency_s = float(np.mean([cost.value for cost in result.costs]))
        self.best_latency_s = min(latency_s, self.best_latency_s or latency_s)
        self.worst_latency_s = max(latency_s, self.worst_latency_s or latency_s)
        return latency_s


class Collector:
    """Measures programs of tasks into one log; use it inside an entered `MeasureSession`.

    Parameters
    ----------
    tasks
        Distinct tasks (`SearchTask`), all for one target.
    model
        A cost model of TVM's interface, for evolution; it learns from the log and every batch.
    config
        How many, which and how.
    log
        The Ansor log to write; one that exists is continued. The calibrations go to
        `LOG.calibration.jsonl`.
    measure_calibration
        Returns the latency of the calibration program in seconds; TVM's measurement of it by
        default.

    Attributes
    ----------
    log_report
        What the log held at the start.

    Raises
    ------
    ConfigError
        There are no tasks.
    RecordError
        The log is another network's or target's, or cannot be written.
    MeasureError
        The remote devices cannot be reached.
    """

    log_report: LogReport

    def __init__(
        self,
        tasks: Sequence[Any],
        model: Any,
        config: CollectConfig,
        *,
        log: Path,
        measure_calibration: Callable[[], float] | None = None,
    ) -> None:
        if not tasks:
            raise ConfigError("there is no task to collect programs of")
        self._tasks, self._model, self._config, self._log = list(tasks), model, config, log
        target = tasks[0].target
        self.log_report = prepare_log(log, tasks, target)
        self._machine = QuietMachine(
            target,
            config.measure,
            config.calibration,
            log=log,
            measure_calibration=measure_calibration,
        )
        self._samplers = [
            ProgramSampler(task, model, config.mix, (config.seed, index))
            for index, task in enumerate(tasks)
        ]
        self._collected = [CollectedTask(name=name) for name in task_names(tasks)]
        self._failures = Failures()
        self._batch_calibrations_s: list[float] = []
        self._restore()

    def batches(self) -> Iterator[BatchReport]:
        """Measure batch by batch until each task has its programs or no more of them.

        After `stop` the batch in flight is the last one.

        Yields
        ------
        report
            After each batch, when it is on the disk.

        Raises
        ------
        MeasureError
            The machine is noisy, no program at all could be built and run, or the folder that
            they are built in is full.
        RecordError
            The log or the file of calibrations could not be written.
        """
        begin, done_before, tasks_seen = time.perf_counter(), self.done, set()
        if self._next_task() is not None:
            self._machine.start()
        while not self.stopping and (index := self._next_task()) is not None:
            missing = self._config.programs - self._collected[index].programs
            drawn = self._samplers[index].draw(min(missing, self._config.batch_size))
            if not drawn:
                self._collected[index].exhausted = True
                continue
            inputs = [auto_scheduler.MeasureInput(self._tasks[index], s) for _, s in drawn]
            measured = self._machine.measure(inputs)
            if measured is None:
                break
            results, attempts = measured
            failures = self._record(index, inputs, results)
            tasks_seen.add(index)
            elapsed_s = time.perf_counter() - begin
            calibration, latency_s = self._machine.calibration, self._batch_calibrations_s[-1]
            yield BatchReport(
                task=index,
                name=self._collected[index].name,
                kinds=dict(Counter(kind for kind, _ in drawn)),
                failures=failures,
                attempts=attempts,
                noisy=calibration.is_noisy(latency_s),
                calibration_s=latency_s,
                excess=latency_s / min(calibration.latencies_s) - 1,
                done=self.done,
                wanted=self.wanted,
                elapsed_s=elapsed_s,
                eta_s=elapsed_s / (self.done - done_before) * (self.wanted - self.done),
            )
            self._check_hope(over=False, tasks_seen=len(tasks_seen))
            self._model.update(inputs, results)
        self._check_hope(over=not self.stopping, tasks_seen=len(tasks_seen))

    def stop(self) -> None:
        """End after the batch in flight."""
        self._machine.stopping = True

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._machine.stopping

    def results(self) -> tuple[CollectedTask, ...]:
        """Return what there is of each task, in the order that the collector was given."""
        return tuple(self._collected)

    @property
    def done(self) -> int:
        """Records of all tasks so far, those found in the log included."""
        return sum(task.programs for task in self._collected)

    @property
    def wanted(self) -> int:
        """Records to have in the end, as far as is known."""
        return sum(
            task.programs if task.exhausted else max(task.programs, self._config.programs)
            for task in self._collected
        )

    @property
    def num_noisy(self) -> int:
        """Batches of this run that are noisy by the lowest calibration known now.

        It may be more than were marked: a lower one shows that the machine was busy before.
        """
        return sum(map(self._machine.calibration.is_noisy, self._batch_calibrations_s))

    def _restore(self) -> None:
        """Take counts, known programs and the model's knowledge from the log."""
        if not self.log_report.num_valid:
            return
        indices = {str(task.workload_key): index for index, task in enumerate(self._tasks)}
        known = []
        for measured, result in auto_scheduler.RecordReader(str(self._log)):
            index = indices.get(str(measured.task.workload_key))
            if index is not None:
                self._count(index, measured.state, result)
                task = self._tasks[index]
                known.append((auto_scheduler.MeasureInput(task, measured.state), result))
        inputs, results = zip(*known, strict=True)
        self._model.update(list(inputs), list(results))

    def _next_task(self) -> int | None:
        open_tasks = [
            index
            for index, task in enumerate(self._collected)
            if task.programs < self._config.programs and not task.exhausted
        ]
        return min(open_tasks, key=lambda index: self._collected[index].programs, default=None)

    def _record(self, index: int, inputs: list[Any], results: list[Any]) -> dict[str, int]:
        """Write a batch and its calibration, count it, and return its failures by kind."""
        before = self._failures.counts.copy()
        recorded = self._machine.record(inputs, results)
        for measured, result in recorded:
            self._count(index, measured.state, result)
        self._batch_calibrations_s.append(self._machine.check_s)
        check_disk(self._log, len(recorded), len(inputs))
        return dict(self._failures.counts - before)

    def _count(self, index: int, state: Any, result: Any) -> None:
        self._failures.count(result)
        self._samplers[index].note(state, self._collected[index].add(result))

    def _check_hope(self, *, over: bool, tasks_seen: int) -> None:
        """Raise when no program is valid, and more of them would change nothing."""
        enough = self.done >= HOPELESS and tasks_seen > 1
        valid = any(task.programs > task.failed for task in self._collected)
        if self.done and not valid and (over or enough):
            raise hopeless_error(self._log, self.done, self._failures)


def distinct_tasks(tasks: Sequence[Any]) -> list[Any]:
    """Return tasks without those whose workload came before, in order."""
    first: dict[str, Any] = {}
    for task in tasks:
        first.setdefault(str(task.workload_key), task)
    return list(first.values())
