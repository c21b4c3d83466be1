"""The network of the CDMPP predictor: a Transformer encoder over the leaves of a compact AST.

- One model for every leaf count: programs are padded and masked.
- The leaf's analytic time (see `analytic`) is one of its inputs, and the program's analytic
  latency is the base that the head corrects, so an untrained predictor already ranks programs.
- A device vector is always given.
- Two heads: the normalised label of the latency, and the logit that the program runs at all.
- Small on purpose: scoring must cost less than handing a candidate over.

Shapes: B programs, L leaves, F inputs per leaf, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tvm_cdmpp.ast import NUM_FIELDS, CompactASTBatch, dense_mask, densify, positional_encoding
from tvm_cdmpp.devices import DEVICE_FIELDS, DeviceSpec
from tvm_cdmpp.models.analytic import estimate_leaf_latency_s, sum_leaves
from tvm_cdmpp.models.sizes import check_sizes

_NUM_INPUTS = NUM_FIELDS + 1


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
        """Reject what no network can have."""
        check_sizes(vars(self))


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


def make_inputs(
    batch: CompactASTBatch,
    devices: Sequence[DeviceSpec],
    config: PredictorConfig,
    device_of: npt.NDArray[np.int64] | None = None,
) -> Inputs:
    """Prepare programs for the network.

    Parameters
    ----------
    batch
        B programs, all with at least one leaf.
    devices
        Where they run.
    config
        Of the network.
    device_of
        Place in `devices` of each program, of shape (B,); by default all run on the first.
    """
    if device_of is None:
        device_of = np.zeros(len(batch), np.int64)
    leaf_s = _leaf_latency_s(batch, devices, device_of)
    mask = dense_mask(batch.leaf_counts)
    leaves = np.empty((*mask.shape, _NUM_INPUTS), dtype=np.float32)
    leaves[..., :-1] = densify(batch.vectors, mask)
    leaves[..., -1] = densify(np.log2(leaf_s), mask)
    positions = densify(batch.positions, mask)
    known = positional_encoding(np.arange(positions.max(initial=0) + 1), config.width)
    vectors = np.stack([device.vector() for device in devices])
    return Inputs(
        torch.from_numpy(leaves),
        torch.from_numpy(known[positions]),
        torch.from_numpy(mask),
        torch.from_numpy(vectors[device_of]),
        sum_leaves(batch, leaf_s).astype(np.float64),
        not mask.all(),
    )


def _leaf_latency_s(
    batch: CompactASTBatch, devices: Sequence[DeviceSpec], device_of: npt.NDArray[np.int64]
) -> npt.NDArray[np.floating[Any]]:
    """Estimate every leaf on the device of its program; (leaves,)."""
    used = np.unique(device_of)
    if len(used) == 1:
        return estimate_leaf_latency_s(batch, devices[used[0]])
    leaf_s = np.empty(len(batch.vectors))
    of_leaf = np.repeat(device_of, batch.leaf_counts)
    for device in used:
        programs = np.flatnonzero(device_of == device)
        leaf_s[of_leaf == device] = estimate_leaf_latency_s(batch.take(programs), devices[device])
    return leaf_s


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
