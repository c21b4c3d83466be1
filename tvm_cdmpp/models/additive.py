"""The network that is trained ahead of a search: a Transformer over leaves, a latency for each.

A program takes a start-up and the time of its leaves, one after the other:

    latency = start + sum over leaves of (analytic seconds of the leaf) x exp(correction)

The encoder sees all leaves of a program, so that a correction knows what runs beside its leaf; the
sum makes the prediction one that can be taken apart.

- Inside the network time is counted in cycles: a device whose clock and bandwidth are twice as
  fast runs everything in half the time, and that need not be learned.
- The analytic bounds of a leaf (see `analytic.TERMS`) are among its inputs.
- Leaves of all programs lie one after the other; how attention and sums take them is said in
  `layout`.
- The device vector and the pre-order position of the leaf are added to its embedding. There a
  device that the training knew little or nothing of counts as the nearest of a few references, on
  which most of the training's programs ran: what its figures would do to the embedding, so few
  devices do not tell. In the analytic bounds, the fields and the clock it is itself.

Shapes: B programs, N leaves of all of them, L leaves of the longest, F inputs, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from tvm_cdmpp.ast import positional_encoding
from tvm_cdmpp.devices import DEVICE_FIELDS, DeviceSpec
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models.dropout import Dropout
from tvm_cdmpp.models.known_devices import SAME, as_known, in_cycles, own_direction
from tvm_cdmpp.models.layout import Layout, PaddedLayout, leaves_of
from tvm_cdmpp.models.leaves import NUM_INPUTS, Leaves, stack_devices
from tvm_cdmpp.models.products import ROWS, add_product, product
from tvm_cdmpp.models.sizes import check_numbers, check_sizes

_LARGEST_INPUT = 8.0
_INITIAL_START_S = 5e-7
"""On the reference device."""
_LOG_COMMON_LEAF_S = float(np.log(1e-5))
_MANY, _MANY_TO_LEARN = 128, 512
"""Leaves of which a few more do not matter, in scoring and in learning."""
_LN2 = float(np.log(2.0))
_MOST_NOISE = 1e3
_LARGEST_CORRECTION = 1e3
"""Far beyond all latencies."""


@dataclass(frozen=True, kw_only=True)
class AdditiveConfig:
    """Size of the network."""

    width: int = 96
    """Width of the encoder; a multiple of twice the heads."""
    heads: int = 2
    layers: int = 2
    hidden: int = 96
    """Width of the feed-forward part and of the head."""
    dropout: float = 0.1
    input_noise: float = 0.1
    """Standard deviation of what is added to scaled inputs in training, so that a workload is not
    known by the exact sizes of its buffers."""
    analytic_base: bool = True
    """Whether corrections are of the analytic estimate; else of a latency that all leaves share."""
    largest_correction: float = 12.0
    """Bound of a leaf's correction, ln."""

    def __post_init__(self) -> None:
        """Reject what no network can have."""
        check_sizes(vars(self))
        check_numbers({"input_noise": self.input_noise}, 0.0, _MOST_NOISE)
        if not isinstance(self.analytic_base, bool):
            raise ConfigError(f"analytic_base must be true or false; got {self.analytic_base!r}.")
        check_numbers({"largest_correction": self.largest_correction}, 0.0, _LARGEST_CORRECTION)
        if not self.largest_correction > 0:
            raise ConfigError(f"largest_correction must be above 0; got {self.largest_correction}.")


@dataclass(frozen=True)
class Output:
    """What the network says of B programs.

    Attributes
    ----------
    log_latency
        Natural logarithm of the seconds; (B,).
    log_leaf_s
        The same of every leaf; (N,).
    log_spread
        Logarithm of the expected error of `log_latency`; (B,).
    runs
        Logit that the program runs at all; (B,).
    features
        What the last layer of the correction is linear in, averaged by the leaves' shares of the
        latency: the gradient of `log_latency` by that layer's weights; (B, hidden).
    """

    log_latency: Tensor
    log_leaf_s: Tensor
    log_spread: Tensor
    runs: Tensor
    features: Tensor
    encoder: Tensor | None
    """Mean over the leaves of what the encoder says of them; (B, D). None without gradients, as
    only training asks for it."""


