"""What moved a prediction: integrated gradients over the inputs of the additive network.

Integrated gradients (Sundararajan, Taly and Yan, ICML 2017): the gradient of ln latency, averaged
on the straight line from a reference to the program and multiplied by the way; what the inputs get
adds up to the difference of the two predictions. The reference is another program where both have
as many leaves, else the average leaf of the training set in each place. The places of leaves in the
tree are no numbers to go along a line with; what they make is told apart, and so is what measured
programs like either add to what the network says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tvm_cdmpp.ast import FIELDS, CompactASTBatch
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models.analytic import TERMS
from tvm_cdmpp.models.leaves import Leaves, make_leaves
from tvm_cdmpp.models.network import torch_threads
from tvm_cdmpp.models.trained import TrainedPredictor

INPUT_GROUPS: tuple[str, ...] = (
    *(field.group for field in FIELDS),
    *("bounds" for _ in TERMS),
    "analytic estimate",
)
"""Group of each input of a leaf."""
PLACES = "places of leaves"
"""Group of what no input of a leaf tells: where it stands in the tree."""
MEASURED = "measured programs like it"
"""Group of what no input tells: what `neighbours` add, next to what they add to the reference."""


@dataclass(frozen=True)
class Attribution:
    """Why a prediction is what it is, next to a reference.

    Attributes
    ----------
    groups
        What each group of inputs adds to ln latency, the largest first; negative makes it faster.
        Measured programs like it are a group where they add something.
    fields
        The same of each input that is a field of the computation vector.
    reference_s, latency_s
        Predicted seconds of the reference and of the program: their ratio is the exponential of
        the sum of `groups`, to within the error of the integral.
    """

    groups: Mapping[str, float]
    fields: Mapping[str, float]
    reference_s: float
    latency_s: float


def attribute(
    predictor: TrainedPredictor,
    program: CompactASTBatch,
    device: DeviceSpec,
    against: CompactASTBatch | None = None,
    steps: int = 64,
) -> Attribution:
    """Attribute a predicted latency to the inputs of the network.

    Parameters
    ----------
    predictor
        What predicts.
    program
        One program.
    device
        Where it runs.
    against
        The reference: one program with as many leaves; the average leaf where it is None or has
        another number of leaves.
    steps
        Points of the line on which gradients are taken.
    """
    expert = predictor.expert(device)
    leaves = make_leaves(program, device)
    reference, places = expert.network.input_mean.expand_as(leaves.inputs), leaves.positions
    added = float(predictor.offsets(program, device)[0])
    # The average leaf is like no program that was measured: it gets what all programs get.
    reference_added = sum(
        (each.level for each in predictor.neighbours(device)), predictor.level(device)
    )
    if against is not None and len(against.vectors) == len(program.vectors):
        other = make_leaves(against, device)
        reference, places = other.inputs, other.positions
        reference_added = float(predictor.offsets(against, device)[0])
    way = leaves.inputs - reference
    at = (torch.arange(steps, dtype=torch.float32) + 0.5) / steps
    with torch_threads(1):
        line = (reference + at[:, None, None] * way).detach().requires_grad_()
        outputs = expert.network(_repeated(leaves, line)).log_latency
        gradient = torch.autograd.grad(outputs.sum(), line)[0].mean(dim=0)
        with torch.no_grad():
            ends = _repeated(leaves, torch.stack([reference, leaves.inputs, reference]))
            ends.positions[: len(places)] = places
            at_ends = torch.tensor([reference_added, added, reference_added])
            log_s = (expert.network(ends).log_latency + at_ends).tolist()
    of_input = (gradient * way).sum(dim=0).numpy().astype(np.float64)
    groups = {
        group: float(sum(of_input[n] for n, own in enumerate(INPUT_GROUPS) if own == group))
        for group in dict.fromkeys(INPUT_GROUPS)
    }
    groups[PLACES] = log_s[2] - log_s[0]
    if added != reference_added:
        groups[MEASURED] = added - reference_added
    fields = {field.name: float(of_input[number]) for number, field in enumerate(FIELDS)}
    return Attribution(_by_size(groups), _by_size(fields), math.exp(log_s[0]), math.exp(log_s[1]))


def _repeated(leaves: Leaves, inputs: Tensor) -> Leaves:
    """Return the program once per set of inputs; (steps, N, F)."""
    times = len(inputs)
    return Leaves(
        inputs.reshape(-1, inputs.shape[-1]),
        leaves.positions.repeat(times),
        leaves.counts.repeat(times),
        leaves.device.repeat(times, 1),
    )


def _by_size(values: dict[str, float]) -> dict[str, float]:
    return dict(sorted(values.items(), key=lambda pair: -abs(pair[1])))
