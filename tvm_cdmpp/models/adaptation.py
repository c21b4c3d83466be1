"""How a network that was trained ahead learns in a search.

A few dozen steps on what was measured so far, each time more was measured, from the weights as they
are. An anchor pulls the weights to those that were trained ahead, so that these are never lost. The
level of the machine, a factor on all latencies, is not left to the steps: it is the median of what
the network was off by before the search. Only the last layer of the encoder and what comes after it
learn: what is before is asked once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tvm_cdmpp.models.additive import AdditiveNetwork, Output
from tvm_cdmpp.models.chunks import mixed_chunks
from tvm_cdmpp.models.leaves import Leaves, leaf_inputs, stack_devices
from tvm_cdmpp.models.network import torch_threads
from tvm_cdmpp.models.rows import Ints, TrainingRows

_FARTHEST = 2.0
"""A residual counts as no farther from the median of all than this: a factor of e^2."""


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """How to adapt; a tenth of a second for the default network on one core."""

    steps: int = 40
    """At most."""
    steps_per_program: float = 1.5
    """Of those that are new; a batch of a few programs is not worth all the steps."""
    least_steps: int = 16
    programs: int = 64
    """In a step: all that are known, or some of each of a few tasks."""
    programs_per_task: int = 16
    learning_rate: float = 1e-3
    anchor: float = 0.1
    """Weight of the squared distance from the weights that were trained ahead."""
    ranking_weight: float = 0.3
    ranking_scale: float = 5.0
    failure_weight: float = 0.1
    huber_delta: float = 0.3
    level_programs: float = 0.02
    """As many programs that were right are taken to stand behind the level trained ahead."""
    gradient_clip: float = 1.0
    last_layer: bool = True
    """Whether only the last layer of the encoder learns, and what comes after it."""

    def steps_for(self, num_new: int) -> int:
        """Return how many steps so many new programs are worth."""
        return min(self.steps, max(self.least_steps, round(self.steps_per_program * num_new)))


def adapt(
    network: AdditiveNetwork,
    ahead: Mapping[str, Tensor],
    rows: TrainingRows,
    config: AdaptConfig,
    seed: int,
    num_new: int | None = None,
) -> float:
    """Train a network on, in place.

    Parameters
    ----------
    network
        With the weights as they are.
    ahead
        Weights that were trained ahead, by name.
    rows
        What was measured; at least one program ran.
    config
        How.
    seed
        One seed and the same rows give the same weights.
    num_new
        How many of the rows it has not been trained on yet; None for as many as to take all steps.

    Returns
    -------
    level
        To be added to what the network says of ln latency from now on.
    """
    with torch_threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rows = rows.take(np.argsort(rows.batch().leaf_counts, kind="stable"))  # as laid out
        leaves, firsts = _leaves(rows)
        measured = torch.from_numpy(np.log(rows.latencies_s).astype(np.float32))
        before = _before(network, ahead, leaves, firsts)
        level = _level((measured - before).numpy(), config)
        off = (measured - before - level).clamp(-_FARTHEST, _FARTHEST)
        target = torch.where(torch.isfinite(measured), before + off, measured)
        groups = torch.from_numpy(np.unique(rows.groups, return_inverse=True)[1])
        network.eval()  # dropout is for training ahead
        draws_all = len(groups) <= config.programs
        learning = dict(network.named_parameters())
        if config.last_layer:
            learning = network.learns_last()
            if draws_all:
                leaves = _encoded(network, leaves)
        steps = AnchoredAdam(tuple(learning.values()), [ahead[name] for name in learning], config)
        num_steps = config.steps if num_new is None else config.steps_for(num_new)
        for step in range(num_steps):
            chosen = _draw(groups, config)
            taken = leaves if draws_all else leaves.take(chosen, firsts)
            if config.last_layer and not draws_all:  # of thousands, most are never drawn
                taken = _encoded(network, taken)
            loss = _loss(network, taken, target[chosen], groups[chosen], config)
            steps.take(loss, config.learning_rate * (1.0 - step / num_steps))
    return level


@torch.no_grad()
def _encoded(network: AdditiveNetwork, leaves: Leaves) -> Leaves:
    return network.encode(leaves)


class AnchoredAdam:
    """Adam (Kingma and Ba, 2015) on all weights as one vector, pulled to an anchor.

    PyTorch's own takes longer than the network for weights this few, and two seconds to import.

    Parameters
    ----------
    weights
        What is trained; views of one vector from now on.
    anchor
        Where they are pulled to, tensor by tensor.
    config
        Weight of the anchor, and largest norm of a gradient.
    """

    _DECAY = 0.9, 0.999
    _EPSILON = 1e-8

    def __init__(
        self, weights: Sequence[nn.Parameter], anchor: Sequence[Tensor], config: AdaptConfig
    ) -> None:
        self._weights, self._config = weights, config
        self._anchor = _flat(anchor)
        self._vector = _flat([weight.detach() for weight in weights])
        nn.utils.vector_to_parameters(self._vector, weights)
        self._mean = torch.zeros_like(self._vector)
        self._square = torch.zeros_like(self._vector)
        self._count = 0

    def take(self, loss: Tensor, learning_rate: float) -> None:
        """Take a step down the gradient of a loss and the anchor."""
        found = torch.autograd.grad(loss, self._weights, allow_unused=True)
        gradient = _flat(
            [
                torch.zeros_like(weight) if part is None else part
                for part, weight in zip(found, self._weights, strict=True)
            ]
        )
        gradient.add_(self._vector - self._anchor, alpha=2.0 * self._config.anchor)
        norm = float(gradient.norm())
        gradient.mul_(min(1.0, self._config.gradient_clip / (norm + 1e-6)))
        self._count += 1
        (first, second), count = self._DECAY, self._count
        self._mean.lerp_(gradient, 1.0 - first)
        self._square.mul_(second).addcmul_(gradient, gradient, value=1.0 - second)
        scale = self._square.sqrt().div_((1.0 - second**count) ** 0.5).add_(self._EPSILON)
        self._vector.addcdiv_(self._mean, scale, value=-learning_rate / (1.0 - first**count))


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _leaves(rows: TrainingRows) -> tuple[Leaves, Tensor]:
    """Return all programs, and the first leaf of each."""
    batch = rows.batch()
    of_leaf = np.repeat(rows.machine_of, batch.leaf_counts)
    inputs: npt.NDArray[np.float32] | None = None
    for machine in np.unique(rows.machine_of).tolist():
        programs = np.flatnonzero(rows.machine_of == machine)
        found = leaf_inputs(batch.take(programs), rows.machines[machine].device)
        if inputs is None:
            inputs = np.empty((len(of_leaf), found.shape[1]), np.float32)
        inputs[of_leaf == machine] = found
    assert inputs is not None
    return Leaves(
        torch.from_numpy(inputs),
        torch.from_numpy(batch.positions),
        torch.from_numpy(batch.leaf_counts),
        stack_devices(rows.devices)[torch.from_numpy(rows.machine_of)],
    ), torch.from_numpy(batch.offsets[:-1])


def _before(
    network: AdditiveNetwork, ahead: Mapping[str, Tensor], leaves: Leaves, firsts: Tensor
) -> Tensor:
    """Return what the weights that were trained ahead say of programs' ln latency."""
    now = {name: weight.detach().clone() for name, weight in network.state_dict().items()}
    network.load_state_dict(ahead)
    before = torch.empty(len(firsts))
    with torch.no_grad():
        for chosen in mixed_chunks(leaves.counts.numpy()):
            programs = torch.from_numpy(chosen)
            found: Output = network(leaves.take(programs, firsts))
            before[programs] = found.log_latency
    network.load_state_dict(now)
    return before


