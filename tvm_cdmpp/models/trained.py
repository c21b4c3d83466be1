"""The predictor that was trained ahead of a search, and how it learns during one.

One network for each kind of device. What was learned ahead is never trained away: `fit` regresses
what the network gets wrong on the features of its last layer, in closed form (see `last_layer`), so
that it costs milliseconds, depends on the rows alone, and stays near what was known where rows say
little. Transforms and scales belong to the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.errors import CheckpointError
from tvm_cdmpp.models.additive import AdditiveConfig, AdditiveNetwork, make_leaves
from tvm_cdmpp.models.checkpoint import Content, read_checkpoint, write_checkpoint
from tvm_cdmpp.models.contract import Prediction
from tvm_cdmpp.models.last_layer import LastLayer
from tvm_cdmpp.models.network import torch_threads
from tvm_cdmpp.models.rows import Ints, TrainingRows

Floats = npt.NDArray[np.float64]

_CHUNK_LEAVES = 2048
"""Leaves to score at once: enough to forget what a call costs, few enough for a core's cache."""
_MOST_ROWS = 8192
"""Rows to learn from in a search; of more, as many of each task."""
_LOG_LIMITS = (-25.0, 10.0)
"""Natural logarithms of seconds that are predicted: 14 ps to 6 hours."""
_LEVEL_VARIANCE = 25.0
"""Of the level of a device that was never seen: as good as unknown."""
_FARTHEST = 2.0
"""A residual counts as no farther from the median of all than this: a factor of e^2."""
_TASK_VARIANCE = 0.1
"""Of the level of a task around its device's."""
_NOISE_VARIANCE = 0.02
"""Of a program around what the last layer can say."""
_WEIGHT_VARIANCE = 0.05
"""Of the last layer's weights around those that were trained ahead."""


