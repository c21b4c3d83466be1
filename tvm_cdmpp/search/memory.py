"""What a search knows: its tasks, what was measured, which programs cannot run, which scores hold.

All of it is bounded. Of the measured programs of a long search the fastest of each task stay, and
a random part of the others, see `thinning`; a score is forgotten when the model changes, or when
there are many.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.bridge import (
    check_measurements,
    device_of,
    does_not_apply,
    failed,
    latency_s,
    load_tvm,
    shapes_of,
    task_dag,
    task_key,
    timed_out,
    with_dag,
)
from tvm_cdmpp.devices import DeviceCalibration, DeviceSpec, Hardware
from tvm_cdmpp.errors import CDMPPError, CheckpointError, ConfigError, RecordError
from tvm_cdmpp.extract import LayoutRewrite, StepExtractor, analyse, dump_records
from tvm_cdmpp.models import Content, Machine, TrainingRows
from tvm_cdmpp.search.thinning import rows_to_keep
from tvm_cdmpp.train import operator_of_dag

_logger = logging.getLogger(__name__)

_MAX_SCORES = 1 << 18
"""Scores to remember, of all tasks."""
_MAX_LEAVES = 1 << 17
"""Leaves of all measured programs to remember, about 100 MB."""
_KEPT_SHARE = 0.75
"""Of that room, when there are too many: so that not every update has to choose."""
_MAX_FAILURES = 1 << 16
"""Programs to remember that cannot run."""
_DENSE_ERROR = "argument names"
_DENSE_HINT = (
    " TVM cannot rewrite the layout of a dense layer's weight; "
    "tvm_cdmpp.networks.to_search_form gives the network a form that avoids it."
)


@dataclass(frozen=True)
class KnownTask:
    """What is kept per task."""

    number: int
    machine: Machine
    extractor: StepExtractor
    shapes: tuple[str, ...]
    """Of its tensors, to tell its states from those of other tasks."""
    operator: str
    """Its class of operator."""
    scores: dict[int, float] = field(default_factory=dict)
    """Scores since the last update, by the hash of the record, whose result is always the same
    placeholder; a search asks for the same programs many times."""
    beyond_limits: set[int] = field(default_factory=set)
    """Which of these programs are beyond a limit of the task's GPU."""

    def forget_scores(self) -> None:
        """Forget all that was said of programs."""
        self.scores.clear()
        self.beyond_limits.clear()


