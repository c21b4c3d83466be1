"""From a record store to a trained predictor: which rows, for how long, and what is kept.

A run keeps what it has done in a folder, so that it goes on after a kill. Of the networks with
averaged weights, the one with the least error on the validation part is the result.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tvm_cdmpp.ast import SCHEMA_VERSION
from tvm_cdmpp.data import (
    RecordStore,
    check_split_name,
    choose_validation,
    make_labels,
    official_split,
)
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.models import (
    SIGMAS_90,
    AdditiveConfig,
    AdditiveNetwork,
    Content,
    Expert,
    Ints,
    TrainedPredictor,
    TrainingRows,
    read_checkpoint,
    round_weights,
    stack_devices,
    write_checkpoint,
)
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.features import StoredFeatures, load_features
from tvm_cdmpp.train.loop import Trainer, Workers, predict
from tvm_cdmpp.train.operators import operator_of_tasks
from tvm_cdmpp.train.rows import rows_of_store
from tvm_cdmpp.train.windows import Windows

KINDS = ("cpu", "gpu")
_COVERAGE = 0.9
_FEWEST_TASKS = 20
_REFERENCE_SHARE = 0.2
"""Of a two-sided 90 % interval."""


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """What to train."""

    split: str | None = "networks"
    """An official split, whose test part is left out; None for all records."""
    seed: int = 0
    most_per_task: int = 1000
    """Programs of a task on a device that are used."""
    network: AdditiveConfig = field(default_factory=AdditiveConfig)
    config: TrainConfig = field(default_factory=TrainConfig)
    evaluate_every: int = 1000
    """Steps between looks at the validation part, and between what is kept."""
    patience: int = 16
    """Looks without a better result after which training ends."""
    spread_margin: float = 1.3
    """Errors on networks that were not trained on, over those on the validation part, whose
    networks were; found by holding out networks of the training part."""

    def __post_init__(self) -> None:
        """Reject a split that there is not."""
        if self.split is not None:
            check_split_name(self.split)


@dataclass(frozen=True)
class Progress:
    """Where a run is."""

    kind: str
    step: int
    steps: int
    loss: float
    validation_error: float | None
    """Median relative error on the validation part, where it was just looked at."""
    samples_per_s: float
    best_error: float
    """The least such error of the run so far."""


@dataclass(frozen=True)
class Parts:
    """Rows to train on and to validate with, and the class of operator of each."""

    train: TrainingRows
    validation: TrainingRows
    operators: npt.NDArray[np.str_]
    unlabelled: TrainingRows | None = None
    """Programs of a target, for `TrainConfig.domain`; their latencies are not looked at."""


def choose_rows(groups: Ints, most: int, seed: int) -> Ints:
    """Draw at most so many rows of each group; places, ascending."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(groups))
    order = order[np.argsort(groups[order], kind="stable")]
    ordered = groups[order]
    rank = np.arange(len(ordered)) - np.searchsorted(ordered, ordered, side="left")
    chosen: Ints = np.sort(order[rank < most])
    return chosen


def read_parts(
    store: RecordStore, features: StoredFeatures, kind: str, settings: PretrainSettings
) -> Parts:
    """Return the rows of one kind of device.

    Labels that cannot be true, or that were measured on a busy machine only, are left out.

    Raises
    ------
    RecordError
        There are none.
    """
    labels = make_labels(store)
    usable = ~(labels.contended | labels.noisy | labels.impossible)
    tasks = list(store.iter_tasks())
    is_kind = np.array([(str(t["target"]).split()[0] in ("llvm", "c")) == (kind == "cpu")
                        for t in tasks])  # fmt: skip
    task_of = store.columns("task")["task"].to_numpy()
    if settings.split is None:
        names, workloads = np.unique(store.tasks["workload_id"].to_pylist(), return_inverse=True)
        everything = np.ones(len(store), bool)
        held = choose_validation(names, workloads[task_of], everything, 0.05, settings.seed)
        parts = [np.flatnonzero(~held), np.flatnonzero(held)]
    else:
        split = official_split(store, settings.split)
        parts = [split.train, split.validation]
    operators = np.array(operator_of_tasks(store))
    made = []
    for rows, most in zip(parts, (settings.most_per_task, 100), strict=True):
        chosen = rows[usable[rows] & is_kind[task_of[rows]]]
        chosen = chosen[choose_rows(task_of[chosen], most, settings.seed)]
        made.append(rows_of_store(store, features, chosen, labels=labels)[0])
    train, validation = made
    if not np.isfinite(train.latencies_s).any() or not np.isfinite(validation.latencies_s).any():
        raise RecordError(
            f"nothing to train a predictor of {kind}s on: {len(train)} programs to train on and "
            f"{len(validation)} to validate with, none of which ran in one of these parts; import "
            "more logs, choose another split, or leave these devices out (--kinds)"
        )
    return Parts(train, validation, operators[train.tasks])


