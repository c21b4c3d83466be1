"""Measuring chosen programs of many tasks, to onboard a device; see `train.onboarding`.

The candidates are given before anything is measured, so a second run must be given the same ones.
What a log holds already is measured, whether it is among the candidates or not. After them come
functions with TVM's own schedules, each a task of its own with one candidate; what they took is in
`LOG.own.jsonl`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.bridge import LogReport, latency_s, load_tvm, prepare_log, task_dag
from tvm_cdmpp.devices import DeviceSpec, Hardware
from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.extract import (
    LayoutRewrite,
    StepExtractor,
    analyse,
    describe_programs,
    dump_records,
)
from tvm_cdmpp.measure.calibration import (
    CalibrationConfig,
    calibration_program,
    read_calibration,
)
from tvm_cdmpp.measure.outcomes import (
    HOPELESS,
    Failures,
    check_disk,
    disk_was_full,
    failure_of,
    hopeless_error,
)
from tvm_cdmpp.measure.own_records import (
    OwnRecord,
    append_own_records,
    own_records_file,
    read_own_records,
)
from tvm_cdmpp.measure.quiet import QuietMachine, calibration_file
from tvm_cdmpp.measure.session import MeasureOptions
from tvm_cdmpp.measure.waking import Wakes
from tvm_cdmpp.models import Ints, Machine, TrainingRows
from tvm_cdmpp.networks import OwnFunction
from tvm_cdmpp.train import operator_of_dag

auto_scheduler = load_tvm().auto_scheduler

_PASSES = 5
"""Moments at which each program runs. Building takes most of the time: on two cores 100 functions
took two minutes to build and 13 s to run. Of 99 functions there, two single runs differ by .31
(standard deviation of ln latency), the medians of three by .15."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchConfig:
    """How programs are measured."""

    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    measure: MeasureOptions = field(default_factory=MeasureOptions)