@dataclass
class Expert:
    """The network for one kind of device, and what it learned since."""

    network: AdditiveNetwork
    spread_factor: float = 1.0
    """Makes the predicted spread one that holds on networks that were not trained on."""
    learned: LastLayer | None = None
    predicts_failure: bool = False

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

    def predict(
        self, batch: CompactASTBatch, device: DeviceSpec, *, num_threads: int = 1
    ) -> Prediction:
        """Predict latencies, their spread and their leaves; see `CostPredictor`."""
        expert = self.expert(device)
        log_s, spread = np.empty(len(batch)), np.empty(len(batch))
        runs, leaf_s = np.ones(len(batch)), np.empty(len(batch.vectors))
        weights = None if expert.learned is None else expert.learned.weights()
        with torch_threads(num_threads), torch.inference_mode():
            for chosen in _chunks(batch.leaf_counts):
                part = batch.take(chosen)
                found = expert.network(make_leaves(part, device))
                log_s[chosen] = found.log_latency.numpy()
                spread[chosen] = np.exp(np.clip(found.log_spread.numpy(), -7.0, 3.0))
                if expert.predicts_failure:
                    runs[chosen] = torch.sigmoid(found.runs).numpy()
                shift = np.zeros(len(chosen))
                if weights is not None:
                    shift = _features(found.features.numpy()) @ weights
                    log_s[chosen] += shift
                count = int(batch.leaf_counts[chosen[0]])
                places = batch.offsets[chosen][:, None] + np.arange(count)
                of_leaves = found.log_leaf_s.numpy().reshape(-1, count) + shift[:, None]
                leaf_s[places] = np.exp(np.clip(of_leaves, *_LOG_LIMITS))
        latency_s = np.exp(np.clip(log_s, *_LOG_LIMITS))
        return Prediction(latency_s, runs, expert.spread_factor * spread, leaf_s)

    def fit(self, rows: TrainingRows, *, seed: int = 0) -> None:
        """Learn from all that was measured in a search; earlier calls are forgotten.

        Parameters
        ----------
        rows
            All measured programs; failed ones are left out.
        seed
            Not used; nothing is drawn.
        """
        for kind, expert in self.experts.items():
            of_kind = np.array([_kind(device) == kind for device in rows.devices], bool)
            usable = np.flatnonzero(np.isfinite(rows.latencies_s) & of_kind[rows.machine_of])
            if len(usable):
                expert.learned = self._learn(rows.take(_thin(rows.groups, usable)), expert)

    def _learn(self, rows: TrainingRows, expert: Expert) -> LastLayer:
        features = np.empty((len(rows), expert.network.config.hidden + 1))
        residuals = np.empty(len(rows))
        batch = rows.batch()
        with torch_threads(1), torch.inference_mode():
            for machine in np.unique(rows.machine_of).tolist():
                programs = np.flatnonzero(rows.machine_of == machine)
                device = rows.machines[machine].device
                for part in _chunks(batch.leaf_counts[programs]):
                    chosen = programs[part]
                    found = expert.network(make_leaves(batch.take(chosen), device))
                    features[chosen] = _features(found.features.numpy())
                    measured = np.log(rows.latencies_s[chosen])
                    residuals[chosen] = measured - found.log_latency.numpy()
        centre = np.median(residuals)
        residuals = np.clip(residuals, centre - _FARTHEST, centre + _FARTHEST)
        variances = np.full(features.shape[1], _WEIGHT_VARIANCE)
        variances[-1] = _LEVEL_VARIANCE
        layer = LastLayer.of_prior(1.0 / variances, noise_variance=_NOISE_VARIANCE, clip=100.0)
        return layer.update(*_without_task_levels(features, residuals, rows.groups))

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
            Something is missing, of another shape than the settings say, or not finite.
        """
        try:
            settings = content.settings
            parts = Content(settings["experts"], content.arrays)
            experts = {kind: _expert_of(parts.part(kind)) for kind in ("cpu", "gpu")}
            return TrainedPredictor(experts, settings["about"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"The predictor in '{path}' is damaged: {error}.") from error


def _kind(device: DeviceSpec) -> str:
    return "cpu" if device.kind == "cpu" else "gpu"


def _features(of_network: npt.NDArray[np.float32]) -> Floats:
    """Append a constant, whose weight is the level of the device; (n, hidden + 1)."""
    return np.concatenate([of_network, np.ones((len(of_network), 1))], axis=1, dtype=np.float64)


def _chunks(leaf_counts: Ints) -> Iterator[Ints]:
    """Divide programs into chunks of one leaf count each, so that nothing is padded."""
    for count in np.unique(leaf_counts):
        programs = np.flatnonzero(leaf_counts == count)
        size = max(1, _CHUNK_LEAVES // max(1, int(count)))
        for first in range(0, len(programs), size):
            yield programs[first : first + size]


def _thin(groups: Ints, usable: Ints) -> Ints:
    """Keep at most `_MOST_ROWS` rows: all of a task, or the latest and every so many before."""
    if len(usable) <= _MOST_ROWS:
        return usable
    numbers, of_group = np.unique(groups[usable], return_inverse=True)
    share = max(1, _MOST_ROWS // len(numbers))
    kept = []
    for group in range(len(numbers)):
        rows = usable[of_group == group]
        places = np.linspace(0, len(rows) - 1, min(share, len(rows))).round().astype(np.int64)
        kept.append(rows[places])
    return np.sort(np.concatenate(kept))[-_MOST_ROWS:]


def _without_task_levels(
    features: Floats, residuals: Floats, groups: Ints
) -> tuple[Floats, Floats]:
    """Take out of each task's rows what its level explains.

    Levels of tasks are random effects; regression with these is least squares on rows from which a
    part of their task's mean is taken, 1 - sqrt(noise / (noise + n x level)) of it (Fuller and
    Battese, J. Am. Stat. Assoc. 68, 1973).
    """
    _, of_group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    part = 1.0 - np.sqrt(_NOISE_VARIANCE / (_NOISE_VARIANCE + counts * _TASK_VARIANCE))
    sums = np.zeros((len(counts), features.shape[1]))
    np.add.at(sums, of_group, features)
    mean_residual = np.bincount(of_group, residuals) / counts
    taken = (part / counts)[:, None] * sums
    return features - taken[of_group], residuals - (part * mean_residual)[of_group]


def _content_of(expert: Expert) -> Content:
    weights: dict[str, npt.NDArray[Any]] = {
        f"network.{name}": _shortest(tensor.numpy())
        for name, tensor in expert.network.state_dict().items()
    }
    settings: dict[str, Any] = {
        "config": asdict(expert.network.config),
        "spread_factor": expert.spread_factor,
        "predicts_failure": expert.predicts_failure,
    }
    if expert.learned is not None:
        weights["learned.precision"] = expert.learned.precision
        weights["learned.weighted"] = expert.learned.weighted
        settings["learned"] = {
            "noise_variance": expert.learned.noise_variance,
            "clip": expert.learned.clip,
        }
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
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has values that are not finite")
    network = AdditiveNetwork(AdditiveConfig(**settings["config"]))
    prefix = "network."
    network.load_state_dict(
        {
            k.removeprefix(prefix): torch.from_numpy(v.astype(np.float32))
            for k, v in arrays.items()
            if k.startswith(prefix)
        }
    )
    network.eval()
    learned = None
    if "learned" in settings:
        learned = LastLayer(
            arrays["learned.precision"], arrays["learned.weighted"], **settings["learned"]
        )
    return Expert(
        network, float(settings["spread_factor"]), learned, bool(settings["predicts_failure"])
    )
