"""TenSet's MLP (Zheng et al., NeurIPS 2021, datasets and benchmarks track), after its code.

Each leaf goes through two layers of 256; their sum over the leaves goes through two residual layers
of 256 and becomes one score. What differs from the original: our computation vectors and device
vector stand in for Ansor's features, inputs are standardised instead of divided by their largest
value, and programs are ranked against those of the minibatch that were measured on the same device
(the original trains a model per device). How long it trains is that of `Training.steps`; 50 passes
at most in the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tvm_cdmpp.models.baselines.base import NetworkPredictor
from tvm_cdmpp.models.baselines.inputs import NUM_INPUTS
from tvm_cdmpp.models.baselines.training import LeafNetwork, Training, layers_of, score_layer


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """Size of the network."""

    width: int = 256

    def build(self) -> MLPNetwork:
        """Return a network of this size with random weights."""
        return MLPNetwork(self)


class MLPNetwork(LeafNetwork):
    """The network; the order of leaves is nothing to it."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        width = config.width
        self.leaf = layers_of(NUM_INPUTS, width, width)
        self.hidden = torch.nn.ModuleList(layers_of(width, width) for _ in range(2))
        self.score = score_layer(width)

    def forward(self, leaves: Tensor) -> Tensor:
        """Return z; see `LeafNetwork`."""
        program = self.leaf(self.scaled(leaves)).sum(dim=1)
        for layer in self.hidden:
            program = program + layer(program)
        score: Tensor = self.score(program)[:, 0]
        return score


class MLPPredictor(NetworkPredictor):
    """TenSet's MLP.

    `paper` only ranks programs, as the original; seconds come from a line through the scores of
    training rows, so only the order of the programs of a task says anything about the method.
    `tuned` learns the logarithm of the latency as well.
    """

    kind = "tenset-mlp"
    config_class = MLPConfig
    settings: ClassVar[Mapping[str, tuple[MLPConfig, Training]]] = {
        "paper": (
            MLPConfig(),
            Training(
                loss="none",
                ranked="machine",
                group_size=1,
                learning_rate=7e-4,
                schedule="constant",
                optimizer="adam",
                weight_decay=1e-6,
                gradient_clip=0.5,
            ),
        ),
        "tuned": (MLPConfig(), Training()),
    }
