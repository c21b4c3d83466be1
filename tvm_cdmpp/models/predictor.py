"""The CDMPP predictor: a Transformer encoder over the leaves of a compact AST.

- One model for every leaf count: programs are padded and masked.
- The leaf's analytic time (see `analytic`) is one of its inputs, and the program's analytic
  latency is the base that the head corrects, so an untrained predictor already ranks programs.
- A device vector is always given.
- Two heads: the normalised label of the latency, and the logit that the program runs at all.
- Small on purpose: scoring must cost less than handing a candidate over.

Shapes: B programs, L leaves, F inputs per leaf, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tvm_cdmpp.ast.compact import CompactASTBatch, dense_mask, densify, positional_encoding
from tvm_cdmpp.ast.schema import NUM_FIELDS
from tvm_cdmpp.devices.spec import DEVICE_FIELDS, DeviceSpec
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models.analytic import estimate_leaf_latency_s, sum_leaves
from tvm_cdmpp.models.labels import LabelTransform

_NUM_INPUTS = NUM_FIELDS + 1
_CHUNK_LEAVES = 2048
"""Leaves to score at once: enough to forget what a call costs, few enough for a core's cache."""


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """Let PyTorch use this many threads.

    The network is too small to gain much from several, and where a search keeps the other cores
    busy, waiting for them costs ten times the work.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """Size of the network."""

    width: int = 48
    """Width of the encoder; a multiple of twice the heads."""
    heads: int = 1
    layers: int = 1
    hidden: int = 48
    """Width of the feed-forward part and of the head."""
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check that the heads divide the width."""
        if self.heads < 1 or self.width % (2 * self.heads) != 0:
            raise ConfigError(
                f"width must be a multiple of 2 * heads; got width={self.width}, "
                f"heads={self.heads}."
            )


@dataclass(frozen=True)
class Inputs:
    """A batch as the network takes it, leaves padded to the longest program.

    Attributes
    ----------
    leaves
        Raw computation vectors and the log2 of the leaf's analytic seconds; (B, L, F).
    encoding
        Positional encoding; (B, L, D).
    mask
        True where there is a leaf; (B, L).
    device
        Device vectors; (B, len(DEVICE_FIELDS)).
    analytic_s
        Analytic latencies of the programs; (B,), float64.
    is_padded
        Whether some program has fewer leaves than others.
    """

    leaves: Tensor
    encoding: Tensor
    mask: Tensor
    device: Tensor
    analytic_s: npt.NDArray[np.float64] = field(repr=False)
    is_padded: bool

    def __len__(self) -> int:
        """Return the number of programs."""
        return len(self.analytic_s)

    def take(self, programs: Tensor) -> Inputs:
        """Return the given programs, padded no further than the longest of them."""
        mask = self.mask[programs]
        width = int(mask.sum(dim=1).max())
        return Inputs(
            self.leaves[programs, :width],
            self.encoding[programs, :width],
            mask[:, :width],
            self.device[programs],
            self.analytic_s[programs.numpy()],
            self.is_padded,
        )


def make_inputs(batch: CompactASTBatch, device: DeviceSpec, config: PredictorConfig) -> Inputs:
    """Prepare programs for the network; all have at least one leaf."""
    leaf_s = estimate_leaf_latency_s(batch, device)
    mask = dense_mask(batch.leaf_counts)
    leaves = np.empty((*mask.shape, _NUM_INPUTS), dtype=np.float32)
    leaves[..., :-1] = densify(batch.vectors, mask)
    leaves[..., -1] = densify(np.log2(leaf_s), mask)
    positions = densify(batch.positions, mask)
    known = positional_encoding(np.arange(positions.max(initial=0) + 1), config.width)
    return Inputs(
        torch.from_numpy(leaves),
        torch.from_numpy(known[positions]),
        torch.from_numpy(mask),
        torch.from_numpy(np.tile(device.vector(), (len(batch), 1))),
        sum_leaves(batch, leaf_s).astype(np.float64),
        not mask.all(),
    )


