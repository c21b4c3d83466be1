"""What fine-tuning learns from in a record store: a target's programs, and rows of the sources.

The target is a device, a network, or a network on a device. Some of its programs count as measured;
of the others only the computation is known, as if they had just been extracted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import SCHEMA_VERSION
from tvm_cdmpp.data import Labels, RecordStore, check_split_name, make_labels, official_split
from tvm_cdmpp.devices import find_device
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models import CostPredictor, Ints, TrainingRows
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.evaluation import evaluate
from tvm_cdmpp.train.features import StoredFeatures
from tvm_cdmpp.train.pretraining import KINDS
from tvm_cdmpp.train.rows import rows_of_store, sample_tasks
from tvm_cdmpp.train.selection import SelectionMethod, program_features, select_programs

_MOST_CANDIDATES = 20_000
"""Programs of the target to choose from, drawn at random from more."""
_SOURCES_PER_TASK = 20
_NOTHING = "no program of the target is of use; import more logs of it"

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """What the target is, and what is measured of it."""

    device: str | None = None
    """As the store calls it."""
    network: str | None = None
    """As the store calls it; programs of all workloads that occur in it."""
    records: int = 200
    """Programs that count as measured, of each kind of device; all if there are not as many."""
    select: SelectionMethod = "random"
    """How these are chosen."""
    split: str | None = None
    """An official split: sources are of its training part only, so that figures on its test part
    stay honest. None for all records but the target's."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject settings without a target, and a split that there is not."""
        if self.device is None and self.network is None:
            raise ConfigError("the target must be a device, a network, or both; got neither.")
        if self.records < 0:
            raise ConfigError(f"records must be at least 0; got {self.records}.")
        if self.split is not None:
            check_split_name(self.split)


@dataclass(frozen=True)
class Target:
    """Rows of one kind of device, "cpu" or "gpu", in memory."""

    kind: str
    measured: TrainingRows
    unlabelled: TrainingRows
    """The other candidates; their latencies are not to be looked at."""
    sources: TrainingRows


def check_target(store: RecordStore, device: str | None, networks: Sequence[str] = ()) -> None:
    """Refuse a target that a store does not have, before the features are loaded.

    Parameters
    ----------
    store
        The records.
    device, networks
        As the store calls them; programs of a workload that occurs in one of the networks.

    Raises
    ------
    ConfigError
        The store knows no such device or network, or no workload of these networks on the device.
    UnknownDeviceError
        Nothing is known of the device but its name.
    """
    if not _of_target(list(store.iter_tasks()), device, networks).any():
        raise ConfigError(_NOTHING)
    if device is not None:
        find_device(device)


def read_targets(
    store: RecordStore,
    features: StoredFeatures,
    predictor: CostPredictor,
    settings: TargetSettings,
) -> list[Target]:
    """Choose rows of a store, for every kind of device that the target has programs on.

    Labels that cannot be true are left out; those of the sources must not be of a busy machine
    either.

    Parameters
    ----------
    store
        The records.
    features
        Their compact ASTs.
    predictor
        Says how unsure it is of programs, where `select` asks for it.
    settings
        What the target is.

    Raises
    ------
    ConfigError
        The store knows no such device or network, or no program of it is of use.
    """
    labels = make_labels(store)
    tasks = list(store.iter_tasks())
    kind_of, task_of = _kinds(tasks), store.columns("task")["task"].to_numpy()
    networks = () if settings.network is None else (settings.network,)
    of_target = _of_target(tasks, settings.device, networks)[task_of]
    usable = (features.leaf_counts > 0) & ~labels.impossible
    sources = _sources(store, usable, labels, of_target, settings.split, settings.seed)
    found = []
    for kind in np.unique(kind_of[task_of[of_target & usable]]).tolist():
        is_kind = kind_of[task_of] == kind
        candidates = np.flatnonzero(of_target & usable & is_kind)
        rows, _ = _in_memory(store, features, _draw(candidates, settings.seed), labels)
        measured = _select(rows, predictor, settings)
        others = np.setdiff1d(np.arange(len(rows)), measured)
        known, _ = _in_memory(store, features, sources[is_kind[sources]], labels)
        found.append(Target(kind, rows.take(measured), rows.take(others), known))
    if not found:
        raise ConfigError(_NOTHING)
    return found


def read_candidates(
    store: RecordStore,
    features: StoredFeatures,
    device: str,
    networks: Sequence[str] = (),
    *,
    seed: int = 0,
) -> tuple[TrainingRows, Ints]:
    """Return programs of a device to choose from, failed ones with an infinite latency.

    Labels that cannot be true are left out.

    Parameters
    ----------
    store, features
        The records and their compact ASTs.
    device
        As the store calls it.
    networks
        As the store calls them: programs of workloads that occur in one of these; of all where
        there is none.
    seed
        Draws programs where there are very many.

    Returns
    -------
    candidates
        In memory.
    rows
        Their rows in the store.

    Raises
    ------
    ConfigError
        The store knows no such device or network, or no program of it is of use.
    UnknownDeviceError
        Nothing is known of the device but its name.
    """
    labels = make_labels(store)
    task_of = store.columns("task")["task"].to_numpy()
    of_target = _of_target(list(store.iter_tasks()), device, networks)[task_of]
    candidates = np.flatnonzero(of_target & (features.leaf_counts > 0) & ~labels.impossible)
    if not len(candidates):
        raise ConfigError(_NOTHING)
    return _in_memory(store, features, _draw(candidates, seed), labels)