class LiveBench:
    """A `train.Bench` that builds and runs programs; use it inside an entered `MeasureSession`.

    Parameters
    ----------
    tasks
        Distinct tasks (`SearchTask`), all for one target.
    device
        Where programs run; those of a task are on it as it is for the task's operator.
    draw
        Returns the candidates of a task (states), those first that are to be measured first, given
        the task and its number.
    config
        How.
    functions
        With TVM's own schedules, to measure as well; those that are the same are one.
    log
        The Ansor log to write; one that exists is continued. Calibrations go to
        `LOG.calibration.jsonl`.
    measure_calibration
        As for `QuietMachine`.
    on_task
        Told how many tasks have their candidates.

    Attributes
    ----------
    log_report
        What the log held at the start.
    failures
        Failed programs, those of the log included.
    unusable
        Candidates and records that could not be described.
    torn
        Lines of `LOG.own.jsonl` that a kill cut, and that are left out.
    calls
        See `train.Bench`; to be set by whoever knows it.
    batches, noisy_batches
        How many were measured since the start, and how many of these on a noisy machine.

    Raises
    ------
    ConfigError
        There are no tasks.
    RecordError
        The log is another network's or target's, or cannot be written; or the file of its
        calibrations is none.
    MeasureError
        The remote devices cannot be reached.
    """

    def __init__(
        self,
        tasks: Sequence[Any],
        device: DeviceSpec,
        draw: Callable[[Any, int], Sequence[Any]],
        config: BenchConfig,
        functions: Sequence[OwnFunction] = (),
        *,
        log: Path,
        measure_calibration: Callable[[], float] | None = None,
        on_task: Callable[[int], None] = lambda _: None,
    ) -> None:
        if not tasks:
            raise ConfigError("there is no task to measure programs of")
        self.failures, self.unusable = Failures(), 0
        self.batches = self.noisy_batches = 0
        self.calls: Ints | None = None
        self.log_report: LogReport = prepare_log(log, tasks, tasks[0].target)
        self._tasks, self._log, self._started = list(tasks), log, False
        self._numbers = {str(task.workload_key): number for number, task in enumerate(tasks)}
        self._machine = QuietMachine(
            tasks[0].target, config.measure, config.calibration,
            log=log, measure_calibration=measure_calibration, passes=_PASSES,
        )  # fmt: skip
        self._described = [_TaskPrograms.of(task, device) for task in tasks]
        states: list[Any] = []
        parts: list[TrainingRows] = []
        lines: list[bytes] = []
        for number, task in enumerate(tasks):
            drawn = draw(task, number)
            rows, usable, found = self._described[number].describe(drawn, number)
            self.unusable += len(drawn) - len(usable)
            parts.append(rows)
            states += [drawn[place] for place in usable]
            lines += found
            on_task(number + 1)
        self._functions = list({function.key: function for function in functions}.values())
        parts.append(_rows_of(self._functions, device, tasks[0], len(tasks)))
        self._states, self._candidates = states, TrainingRows.join(parts)
        self._place_of: dict[bytes | str, int] = {line: place for place, line in enumerate(lines)}
        self._place_of |= {f.key: len(states) + n for n, f in enumerate(self._functions)}
        self._open = np.ones(len(self._candidates), bool)
        self._measured = TrainingRows.join([])
        if self.log_report.num_valid:
            self._take_in(auto_scheduler.RecordReader(str(log)))
        of_functions, self.torn = read_own_records(own_records_file(log))
        self.failures.counts.update(record.failure for record in of_functions if record.failure)
        self._take_in_own(of_functions)
        known_s = _wakes_of(log) if self.log_report.num_valid or of_functions else []
        self._wakes = Wakes(config.measure, tasks[0].target, device.cores, known_s)

    @property
    def candidates(self) -> TrainingRows:
        """See `train.Bench`; all latencies are 1 s."""
        return self._candidates

    @property
    def open(self) -> npt.NDArray[np.bool_]:
        """See `train.Bench`."""
        return self._open

    @property
    def measured(self) -> TrainingRows:
        """See `train.Bench`."""
        return self._measured

    @property
    def wake_s(self) -> float | None:
        """See `train.Bench`."""
        return self._wakes.mean_s

    def measure(self, programs: Ints) -> None:
        """See `train.Bench`.

        Raises
        ------
        MeasureError
            The machine is noisy, no program at all could be built and run, or the folder that they
            are built in is full.
        RecordError
            The log or the file of calibrations could not be written.
        """
        if not self._started:
            self._machine.start()
            self._started = True
        functions = [self._function(place) for place in programs.tolist()]
        stand_in = calibration_program(self._tasks[0].target)  # TVM's runner asks for its target
        inputs = [
            auto_scheduler.MeasureInput(self._tasks[number], self._states[place])
            if function is None
            else stand_in
            for number, place, function in zip(
                self._candidates.tasks[programs].tolist(), programs.tolist(), functions, strict=True
            )
        ]
        before_s = self._wakes.take()
        found = self._machine.measure(inputs, functions)
        after_s = self._wakes.take()
        if found is None:
            return
        wakes_s = [wake_s for wake_s in (before_s, after_s) if wake_s is not None]
        recorded = self._record(inputs, functions, found[0], wakes_s)
        self._open[programs] = False
        check_disk(self._log, recorded, len(inputs))
        if len(self._measured) >= HOPELESS and not np.isfinite(self._measured.latencies_s).any():
            raise hopeless_error(self._log, len(self._measured), self.failures)

    def stop(self) -> None:
        """See `train.Bench`."""
        self._machine.stopping = True

    def _function(self, place: int) -> OwnFunction | None:
        """Return the function that a candidate is; None for a program of a search."""
        place -= len(self._states)
        return self._functions[place] if place >= 0 else None

    def _record(
        self,
        inputs: Sequence[Any],
        functions: Sequence[OwnFunction | None],
        results: Sequence[Any],
        wakes_s: Sequence[float],
    ) -> int:
        """Write down and take in what was measured; return how many of it there was room for."""
        searched, own = list[tuple[Any, Any]](), list[OwnRecord]()
        noisy = self._machine.calibration.is_noisy(self._machine.check_s)
        self.batches, self.noisy_batches = self.batches + 1, self.noisy_batches + noisy
        for measured, function, result in zip(inputs, functions, results, strict=True):
            if function is None:
                searched.append((measured, result))
            elif not disk_was_full(result):
                seconds = None if self.failures.count(result) else latency_s(result)
                own.append(
                    OwnRecord(function.key, function.name, seconds, failure_of(result), noisy)
                )
        recorded = self._machine.record(
            [measured for measured, _ in searched], [result for _, result in searched], wakes_s
        )
        append_own_records(own_records_file(self._log), own)
        self._take_in(recorded)
        self._take_in_own(own)
        return len(recorded) + len(own)

    def _take_in_own(self, records: Iterable[OwnRecord]) -> None:
        """Add measured functions; those of other networks are left alone."""
        for record in records:
            if (place := self._place_of.get(record.function)) is None:
                continue
            self._open[place] = False
            rows = self._candidates.take(np.array([place]))
            seconds = np.array([np.inf if record.latency_s is None else record.latency_s])
            self._measured = TrainingRows.join([self._measured, replace(rows, latencies_s=seconds)])

    def _take_in(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        """Add measured programs, in order; those of other networks are left alone."""
        for key, of_task in groupby(pairs, lambda pair: str(pair[0].task.workload_key)):
            if key in self._numbers:
                self._remember(self._numbers[key], list(of_task))

    def _remember(self, number: int, pairs: Sequence[tuple[Any, Any]]) -> None:
        """Add measured programs of a task."""
        latencies_s, states = [], []
        for measured, result in pairs:
            self.failures.count(result)
            try:
                latencies_s.append(latency_s(result))
                states.append(measured.state)
            except RecordError:
                self.unusable += 1
        rows, usable, lines = self._described[number].describe(states, number)
        self.unusable += len(states) - len(usable)
        for line in lines:
            if line in self._place_of:
                self._open[self._place_of[line]] = False
        rows = replace(rows, latencies_s=np.array(latencies_s)[usable])
        self._measured = TrainingRows.join([self._measured, rows])


def _wakes_of(log: Path) -> list[float]:
    """Return what waking threads took around the batches of a log."""
    file = calibration_file(log)
    rows = read_calibration(file) if file.is_file() else []
    return [wake_s for row in rows for wake_s in row.wakes_s]


@dataclass(frozen=True)
class _TaskPrograms:
    """Describes programs of one task."""

    task: Any
    machine: Machine
    extractor: StepExtractor

    @staticmethod
    def of(task: Any, device: DeviceSpec) -> _TaskPrograms:
        hardware = Hardware.of(task.hardware_params)
        layout = LayoutRewrite(int(task.layout_rewrite_option))
        device = device.for_operator(operator_of_dag(task_dag(task)))
        extractor = StepExtractor(analyse(task.compute_dag), hardware, layout)
        return _TaskPrograms(task, Machine(device, hardware), extractor)

    def describe(
        self, states: Sequence[Any], number: int
    ) -> tuple[TrainingRows, list[int], list[bytes]]:
        """Return rows of 1 s, which states they are of, and what names each program."""
        text = dump_records(self.task, states) if states else b""
        batch, errors = self.extractor.extract(text)
        usable = [place for place in range(len(states)) if place not in errors]
        lines = text.splitlines()
        numbers = np.full(len(usable), number, np.int64)
        rows = TrainingRows.on(self.machine, batch.take(usable), np.ones(len(usable)), numbers)
        return rows, usable, [lines[place] for place in usable]


def _rows_of(
    functions: Sequence[OwnFunction], device: DeviceSpec, task: Any, first: int
) -> TrainingRows:
    """Return rows of 1 s of functions, built for the target of a task and numbered from `first`."""
    hardware = Hardware.of(task.hardware_params)
    parts = [
        TrainingRows.on(
            Machine(function.on(device), hardware),
            describe_programs([function.leaves], hardware),
            [1.0],
            np.array([first + place]),
        )
        for place, function in enumerate(functions)
    ]
    return TrainingRows.join(parts)