def _level(residuals: npt.NDArray[np.float32], config: AdaptConfig) -> float:
    runs = residuals[np.isfinite(residuals)]
    return float(np.median(runs)) * len(runs) / (len(runs) + config.level_programs)


def _draw(groups: Tensor, config: AdaptConfig) -> Tensor:
    """Draw programs of a step; ascending."""
    if len(groups) <= config.programs:
        return torch.arange(len(groups))
    num_groups = int(groups.max()) + 1
    several = max(1, config.programs // config.programs_per_task)
    if num_groups > several:
        allowed = torch.isin(groups, torch.randperm(num_groups)[:several])
        members = allowed.nonzero()[:, 0]
    else:
        members = torch.arange(len(groups))
    return members[torch.randperm(len(members))[: config.programs].sort().values]


def _loss(
    network: AdditiveNetwork, leaves: Leaves, target: Tensor, groups: Tensor, c: AdaptConfig
) -> Tensor:
    found = network(leaves)
    runs = torch.isfinite(target)
    known = torch.where(runs, target, found.log_latency.detach())
    error = nn.functional.huber_loss(found.log_latency, known, delta=c.huber_delta, reduction="sum")
    loss = error / (runs.sum().clamp(min=1) * c.huber_delta)
    difference = known[:, None] - known[None, :]
    pairs = (groups[:, None] == groups[None, :]) & runs[:, None] & runs[None, :]
    weights = difference.clamp(min=0.0, max=1.0) * pairs
    gap = c.ranking_scale * (found.log_latency[:, None] - found.log_latency[None, :])
    lost = (weights * nn.functional.softplus(-gap)).sum() / c.ranking_scale
    loss = loss + c.ranking_weight * lost / weights.sum().clamp(min=1e-6)
    if not bool(runs.all()):
        failure = nn.functional.binary_cross_entropy_with_logits(found.runs, runs.float())
        loss = loss + c.failure_weight * failure
    return loss


def thin(groups: Ints, most: int) -> Ints:
    """Keep at most so many rows, of each task the latest and every so many before; ascending."""
    if len(groups) <= most:
        return np.arange(len(groups))
    numbers, of_group = np.unique(groups, return_inverse=True)
    share = max(1, most // len(numbers))
    kept = []
    for group in range(len(numbers)):
        rows = np.flatnonzero(of_group == group)
        places = np.linspace(0, len(rows) - 1, min(share, len(rows))).round().astype(np.int64)
        kept.append(rows[places])
    return np.sort(np.concatenate(kept))[-most:]
