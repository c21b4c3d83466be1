"""The predictor that was trained ahead of a search, and learns during one.

One network for each kind of device. What was learned ahead is kept beside what a search adds (see
`adaptation`), so that it is never trained away. Transforms and scales belong to the weights.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.devices import DeviceSpec, built_in_devices
from tvm_cdmpp.models.adaptation import AdaptConfig, adapt, thin
from tvm_cdmpp.models.additive import AdditiveConfig, AdditiveNetwork
from tvm_cdmpp.models.checkpoint import (
    LARGEST_WEIGHT,
    Content,
    check_arrays,
    damaged,
    read_checkpoint,
    write_checkpoint,
)
from tvm_cdmpp.models.chunks import mixed_chunks, on_threads
from tvm_cdmpp.models.contract import Prediction
from tvm_cdmpp.models.known_devices import SAME, in_cycles
from tvm_cdmpp.models.leaves import make_leaves, stack_devices
from tvm_cdmpp.models.neighbours import Neighbours
from tvm_cdmpp.models.network import torch_threads
from tvm_cdmpp.models.rows import Ints, TrainingRows
from tvm_cdmpp.models.sizes import check_numbers, check_weights

_EARLIER_CONFIG = {"largest_correction": 6.0}
"""What files of earlier versions do not say of their networks."""
_MOST_ROWS = 8192
"""Rows to learn from in a search; of more, as many of each task."""
_CHUNKS_PREPARED = 8
"""Chunks to prepare together, as that takes many small steps whatever their size."""
_LOG_LIMITS = (-25.0, 10.0)
"""Natural logarithms of seconds that are predicted: 14 ps to 6 hours."""
_SPREAD_FACTORS = (1e-12, 1e12)
"""Least and most that a file can say."""
_FARTHEST_LEVEL = 100.0
"""Natural logarithm that a file can say; all latencies lie within."""
_NEAR = "neighbours."
_LEVEL_SPREADS = {"cpu": 0.63, "gpu": 0.29}
"""What a spread must be joined with on devices that the weights do not know, so that 90 % of the
tasks of networks that were not trained on lie within 1.645 of it (`network_intervals` in
benchmarks/results)."""


@dataclass
class Expert:
    """The network for one kind of device, and what it learned since."""

    network: AdditiveNetwork
    spread_factor: float = 1.0
    """Makes the predicted spread one that holds on networks that were not trained on."""
    predicts_failure: bool = False
    ahead: Mapping[str, Tensor] | None = None
    """The weights as they were trained ahead, where a search has changed them since."""
    level: float = 0.0
    """What a search adds to ln latency: how much slower this machine is."""
    neighbours: tuple[Neighbours, ...] = ()
    """What programs measured ahead of a search add to ln latency."""

    def __post_init__(self) -> None:
        """Predict without dropout and noise."""
        self.network.eval()


@dataclass
class TrainedPredictor:
    """Predicts with the network of the device's kind; see `CostPredictor`.

    Attributes
    ----------
    experts
        By kind of device, "cpu" and "gpu"; accelerators are predicted for as GPUs.
    about
        How the weights were made: data, split, command, seed, metrics; JSON values.
    """

    experts: dict[str, Expert]
    about: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def untrained(config: AdditiveConfig, seed: int) -> TrainedPredictor:
        """Return a fresh predictor; it predicts the analytic estimate."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return TrainedPredictor({k: Expert(AdditiveNetwork(config)) for k in ("cpu", "gpu")})

    def expert(self, device: DeviceSpec) -> Expert:
        """Return what predicts for a device."""
        return self.experts["cpu" if device.kind == "cpu" else "gpu"]

    @cached_property
    def origin(self) -> str:
        """What tells the weights as they were trained ahead from others; empty without a training.

        It is the same after a search, whose level then comes on top of the device's.
        """
        if not self.about:
            return ""
        text = json.dumps(dict(self.about), sort_keys=True).encode()
        digest = hashlib.blake2b(text, digest_size=8)
        for _, expert in sorted(self.experts.items()):
            weights = expert.network.state_dict() if expert.ahead is None else expert.ahead
            for _, weight in sorted(weights.items()):
                digest.update(weight.numpy().tobytes())
        return digest.hexdigest()

    @property
    def adapted_to(self) -> str | None:
        """Name of the device that `adapt` made the weights for."""
        return self.about.get("device")

    def level_spread(self, device: DeviceSpec) -> float:
        """Return how far off all programs of a device together may be, as a deviation of ln.

        Nothing where the weights know programs of the device, or something was measured on it.
        """
        expert = self.expert(device)
        is_known = (
            expert.network.knows(device)
            or expert.ahead is not None
            or self.adapted_to == device.name
            or (device.calibration is not None and device.calibration.of(self.origin) is not None)
        )
        return 0.0 if is_known else _LEVEL_SPREADS[_kind(device)]

    def level(self, device: DeviceSpec) -> float:
        """Return what is added to ln latency on a device, by its calibration and searches."""
        return self.expert(device).level + device.level(self.origin)

    def offsets(self, batch: CompactASTBatch, device: DeviceSpec) -> npt.NDArray[np.float64]:
        """Return what is added to the ln latency of programs, by level and neighbours; (n,)."""
        found = np.full(len(batch), self.level(device))
        for neighbours in self.neighbours(device):
            found += neighbours.offsets(batch)
        return found

    def neighbours(self, device: DeviceSpec) -> list[Neighbours]:
        """Return what measured programs say of others on a device as it is for these."""
        return [each for each in self.expert(device).neighbours if each.counts_for(device)]

    def remark_on(self, device: DeviceSpec) -> str | None:
        """Say what a device counts as that the training did not know; see `models.known_devices`.

        Or how many of its records the weights learned from afterwards. None where it counts as
        itself, or as none of the devices that come with the package.
        """
        if of_adapt := self._remark_on_adapted(device):
            return of_adapt
        reference = self.expert(device).network.counts_as(device)
        devices = (device, *built_in_devices())
        differ = (in_cycles(stack_devices(devices)) - reference).abs().amax(dim=1)
        nearest = int(differ.argmin())
        if nearest == 0 or not differ[nearest] < SAME:
            return None
        measured = (
            f"; what they predict is corrected by what was measured on {device.name}"
            if device.level(self.origin)
            else ""
        )
        return (
            f"the weights were not trained on {device.name}: they take it for "
            f"{devices[nearest].name}, the device most like it that they know, but with the clock, "
            f"the caches and the memory of {device.name}{measured}"
        )

    def _remark_on_adapted(self, device: DeviceSpec) -> str | None:
        """Say of which device `adapt` made the weights, and whether they can be used for this."""
        if self.adapted_to is None:
            return None
        records = self.about.get("records")
        learned = f"the weights learned from {records} records of {self.adapted_to}"
        if self.adapted_to != device.name:
            return f"{learned}, and none of {device.name}: for that they may be worse than before"
        known = device.calibration and device.calibration.of(self.origin)
        if self.about.get("calibrated") and not known:
            return (
                f"{learned} on top of a calibration that is not known here, so all that they "
                "predict is off by it; `tvm-cdmpp device calibrate --weights FILE` measures it anew"
            )
        return learned

    def ahead(self) -> TrainedPredictor:
        """Return a copy that predicts as before a search changed anything."""
        experts = {}
        for kind, expert in self.experts.items():
            network = copy.deepcopy(expert.network)
            if expert.ahead is not None:
                network.load_state_dict(expert.ahead)
            experts[kind] = Expert(network, expert.spread_factor, neighbours=expert.neighbours)
        return TrainedPredictor(experts, self.about)

    def predict(
        self, batch: CompactASTBatch, device: DeviceSpec, *, num_threads: int = 1
    ) -> Prediction:
        """Predict latencies, their spread and their leaves; see `CostPredictor`."""
        expert = self.expert(device)
        added = self.offsets(batch, device)
        log_s, spread = np.empty(len(batch)), np.empty(len(batch))
        runs, leaf_s = np.ones(len(batch)), np.empty(len(batch.vectors))

        @torch.inference_mode()
        def score(parts: list[Ints]) -> None:
            every = np.concatenate(parts)
            of_parts = make_leaves(batch.take(every), device).split([len(part) for part in parts])
            for chosen, leaves in zip(parts, of_parts, strict=True):
                found = expert.network(leaves)
                log_s[chosen] = found.log_latency.numpy() + added[chosen]
                spread[chosen] = np.exp(np.clip(found.log_spread.numpy(), -7.0, 3.0))
                if expert.predicts_failure:
                    runs[chosen] = torch.sigmoid(found.runs).numpy()
                of_leaves = found.log_leaf_s.numpy() + np.repeat(
                    added[chosen], batch.leaf_counts[chosen]
                )
                leaf_s[batch.leaves_of(chosen)] = np.exp(np.clip(of_leaves, *_LOG_LIMITS))

        every = mixed_chunks(batch.leaf_counts)
        at_once = _CHUNKS_PREPARED if num_threads == 1 else 1
        windows = [every[first : first + at_once] for first in range(0, len(every), at_once)]
        with torch_threads(1):
            on_threads(num_threads, score, windows)
        latency_s = np.exp(np.clip(log_s, *_LOG_LIMITS))
        return Prediction(latency_s, runs, expert.spread_factor * spread, leaf_s)

    def fit(self, rows: TrainingRows, *, seed: int = 0, num_new: int | None = None) -> None:
        """Learn from all that was measured in a search, from what is known; see `adaptation`.

        Parameters
        ----------
        rows
            All measured programs; of those that failed the network learns what runs.
        seed
            One seed and the same calls give the same model.
        num_new
            How many of the rows are new since the last call, as few are worth fewer steps; None
            for all steps.
        """
        for kind, expert in self.experts.items():
            of_kind = np.array([_kind(device) == kind for device in rows.devices], bool)
            usable = np.flatnonzero(of_kind[rows.machine_of])
            failed = np.isinf(rows.latencies_s[usable])
            chosen = self.without_levels(rows.take(usable[thin(rows.groups[usable], _MOST_ROWS)]))
            if not np.isfinite(chosen.latencies_s).any():
                continue
            if expert.ahead is None:
                state = expert.network.state_dict()
                expert.ahead = {name: weight.detach().clone() for name, weight in state.items()}
            expert.level = adapt(expert.network, expert.ahead, chosen, AdaptConfig(), seed, num_new)
            expert.predicts_failure |= bool(failed.any())

    def without_levels(self, rows: TrainingRows) -> TrainingRows:
        """Take what devices' levels and neighbours add from rows, to learn the rest."""
        levels = np.array([device.level(self.origin) for device in rows.devices])
        added = levels[rows.machine_of]
        for kind, expert in self.experts.items():
            for each in expert.neighbours:
                counts = [_kind(d) == kind and each.counts_for(d) for d in rows.devices]
                chosen = np.flatnonzero(np.array(counts, bool)[rows.machine_of])
                added[chosen] += each.offsets(rows.take(chosen).batch())
        return replace(rows, latencies_s=rows.latencies_s * np.exp(-added)).uncalibrated()

    def save(self, path: Path) -> None:
        """Write the predictor; see `CostPredictor`."""
        write_checkpoint(path, self.content())

    @staticmethod
    def load(path: Path) -> TrainedPredictor:
        """Read a predictor back; see `CostPredictor`."""
        return TrainedPredictor.of_content(read_checkpoint(path), path)

    def content(self) -> Content:
        """Return what a checkpoint holds of this predictor."""
        parts = {kind: _content_of(expert) for kind, expert in self.experts.items()}
        joined = Content.under(**parts)
        return Content({"experts": joined.settings, "about": dict(self.about)}, joined.arrays)

    @staticmethod
    def of_content(content: Content, path: Path) -> TrainedPredictor:
        """Make a predictor of what a checkpoint holds.

        Raises
        ------
        CheckpointError
            Something is missing, of another shape than the settings say, or not possible.
        """
        try:
            settings = content.settings
            parts = Content(settings["experts"], content.arrays)
            experts = {kind: _expert_of(parts.part(kind)) for kind in ("cpu", "gpu")}
            about = settings["about"]
            if not isinstance(about, dict):
                raise TypeError(f"about must be a JSON object; got {type(about).__name__}")
            return TrainedPredictor(experts, about)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise damaged(path, error) from error