class SearchMemory:
    """The memory of one model.

    Parameters
    ----------
    device
        Where programs are measured; None for what each task's target names.
    seed
        Decides which programs of a long search are forgotten.

    Attributes
    ----------
    rows
        What was measured, failed programs included.
    num_failed
        Measurements that failed so far.
    num_unscored
        Programs and records that could not be used so far.
    """

    def __init__(self, device: DeviceSpec | None, seed: int) -> None:
        self.rows = TrainingRows.join([])
        self.num_failed = 0
        self.num_unscored = 0
        self._device = device
        self._seed = seed
        self._kind: str | None = device.kind if device else None
        self._tasks: dict[str, KnownTask] = {}
        self._task_keys: list[str] = []
        self._cannot_run: dict[str, None] = {}
        self._said_why = False
        self._num_seen = 0
        self._draws = np.empty(0)
        """One per row; decides whether it stays."""

    def task(self, task: Any) -> KnownTask:
        """Return what is known of a task; one that is new is analysed.

        Raises
        ------
        ConfigError
            It is for another kind of device than the tasks before.
        RecordError
            It cannot be analysed.
        """
        key = task_key(task)
        known = self._tasks.get(key)
        if known is None:
            known = self._analysed(task, key)
            self._tasks[key] = known
        return known

    def _analysed(self, task: Any, key: str) -> KnownTask:
        hardware = Hardware.of(task.hardware_params)
        target = task.target
        device = self._device or device_of(target, hardware)
        self._check_kind(device, target)
        if device.calibration is not None:
            device = device.for_operator(operator_of_dag(task_dag(task)))
        graph = analyse(task.compute_dag)
        layout = LayoutRewrite(int(task.layout_rewrite_option))
        for remark in graph.remarks():
            _logger.warning("%s: %s", task.desc or task.workload_key, remark)
        if key not in self._task_keys:
            self._task_keys.append(key)
        extractor = StepExtractor(graph, hardware, layout)
        shapes = shapes_of(task.compute_dag.init_state)
        return KnownTask(
            self._task_keys.index(key),
            Machine(device, hardware),
            extractor,
            shapes,
            operator_of_dag(str(load_tvm().ir.save_json(task.compute_dag.tensors))),
        )

    @property
    def operators(self) -> dict[int, str]:
        """The class of operator of each task that was analysed, by the task's number."""
        return {known.number: known.operator for known in self._tasks.values()}

    def _check_kind(self, device: DeviceSpec, target: Any) -> None:
        expected = "cpu" if target.kind.name in ("llvm", "c") else "gpu"
        self._kind = self._kind or device.kind
        if self._kind != expected:
            raise ConfigError(
                f"This model predicts for a {self._kind}; got a task with target '{target}'. "
                "Make one CDMPPModel per device."
            )

    def learn(
        self, inputs: Sequence[Any], results: Sequence[Any]
    ) -> tuple[TrainingRows, dict[int, CDMPPError]]:
        """Take measurements in.

        Returns
        -------
        rows
            Those that can be used.
        problems
            What is wrong with those that cannot be used, by place.

        Raises
        ------
        ConfigError
            There are not as many results as inputs, or one is something else.
        """
        check_measurements(inputs, results)
        parts, problems = list[TrainingRows](), dict[int, CDMPPError]()
        for members in _by_task(inputs):
            try:
                task = with_dag(inputs[members[0]].task)
                known = self.task(task)
            except CDMPPError as error:
                problems |= dict.fromkeys(members, error)
                continue
            records = dump_records(task, [inputs[member].state for member in members])
            batch, errors = known.extractor.extract(records)
            lines = records.splitlines()
            usable: list[int] = []
            latencies_s: list[float] = []
            for place, member in enumerate(members):
                try:
                    measured_s = latency_s(results[member])
                    self._note_failure(lines[place], results[member])
                    if place in errors:
                        raise errors[place]
                except RecordError as error:
                    problems[member] = error
                    continue
                usable.append(place)
                latencies_s.append(measured_s)
            numbers = np.full(len(usable), known.number, np.int64)
            parts.append(TrainingRows.on(known.machine, batch.take(usable), latencies_s, numbers))
        learned = TrainingRows.join(parts)
        self._remember(learned)
        self._say_why(results)
        return learned, problems

    def _remember(self, new: TrainingRows) -> None:
        """Keep new rows with those known before, or as many as there is room for."""
        rows, num_new = TrainingRows.join([self.rows, new]), len(new)
        generator = np.random.default_rng((self._seed, self._num_seen))
        self._num_seen += num_new
        draws = np.concatenate([self._draws, generator.random(num_new)])
        if int(rows.asts.leaf_counts.sum()) > _MAX_LEAVES:
            kept = rows_to_keep(rows, draws, int(_KEPT_SHARE * _MAX_LEAVES))
            rows, draws = rows.take(kept), draws[kept]
        self.rows, self._draws = rows, draws

    def _note_failure(self, line: bytes, result: Any) -> None:
        if not failed(result):
            return
        self.num_failed += 1
        if not timed_out(result):
            self._cannot_run[_program_key(line)] = None
            if len(self._cannot_run) > _MAX_FAILURES:  # the oldest
                del self._cannot_run[next(iter(self._cannot_run))]

    def _say_why(self, results: Sequence[Any]) -> None:
        """Say once why no program of a batch could even be made."""
        if self._said_why or not results or not all(map(does_not_apply, results)):
            return
        message = str(results[0].error_msg).strip().splitlines()
        if not message:  # logs do not hold it
            return
        self._said_why = True
        _logger.warning(
            "TVM could not make a program of any of %d schedules: %s.%s",
            len(results),
            message[-1].strip(),
            _DENSE_HINT if any(_DENSE_ERROR in line for line in message) else "",
        )

    def count_problems(self, problems: Mapping[int, CDMPPError]) -> None:
        """Count programs or records that cannot be used, and log the first."""
        if problems:
            self.num_unscored += len(problems)
            first = min(problems)
            _logger.warning(
                "%d programs could not be used; record %d: %s",
                len(problems),
                first + 1,
                problems[first],
            )

    def cannot_run(self, lines: Sequence[bytes]) -> npt.NDArray[np.bool_]:
        """Tell which programs, given by their records, were seen to be unable to build or run."""
        if not self._cannot_run:
            return np.zeros(len(lines), dtype=bool)
        return np.array([_program_key(line) in self._cannot_run for line in lines])

    def make_room(self) -> None:
        """Forget scores when there are many."""
        if sum(len(known.scores) for known in self._tasks.values()) > _MAX_SCORES:
            self.forget_scores()

    def forget_scores(self) -> None:
        """Forget all scores, as the model has changed."""
        for known in self._tasks.values():
            known.forget_scores()

    def content(self) -> Content:
        """Return what a checkpoint holds of this memory."""
        asts = self.rows.batch()
        settings = {
            "task_keys": self._task_keys,
            "cannot_run": list(self._cannot_run),
            "num_failed": self.num_failed,
            "num_seen": self._num_seen,
            "seed": self._seed,
            "device": _figures(self._device) if self._device else None,
            "machines": [
                {"device": _figures(m.device), "hardware": astuple(m.hardware)}
                for m in self.rows.machines
            ],
        }
        arrays: dict[str, npt.NDArray[Any]] = {
            "vectors": asts.vectors,
            "positions": asts.positions,
            "offsets": asts.offsets,
            "latencies_s": self.rows.latencies_s,
            "tasks": self.rows.tasks,
            "machine_of": self.rows.machine_of,
            "draws": self._draws,
        }
        if asts.unscaled is not None:  # recovered ones differ in the last digits
            arrays["unscaled"] = asts.unscaled
        return Content(settings, arrays)

    def restore(self, content: Content) -> None:
        """Take what a checkpoint holds; tasks that are known stay analysed.

        The device comes with it if that memory was given one and this was not.

        Raises
        ------
        KeyError, TypeError, ValueError
            Something is missing or is not what it should be; the memory is then unchanged.
        CheckpointError
            It is of another kind of device than this memory was made for; likewise unchanged.
        """
        settings, arrays = content.settings, content.arrays
        rows = TrainingRows(
            CompactASTBatch(
                arrays["vectors"], arrays["positions"], arrays["offsets"], arrays.get("unscaled")
            ),
            arrays["latencies_s"],
            arrays["tasks"],
            tuple(
                Machine(_device_of(entry["device"]), Hardware(*entry["hardware"]))
                for entry in settings["machines"]
            ),
            arrays["machine_of"],
        )
        keys = [str(key) for key in settings["task_keys"]]
        cannot_run = dict.fromkeys(map(str, settings["cannot_run"]))
        counters = int(settings["num_failed"]), int(settings["num_seen"]), int(settings["seed"])
        device = _device_of(settings["device"]) if settings["device"] else None
        measured_on = [device, *rows.devices] if device else rows.devices
        kind = measured_on[0].kind if measured_on else None
        if self._device and kind and kind != self._device.kind:
            raise CheckpointError(
                f"The saved model predicts for a {kind}; this one was made for the "
                f"{self._device.kind} '{self._device.name}'. Make one CDMPPModel per device."
            )
        self._kind = self._device.kind if self._device else kind
        self._draws = arrays["draws"]
        self.num_failed, self._num_seen, self._seed = counters
        self.rows, self._task_keys, self._cannot_run = rows, keys, cannot_run
        self._tasks = {
            key: replace(known, number=keys.index(key), scores={}, beyond_limits=set())
            for key, known in self._tasks.items()
            if key in keys
        }
        if device and not self._device:
            self._device = device
            self._tasks = {}  # each was analysed for a device of its own


def _figures(device: DeviceSpec) -> dict[str, Any]:
    calibration = device.calibration and device.calibration.to_json()
    return {**asdict(device), "sources": dict(device.sources), "calibration": calibration}


def _device_of(figures: Mapping[str, Any]) -> DeviceSpec:
    calibration = figures.get("calibration")
    if calibration is not None:
        calibration = DeviceCalibration.from_json(calibration, f"the device {figures['name']}")
    return DeviceSpec(**{**figures, "calibration": calibration})


def _by_task(inputs: Sequence[Any]) -> list[list[int]]:
    """Group the places of records by task."""
    groups: dict[str, list[int]] = {}
    for place, item in enumerate(inputs):
        groups.setdefault(task_key(item.task), []).append(place)
    return list(groups.values())


def _program_key(line: bytes) -> str:
    """Tell programs apart, in saved models as well."""
    return hashlib.blake2b(line, digest_size=16).hexdigest()
