"""What each function of a network takes on a device, and what holds it down.

Functions with a reduction are what Ansor tunes, and are priced by the predictor. The others
(layout transforms, concatenations, elementwise operators that fused with nothing) have hardly any
choice of schedule, and the predictor was not trained on them: they get the analytic estimate. What
has no readable program, such as a library call or a sort, gets a start-up and the time of moving
its inputs and outputs: the least that it can take.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from tvm_cdmpp.ast import CompactASTBatch, Leaf
from tvm_cdmpp.devices import DeviceSpec, Hardware
from tvm_cdmpp.errors import LoweringError
from tvm_cdmpp.extract import describe, leaves_of
from tvm_cdmpp.models import PROGRAM_START_S, CostPredictor, bound_shares, estimate_latency_s

Basis: TypeAlias = Literal["predicted", "analytic estimate", "moved bytes"]

ANALYTIC_SPREAD = 0.9
"""Standard deviation of ln(measured / analytic estimate): half of the programs of networks that
were not trained on are off by more than 63 % (benchmarks/RESULTS.md, roofline)."""

LEAST_SPREAD = 1.5
"""The same for what is priced by the bytes it moves: assumed, as a sort may take tens
of times that."""

SPREAD_FACTORS = {"cpu": 2.05, "gpu": 1.4, "accelerator": 1.4}
"""By how much the predictor's own spread is widened: so much it takes for 90 % of the tasks of
networks that were not trained on, as their fastest programs measured (`network_intervals` in
benchmarks/results). No accelerator was measured; they get the larger one."""

_CLASSES = (
    ("conv3d", "conv3d"),
    ("conv2d_transpose", "conv2d transpose"),
    ("depthwise", "depthwise conv2d"),
    ("conv2d", "conv2d"),
    ("conv1d", "conv1d"),
    ("batch_matmul", "matmul"),
    ("matmul", "matmul"),
    ("dense", "matmul"),
    ("softmax", "softmax"),
    ("pool", "pool"),
    ("layout_transform", "layout"),
    ("transpose", "layout"),
    ("concatenate", "layout"),
    ("device_copy", "communication"),
    ("__copy", "communication"),
    ("copy", "layout"),
    ("mean", "reduction"),
    ("sum", "reduction"),
    ("max", "reduction"),
    ("variance", "reduction"),
)


_REDUCING = frozenset(name for _, name in _CLASSES[:10])


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """One run of a function."""

    latency_s: float
    spread: float
    """Standard deviation of the natural logarithm of the latency."""
    basis: Basis
    bounds: Mapping[str, float]
    """Share of the analytic estimate by what bounds it, named as by `models.bound_names`."""
    flops: float
    """Floating point operations of its programs, recomputation included."""

    @property
    def bound(self) -> str:
        """What holds it down most."""
        return max(self.bounds, key=lambda name: self.bounds[name])


def price_functions(
    programs: Mapping[str, Any],
    moved_bytes: Mapping[str, float],
    device: DeviceSpec,
    hardware: Hardware,
    predictor: CostPredictor,
) -> dict[str, Price]:
    """Price the functions of a network.

    Parameters
    ----------
    programs
        `PrimFunc` by function, where there is one.
    moved_bytes
        What each function reads and writes; its keys are the functions that are priced.
    device
        Hardware to price for.
    hardware
        What the programs were generated for.
    predictor
        For what Ansor tunes.
    """
    leaves = {name: _leaves(programs.get(name)) for name in moved_bytes}
    prices = {
        name: _by_bytes(moved_bytes[name], device) for name, found in leaves.items() if not found
    }
    named = [name for name, found in leaves.items() if found]
    if not named:
        return prices
    batch = _batch([leaves[name] for name in named], hardware)
    estimated_s = estimate_latency_s(batch, device)
    tuned = np.flatnonzero([_is_task(name, leaves[name]) for name in named])
    prediction = predictor.predict(batch.take(tuned), device) if tuned.size else None
    places = {int(program): place for place, program in enumerate(tuned)}
    for program, name in enumerate(named):
        latency_s, spread = float(estimated_s[program]), ANALYTIC_SPREAD
        place = places.get(program)
        if prediction is not None and place is not None:
            latency_s = float(prediction.latency_s[place])
            if prediction.spread is not None:
                spread = SPREAD_FACTORS[device.kind] * float(prediction.spread[place])
        prices[name] = Price(
            latency_s=latency_s,
            spread=spread,
            basis="analytic estimate" if place is None else "predicted",
            bounds=bound_shares(batch.take([program]), device),
            flops=sum(map(_flops, leaves[name])),
        )
    return prices


def class_of(function: str) -> str:
    """Return the class of operators that a function belongs to, by its name."""
    return next((name for part, name in _CLASSES if part in function), "elementwise")


def readable(function: str) -> str:
    """Return a function's name without what all such names share."""
    short = re.sub(r"^tvmgen_default_|(?<![a-z])fused_|(?<![a-z0-9])nn_|contrib_", "", function)
    return re.sub(r"(?<=_)nn_", "", short)


def _leaves(program: Any) -> Sequence[Leaf]:
    """Return the leaves of a program; none for one that cannot be read."""
    if program is None:
        return ()
    try:
        return leaves_of(program)
    except LoweringError:
        return ()


def _batch(programs: Sequence[Sequence[Leaf]], hardware: Hardware) -> CompactASTBatch:
    positions = [leaf.position for leaves in programs for leaf in leaves]
    return CompactASTBatch.of_counts(
        np.concatenate([describe(leaves, hardware) for leaves in programs]),
        np.array(positions, np.int32),
        np.array(list(map(len, programs)), np.int64),
    )


def _is_task(name: str, leaves: Sequence[Leaf]) -> bool:
    """Tell whether Ansor tunes a function: whether it reduces.

    Reductions across GPU threads are intrinsics, not loops; these operators are told by their name.
    """
    loops = (loop for leaf in leaves for loop in leaf.loops)
    return any(loop.is_reduce for loop in loops) or class_of(name) in _REDUCING


def _flops(leaf: Leaf) -> float:
    is_float = leaf.ops[:5]  # the float classes come first in `OP_CLASSES`
    return float(sum(is_float)) * math.prod(loop.extent for loop in leaf.loops)


def _by_bytes(moved_bytes: float, device: DeviceSpec) -> Price:
    moved_s = moved_bytes / device.bandwidth_bytes_per_s
    return Price(
        latency_s=PROGRAM_START_S + moved_s,
        spread=LEAST_SPREAD,
        basis="moved bytes",
        bounds={"start-up": PROGRAM_START_S, "memory": moved_s},
        flops=0.0,
    )
