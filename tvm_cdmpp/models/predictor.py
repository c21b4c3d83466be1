"""The CDMPP predictor: a network with its label space, behind the contract of all models.

Untrained, it returns the analytic estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models.checkpoint import (
    LARGEST_WEIGHT,
    Content,
    check_arrays,
    damaged,
    read_checkpoint,
    write_checkpoint,
)
from tvm_cdmpp.models.chunks import chunks
from tvm_cdmpp.models.contract import Prediction
from tvm_cdmpp.models.fitting import FitConfig, fit
from tvm_cdmpp.models.labels import LabelTransform
from tvm_cdmpp.models.network import Inputs, Network, PredictorConfig, make_inputs, torch_threads
from tvm_cdmpp.models.rows import TrainingRows
from tvm_cdmpp.models.sizes import check_numbers, check_weights


@dataclass
class Predictor:
    """A network with its label space; untrained, it returns the analytic estimate.

    `base_slope` and `base_shift` map the label of the analytic latency onto measured labels (a
    least-squares line over the training rows), so that the network learns what remains.
    """

    network: Network
    labels: LabelTransform = field(default_factory=LabelTransform)
    base_slope: float = 1.0
    base_shift: float = 0.0
    predicts_failure: bool = False
    fit_config: FitConfig = field(default_factory=FitConfig)
    """How `fit` trains; not saved."""

    @staticmethod
    def untrained(config: PredictorConfig, seed: int) -> Predictor:
        """Return a fresh predictor with weights drawn from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Predictor(Network(config))

    def base(self, inputs: Inputs) -> Tensor:
        """Label of the analytic latency on the scale of measured labels; (B,)."""
        base = self.base_slope * self.labels.forward(inputs.analytic_s) + self.base_shift
        return torch.from_numpy(base.astype(np.float32))

    def predict(
        self, batch: CompactASTBatch, device: DeviceSpec, *, num_threads: int = 1
    ) -> Prediction:
        """Predict latencies; see `CostPredictor`. It has no spread and no leaves of its own."""
        latency_s = np.empty(len(batch))
        runs = np.ones(len(batch))
        self.network.eval()
        with torch_threads(num_threads), torch.inference_mode():
            for chosen in chunks(batch.leaf_counts):
                inputs = make_inputs(batch.take(chosen), [device], self.network.config)
                labels, logits = self.network(inputs, self.base(inputs))
                latency_s[chosen] = self.labels.inverse(labels.numpy().astype(np.float64))
                if self.predicts_failure:
                    runs[chosen] = torch.sigmoid(logits).numpy()
        return Prediction(latency_s, runs)

    def fit(self, rows: TrainingRows, *, seed: int) -> None:
        """Train onwards from what is known; see `CostPredictor` and `models.fitting.fit`."""
        fit(self, rows, self.fit_config, seed)

    def save(self, path: Path) -> None:
        """Write the predictor; see `CostPredictor`."""
        write_checkpoint(path, self.content())

    @staticmethod
    def load(path: Path) -> Predictor:
        """Read a predictor back; see `CostPredictor`."""
        return Predictor.of_content(read_checkpoint(path), path)

    def content(self) -> Content:
        """Return what a checkpoint holds of this predictor."""
        weights = {name: tensor.numpy() for name, tensor in self.network.state_dict().items()}
        settings = {
            "config": asdict(self.network.config),
            "labels": asdict(self.labels),
            "base_slope": self.base_slope,
            "base_shift": self.base_shift,
            "predicts_failure": self.predicts_failure,
        }
        return Content(settings, weights)

    @staticmethod
    def of_content(content: Content, path: Path) -> Predictor:
        """Make a predictor of what a checkpoint holds.

        Raises
        ------
        CheckpointError
            Something is missing, of another shape than the settings say, or not possible.
        """
        settings: Mapping[str, Any] = content.settings
        try:
            config = PredictorConfig(**settings["config"])
            shapes = {name: array.shape for name, array in content.arrays.items()}
            check_weights(vars(config), shapes, "head.0.weight")
            check_arrays(content.arrays, LARGEST_WEIGHT)
            labels = dict(settings["labels"])
            bounds = {name: labels[name] for name in ("low", "high") if name in labels}
            check_numbers(bounds, -np.inf, np.inf)
            base = {name: settings[name] for name in ("base_slope", "base_shift")}
            rest = {name: value for name, value in labels.items() if name not in bounds}
            check_numbers(base | rest, -LARGEST_WEIGHT, LARGEST_WEIGHT)
            network = Network(config)
            network.load_state_dict({k: torch.from_numpy(v) for k, v in content.arrays.items()})
            return Predictor(
                network,
                LabelTransform(**labels),
                settings["base_slope"],
                settings["base_shift"],
                settings["predicts_failure"],
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise damaged(path, error) from error