def read_sources(
    store: RecordStore,
    features: StoredFeatures,
    *,
    kind: str,
    without: str,
    split: str | None = None,
    seed: int = 0,
) -> TrainingRows:
    """Return some programs of each task of other devices, to train on beside those of a target.

    Parameters
    ----------
    store, features
        The records and their compact ASTs.
    kind
        Of devices, "cpu" or "gpu".
    without
        The device that is left out, which the store may lack.
    split
        An official split: only its training part is taken. None for all records.
    seed
        Chooses the programs.

    Raises
    ------
    ConfigError
        There are none.
    """
    labels, tasks = make_labels(store), list(store.iter_tasks())
    task_of = store.columns("task")["task"].to_numpy()
    left_out = np.array([str(task["device"]) == without for task in tasks])[task_of]
    usable = (features.leaf_counts > 0) & ~labels.impossible
    sources = _sources(store, usable, labels, left_out, split, seed)
    sources = sources[(_kinds(tasks) == kind)[task_of[sources]]]
    if not len(sources):
        raise ConfigError(f"the store {store.path} has no program of another {kind} to learn from")
    return _in_memory(store, features, sources, labels)[0]


def _kinds(tasks: list[dict[str, Any]]) -> npt.NDArray[np.str_]:
    """Return the kind of device that each task is for."""
    return np.array([KINDS[str(t["target"]).split()[0] not in ("llvm", "c")] for t in tasks])


def _sources(
    store: RecordStore, usable: Mask, labels: Labels, left_out: Mask, split: str | None, seed: int
) -> Ints:
    """Draw rows that were measured on a quiet machine, some of each task."""
    if split is None:
        rows = np.flatnonzero(~left_out)
    else:
        train = official_split(store, split).train
        rows = train[~left_out[train]]
    quiet = usable & ~(labels.contended | labels.noisy)
    return sample_tasks(store, rows[quiet[rows]], _SOURCES_PER_TASK, seed=seed)


def _of_target(tasks: list[dict[str, Any]], device: str | None, networks: Sequence[str]) -> Mask:
    """Mark the tasks of a device, of some networks, or of these on the device."""
    devices = np.array([str(task["device"]) for task in tasks])
    of_tasks = [list(task["networks"] or ()) for task in tasks]
    marked = np.ones(len(tasks), bool)
    if device is not None:
        marked &= devices == device
        _must_be_known("device", device, marked, np.unique(devices).tolist())
    if networks:
        of_network = np.zeros(len(tasks), bool)
        parts = [{part for name in names for part in name.split(", ")} for names in of_tasks]
        for network in networks:
            found = np.array([network in names for names in of_tasks])
            if not found.any():  # logs of several networks may say so
                found = np.array([network in names for names in parts])
            _must_be_known("network", network, found, sorted(set[str]().union(*parts)))
            of_network |= found
        marked &= of_network
    return marked


def _must_be_known(what: str, name: str, found: Mask, known: list[str]) -> None:
    if not found.any():
        names = ", ".join(known) or "none"
        raise ConfigError(f"the store has no {what} '{name}'; it has {names}")


def _draw(rows: Ints, seed: int) -> Ints:
    if len(rows) <= _MOST_CANDIDATES:
        return rows
    drawn = np.random.default_rng(seed).choice(rows, _MOST_CANDIDATES, replace=False)
    return np.sort(drawn)


def _in_memory(
    store: RecordStore, features: StoredFeatures, rows: Ints, labels: Labels
) -> tuple[TrainingRows, Ints]:
    found, used = rows_of_store(store, features, rows, labels=labels)
    return found.take(np.arange(len(found))), used


def _select(rows: TrainingRows, predictor: CostPredictor, settings: TargetSettings) -> Ints:
    spread = None
    if settings.select == "uncertain":
        spread = evaluate(predictor, rows).spread
    features = program_features(rows.batch())
    return select_programs(
        features, rows.tasks, settings.records, settings.select, settings.seed, spread
    )


def describe_finetuning(
    store: RecordStore,
    about: Mapping[str, Any],
    settings: TargetSettings,
    config: TrainConfig,
    targets: Sequence[Target],
    command: str,
) -> dict[str, Any]:
    """Return what the weights must say of how they were made, as JSON values.

    Parameters
    ----------
    store, settings, config, targets
        What was learned from, and how.
    about
        What the weights say that this started from.
    command
        What was typed.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "data_hash": store.content_hash,
        "records": len(store),
        "split": settings.split,
        "seed": settings.seed,
        "command": command,
        "settings": {"target": asdict(settings), "config": asdict(config)},
        "programs": {
            target.kind: {
                "measured": len(target.measured),
                "unlabelled": len(target.unlabelled),
                "sources": len(target.sources),
            }
            for target in targets
        },
        "from": dict(about),
    }