def _kind(device: DeviceSpec) -> str:
    return "cpu" if device.kind == "cpu" else "gpu"


def _content_of(expert: Expert) -> Content:
    weights: dict[str, npt.NDArray[Any]] = {
        f"network.{name}": _shortest(tensor.numpy())
        for name, tensor in expert.network.state_dict().items()
    }
    settings: dict[str, Any] = {
        "config": asdict(expert.network.config),
        "spread_factor": expert.spread_factor,
        "predicts_failure": expert.predicts_failure,
        "level": expert.level,
    }
    for number, neighbours in enumerate(expert.neighbours):
        weights |= {f"{_NEAR}{number}.{n}": v for n, v in neighbours.arrays().items()}
    if expert.ahead is not None:
        weights |= {f"ahead.{name}": _shortest(w.numpy()) for name, w in expert.ahead.items()}
    return Content(settings, weights)


def _shortest(values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Return values in half precision where that says the same."""
    with np.errstate(over="ignore"):
        short = values.astype(np.float16)
    return short if (short == values).all() else values


def round_weights(network: AdditiveNetwork) -> None:
    """Round weights to half precision, so that files of them are half as long.

    What scales the inputs stays as it is.
    """
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(weight.half().float())


def _expert_of(content: Content) -> Expert:
    settings, arrays = content.settings, content.arrays
    check_numbers({"spread_factor": settings["spread_factor"]}, *_SPREAD_FACTORS)
    check_numbers({"level": settings["level"]}, -_FARTHEST_LEVEL, _FARTHEST_LEVEL)
    if not isinstance(settings["predicts_failure"], bool):
        raise TypeError("predicts_failure must be true or false")
    neighbours = _neighbours(arrays)
    check_arrays({k: v for k, v in arrays.items() if not k.startswith(_NEAR)}, LARGEST_WEIGHT)
    config = AdditiveConfig(**{**_EARLIER_CONFIG, **settings["config"]})
    shapes = {name: array.shape for name, array in _under(arrays, "network.").items()}
    check_weights(vars(config), shapes, "hidden.weight")
    network = AdditiveNetwork(config)
    ahead: Mapping[str, Tensor] | None = _tensors(arrays, "ahead.") or None
    network.load_weights(_tensors(arrays, "network."))
    if ahead is not None:
        before = AdditiveNetwork(network.config)
        before.load_weights(ahead)
        ahead = before.state_dict()
    return Expert(
        network,
        float(settings["spread_factor"]),
        settings["predicts_failure"],
        ahead,
        float(settings["level"]),
        neighbours,
    )


def _neighbours(arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[Neighbours, ...]:
    numbers = {name.split(".")[1] for name in arrays if name.startswith(_NEAR)}
    for number in numbers - {str(place) for place in range(len(numbers))}:
        raise ValueError(f"there is {_NEAR}{number}, but not all before it")
    parts = (_under(arrays, f"{_NEAR}{place}.") for place in range(len(numbers)))
    return tuple(Neighbours.of_arrays(part) for part in parts)


def _under(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> dict[str, npt.NDArray[Any]]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _tensors(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> dict[str, Tensor]:
    found = _under(arrays, prefix).items()
    return {name: torch.from_numpy(values.astype(np.float32)) for name, values in found}
