"""Tiramisu's recursive LSTM (Baghdadi et al., MLSys 2021), after its code, over leaves.

The original embeds each computation, and walks the tree of loops from the inside: one LSTM reads
the computations of a loop, another its inner loops, and a layer merges the two into the loop's
embedding. **That tree is not here.** A compact AST keeps the leaves with their positions, and what
was known of the loops is in the computation vectors. So a program is one node whose computations
are all its leaves: the LSTM of computations reads them in pre-order, there are no inner loops to
merge, and the regression layers follow.

The original predicts the speedup over the program before it was scheduled, which records do not
hold, and its last layer is a leaky ReLU. Here it predicts the latency, of which the percentage
error is the same number, and the exponential function keeps it positive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

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
        self.hidden = layers_of(
            config.width, config.third, config.width, activation=nn.ELU, dropout=config.dropout
        )
        self.score = score_layer(config.width)

    def forward(self, leaves: Tensor) -> Tensor:
        """Return z; see `LeafNetwork`."""
        _, (last, _) = self.lstm(self.embed(self.scaled(leaves)))
        score: Tensor = self.score(self.hidden(last[0]))[:, 0]
        return score


class RecursiveLSTMPredictor(NetworkPredictor):
    """Tiramisu's recursive LSTM, over the leaves in pre-order: the tree of loops is not known.

    `paper` minimises the percentage error, as the original. `tuned` learns the logarithm of the
    latency and the order of programs, without dropout.
    """

    kind = "tiramisu-lstm"
    config_class = LSTMConfig
    settings: ClassVar[Mapping[str, tuple[LSTMConfig, Training]]] = {
        "paper": (
            LSTMConfig(),
            Training(loss="mape", ranking_weight=0.0, weight_decay=3.75e-3),
        ),
        "tuned": (LSTMConfig(dropout=0.0), Training()),
    }
