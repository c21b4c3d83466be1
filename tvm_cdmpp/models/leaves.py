"""Programs as the additive network takes them: the inputs of every leaf, and the device's vector.

Shapes: B programs, N leaves of all of them, F inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tvm_cdmpp.ast import NUM_FIELDS, CompactASTBatch
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models.analytic import TERMS, combine_terms, leaf_terms_s
from tvm_cdmpp.models.known_devices import CLOCK
from tvm_cdmpp.models.layout import Layout, PaddedLayout, lay_out, leaves_of

NUM_INPUTS = NUM_FIELDS + len(TERMS) + 1
"""Fields, each bound as a share of the leaf's time, and the time itself; both as log2."""

_LEAST_SHARE = 2.0**-10


@dataclass(frozen=True)
class Leaves:
    """Programs as the network takes them.

    Attributes
    ----------
    inputs
        Inputs of every leaf, not yet scaled; (N, F).
    positions
        Pre-order positions; (N,).
    counts
        Leaves per program; (B,).
    device
        Device vector per program; (B, len(DEVICE_FIELDS)).
    encoded
        What all layers of the encoder but the last make of the leaves, (N, D), where only the last
        one learns; None where they are to be asked. Used up where no gradients are asked for.
    """

    inputs: Tensor
    positions: Tensor
    counts: Tensor
    device: Tensor
    encoded: Tensor | None = None

    def take(self, programs: Tensor, firsts: Tensor) -> Leaves:
        """Return some programs, in the given order; `firsts` has the first leaf of all of them."""
        leaves = leaves_of(self.counts, programs, firsts)
        return Leaves(
            self.inputs[leaves],
            self.positions[leaves],
            self.counts[programs],
            self.device[programs],
            None if self.encoded is None else self.encoded[leaves],
        )

    def split(self, programs: list[int]) -> Iterator[Leaves]:
        """Divide programs, none of them encoded, into parts of so many; nothing is copied."""
        leaves = [int(counts.sum()) for counts in torch.split(self.counts, programs)]
        sizes = zip(self._tensors, (leaves, leaves, programs, programs), strict=True)
        parts = [torch.split(tensor, size) for tensor, size in sizes]
        return starmap(Leaves, zip(*parts, strict=True))

    def filled_up(self, leaves: int) -> Leaves:
        """Add a program of so many leaves, all zero, on the device of the last one."""
        return Leaves(
            nn.functional.pad(self.inputs, (0, 0, 0, leaves)),
            nn.functional.pad(self.positions, (0, leaves)),
            nn.functional.pad(self.counts, (0, 1), value=leaves),
            torch.cat([self.device, self.device[-1:]]),
            None if self.encoded is None else nn.functional.pad(self.encoded, (0, 0, 0, leaves)),
        )

    def to(self, torch_device: torch.device) -> Leaves:
        """Return the same, not encoded, where PyTorch is to compute."""
        return Leaves(*(tensor.to(torch_device) for tensor in self._tensors))

    @property
    def _tensors(self) -> tuple[Tensor, ...]:
        return self.inputs, self.positions, self.counts, self.device

    @cached_property
    def layout(self) -> Layout | PaddedLayout:
        """Where the leaves lie; the same for every step that learns from these programs."""
        return lay_out(self.counts, len(self.inputs))

    @property
    def log2_clock(self) -> Tensor:
        """Logarithm of the clock, relative to the reference device's; (B,)."""
        return self.device[:, CLOCK]


def leaf_inputs(batch: CompactASTBatch, device: DeviceSpec) -> npt.NDArray[np.float32]:
    """Return the inputs of every leaf of programs that run on one device; (N, F)."""
    terms_s = leaf_terms_s(batch, device)
    total_s = combine_terms(terms_s)
    inputs = np.empty((len(batch.vectors), NUM_INPUTS), np.float32)
    inputs[:, :NUM_FIELDS] = batch.vectors
    inputs[:, NUM_FIELDS:-1] = np.log2(np.maximum(terms_s / total_s, _LEAST_SHARE)).T
    inputs[:, -1] = np.log2(total_s)
    return inputs


def make_leaves(batch: CompactASTBatch, device: DeviceSpec) -> Leaves:
    """Prepare programs that run on one device."""
    return Leaves(
        torch.from_numpy(leaf_inputs(batch, device)),
        torch.from_numpy(batch.positions),
        torch.from_numpy(batch.leaf_counts),
        torch.from_numpy(device.vector()).expand(len(batch), -1),
    )


def stack_devices(devices: Sequence[DeviceSpec]) -> Tensor:
    """Return the device vectors of several devices; (devices, len(DEVICE_FIELDS))."""
    return torch.from_numpy(np.stack([device.vector() for device in devices]))
