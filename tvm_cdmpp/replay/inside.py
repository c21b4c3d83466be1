"""What programs that were measured by themselves take inside of a network on a CPU.

There caches hold what fits, so the work takes less (`kept`), and an executor calls a pointer. What
waking threads takes is part of the leaves that are predicted, as it is where they have slept.
Inside they wait awake: so that makes room for what waking them once per loop nest was measured to
take on the device. Where that was not measured, it makes room for what is usual where the base has
it for most of the time, which is less than training had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import CompactASTBatch, Leaf
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models import TERMS, combine_terms, leaf_terms_s
from tvm_cdmpp.replay.kept import kept_work
from tvm_cdmpp.replay.physics import call_s, wake_s

_START_SHARES = (0.5, 0.9)
"""Shares of starts in the base of the predictor, as it is inside of the network, between which a
CPU's threads are taken to wake as `replay.physics` says. Of 160 000 programs that were measured by
themselves two took less than 8 us, with shares of 0.75; from 8 to 15 us it is 0.5, and predictions
are right."""


Floats: TypeAlias = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class InsideNetwork:
    """Parts of the latencies of programs; each of shape (programs,)."""

    call_s: float
    """Of each call, whatever is called."""
    learned_start_s: Floats
    """What a predictor has learned of starts, that of waking threads included."""
    wake_s: Floats
    """What waking threads takes by `replay.physics`."""
    unknown: Floats
    """Weight of the latter, from 0 to 1; 1 where it was measured."""
    work_s: Floats
    gone: Floats
    """Share of the work alone that is gone in a network."""

    @property
    def latency_s(self) -> Floats:
        """All of it."""
        learned_s = self.learned_start_s + self.work_s
        woken_s = self.wake_s + self.work_s
        latency_s: Floats = self.call_s + learned_s ** (1 - self.unknown) * woken_s**self.unknown
        return latency_s


def inside_network(
    leaf_s: Floats,
    batch: CompactASTBatch,
    leaves: Sequence[Sequence[Leaf]],
    device: DeviceSpec,
    network_bytes: float,
) -> InsideNetwork:
    """Take programs apart, given by what each of their leaves takes with empty caches.

    Parameters
    ----------
    leaf_s
        Seconds; (leaves,).
    batch, leaves
        The programs, described and as leaves.
    device
        A CPU; what was measured of it counts.
    network_bytes
        Memory of the whole network.
    """
    programs = np.repeat(np.arange(len(batch)), batch.leaf_counts)
    terms_s = leaf_terms_s(batch, device)
    starts_s, base_s = terms_s[TERMS.index("start")], combine_terms(terms_s)
    without_s = leaf_s * (1.0 - starts_s / base_s)
    known_s, alone_s, start_s, all_s = (
        np.bincount(programs, of_leaves, minlength=len(batch))
        for of_leaves in (leaf_s, without_s, starts_s, base_s)
    )
    compute_s = np.split(terms_s[:2], batch.offsets[1:-1], axis=1)
    found = [
        kept_work(of_program, of_leaves, device, network_bytes)
        for of_program, of_leaves in zip(leaves, compute_s, strict=True)
    ]
    level = (device.calibration.kept_level if device.calibration else None) or 0.0
    kept = np.array([of_program.share for of_program in found])
    low, high = _START_SHARES
    share = start_s / (start_s + kept * (all_s - start_s))
    if device.calibration and device.calibration.wake_s is not None:
        share = np.ones(len(batch))
    return InsideNetwork(
        call_s=call_s(device, network_bytes),
        learned_start_s=np.subtract(known_s, alone_s, dtype=np.float64),
        wake_s=np.array([wake_s(of_program, device) for of_program in leaves]),
        unknown=np.clip((share - low) / (high - low), 0.0, 1.0),
        work_s=np.array([k.work_s(float(s), level) for k, s in zip(found, alone_s, strict=True)]),
        gone=1.0 - kept,
    )
