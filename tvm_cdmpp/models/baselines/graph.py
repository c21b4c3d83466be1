"""A graph network over the leaves: each learns from those before and after it in pre-order.

Layers are those of GraphSAGE with mean aggregation (Hamilton et al., NeurIPS 2017): a map of the
leaf plus a map of the mean of its neighbours, then a ReLU; with skip connections the layer's input
is added. The mean and the largest of the leaves' values become the score. Edges between leaves that
are next to each other are all that a compact AST says of the tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tvm_cdmpp.models.baselines.base import NetworkPredictor
from tvm_cdmpp.models.baselines.inputs import NUM_INPUTS
from tvm_cdmpp.models.baselines.training import LeafNetwork, Training, layers_of, score_layer


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """Size of the network."""

    width: int = 128
    layers: int = 3
    skip: bool = True
    """Whether layers add to what they are given."""

    def build(self) -> GraphNetwork:
        """Return a network of this size with random weights."""
        return GraphNetwork(self)


class GraphNetwork(LeafNetwork):
    """The network."""

    def __init__(self, config: GraphConfig) -> None:
        super().__init__()
        self.skip = config.skip
        self.embed = layers_of(NUM_INPUTS, config.width)
        self.layers = nn.ModuleList(
            nn.Linear(2 * config.width, config.width) for _ in range(config.layers)
        )
        self.hidden = layers_of(2 * config.width, config.width)
        self.score = score_layer(config.width)

    def forward(self, leaves: Tensor) -> Tensor:
        """Return z; see `LeafNetwork`."""
        hidden = self.embed(self.scaled(leaves))
        for layer in self.layers:
            both = torch.cat([hidden, neighbour_mean(hidden)], dim=2)
            changed = torch.relu(layer(both))
            hidden = hidden + changed if self.skip else changed
        program = torch.cat([hidden.mean(dim=1), hidden.amax(dim=1)], dim=1)
        score: Tensor = self.score(self.hidden(program))[:, 0]
        return score


def neighbour_mean(leaves: Tensor) -> Tensor:
    """Average the leaves before and after each leaf; 0 for a leaf alone; (B, L, D) to the same."""
    total, count = torch.zeros_like(leaves), leaves.new_zeros(leaves.shape[1])
    total[:, 1:] += leaves[:, :-1]
    total[:, :-1] += leaves[:, 1:]
    count[1:] += 1.0
    count[:-1] += 1.0
    return total / count.clamp(min=1.0)[:, None]


class GraphPredictor(NetworkPredictor):
    """A graph network over the leaves, `skip` with skip connections and `plain` without."""

    kind = "graph"
    config_class = GraphConfig
    settings: ClassVar[Mapping[str, tuple[GraphConfig, Training]]] = {
        "skip": (GraphConfig(), Training()),
        "plain": (GraphConfig(skip=False), Training()),
    }
