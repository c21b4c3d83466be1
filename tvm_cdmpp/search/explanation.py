"""Why a program is predicted to take as long as it does, and what would make it faster.

- The head of the trained network is additive, so the seconds of each leaf are the model's own.
- What bounds a leaf is the analytic estimate's word (`models.TERMS`).
- What moved the prediction is told by integrated gradients, see `models.attribute`.
- The roofline of a task is what the device's nominal figures allow (Williams et al., 2009): its
  floating point operations at the peak, that of the nominal clock, or its inputs and outputs, each
  once, at the memory's bandwidth.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import CompactASTBatch, Leaf, concatenate
from tvm_cdmpp.bridge import load_tvm, task_name
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.errors import CheckpointError, RecordError
from tvm_cdmpp.extract import StepExtractor, dump_records
from tvm_cdmpp.models import (
    TERMS,
    Attribution,
    Machine,
    Predictor,
    TrainedPredictor,
    attribute,
    bound_names,
    interval,
    leaf_terms_s,
)
from tvm_cdmpp.train import program_features

tvm = load_tvm()

_STORE = re.compile(r"^\s*(\S+) = \.\.\.$")


@dataclass(frozen=True, kw_only=True, slots=True)
class LeafShare:
    """One store statement of a program."""

    name: str
    """Of the buffer that it stores."""
    is_init: bool
    """Whether it stores the initial value of a reduction."""
    latency_s: float
    share: float
    """Of the predicted latency."""
    bound: str
    """What holds it down most, by the analytic estimate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbour:
    """A measured program of the same task."""

    row: int
    """Its place among the measured programs."""
    latency_s: float
    """As measured; infinite where it failed."""
    distance: float
    """Root mean square over the scaled features of both, above 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """What a model says of one program, and why."""

    task: str
    device: str
    latency_s: float
    interval_s: tuple[float, float] | None
    """Holds the latency in 90 % of cases."""
    calibration_factor: float
    """By which the latency, and that of each leaf, was multiplied, as measured on the device; 1
    where it is not calibrated."""
    runs_probability: float
    leaves: tuple[LeafShare, ...]
    start_s: float
    """Of the latency, what is no leaf's: the program's start-up."""
    loops: str
    """The program's loops as an indented tree, each store with its share of the latency."""
    roofline_s: float
    """The least that the nominal figures of the device allow for the task."""
    roofline_bound: str
    """What that is bound by, `compute` or `memory`."""
    attribution: Attribution
    """What moved the prediction away from that of the average leaf."""
    against: Attribution | None
    """What makes the difference to another program; None where there is none with as many
    leaves."""
    other_s: float | None
    """Predicted latency of that other program, whatever its leaves."""
    neighbours: tuple[Neighbour, ...]
    """The nearest measured programs but itself, the nearest first."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Measured programs of a task, among which neighbours are sought."""

    asts: CompactASTBatch
    latencies_s: npt.NDArray[np.float64]


def explain_program(
    predictor: Predictor | TrainedPredictor,
    machine: Machine,
    extractor: StepExtractor,
    task: Any,
    state: Any,
    *,
    against: Any = None,
    measured: Measured | None = None,
    num_neighbours: int = 3,
) -> Explanation:
    """Explain what a model says of a state.

    Parameters
    ----------
    predictor
        A model whose head is additive, such as the trained one.
    machine, extractor
        Of the task.
    task
        The `SearchTask`.
    state
        A complete state, or one from a log.
    against
        Another state of the task to compare with.
    measured
        Programs of the task that were measured.
    num_neighbours
        How many of them to name.

    Raises
    ------
    CheckpointError
        The model does not tell leaves apart.
    RecordError
        A state does not fit the task.
    """
    if not isinstance(predictor, TrainedPredictor):
        raise CheckpointError(
            "Only the trained predictor can be taken apart; this model learned in the search "
            "alone. Make it with weights, such as CDMPPModel(weights='shipped')."
        )
    program = _extract(extractor, task, state)
    other = None if against is None else _extract(extractor, task, against)
    device = machine.device
    found = predictor.predict(program if other is None else concatenate([program, other]), device)
    assert found.leaf_s is not None and found.spread is not None
    latency_s, spread = float(found.latency_s[0]), float(found.spread[0])
    facts, lines = _leaf_facts(extractor, task, state), _draw(task, state)
    stores = _stores_of(lines, facts)
    names = {buffer: lines[line].split()[0] for buffer, line in stores.items()}
    leaves = _leaf_shares(facts, names, program, device, found.leaf_s, latency_s)
    roofline_s, roofline_bound = task_roofline(task, device)
    alike = other is not None and len(other.vectors) == len(program.vectors)
    return Explanation(
        task=task_name(task),
        device=device.name,
        latency_s=latency_s,
        interval_s=interval(latency_s, spread, predictor.level_spread(device)),
        calibration_factor=math.exp(predictor.level(device)),
        runs_probability=float(found.runs_probability[0]),
        leaves=leaves,
        start_s=max(0.0, latency_s - sum(leaf.latency_s for leaf in leaves)),
        loops=_with_shares(lines, stores, facts, leaves),
        roofline_s=roofline_s,
        roofline_bound=roofline_bound,
        attribution=attribute(predictor, program, device),
        against=attribute(predictor, program, device, other) if alike else None,
        other_s=None if other is None else float(found.latency_s[1]),
        neighbours=_neighbours(program, measured, num_neighbours),
    )


