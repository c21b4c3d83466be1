"""A log as a reader sees it: its tasks with their DAGs, their programs with what was measured.

What the workload keys mean comes from `workloads.jsonl` next to the log, from functions that are
registered, or from TVM's common operators, as for `data import`. Nothing is left out in silence:
lines and tasks that cannot be used are counted, with the reason of the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.bridge import (
    device_of,
    hardware_params,
    latency_s,
    load_tvm,
    no_record_of,
    read_records,
    task_dag,
    task_key,
    task_names,
    why_unfit,
    with_dag,
)
from tvm_cdmpp.data import WorkloadBook, failure_name, is_hash, operator_class
from tvm_cdmpp.devices import DeviceSpec, Hardware
from tvm_cdmpp.errors import CDMPPError, ConfigError, RecordError, UnknownDeviceError
from tvm_cdmpp.extract import LayoutRewrite, StepExtractor, analyse, dump_records, load_dag
from tvm_cdmpp.models import Machine
from tvm_cdmpp.train import operator_of_dag
from tvm_cdmpp.workloads import TvmInspector

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler


@dataclass(frozen=True, eq=False)
class MeasuredTask:
    """One task of a log and its programs, in the order of the log.

    Attributes
    ----------
    task
        The `SearchTask`, with its DAG.
    name
        See `bridge.task_names`.
    machine
        Where it was measured.
    extractor
        Of its programs.
    lines
        Line of each of n programs in the log, from 1; (n,).
    states
        Their states, as the log has them: steps only.
    latencies_s
        Mean measured seconds, infinite where a program failed; (n,).
    spent_s
        Seconds that building and running each of them took; (n,).
    failures
        Failed programs by what went wrong.
    asts
        Their compact ASTs; (n,).
    """

    task: Any
    name: str
    machine: Machine
    extractor: StepExtractor
    lines: npt.NDArray[np.int64]
    states: Sequence[Any]
    latencies_s: npt.NDArray[np.float64]
    spent_s: npt.NDArray[np.float64]
    failures: Counter[str]
    asts: CompactASTBatch

    @property
    def best(self) -> int | None:
        """Place of the fastest program; None where all failed."""
        if not np.isfinite(self.latencies_s).any():
            return None
        return int(np.argmin(self.latencies_s))


@dataclass(frozen=True, eq=False)
class MeasuredLog:
    """All usable records of a log.

    Attributes
    ----------
    path
        The log.
    tasks
        In the order in which they occur.
    num_records
        Records that are in `tasks`.
    problems
        What could not be used, and why: lines by number.
    """

    path: Path
    tasks: tuple[MeasuredTask, ...]
    num_records: int
    problems: dict[int, str]

    def of_line(self, line: int) -> tuple[MeasuredTask, int]:
        """Return the task of a line, and the place of its program there.

        Raises
        ------
        RecordError
            There is no usable record in that line.
        """
        for task in self.tasks:
            places = np.flatnonzero(task.lines == line)
            if places.size:
                return task, int(places[0])
        why = self.problems.get(line, "the log has no such record")
        raise RecordError(f"Line {line} of {self.path} cannot be used: {why}.")


def read_measured_log(log: Path, device: DeviceSpec | None = None) -> MeasuredLog:
    """Read a log, plain or packed.

    Parameters
    ----------
    log
        An Ansor log.
    device
        Where it was measured; by default what the target of each task names. Lines for another
        kind of device cannot be used.

    Raises
    ------
    RecordError
        The log cannot be read, or no record of it can be used.
    UnknownDeviceError
        The targets name no known device, and are not this machine's.
    """
    records, unreadable = read_records(log)
    problems = {line: str(error) for line, error in unreadable.items()}
    groups: dict[str, list[int]] = {}
    for line, (measured, _) in records.items():
        groups.setdefault(task_key(measured.task), []).append(line)
    book, inspector = WorkloadBook.read(_book_files(log)), TvmInspector()
    found: list[tuple[Any, list[int]]] = []
    for lines in groups.values():
        task = records[lines[0]][0].task
        if device is not None and (why := why_unfit(device, task.target)):
            problems |= dict.fromkeys(lines, why)
            continue
        try:
            found.append((_with_dag(task, book, log, inspector), lines))
        except CDMPPError as error:
            meant = f"task {task.workload_key} for {task.target}"
            problems |= dict.fromkeys(lines, f"{error} ({meant})")
    names = task_names([task for task, _ in found])
    tasks = []
    for (task, lines), name in zip(found, names, strict=True):
        chosen = {line: records[line] for line in lines}
        try:
            tasks.append(_measured_task(task, name, chosen, device, problems))
        except UnknownDeviceError:
            raise
        except ConfigError as error:  # such as of hardware that cannot be
            problems |= dict.fromkeys(lines, str(error))
    tasks = [task for task in tasks if len(task.lines)]
    if not tasks:
        raise no_record_of(log, problems)
    return MeasuredLog(log, tuple(tasks), sum(len(t.lines) for t in tasks), problems)


def _book_files(log: Path) -> list[Path]:
    """Return the files that say what the keys of a log mean, as far as they are there."""
    files = [log.with_name(f"workloads.jsonl{packed}") for packed in ("", ".xz", ".gz")]
    return [file for file in files if file.is_file()]


def _why_unknown(log: Path) -> str:
    """Say why what a task computes is not known, and what to do."""
    if not (files := _book_files(log)):
        return (
            f"{log.with_name('workloads.jsonl')} is missing, which says what the task computes; "
            "copy it from the folder in which the log was written"
        )
    # Another name will do where no log of the old name is there, and a key means one thing only.
    return (
        f"{files[0]} does not say what the task computes in {log.name}; put the log into a folder "
        "of its own, under the name with which it was written, and with the workloads.jsonl that "
        "was written next to it"
    )


def _with_dag(task: Any, book: WorkloadBook, log: Path, inspector: TvmInspector) -> Any:
    """Return a task with its DAG and hardware parameters."""
    key = str(task.workload_key)
    parameters = task.hardware_params or hardware_params(task.target)
    known = book.candidates(key, str(task.target), log.name, inspector)
    if not known:
        renamed = book.find_renamed(key, {file.name for file in log.parent.iterdir()})
        known = [renamed] if renamed else []
    if not known:
        try:
            return with_dag(task)
        except RecordError as error:
            raise RecordError(_why_unknown(log)) from error
    return auto_scheduler.SearchTask(
        compute_dag=load_dag(known[0].dag),
        workload_key=key,
        target=task.target,
        hardware_params=parameters,
        layout_rewrite_option=task.layout_rewrite_option,
        desc=(known[0].function or operator_class(known[0].dag)) if is_hash(key) else "",
    )


def _measured_task(
    task: Any,
    name: str,
    records: dict[int, tuple[Any, Any]],
    device: DeviceSpec | None,
    problems: dict[int, str],
) -> MeasuredTask:
    """Extract the programs of a task, and note those of no use."""
    hardware = Hardware.of(task.hardware_params)
    device = device or device_of(task.target, hardware)
    if device.calibration is not None:
        device = device.for_operator(operator_of_dag(task_dag(task)))
    machine = Machine(device, hardware)
    layout = LayoutRewrite(int(task.layout_rewrite_option))
    extractor = StepExtractor(analyse(task.compute_dag), hardware, layout)
    states = [measured.state for measured, _ in records.values()]
    asts, errors = extractor.extract(dump_records(task, states))
    kept, latencies_s, spent_s = list[int](), list[float](), list[float]()
    failures = Counter[str]()
    for place, (line, (_, result)) in enumerate(records.items()):
        try:
            if place in errors:
                raise errors[place]
            latencies_s.append(latency_s(result))
        except RecordError as error:
            problems[line] = str(error)
            continue
        kept.append(place)
        spent_s.append(max(0.0, float(result.all_cost)))
        if int(result.error_no):
            failures[failure_name(int(result.error_no))] += 1
    return MeasuredTask(
        task=task,
        name=name,
        machine=machine,
        extractor=extractor,
        lines=np.array(list(records), np.int64)[kept],
        states=[states[place] for place in kept],
        latencies_s=np.array(latencies_s),
        spent_s=np.array(spent_s),
        failures=failures,
        asts=asts.take(kept),
    )