class Network(nn.Module):
    """The Transformer; normalisation of inputs is part of it, as buffers."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.input_mean: Tensor
        self.input_scale: Tensor
        width = config.width
        self.register_buffer("input_mean", torch.zeros(_NUM_INPUTS))
        self.register_buffer("input_scale", torch.ones(_NUM_INPUTS))
        self.embed = nn.Linear(_NUM_INPUTS, width)
        self.device = nn.Linear(len(DEVICE_FIELDS), width)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(2 * width)
        self.head = nn.Sequential(
            nn.Linear(2 * width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 2)
        )
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        # Start as the analytic estimate: the correction is zero until something is learned.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, inputs: Inputs, base: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels and logits that the program runs, both (B,).

        `base` is the label of the analytic latency, which the head corrects.
        """
        # (leaves - mean) * scale, in one pass.
        shift = -self.input_mean * self.input_scale
        scaled = torch.addcmul(shift, inputs.leaves, self.input_scale).clamp_(-8.0, 8.0)
        hidden = self.embed(scaled) + (inputs.encoding + self.device(inputs.device)[:, None])
        mask = inputs.mask[:, None, None, :] if inputs.is_padded else None
        for layer in self.layers:
            hidden = layer(hidden, mask)
        if inputs.is_padded:
            present = inputs.mask[..., None]
            mean = (hidden * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)
            largest = hidden.masked_fill(~present, -1e4).amax(dim=1)
        else:
            mean, largest = hidden.sum(dim=1) * (1.0 / hidden.shape[1]), hidden.amax(dim=1)
        correction = self.head(self.norm(torch.cat([mean, largest], dim=1)))
        return base + correction[:, 0], correction[:, 1]


class EncoderLayer(nn.Module):
    """Pre-norm self-attention over the leaves that exist, then a feed-forward part.

    The linear maps have no bias: the shifts of the norms before them and of the embedding say the
    same, and adding one takes a pass over all leaves.
    """

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.hidden, bias=False),
            nn.ReLU(),
            nn.Linear(config.hidden, config.width, bias=False),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Return the layer's output, of the shape of `hidden`; None masks nothing."""
        batch, length, width = hidden.shape
        qkv = self.qkv(self.norm1(hidden)).view(batch, length, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, L, D / heads)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        hidden = hidden + self.dropout(self.out(mixed))
        changed: Tensor = self.dropout(self.mlp(self.norm2(hidden)))
        return hidden + changed


def _chunks(leaf_counts: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Divide programs into chunks of one leaf count each, so that nothing is padded."""
    for count in np.unique(leaf_counts):
        programs = np.flatnonzero(leaf_counts == count)
        size = max(1, _CHUNK_LEAVES // max(1, int(count)))
        for first in range(0, len(programs), size):
            yield programs[first : first + size]


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
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Predict latencies.

        Parameters
        ----------
        batch
            Compact ASTs of n programs, each with at least one leaf.
        device
            Hardware to predict for.
        num_threads
            Threads for scoring; one is best while a search keeps the other cores busy.

        Returns
        -------
        latencies_s
            Seconds, finite and positive; (n,).
        run_probability
            Probability that a program runs at all; (n,). One, until a failure was seen.
        """
        latencies_s = np.empty(len(batch))
        probability = np.ones(len(batch))
        self.network.eval()
        with torch_threads(num_threads), torch.inference_mode():
            for chosen in _chunks(batch.leaf_counts):
                inputs = make_inputs(batch.take(chosen), device, self.network.config)
                labels, logits = self.network(inputs, self.base(inputs))
                latencies_s[chosen] = self.labels.inverse(labels.numpy().astype(np.float64))
                if self.predicts_failure:
                    probability[chosen] = torch.sigmoid(logits).numpy()
        return latencies_s, probability