def pretrain(
    store: RecordStore,
    folder: Path,
    settings: PretrainSettings,
    *,
    kind: str,
    workers: Workers | None = None,
    torch_device: str = "cpu",
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Expert:
    """Train the expert for one kind of device, or go on where a run in this folder was.

    Parameters
    ----------
    store
        The records.
    folder
        Where the state of the run is kept.
    settings
        What to train; a run of other settings or data is not gone on with.
    kind
        "cpu" or "gpu".
    workers
        Other processes of this run.
    torch_device
        Where PyTorch computes, such as "cuda". On a GPU, one seed gives the same result up to
        rounding only.
    on_progress
        Told after every window.

    Raises
    ------
    ConfigError
        The folder holds another run, or PyTorch has no such device.
    RecordError
        There is nothing to train on.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind must be one of {', '.join(KINDS)}; got '{kind}'.")
    _check_torch_device(torch_device)
    parts = read_parts(store, load_features(store), kind, settings)
    return pretrain_on(
        parts,
        folder,
        settings,
        kind=kind,
        data_hash=store.content_hash,
        workers=workers,
        torch_device=torch_device,
        on_progress=on_progress,
    )


def pretrain_on(
    parts: Parts,
    folder: Path,
    settings: PretrainSettings,
    *,
    kind: str,
    data_hash: str,
    workers: Workers | None = None,
    torch_device: str = "cpu",
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Expert:
    """Train an expert on chosen rows; as `pretrain` otherwise.

    Parameters
    ----------
    parts
        What to train on, and to validate with.
    data_hash
        Names the rows: a run on others is not gone on with.
    """
    workers = workers or Workers()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = AdditiveNetwork(settings.network)
    keep_on = None if torch.device(torch_device).type == "cpu" else torch_device
    windows = Windows(parts.train, parts.operators, settings.config, settings.seed, keep_on=keep_on)
    network.to(torch_device)
    network.fit_inputs(windows.draw(0).all()[0])
    others = None
    if parts.unlabelled is not None and settings.config.domain != "none":
        alike = np.full(len(parts.unlabelled), "any")
        others = Windows(
            parts.unlabelled, alike, settings.config, settings.seed + 1, keep_on=keep_on
        )
    trainer = Trainer(network, windows, settings.config, workers, others, torch_device)
    run = _Run(folder / f"{kind}.safetensors", trainer, settings, data_hash, workers)
    for progress in run.go(parts.validation, kind):
        on_progress(progress)
    round_weights(run.best.cpu())
    run.best.know(*map(stack_devices, known_devices(parts.train)))
    expert = Expert(run.best, predicts_failure=bool(np.isinf(parts.train.latencies_s).any()))
    expert.spread_factor = settings.spread_margin * _spread_factor(run.best, parts.validation)
    return expert


def known_devices(rows: TrainingRows) -> tuple[list[DeviceSpec], list[DeviceSpec]]:
    """Return the devices that training tells something about, and those that stand for others.

    The former have programs of at least 20 tasks. Of fewer, what a network makes of their vectors
    is mostly noise, on their other programs as well. The latter have at least a fifth of the
    programs of the device that has most.
    """
    # Machines may be of one device.
    devices = list(dict.fromkeys(rows.devices))
    device_of = np.array([devices.index(device) for device in rows.devices])[rows.machine_of]
    places, counts = np.unique(device_of, return_counts=True)
    tasks = [len(np.unique(rows.tasks[device_of == place])) for place in places.tolist()]
    is_reference = counts >= _REFERENCE_SHARE * counts.max()
    is_known = is_reference | (np.array(tasks) >= _FEWEST_TASKS)
    known, references = (
        [devices[place] for place in places[chosen].tolist()] for chosen in (is_known, is_reference)
    )
    return known, references


def _check_torch_device(name: str) -> None:
    """Raise before anything is read if PyTorch cannot compute there."""
    try:
        torch.ones(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        reason = re.split(r"\.\s|\n", str(error), maxsplit=1)[0]
        raise ConfigError(
            f"PyTorch cannot compute on '{name}': {reason}. Give the name of a device that it has, "
            "such as cpu, cuda or cuda:1."
        ) from error


class _Run:
    """A training run that keeps its state."""

    def __init__(
        self,
        file: Path,
        trainer: Trainer,
        settings: PretrainSettings,
        data_hash: str,
        workers: Workers,
    ) -> None:
        self._file, self._trainer, self._settings, self._workers = file, trainer, settings, workers
        text = json.dumps([asdict(settings), data_hash, SCHEMA_VERSION, workers.count])
        self._identity = hashlib.sha256(text.encode()).hexdigest()
        self.best = trainer.averaged
        self._best_error, self._worse = np.inf, 0
        if file.exists():
            self._restore()

    def _restore(self) -> None:
        content = read_checkpoint(self._file)
        own = content.part("run")
        if own.settings["identity"] != self._identity:
            raise ConfigError(
                f"{self._file} is the state of a run with other settings or other data; give the "
                "same ones, or choose another folder."
            )
        self._trainer.restore(content.part("trainer"))
        self._best_error, self._worse = own.settings["best_error"], own.settings["worse"]
        self.best = AdditiveNetwork(self._settings.network)
        self.best.load_state_dict({k: torch.from_numpy(v) for k, v in own.arrays.items()})
        self.best.eval()

    def go(self, validation: TrainingRows, kind: str) -> Iterator[Progress]:
        """Train to the end, with a look at the validation part every so many steps."""
        trainer, settings = self._trainer, self._settings
        steps = settings.config.steps
        while not trainer.done and self._worse < settings.patience:
            before = trainer.step
            loss = trainer.train_window()
            looks = trainer.done or (
                before // settings.evaluate_every != trainer.step // settings.evaluate_every
            )
            error = self._look(validation) if looks else None
            yield Progress(
                kind, trainer.step, steps, loss, error, trainer.samples_per_s, self._best_error
            )

    def _look(self, validation: TrainingRows) -> float:
        measured = np.log(validation.latencies_s)
        runs = np.isfinite(measured)
        off = predict(self._trainer.averaged, validation)[0][runs] - measured[runs]
        error = float(np.median(np.abs(np.expm1(off))))
        if error < self._best_error:
            self._best_error, self._worse = error, 0
            self.best = self._trainer.copy_of_averaged()
        else:
            self._worse += 1
        if self._workers.rank == 0:
            arrays = {k: tensor.cpu().numpy() for k, tensor in self.best.state_dict().items()}
            own = Content(
                {
                    "identity": self._identity,
                    "best_error": self._best_error,
                    "worse": self._worse,
                },
                arrays,
            )
            content = Content.under(run=own, trainer=self._trainer.content())
            write_checkpoint(self._file, content)
        return error


def _spread_factor(network: AdditiveNetwork, rows: TrainingRows) -> float:
    """Find by what to multiply the spread so that intervals hold (split conformal prediction)."""
    measured = np.log(rows.latencies_s)
    runs = np.isfinite(measured)
    log_latency, log_spread = (found[runs] for found in predict(network, rows))
    scores = np.abs(log_latency - measured[runs]) / np.exp(log_spread)
    return float(np.quantile(scores, _COVERAGE)) / SIGMAS_90


def describe_training(
    store: RecordStore, settings: Mapping[str, PretrainSettings], command: str
) -> dict[str, Any]:
    """Return what the weights must say of how they were made, as JSON values.

    Parameters
    ----------
    store
        The records.
    settings
        Of each kind of device that a network was trained for; all are of one split.
    command
        What was typed.
    """
    (split,) = {each.split for each in settings.values()}
    return {
        "schema_version": SCHEMA_VERSION,
        "data_hash": store.content_hash,
        "records": len(store),
        "split": split,
        "kinds": {
            kind: {"command": command, "settings": asdict(each)} for kind, each in settings.items()
        },
    }


def join_experts(experts: dict[str, Expert], about: dict[str, Any]) -> TrainedPredictor:
    """Make one predictor of the experts of all kinds of devices; those missing are untrained."""
    fresh = TrainedPredictor.untrained(AdditiveConfig(), 0).experts
    return TrainedPredictor({**fresh, **experts}, about)
