"""The least that a learned model has to beat: the analytic estimate, with a level per device."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models.analytic import estimate_latency_s
from tvm_cdmpp.models.baselines.inputs import windows
from tvm_cdmpp.models.baselines.saved import ModelSize, read_kind
from tvm_cdmpp.models.checkpoint import Content, write_checkpoint
from tvm_cdmpp.models.contract import Prediction
from tvm_cdmpp.models.rows import TrainingRows

KIND = "roofline"


@dataclass
class RooflinePredictor:
    """The analytic estimate times one factor per device.

    Attributes
    ----------
    levels
        Natural logarithm of the factor, by name of the device. A device that is not among them gets
        the median of those that are.
    programs_seen
        Programs that the last fit looked at, once each; 0 after loading.
    """

    levels: dict[str, float] = field(default_factory=dict)
    programs_seen: int = 0

    def predict(
        self, batch: CompactASTBatch, device: DeviceSpec, *, num_threads: int = 1
    ) -> Prediction:
        """Predict latencies; see `CostPredictor`. One thread is always used."""
        usual = float(np.median(list(self.levels.values()))) if self.levels else 0.0
        level = self.levels.get(device.name, usual)
        return Prediction(np.exp(level) * estimate_latency_s(batch, device), np.ones(len(batch)))

    def fit(self, rows: TrainingRows, *, seed: int) -> None:
        """Set the level of each device to the median of log(measured / estimated) there.

        Failed programs are left out, and nothing is random. Other devices keep their levels.
        """
        runs = np.flatnonzero(np.isfinite(rows.latencies_s))
        self.programs_seen = len(runs)
        logs = np.log(rows.latencies_s)
        for part, inputs in windows(rows, runs):
            logs[part] -= inputs.log_analytic_s
        for name in sorted({device.name for device in rows.devices}):
            places = [n for n, device in enumerate(rows.devices) if device.name == name]
            here = runs[np.isin(rows.machine_of[runs], places)]
            if here.size:
                self.levels[name] = float(np.median(logs[here]))

    def save(self, path: Path) -> None:
        """Write the model; see `CostPredictor`."""
        write_checkpoint(path, Content({"kind": KIND, "levels": self.levels}, {}))

    @classmethod
    def load(cls, path: Path) -> RooflinePredictor:
        """Read a model back; see `CostPredictor`."""
        return cls(read_kind(path, KIND).settings["levels"])

    def size(self) -> ModelSize:
        """Return how large the model is."""
        return ModelSize(len(self.levels), 8 * len(self.levels))
