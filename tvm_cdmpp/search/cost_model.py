"""`CDMPPModel`: the CDMPP predictor as a cost model of TVM's auto-scheduler.

Scores are 1 / latency in seconds, times the probability that the program runs: positive, higher is
better. Before the first update they come from the analytic estimate. Each update continues
training on everything measured so far, so the weights a search starts from are never thrown away.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast.compact import CompactASTBatch, concatenate
from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.bridge.target import device_of
from tvm_cdmpp.devices.hardware import Hardware
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import CheckpointError, ConfigError, RecordError
from tvm_cdmpp.extract.dag import analyse
from tvm_cdmpp.extract.extractor import StepExtractor
from tvm_cdmpp.extract.handover import dump_records
from tvm_cdmpp.extract.stage import LayoutRewrite
from tvm_cdmpp.models.checkpoint import load_predictor, save_predictor
from tvm_cdmpp.models.predictor import Predictor, PredictorConfig
from tvm_cdmpp.train.loop import FitConfig, TrainingRows, fit

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler
PythonBasedModel = auto_scheduler.cost_model.cost_model.PythonBasedModel

_logger = logging.getLogger(__name__)

_TIMEOUT_ERRORS = (
    auto_scheduler.measure.MeasureErrorNo.BUILD_TIMEOUT,
    auto_scheduler.measure.MeasureErrorNo.RUN_TIMEOUT,
)
"""Failures that say "too slow" rather than "cannot run"."""

_UNKNOWN_SCORE = 1e-6
"""Score of a program that could not be analysed: last, but it may still be measured."""

_MAX_SCORES = 1 << 16
"""Scores to remember per task."""


@dataclass(frozen=True)
class _TaskEntry:
    """What is kept per task."""

    number: int
    extractor: StepExtractor
    scores: dict[int, float] = field(default_factory=dict)
    """Scores since the last update, by the hash of the record, whose result is always the same
    placeholder; a search asks for the same programs many times."""


class CDMPPModel(PythonBasedModel):  # type: ignore[misc, valid-type]
    """The CDMPP predictor for `SketchPolicy`, `task.tune` and `TaskScheduler`.

    One model serves all tasks of a search on one device.

    Parameters
    ----------
    seed
        One seed gives one sequence of scores.
    device
        Hardware that programs are measured on, such as `find_device("t4")`. By default what the
        target names, as in `cuda -model=t4`; else this machine's CPU, with the cores and vector
        width of the task's hardware parameters, or its CUDA GPU; else a generic GPU.
    config
        Size of the network.
    fit_config
        How each update trains.
    num_threads
        Threads for scoring; one is best while the search keeps the other cores busy.

    Attributes
    ----------
    num_failed
        Measurements that failed so far; they are never used as latencies.
    num_unscored
        Programs and records that could not be analysed so far; programs got the lowest score.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        device: DeviceSpec | None = None,
        config: PredictorConfig | None = None,
        fit_config: FitConfig | None = None,
        num_threads: int = 1,
    ) -> None:
        super().__init__()
        if num_threads < 1:
            raise ConfigError(f"num_threads must be at least 1; got {num_threads}.")
        self.seed = seed
        self.num_failed = 0
        self.num_unscored = 0
        self._device = device
        self._fit_config = fit_config or FitConfig()
        self._num_threads = num_threads
        self._predictor = Predictor.untrained(config or PredictorConfig(), seed)
        self._tasks: dict[str, _TaskEntry] = {}
        self._task_keys: list[str] = []
        self._rows = TrainingRows(concatenate([]), np.empty(0), np.empty(0, dtype=np.int64))
        self._cannot_run: set[str] = set()
        self._num_updates = 0

    def predict(self, task: Any, states: Sequence[Any]) -> list[float]:
        """Score states.

        Parameters
        ----------
        task
            The search task.
        states
            Candidates of this task.

        Returns
        -------
        scores
            One per state, positive, higher is better; `-inf` for a program that was seen to be
            unable to build or run, unless all of these are.
        """
        if not states:
            return []
        entry = self._entry(task)
        lines = dump_records(task, states).splitlines()
        programs = list(map(hash, lines))
        if len(entry.scores) > _MAX_SCORES:
            entry.scores.clear()
        unknown = {p: line for p, line in zip(programs, lines, strict=True)
                   if p not in entry.scores}  # fmt: skip
        if unknown:
            scores = self._score(task, entry.extractor, b"\n".join(unknown.values()))
            entry.scores.update(zip(unknown, scores, strict=True))
        result = [entry.scores[program] for program in programs]
        if self._cannot_run:
            known = [_program_key(line) in self._cannot_run for line in lines]
            # TVM samples for ever when no candidate at all is left to it.
            if not all(known):
                result = [-np.inf if k else s for k, s in zip(known, result, strict=True)]
        return result

    def _score(self, task: Any, extractor: StepExtractor, records: bytes) -> list[float]:
        batch, errors = extractor.extract(records)
        self._count_unscored(errors)
        scores = np.full(len(batch), _UNKNOWN_SCORE)
        usable = np.flatnonzero(batch.leaf_counts > 0)
        if usable.size:
            known = batch if usable.size == len(batch) else batch.take(usable)
            latencies_s, runs = self._predictor.predict(
                known, self._device_of(task), num_threads=self._num_threads
            )
            scores[usable] = np.maximum(runs, 1e-3) / latencies_s
        result: list[float] = scores.tolist()
        return result

    def update(self, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        """Learn from measurements.

        Parameters
        ----------
        inputs, results
            `MeasureInput` and `MeasureResult` pairs. Failed ones are counted and used only to
            learn which programs cannot run.
        """
        self._learn(inputs, results)

    def _learn(self, inputs: Sequence[Any], results: Sequence[Any]) -> dict[int, RecordError]:
        """Update, and return what is wrong with the records that cannot be used, by number."""
        if not inputs:
            return {}
        asts: list[CompactASTBatch] = [self._rows.asts]
        latencies_s: list[float] = []
        tasks: list[int] = []
        problems: dict[int, RecordError] = {}
        for members in _by_task(inputs):
            try:
                task = _with_dag(inputs[members[0]].task)
                entry = self._entry(task)
            except RecordError as error:
                problems |= dict.fromkeys(members, error)
                continue
            records = dump_records(task, [inputs[m].state for m in members])
            batch, errors = entry.extractor.extract(records)
            problems |= {members[p]: error for p, error in errors.items()}
            for member, line in zip(members, records.splitlines(), strict=True):
                self._note_failure(line, results[member])
            usable = [p for p in range(len(members)) if p not in errors]
            asts.append(batch.take(usable))
            latencies_s += [_latency_s(results[members[p]]) for p in usable]
            tasks += [entry.number] * len(usable)
        self._count_unscored(problems)
        self._rows = TrainingRows(
            concatenate(asts),
            np.concatenate([self._rows.latencies_s, latencies_s]),
            np.concatenate([self._rows.tasks, np.asarray(tasks, dtype=np.int64)]),
        )
        self._num_updates += 1
        self._forget_scores()
        if self._rows.tasks.size:
            assert self._device is not None
            seed = self.seed + self._num_updates
            fit(self._predictor, self._rows, self._device, self._fit_config, seed)
        return problems

    def update_from_file(self, file_name: str, n_lines: int | None = None) -> None:
        """Learn from the records of an Ansor log.

        Parameters
        ----------
        file_name
            The log. The workloads of its records must be registered, as extracting the tasks of
            their network does.
        n_lines
            Read only the first lines.

        Raises
        ------
        RecordError
            If no record can be used. Some that cannot, because their workload is not registered
            or their steps do not fit it, are counted in `num_unscored` and logged.
        """
        inputs, results = auto_scheduler.RecordReader(str(file_name)).read_lines(n_lines)
        problems = self._learn(inputs, results)
        if problems and len(problems) == len(inputs):
            raise RecordError(
                f"None of the {len(inputs)} records of '{file_name}' can be used; the first: "
                f"{problems[min(problems)]}"
            )

    def save(self, file_name: str) -> None:
        """Write the predictor and all it was trained on to one file, atomically."""
        rows = self._rows
        arrays: dict[str, npt.NDArray[Any]] = {
            "vectors": rows.asts.vectors,
            "positions": rows.asts.positions,
            "offsets": rows.asts.offsets,
            "latencies_s": rows.latencies_s,
            "tasks": rows.tasks,
        }
        extra = {
            "task_keys": self._task_keys,
            "cannot_run": sorted(self._cannot_run),
            "num_updates": self._num_updates,
            "num_failed": self.num_failed,
            "seed": self.seed,
        }
        save_predictor(Path(file_name), self._predictor, arrays, extra)

    def load(self, file_name: str) -> None:
        """Continue from a saved model; the next update keeps what it had learned.

        Raises
        ------
        CheckpointError
            If the file is not a model saved by `save`, or of another version.
        """
        predictor, arrays, extra = load_predictor(Path(file_name))
        try:
            asts = CompactASTBatch(arrays["vectors"], arrays["positions"], arrays["offsets"])
            rows = TrainingRows(asts, arrays["latencies_s"], arrays["tasks"])
            task_keys = list(extra["task_keys"])
            cannot_run = set(extra["cannot_run"])
            counters = extra["num_updates"], extra["num_failed"], extra["seed"]
        except KeyError as error:
            raise CheckpointError(
                f"'{file_name}' holds a predictor but not the state of a search; missing: {error}."
            ) from error
        self._predictor, self._rows = predictor, rows
        self._cannot_run = cannot_run
        self._num_updates, self.num_failed, self.seed = counters
        extractors = {key: entry.extractor for key, entry in self._tasks.items()}
        self._task_keys = task_keys
        self._tasks = {
            key: _TaskEntry(number, extractors[key])
            for number, key in enumerate(task_keys)
            if key in extractors
        }

    def _entry(self, task: Any) -> _TaskEntry:
        key = f"{task.workload_key} {task.target.kind.name} {task.layout_rewrite_option}"
        entry = self._tasks.get(key)
        if entry is None:
            self._device_of(task)
            if key not in self._task_keys:
                self._task_keys.append(key)
            layout = LayoutRewrite(int(task.layout_rewrite_option))
            hardware = Hardware.of(task.hardware_params)
            graph = analyse(task.compute_dag)
            extractor = StepExtractor(graph, hardware, layout)
            if extractor.graph.num_opaque_reads:
                _logger.warning(
                    "%d reads of %s cannot be analysed; they count as touching whole buffers",
                    extractor.graph.num_opaque_reads,
                    task.desc or task.workload_key,
                )
            entry = _TaskEntry(self._task_keys.index(key), extractor)
            self._tasks[key] = entry
        return entry

    def _device_of(self, task: Any) -> DeviceSpec:
        if self._device is None:
            self._device = device_of(task.target, Hardware.of(task.hardware_params))
        expected = "cpu" if task.target.kind.name in ("llvm", "c") else "gpu"
        if self._device.kind != expected:
            raise ConfigError(
                f"This model predicts for '{self._device.name}', a {self._device.kind}; got a task "
                f"with target '{task.target}'. Make one CDMPPModel per device."
            )
        return self._device

    def _forget_scores(self) -> None:
        for entry in self._tasks.values():
            entry.scores.clear()

    def _note_failure(self, line: bytes, result: Any) -> None:
        if result.error_no == 0:
            return
        self.num_failed += 1
        if result.error_no not in _TIMEOUT_ERRORS:
            self._cannot_run.add(_program_key(line))

    def _count_unscored(self, errors: dict[int, RecordError]) -> None:
        if errors:
            self.num_unscored += len(errors)
            first = min(errors)
            _logger.warning(
                "%d programs could not be analysed; record %d: %s",
                len(errors),
                first + 1,
                errors[first],
            )


def _by_task(inputs: Sequence[Any]) -> list[list[int]]:
    """Group the numbers of records by task."""
    groups: dict[tuple[str, str, int], list[int]] = {}
    for number, item in enumerate(inputs):
        task = item.task
        key = (task.workload_key, str(task.target), int(task.layout_rewrite_option))
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def _with_dag(task: Any) -> Any:
    """Return the task itself, or one rebuilt from its workload key if it comes from a log."""
    if task.compute_dag is not None:
        return task
    try:
        return auto_scheduler.SearchTask(
            workload_key=task.workload_key,
            target=task.target,
            hardware_params=task.hardware_params,
            layout_rewrite_option=task.layout_rewrite_option,
        )
    except (KeyError, ValueError, tvm.TVMError) as error:
        raise RecordError(
            f"The workload {task.workload_key} of a record is not registered; extract the tasks "
            "of its network first, or register its function."
        ) from error


def _program_key(line: bytes) -> str:
    """Tell programs apart, in saved models as well."""
    return hashlib.blake2b(line, digest_size=16).hexdigest()


def _latency_s(result: Any) -> float:
    """Mean of the measured costs, as Ansor ranks programs; infinite for a failed measurement."""
    if result.error_no != 0:
        return np.inf
    return float(np.mean([float(cost) for cost in result.costs]))
