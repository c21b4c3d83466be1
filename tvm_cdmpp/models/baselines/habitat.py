"""Habitat's predictor (Yu et al., ATC 2021): an MLP per class of operator, over whole programs.

The original has one MLP for each of four operators whose kernels a vendor chooses, over their
arguments and the device, eight hidden layers of 1024 trained on the percentage error. (Other
operators it scales from a measurement on another device by their arithmetic intensity, for which
programs would have to be measured twice.) Here programs are described by their slowest leaf, by the
analytic estimate, and the largest and the sum over leaves of all inputs.

A program does not say which operator it belongs to, so its class is read off the leaves:

- `contraction`: some leaf multiplies, adds and reduces over two buffers, such as a convolution or a
  matrix product;
- `short_contraction`: as before, but no leaf reduces more than 64 times; most are depthwise
  convolutions or the first ones of a network;
- `transcendental`: some leaf calls a function such as exp, as softmax and activations do;
- `reduction`: some leaf reduces, such as pooling and sums;
- `elementwise`: all others, copies included.

A class that training had no program of stays at the level of all others, which is that of the
analytic estimate where latencies are learned from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tvm_cdmpp.ast import COLUMN
from tvm_cdmpp.models.baselines.base import NetworkPredictor
from tvm_cdmpp.models.baselines.inputs import NUM_INPUTS, TIME_INPUT
from tvm_cdmpp.models.baselines.training import LeafNetwork, Training, layers_of, score_layer

CLASSES = ("contraction", "short_contraction", "transcendental", "reduction", "elementwise")
_SHORT = 64


@dataclass(frozen=True, kw_only=True)
class HabitatConfig:
    """Size of the network of each class."""

    width: int = 1024
    layers: int = 8

    def build(self) -> HabitatNetwork:
        """Return networks of this size with random weights."""
        return HabitatNetwork(self)


class HabitatNetwork(LeafNetwork):
    """The networks of all classes."""

    def __init__(self, config: HabitatConfig) -> None:
        super().__init__()
        widths = (3 * NUM_INPUTS, *[config.width] * config.layers)
        self.of_class = nn.ModuleList(
            nn.Sequential(layers_of(*widths), score_layer(config.width)) for _ in CLASSES
        )

    def forward(self, leaves: Tensor) -> Tensor:
        """Return z; see `LeafNetwork`."""
        scaled = self.scaled(leaves)
        slowest = scaled[torch.arange(len(leaves)), leaves[..., TIME_INPUT].argmax(dim=1)]
        summary = torch.cat([slowest, scaled.amax(dim=1), scaled.sum(dim=1)], dim=1)
        classes = operator_classes(leaves)
        score = summary.new_zeros(len(leaves))
        for number in set(classes.tolist()):
            programs = torch.nonzero(classes == number)[:, 0]
            found = self.of_class[number](summary[programs])[:, 0]
            score = score.index_copy(0, programs, found)
        return score


def operator_classes(leaves: Tensor) -> Tensor:
    """Find the class of programs.

    Parameters
    ----------
    leaves
        Computation vectors, or inputs that begin with them; (B, L, at least NUM_FIELDS).

    Returns
    -------
    classes
        Places in `CLASSES`; (B,).
    """

    def field(name: str) -> Tensor:
        return leaves[..., COLUMN[name]]

    reduces = field("reduce_executions") > 1.5  # log2(1 + x) of one iteration is 1
    contracts = (
        reduces
        & (field("float_mul_ops") > 0)
        & (field("float_add_ops") > 0)
        & (field("read1_element_bytes") > 0)
    )
    long = contracts & (torch.exp2(field("reduce_executions")) > _SHORT + 1.5)
    calls = field("float_math_ops") > 0
    found = torch.stack([leaf.any(dim=1) for leaf in (long, contracts, calls, reduces)], dim=1)
    # The first that holds; the last class where none does.
    return torch.cat([found, torch.ones_like(found[:, :1])], dim=1).int().argmax(dim=1)


class HabitatPredictor(NetworkPredictor):
    """Habitat's MLP for each class of operator.

    `paper` is as large as the original and minimises the percentage error in minibatches of 512, by
    Adam at a rate that falls to a fifth after half of the training (40 passes of 80 there); unlike
    there, gradients are clipped. `tuned` is a fifteenth
    of the size, and learns the logarithm of the latency and the order of programs.
    """

    kind = "habitat"
    config_class = HabitatConfig
    settings: ClassVar[Mapping[str, tuple[HabitatConfig, Training]]] = {
        "paper": (
            HabitatConfig(),
            Training(
                loss="mape",
                ranking_weight=0.0,
                learning_rate=5e-4,
                schedule="drop",
                optimizer="adam",
            ),
        ),
        "tuned": (HabitatConfig(width=256, layers=3), Training()),
    }
