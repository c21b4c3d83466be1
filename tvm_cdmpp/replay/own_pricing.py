"""Functions by estimates alone, and the kinds of operators whose own schedules have a level.

A CPU runs TVM's own schedules of one kind, such as convolutions, at much the same share of its
peak, whatever their sizes. So their work is priced by the analytic estimate of it times a level
that `own_schedules` measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import CompactASTBatch, Leaf
from tvm_cdmpp.devices import DeviceSpec, Hardware
from tvm_cdmpp.models import TERMS, combine_terms, leaf_terms_s
from tvm_cdmpp.replay.functions import batch_of, flops_of, is_task, leaves_in
from tvm_cdmpp.replay.physics import call_s, estimate_function, kept_share, moving_s, wake_s

OWN_SPREADS: Mapping[str, float] = {
    "conv2d_transpose": 0.5,
    "depthwise_conv2d": 0.2,
    "conv2d": 0.2,
    "batch_matmul_NN": 0.6,
    "batch_matmul_NT": 0.6,
    "dense": 0.6,
    "pool": 0.3,
    "softmax": 0.6,
}
"""Kinds of operators whose own schedules in TVM have a level each, as the names of functions or of
what they store have them; the first that is part of one counts. The schedule of a batched product
is meant for a second factor that is transposed, NT; of others, NN, it gathers single values.

The values are standard deviations of ln(measured / priced) within a kind, of the operators of eight
networks on two cores of an EPYC."""

OWN_KINDS = tuple(OWN_SPREADS)

_DEPTHWISE = "DepthwiseConv2d"
"""What depthwise convolutions store. Those that TVM calls unoptimized are functions of the name of
other convolutions, and were not measured."""
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class EstimatedParts:
    """What one run of a function on a CPU takes by estimates alone."""

    kind: str | None
    """Which of `OWN_KINDS` it is of; None for others, and for what Ansor does not tune."""
    start_s: float
    work_s: float
    """What the level of a kind is on."""


def own_kind(function: str, leaves: Sequence[Leaf]) -> str | None:
    """Return which of `OWN_KINDS` a function is of; None for others, and unless it is float32."""
    names = (function, *(leaf.name for leaf in leaves))
    computes = any(flops_of(leaf) and leaf.compute_bytes == _FLOAT_BYTES for leaf in leaves)
    kind = next((kind for kind in OWN_KINDS if any(kind in name for name in names)), None)
    is_slow = kind == "conv2d" and any(_DEPTHWISE in name for name in names)
    return kind if computes and not is_slow else None


def estimate_parts(
    programs: Mapping[str, Any],
    moved_bytes: Mapping[str, float],
    device: DeviceSpec,
    hardware: Hardware,
    network_bytes: float,
) -> dict[str, EstimatedParts]:
    """Price functions on a CPU by estimates alone, those that Ansor tunes as well.

    Parameters
    ----------
    programs, moved_bytes, device, hardware, network_bytes
        As of `pricing.price_functions`.
    """
    found = {}
    for name, moved in moved_bytes.items():
        leaves = leaves_in(programs.get(name))
        if leaves and is_task(name, leaves):
            parts = own_parts_s(leaves, device, hardware, network_bytes)
            found[name] = EstimatedParts(own_kind(name, leaves), *parts)
        elif leaves:
            estimate = estimate_function(programs[name], leaves, device, network_bytes)
            found[name] = EstimatedParts(None, 0.0, estimate.latency_s)
        else:
            found[name] = EstimatedParts(None, 0.0, moving_s(moved, device))
    return found


def own_parts_s(
    leaves: Sequence[Leaf], device: DeviceSpec, hardware: Hardware, network_bytes: float
) -> tuple[float, float]:
    """Return the seconds that a function takes to start, and for its work, by estimates."""
    batch = batch_of([leaves], hardware)
    terms_s = leaf_terms_s(batch, device)
    work_s = float((combine_terms(terms_s) - terms_s[TERMS.index("start")]).sum())
    (kept,) = kept_shares([leaves], batch, terms_s, device, network_bytes)
    return call_s(device, network_bytes) + wake_s(leaves, device), kept * work_s


def kept_shares(
    leaves: Sequence[Sequence[Leaf]],
    batch: CompactASTBatch,
    terms_s: npt.NDArray[np.floating[Any]],
    device: DeviceSpec,
    network_bytes: float,
) -> npt.NDArray[np.floating[Any]]:
    """Return `physics.kept_share` of every program.

    Parameters
    ----------
    leaves
        Of each of n programs.
    batch, terms_s
        The same programs, and `leaf_terms_s` of them.
    device, network_bytes
        As of `physics.kept_share`.

    Returns
    -------
    shares
        Of shape (n,).
    """
    compute_s = np.split(terms_s[:2], batch.offsets[1:-1], axis=1)
    return np.array(
        [
            kept_share(found, of_leaves, device, network_bytes)
            for found, of_leaves in zip(leaves, compute_s, strict=True)
        ]
    )
