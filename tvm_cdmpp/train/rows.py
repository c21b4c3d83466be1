"""Training rows of a record store: labels in memory, compact ASTs read when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.data import Labels, RecordStore, make_labels
from tvm_cdmpp.devices import DeviceSpec, Hardware, Registry, device_for, find_device, load_registry
from tvm_cdmpp.models import Ints, Machine, TrainingRows
from tvm_cdmpp.train.features import StoredFeatures


@dataclass(frozen=True)
class _Part:
    """Some rows of stored features, as an `ASTSource`."""

    features: StoredFeatures
    rows: Ints

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def leaf_counts(self) -> Ints:
        return self.features.leaf_counts[self.rows]

    def take(self, programs: Ints) -> CompactASTBatch:
        return self.features.take(self.rows[programs])


def rows_of_store(
    store: RecordStore,
    features: StoredFeatures,
    rows: Ints,
    *,
    labels: Labels | None = None,
    devices: Mapping[str, DeviceSpec] | None = None,
    registry: Registry | None = None,
) -> tuple[TrainingRows, Ints]:
    """Return training rows for programs of a store.

    Parameters
    ----------
    store
        The records.
    features
        Their compact ASTs, from `load_features`.
    rows
        Which programs, such as the training part of a split.
    labels
        Of the whole store; `make_labels` by default.
    devices
        What the store's devices are, by name; others are looked up in the registry.
    registry
        Known devices; the built-in ones and the user's by default.

    Returns
    -------
    training_rows
        Those of the programs that have leaves, in order; failed ones with an infinite latency.
        Nothing but labels is in memory.
    used
        Their rows in the store.

    Raises
    ------
    UnknownDeviceError
        A device of the store is neither given nor in the registry.
    """
    known = registry or load_registry()
    latency_s = (labels or make_labels(store)).latency_s
    used = rows[features.leaf_counts[rows] > 0]
    tasks = list(store.iter_tasks())
    starts = np.array([task["rows"].start for task in tasks], np.int64)
    task_of = np.searchsorted(starts, used, side="right") - 1
    places: dict[Machine, int] = {}
    machine_of_task = np.zeros(len(tasks), np.int64)
    for number in np.unique(task_of).tolist():
        machine = _machine(tasks[number], devices or {}, known)
        machine_of_task[number] = places.setdefault(machine, len(places))
    measured_s = latency_s[used]
    measured_s[np.isnan(measured_s)] = np.inf
    return TrainingRows(
        _Part(features, used), measured_s, task_of, tuple(places), machine_of_task[task_of]
    ), used


def sample_tasks(store: RecordStore, rows: Ints, per_task: int, *, seed: int = 0) -> Ints:
    """Draw some programs of each task.

    Parameters
    ----------
    store
        The records.
    rows
        Programs to choose from, such as a part of a split; (n,), each once.
    per_task
        Programs of a task at most.
    seed
        One seed and the same rows give the same choice.

    Returns
    -------
    chosen
        Ascending; all of a task's programs where it has no more than `per_task`.
    """
    starts = store.tasks["first_record"].to_numpy()
    shuffled = np.random.default_rng(seed).permutation(rows)
    task = np.searchsorted(starts, shuffled, side="right")
    order = np.argsort(task, kind="stable")
    _, first, group = np.unique(task[order], return_index=True, return_inverse=True)
    chosen: Ints = np.sort(shuffled[order[np.arange(len(rows)) - first[group] < per_task]])
    return chosen


def _machine(task: dict[str, Any], devices: Mapping[str, DeviceSpec], known: Registry) -> Machine:
    hardware = Hardware(*task["hardware_parameters"])
    name, kind = str(task["device"]), str(task["target"]).split()[0]
    if name in devices:
        return Machine(devices[name], hardware)
    find_device(name, known)
    return Machine(device_for(kind, name, hardware, known), hardware)