class AdditiveNetwork(nn.Module):
    """The network; scaling of its inputs is part of it, as buffers."""

    def __init__(self, config: AdditiveConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.input_mean: Tensor
        self.input_scale: Tensor
        self.encoding: Tensor
        self.register_buffer("input_mean", torch.zeros(NUM_INPUTS))
        self.register_buffer("input_scale", torch.ones(NUM_INPUTS))
        self.references: Tensor
        self.known_devices: Tensor
        for name in _DEVICES:
            self.register_buffer(name, torch.empty(0, len(DEVICE_FIELDS)))
        known = positional_encoding(np.arange(_MOST_POSITIONS, dtype=np.int32), width)
        self.register_buffer("encoding", torch.from_numpy(known), persistent=False)
        self.embed = nn.Linear(NUM_INPUTS, width)
        self.device = nn.Linear(len(DEVICE_FIELDS), width)
        self.layers = nn.ModuleList(FlatEncoderLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, config.hidden)
        self.dropout = Dropout(config.dropout)
        self.correction = nn.Linear(config.hidden, 1)
        self.start = nn.Linear(len(DEVICE_FIELDS), 1)
        self.about_program = nn.Linear(config.hidden, 2)
        """Spread, and whether it runs."""
        # Start as the analytic estimate: the correction is zero until something is learned.
        for layer in (self.correction, self.start, self.about_program):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, leaves: Leaves) -> Output:
        """Predict programs."""
        missing = -len(leaves.inputs) % ROWS
        many = _MANY_TO_LEARN if torch.is_grad_enabled() else _MANY
        if not missing or len(leaves.inputs) < many or leaves.inputs.is_cuda:
            return self._in_order(leaves)
        found = self._in_order(leaves.filled_up(missing))
        return Output(
            found.log_latency[:-1],
            found.log_leaf_s[:-missing],
            found.log_spread[:-1],
            found.runs[:-1],
            found.features[:-1],
            None if found.encoder is None else found.encoder[:-1],
        )

    def _in_order(self, leaves: Leaves) -> Output:
        """Predict programs, in the order that is fastest."""
        layout = leaves.layout
        if layout.programs is None:
            return self._predict(leaves, layout)
        firsts = torch.cumsum(leaves.counts, 0) - leaves.counts
        found = self._predict(leaves.take(layout.programs, firsts), layout)
        back = layout.programs.argsort()
        of_leaves = leaves_of(leaves.counts, layout.programs, firsts).argsort()
        return Output(
            found.log_latency[back],
            found.log_leaf_s[of_leaves],
            found.log_spread[back],
            found.runs[back],
            found.features[back],
            None if found.encoder is None else found.encoder[back],
        )

    def encode(self, leaves: Leaves) -> Leaves:
        """Return leaves with what all layers but the last make of them."""
        order, firsts = leaves.layout.programs, torch.cumsum(leaves.counts, 0) - leaves.counts
        ordered = leaves if order is None else leaves.take(order, firsts)
        clock = leaves.layout.of_leaves(ordered.log2_clock)
        encoded = self._but_last(ordered, leaves.layout, self._about(ordered), clock)
        if order is not None:
            encoded = encoded[leaves_of(leaves.counts, order, firsts).argsort()]
        return replace(leaves, encoded=encoded)

    def learns_last(self) -> dict[str, nn.Parameter]:
        """Return the weights that what `encode` makes does not depend on, by name."""
        before = tuple(f"layers.{number}." for number in range(len(self.layers) - 1))
        asked = ("embed.", "device.", *before)
        return {name: w for name, w in self.named_parameters() if not name.startswith(asked)}

    def _but_last(
        self, leaves: Leaves, layout: Layout | PaddedLayout, about: Tensor, clock: Tensor
    ) -> Tensor:
        """Return what all layers but the last make of leaves in the order of a layout; (N, D)."""
        shift = -self.input_mean * self.input_scale
        scaled = torch.addcmul(shift, leaves.inputs, self.input_scale)
        scaled[:, -1] += clock * self.input_scale[-1]
        scaled = scaled.clamp_(-_LARGEST_INPUT, _LARGEST_INPUT)
        if self.training and self.config.input_noise:
            scaled = scaled + self.config.input_noise * torch.randn_like(scaled)
        known = nn.functional.embedding(
            leaves.positions.clamp(max=_MOST_POSITIONS - 1), self.encoding
        )
        known = known.add_(layout.of_leaves(self.device(about) + self.embed.bias))
        hidden = add_product(known, scaled, self.embed)
        for layer in self.layers[:-1]:
            hidden = layer(hidden, layout)
        return hidden

    def _about(self, leaves: Leaves) -> Tensor:
        """Return what is known of the device of each program; (B, len(DEVICE_FIELDS))."""
        return as_known(in_cycles(leaves.device), self.known_devices, self.references)

    def _predict(self, leaves: Leaves, layout: Layout | PaddedLayout) -> Output:
        """Predict programs that are in the order of a layout."""
        about, clock = self._about(leaves), layout.of_leaves(leaves.log2_clock)
        hidden = leaves.encoded
        if hidden is None:
            hidden = self._but_last(leaves, layout, about, clock)
        hidden = self.layers[-1](hidden, layout)
        last = self.dropout(product(self.norm(hidden), self.hidden).relu_())
        correction = self.correction(last)[:, 0]
        limit, base = self.config.largest_correction, _LN2 * (leaves.inputs[:, -1] + clock)
        if not self.config.analytic_base:
            limit, base = 2.0 * limit, torch.full_like(base, _LOG_COMMON_LEAF_S)
        bounded = limit * torch.tanh(correction / limit)
        log_leaf = base + bounded
        start = float(np.log(_INITIAL_START_S)) + self.start(about)[:, 0]
        log_sum = layout.log_sum_exp(log_leaf, start)
        share = torch.exp(log_leaf - layout.of_leaves(log_sum)) * (1.0 - (bounded / limit) ** 2)
        features = layout.sum(last * share[:, None])
        spread, runs = self.about_program(features).unbind(dim=1)
        encoder = None
        if torch.is_grad_enabled():
            encoder = layout.sum(hidden) / leaves.counts[:, None]
        log_latency, log_leaf_s = log_sum - _LN2 * leaves.log2_clock, log_leaf - _LN2 * clock
        return Output(log_latency, log_leaf_s, spread, runs, features, encoder)

    def fit_inputs(self, leaves: Leaves) -> None:
        """Learn how large inputs are.

        Parameters
        ----------
        leaves
            Programs of the training. Their inputs are centred and scaled to unit variance; those
            that hardly vary are left small.
        """
        inputs = leaves.inputs.clone()
        inputs[:, -1] += torch.repeat_interleave(leaves.log2_clock, leaves.counts)
        self.input_mean.copy_(inputs.mean(dim=0))
        self.input_scale.copy_(1.0 / inputs.std(dim=0, correction=0).clamp(min=0.25))

    def know(self, devices: Tensor, references: Tensor) -> None:
        """Tell which devices the training knew.

        Parameters
        ----------
        devices
            Vectors of those that count as themselves; (devices, len(DEVICE_FIELDS)).
        references
            Vectors of those of them that all others count as; (references, len(DEVICE_FIELDS)).
        """
        self.known_devices = in_cycles(devices)
        self.references = in_cycles(references)

    def knows(self, device: DeviceSpec) -> bool:
        """Tell whether the training had enough programs of a device for it to count as itself."""
        apart = (in_cycles(stack_devices([device])) - self.known_devices).abs().amax(dim=1)
        return bool((apart < SAME).any())

    def counts_as(self, device: DeviceSpec) -> Tensor:
        """Return the vector of what a device counts as, itself or a reference; (fields,)."""
        vector = in_cycles(stack_devices([device]))
        return as_known(vector, self.known_devices, self.references)[0]

    @torch.no_grad()
    def tell_apart(self, device: DeviceSpec) -> None:
        """Add to the known devices, before the network is trained on programs of it.

        Predictions for it and for the references stay as they are: the smallest change of the
        weights is made by which it counts, as itself, as what it counted as. A device that lies
        between references by all fields is taken as the network takes it.
        """
        vector, was = in_cycles(stack_devices([device])), self.counts_as(device)
        if torch.equal(was, vector[0]):
            return
        own = own_direction(vector[0], self.references)
        if own is not None:
            for layer in (self.device, self.start):
                change = torch.outer(layer.weight @ (was - vector[0]), own)
                layer.weight.add_(change)
                layer.bias.sub_(change @ self.references[0])
        self.known_devices = torch.cat([self.known_devices, vector])

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the weights of another network of the same size.

        Raises
        ------
        RuntimeError
            Some are missing or of another shape. Files of earlier versions may know no devices, and
            have bounds of them, which are left out.
        """
        none = dict.fromkeys(_DEVICES, torch.empty(0, len(DEVICE_FIELDS)))
        kept = {k: v for k, v in {**none, **weights}.items() if k not in _EARLIER}
        self.references, self.known_devices = (torch.empty_like(kept[name]) for name in _DEVICES)
        self.load_state_dict(kept)


_DEVICES = ("references", "known_devices")
_EARLIER = ("device_low", "device_high")
_MOST_POSITIONS = 1024
"""Positions that are told apart; trees have at most a few hundred nodes."""


class FlatEncoderLayer(nn.Module):
    """Pre-norm self-attention over the leaves of a program, then a feed-forward part."""

    def __init__(self, config: AdditiveConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, config.width, bias=False),
        )
        self.dropout = Dropout(config.dropout)

    def forward(self, hidden: Tensor, layout: Layout | PaddedLayout) -> Tensor:
        """Return the layer's output, of the shape of `hidden`, (N, D)."""
        qkv = product(self.norm1(hidden), self.qkv)
        mixed = layout.mix(qkv, self._mix)
        hidden = self._add(hidden, self.out, mixed)
        wide, relu, narrow = self.mlp
        assert isinstance(wide, nn.Linear) and isinstance(narrow, nn.Linear)
        return self._add(hidden, narrow, relu(product(self.norm2(hidden), wide)))

    def _add(self, hidden: Tensor, linear: nn.Linear, values: Tensor) -> Tensor:
        """Add what a linear map without bias makes of values; in place where nothing is learned."""
        if self.training:
            changed: Tensor = self.dropout(product(values, linear))
            return hidden + changed
        return add_product(hidden, values, linear)

    def _mix(self, qkv: Tensor, is_leaf: Tensor | None) -> Tensor:
        """Return what attention says; see `layout.Attend`: (B, L, 3 D) to (B L, D)."""
        programs, leaves, width = qkv.shape
        parts = qkv.view(programs, leaves, 3, self.heads, width // (3 * self.heads))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mask = None if is_leaf is None else is_leaf[:, None, None]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return mixed.transpose(1, 2).reshape(programs * leaves, width // 3)