def task_roofline(task: Any, device: DeviceSpec) -> tuple[float, str]:
    """Return the least seconds by nominal figures, and whether compute or memory bounds them."""
    flops = max(0.0, float(task.compute_dag.flop_ct))
    moved_bytes = sum(
        math.prod(int(size) for size in tensor.shape) * tvm.DataType(tensor.dtype).bits / 8
        for tensor in task.compute_dag.tensors
    )
    compute_s = flops / device.peak_flops
    memory_s = moved_bytes / device.bandwidth_bytes_per_s
    return (compute_s, "compute") if compute_s > memory_s else (memory_s, "memory")


def roofline_basis(device: DeviceSpec) -> dict[str, str]:
    """Return the figures that rooflines are of, by what bounds, with their sources."""
    source = device.sources.get("bandwidth_bytes_per_s") or "source not known"
    return {
        "compute": f"{device.peak_flops / 1e9:.4g} GFLOP/s",
        "memory": f"main memory at {device.bandwidth_bytes_per_s / 1e9:.4g} GB/s, {source}",
    }


def why_below_roofline(bound: str) -> str:
    """Return why a program may be faster than the roofline of its task."""
    faster = "the device is faster than its nominal figures"
    return faster if bound == "compute" else f"caches hold its data, or {faster}"


def _extract(extractor: StepExtractor, task: Any, state: Any) -> CompactASTBatch:
    batch, errors = extractor.extract(dump_records(task, [state]))
    if errors:
        raise errors[0]
    return batch


def _leaf_facts(extractor: StepExtractor, task: Any, state: Any) -> list[Leaf]:
    facts = extractor.leaves(dump_records(task, [state]))[0]
    if isinstance(facts, RecordError):
        raise facts
    return facts


def _leaf_shares(
    facts: Sequence[Leaf],
    names: Mapping[int, str],
    program: CompactASTBatch,
    device: DeviceSpec,
    leaf_s: npt.NDArray[np.floating[Any]],
    latency_s: float,
) -> tuple[LeafShare, ...]:
    slowest = leaf_terms_s(program, device).argmax(axis=0)
    bounds = bound_names(device)
    return tuple(
        LeafShare(
            name=names.get(fact.buffer, fact.name),
            is_init=fact.is_init,
            latency_s=float(leaf_s[number]),
            share=float(leaf_s[number]) / latency_s,
            bound=bounds[TERMS[slowest[number]]],
        )
        for number, fact in enumerate(facts)
    )


def _draw(task: Any, state: Any) -> list[str]:
    """Return TVM's own drawing of the loops."""
    try:
        whole = task.compute_dag.infer_bound_from_state(state)
    except tvm.TVMError as error:
        raise RecordError("TVM cannot bound the loops of this state") from error
    return str(whole).rstrip().splitlines()


def _stores_of(lines: Sequence[str], facts: Sequence[Leaf]) -> dict[int, int]:
    """Return the line at which each buffer is stored; none where the drawing has others.

    A stage has one line, where its last leaf is; the initial value of a reduction lies before it.
    """
    last = {fact.buffer: number for number, fact in enumerate(facts)}
    buffers = sorted(last, key=lambda buffer: last[buffer])
    stores = [number for number, line in enumerate(lines) if _STORE.match(line)]
    return dict(zip(buffers, stores, strict=True)) if len(buffers) == len(stores) else {}


def _with_shares(
    lines: list[str],
    stores: Mapping[int, int],
    facts: Sequence[Leaf],
    leaves: Sequence[LeafShare],
) -> str:
    """Return the drawing with the share of each store at its line."""
    drawn = list(lines)
    for buffer, line in stores.items():
        of_buffer = (
            s.share for s, fact in zip(leaves, facts, strict=True) if fact.buffer == buffer
        )
        drawn[line] += f"  {100 * sum(of_buffer):.1f}%"
    return "\n".join(drawn)


def _neighbours(
    program: CompactASTBatch, measured: Measured | None, number: int
) -> tuple[Neighbour, ...]:
    if measured is None or not len(measured.asts):
        return ()
    features = program_features(concatenate([program, measured.asts])).astype(np.float64)
    distances = np.sqrt(((features[1:] - features[0]) ** 2).mean(axis=1))
    nearest = np.argsort(distances, kind="stable")
    return tuple(
        Neighbour(
            row=int(row),
            latency_s=float(measured.latencies_s[row]),
            distance=float(distances[row]),
        )
        for row in nearest[distances[nearest] > 0][:number]
    )
