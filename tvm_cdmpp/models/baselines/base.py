"""What the networks among the baselines have in common: everything but the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch

from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models.baselines.inputs import inputs_of_rows, make_inputs
from tvm_cdmpp.models.baselines.saved import ModelSize, read_kind
from tvm_cdmpp.models.baselines.training import LatencyScale, LeafNetwork, Training, train
from tvm_cdmpp.models.checkpoint import Content, damaged, write_checkpoint
from tvm_cdmpp.models.contract import Prediction
from tvm_cdmpp.models.network import torch_threads
from tvm_cdmpp.models.rows import TrainingRows

_CHUNK = 1024
"""Programs to score at once."""

P = TypeVar("P", bound="NetworkPredictor")


class NetworkConfig(Protocol):
    """Size of a network: a dataclass of plain numbers."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def build(self) -> LeafNetwork:
        """Return a network of this size with random weights."""


@dataclass
class NetworkPredictor:
    """A network behind the contract of all models; each baseline says which one.

    Untrained, it returns the analytic estimate. Failed programs are left out of training: every
    program is said to run.

    Attributes
    ----------
    config
        Size of the network.
    training
        How `fit` trains it.
    network
        The network.
    scale
        What its output means; None before the first fit.
    programs_seen
        Programs that the optimiser saw in the last fit, each as often as it did; 0 after loading.
    """

    kind: ClassVar[str]
    """Name of the baseline, also in its files."""
    config_class: ClassVar[type[Any]]
    settings: ClassVar[Mapping[str, tuple[Any, Training]]]
    """Sizes and trainings by name."""

    config: NetworkConfig
    training: Training
    network: LeafNetwork
    scale: LatencyScale | None = None
    programs_seen: int = 0

    @classmethod
    def untrained(cls: type[P], setting: str = "tuned", *, seed: int) -> P:
        """Return a fresh model in one of `settings`, with weights drawn from the seed.

        Raises
        ------
        ConfigError
            There is no such setting.
        """
        if setting not in cls.settings:
            raise ConfigError(
                f"'{cls.kind}' has the settings {', '.join(cls.settings)}; got '{setting}'."
            )
        return cls.make(*cls.settings[setting], seed=seed)

    @classmethod
    def make(cls: type[P], config: NetworkConfig, training: Training, *, seed: int) -> P:
        """Return a fresh model of a size and training of one's own."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config, training, config.build().eval())

    def predict(
        self, batch: CompactASTBatch, device: DeviceSpec, *, num_threads: int = 1
    ) -> Prediction:
        """Predict latencies; see `CostPredictor`."""
        scale = self.scale or LatencyScale()
        log_s = np.empty(len(batch))
        with torch_threads(num_threads), torch.inference_mode():
            for first in range(0, len(batch), _CHUNK):
                programs = np.arange(first, min(first + _CHUNK, len(batch)))
                inputs = make_inputs(batch.take(programs), [device])
                scores = self.network.scores(inputs, programs - first).numpy().astype(np.float64)
                log_s[programs] = scale.origin(inputs) + scale.mean + scale.std * scores
        return Prediction(np.exp(np.clip(log_s, -80.0, 80.0)), np.ones(len(batch)))

    def fit(
        self,
        rows: TrainingRows,
        *,
        seed: int,
        training: Training | None = None,
        torch_device: str = "cpu",
    ) -> None:
        """Train onwards from what is known; see `CostPredictor`, `training` and `train`."""
        read, how = partial(inputs_of_rows, rows), training or self.training
        trained = train(self.network, rows, read, how, self.scale, seed, torch_device)
        self.scale, self.programs_seen = trained.scale, trained.programs_seen

    def save(self, path: Path) -> None:
        """Write the model; see `CostPredictor`."""
        write_checkpoint(path, self.content())

    @classmethod
    def load(cls: type[P], path: Path) -> P:
        """Read a model back; see `CostPredictor`."""
        content = read_kind(path, cls.kind)
        settings: Mapping[str, Any] = content.settings
        try:
            config = cls.config_class(**settings["config"])
            network = config.build().eval()
            network.load_state_dict({k: torch.from_numpy(v) for k, v in content.arrays.items()})
            scale = settings["scale"] and LatencyScale(**settings["scale"])
            return cls(config, Training(**settings["training"]), network, scale)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise damaged(path, error, f"'{cls.kind}'") from error

    def content(self) -> Content:
        """Return what a checkpoint holds of this model."""
        arrays = {name: tensor.numpy() for name, tensor in self.network.state_dict().items()}
        settings = {
            "kind": self.kind,
            "config": asdict(self.config),
            "training": asdict(self.training),
            "scale": self.scale and asdict(self.scale),
        }
        return Content(settings, arrays)

    def size(self) -> ModelSize:
        """Return how large the model is, the scale of its inputs included."""
        return ModelSize.of(self.content())
