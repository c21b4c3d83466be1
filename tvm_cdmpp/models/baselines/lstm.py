"""Tiramisu's recursive LSTM (Baghdadi et al., MLSys 2021), after its code, over leaves.

The original embeds each computation, and walks the tree of loops from the inside: one LSTM reads
the computations of a loop, another its inner loops, and a layer merges the two into the loop's
embedding. **That tree is not here.** A compact AST keeps the leaves with their positions, and what
was known of the loops is in the computation vectors. So a program is one node whose computations
are all its leaves: the LSTM of computations reads them in pre-order, in `paper` settings its last
state is merged with the learned vector that stands for no inner loops, and the regression layers
follow. Walking loop by loop is what is slow about the original; here that is one step.

The original predicts the speedup over the program before it was scheduled, which records do not
hold, and its last layer is a leaky ReLU. Here it predicts the latency, of which the percentage
error is the same number, and the exponential function keeps it positive.
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
class LSTMConfig:
    """Size of the network."""

    first: int = 600
    second: int = 350
    third: int = 200
    """Widths of the embedding's layers; the last one's is that of the first layer after the
    LSTM, too."""
    width: int = 180
    """Of the embedding and the LSTM."""
    dropout: float = 0.225
    merges: bool = False
    """Merge what the LSTM says with what stands for inner loops, as the original does."""

    def build(self) -> LSTMNetwork:
        """Return a network of this size with random weights."""
        return LSTMNetwork(self)


class LSTMNetwork(LeafNetwork):
    """The network."""

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__()
        self.embed = layers_of(
            NUM_INPUTS, config.first, config.second, config.third, config.width,
            activation=nn.ELU, dropout=config.dropout,
        )  # fmt: skip
        self.lstm = nn.LSTM(config.width, config.width, batch_first=True)
        self.no_inner_loops: nn.Parameter | None = None
        if config.merges:
            self.no_inner_loops = nn.Parameter(
                nn.init.xavier_uniform_(torch.empty(1, config.width))
            )
            self.merge = layers_of(
                2 * config.width, config.third, config.width,
                activation=nn.ELU, dropout=config.dropout,
            )  # fmt: skip
        self.hidden = layers_of(
            config.width, config.third, config.width, activation=nn.ELU, dropout=config.dropout
        )
        self.score = score_layer(config.width)

    def forward(self, leaves: Tensor) -> Tensor:
        """Return z; see `LeafNetwork`."""
        _, (last, _) = self.lstm(self.embed(self.scaled(leaves)))
        program = last[0]
        if self.no_inner_loops is not None:
            inner = self.no_inner_loops.expand(len(program), -1)
            program = self.merge(torch.cat([inner, program], dim=1))
        score: Tensor = self.score(self.hidden(program))[:, 0]
        return score


class RecursiveLSTMPredictor(NetworkPredictor):
    """Tiramisu's recursive LSTM, over the leaves in pre-order: the tree of loops is not known.

    `paper` minimises the percentage error, as the original, in minibatches of 2048, the most that
    CDMPP gave it, by AdamW and one cycle of the learning rate; what its peak was is not known.
    `tuned` learns the logarithm of the
    latency and the order of programs, without dropout.
    """

    kind = "tiramisu-lstm"
    config_class = LSTMConfig
    settings: ClassVar[Mapping[str, tuple[LSTMConfig, Training]]] = {
        "paper": (
            LSTMConfig(merges=True),
            Training(loss="mape", ranking_weight=0.0, batch_size=2048, weight_decay=3.75e-3),
        ),
        "tuned": (LSTMConfig(dropout=0.0), Training()),
    }
