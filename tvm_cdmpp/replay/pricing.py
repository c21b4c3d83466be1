"""What each function of a network takes on a device, and what holds it down.

Functions with a reduction are what Ansor tunes, and are priced by the predictor. It learned from
programs that were measured by themselves, with empty caches: the start makes room for that of a
call in a network, and waits for memory are shorter where caches keep the network. The others
(layout transforms, concatenations, elementwise operators that fused with nothing) have hardly any
choice of schedule, and the predictor was not trained on them: they get an analytic estimate, on a
CPU that of `replay.physics`. What has no readable program, such as a library call or a sort, gets a
start-up and the time of moving its inputs and outputs: the least that it can take.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import CompactASTBatch, Leaf
from tvm_cdmpp.bridge import LONGEST_COST_S
from tvm_cdmpp.devices import DeviceSpec, Hardware
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.extract import describe_programs, leaves_by_name
from tvm_cdmpp.models import (
    PROGRAM_START_S,
    CostPredictor,
    Prediction,
    TrainedPredictor,
    bound_shares,
    estimate_latency_s,
)
from tvm_cdmpp.networks import OwnFunction, is_of_reducing_class
from tvm_cdmpp.replay.graph import OperatorGraph
from tvm_cdmpp.replay.inside import inside_network
from tvm_cdmpp.replay.physics import estimate_function, unrecorded_calls_s
from tvm_cdmpp.replay.repeated import in_network_s

Basis: TypeAlias = Literal["measured", "predicted", "analytic estimate", "moved bytes"]

MEASURED_SPREAD = 0.12
"""Standard deviation of ln(estimated / measured in the network) of functions that were measured by
themselves, weighted by their time: 19 networks on one machine, `benchmarks.network_latency`."""

ANALYTIC_SPREAD = 0.9
"""Standard deviation of ln(measured / analytic estimate), where it is that of `models`: half of the
programs of networks that were not trained on are off by more than 63 % (benchmarks/RESULTS.md,
roofline). That of `replay.physics` is taken to be no better."""

LEAST_SPREAD = 1.5
"""The same for what is priced by the bytes it moves: assumed, as a sort may take tens
of times that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """One run of a function."""

    latency_s: float
    spread: float
    """Standard deviation of the natural logarithm of the latency."""
    level_spread: float
    """The same of a factor that all that is predicted on the device may be off by."""
    basis: Basis
    bounds: Mapping[str, float]
    """Parts of the analytic estimate by what bounds it, named as by `models.bound_names`; seconds
    or shares."""
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
    network_bytes: float,
    searched: Mapping[str, str],
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
    network_bytes
        Memory of the whole network, weights included.
    searched
        Class of operator of each function whose schedule a search found, as of its task; all others
        have schedules of TVM's own, and other measured levels.
    """
    leaves = leaves_by_name(moved_bytes, programs, hardware.cores)
    if device.calibration is not None and isinstance(predictor, TrainedPredictor):
        device = replace(device, calibration=device.calibration.while_learned(predictor.origin))
    prices = {
        name: _by_bytes(moved_bytes[name], device) for name, found in leaves.items() if not found
    }
    named = [name for name, found in leaves.items() if found]
    if not named:
        return prices
    by_device = defaultdict[DeviceSpec, dict[str, Sequence[Leaf]]](dict)
    for name in named:
        if _is_task(name, leaves[name]):
            if name in searched:
                of_operator = device.for_operator(searched[name])
            else:
                of_operator = OwnFunction.of(name, programs[name], leaves[name]).on(device)
            by_device[of_operator][name] = leaves[name]
    for of_operator, tuned in by_device.items():
        prices |= _predicted(programs, tuned, of_operator, hardware, predictor, network_bytes)
    for name in named:
        if name not in prices:
            prices[name] = _by_estimate(
                programs[name], leaves[name], device, hardware, network_bytes
            )
    return prices


def with_measured(
    prices: Mapping[str, Price],
    measured_s: Mapping[str, float],
    graph: OperatorGraph,
    programs: Mapping[str, Any],
    device: DeviceSpec,
) -> dict[str, Price]:
    """Put what was measured in the place of predictions; what holds functions down stays.

    Parameters
    ----------
    prices
        Of all functions of the graph.
    measured_s
        Seconds of some of them, timed again and again by themselves; they are corrected for what
        caches do not keep in the network (`replay.repeated`).
    graph, programs
        The network.
    device
        Where it was measured.

    Raises
    ------
    ConfigError
        A function is not of the network, or a latency is none.
    """
    if not isinstance(measured_s, Mapping):
        raise ConfigError(f"measured_s must be seconds by function; got {measured_s!r}.")
    for name in measured_s:
        if name not in prices:
            raise ConfigError(
                f"{name} was measured, but the network has no such function. It has: "
                f"{', '.join(prices)}."
            )
    seconds_of = {name: _seconds(name, seconds) for name, seconds in measured_s.items()}
    found_s = in_network_s(graph, programs, seconds_of, device)
    return {
        **prices,
        **{
            name: replace(
                prices[name],
                latency_s=seconds,
                spread=MEASURED_SPREAD,
                level_spread=0.0,
                basis="measured",
            )
            for name, seconds in found_s.items()
        },
    }


def _seconds(name: str, measured: Any) -> float:
    """Return a latency that was given for a function, checked."""
    seconds = float(measured) if isinstance(measured, Real) else math.nan
    if isinstance(measured, bool) or not 0 < seconds < LONGEST_COST_S:
        raise ConfigError(
            "A measured latency must be a number, positive, finite seconds, as the median of what "
            f"a timer returns; got {measured!r} for {name}."
        )
    return seconds


def _has_learned(predictor: CostPredictor, device: DeviceSpec) -> bool:
    """Tell whether weights are of `adapt`, which measures such functions on the device."""
    return isinstance(predictor, TrainedPredictor) and predictor.adapted_to == device.name


def _predicted(
    programs: Mapping[str, Any],
    tuned: Mapping[str, Sequence[Leaf]],
    device: DeviceSpec,
    hardware: Hardware,
    predictor: CostPredictor,
    network_bytes: float,
) -> dict[str, Price]:
    """Price functions by the predictor, given by their programs and leaves."""
    batch = describe_programs(list(tuned.values()), hardware)
    prediction = predictor.predict(batch, device)
    latencies_s = _in_network_s(prediction, batch, list(tuned.values()), device, network_bytes)
    if device.kind == "cpu" and not _has_learned(predictor, device):
        latencies_s = latencies_s + [
            unrecorded_calls_s(programs[name], found, device) for name, found in tuned.items()
        ]
    spreads, level_spread = np.full(len(batch), ANALYTIC_SPREAD), 0.0
    if isinstance(predictor, TrainedPredictor):
        level_spread = predictor.level_spread(device)
    if prediction.spread is not None:
        spreads = prediction.spread
    return {
        name: Price(
            latency_s=float(latencies_s[place]),
            spread=float(spreads[place]),
            level_spread=level_spread,
            basis="predicted",
            bounds=bound_shares(batch.take([place]), device),
            flops=sum(map(_flops, tuned[name])),
        )
        for place, name in enumerate(tuned)
    }


def _in_network_s(
    prediction: Prediction,
    batch: CompactASTBatch,
    leaves: Sequence[Sequence[Leaf]],
    device: DeviceSpec,
    network_bytes: float,
) -> npt.NDArray[np.floating[Any]]:
    """Return the latencies of programs inside of a network, on a CPU without the waits for memory.

    What is measured to learn from is measured with empty caches; in a network they hold what fits,
    so the work takes less. The start that is learned, 0.7 us, is that of a program that was
    measured by itself; an executor calls a pointer.
    """
    if device.kind != "cpu" or prediction.leaf_s is None:
        return prediction.latency_s
    return inside_network(prediction.leaf_s, batch, leaves, device, network_bytes).latency_s


def _by_estimate(
    program: Any,
    leaves: Sequence[Leaf],
    device: DeviceSpec,
    hardware: Hardware,
    network_bytes: float,
) -> Price:
    if device.kind == "cpu":
        found = estimate_function(program, leaves, device, network_bytes)
        latency_s, bounds = found.latency_s, found.bounds_s
    else:
        batch = describe_programs([leaves], hardware)
        latency_s = float(estimate_latency_s(batch, device)[0])
        bounds = bound_shares(batch, device)
    return Price(
        latency_s=latency_s,
        spread=ANALYTIC_SPREAD,
        level_spread=0.0,
        basis="analytic estimate",
        bounds=bounds,
        flops=sum(map(_flops, leaves)),
    )


def _is_task(name: str, leaves: Sequence[Leaf]) -> bool:
    """Tell whether Ansor tunes a function: whether it reduces.

    Reductions across GPU threads are intrinsics, not loops; these operators are told by their name.
    """
    loops = (loop for leaf in leaves for loop in leaf.loops)
    return any(loop.is_reduce for loop in loops) or is_of_reducing_class(name)


def _flops(leaf: Leaf) -> float:
    is_float = leaf.ops[:5]  # the float classes come first in `OP_CLASSES`
    return float(sum(is_float)) * math.prod(loop.extent for loop in leaf.loops)


def _by_bytes(moved_bytes: float, device: DeviceSpec) -> Price:
    moved_s = moved_bytes / device.bandwidth_bytes_per_s
    return Price(
        latency_s=PROGRAM_START_S + moved_s,
        spread=LEAST_SPREAD,
        level_spread=0.0,
        basis="moved bytes",
        bounds={"start-up": PROGRAM_START_S, "memory": moved_s},
        flops=0.0,
    )
