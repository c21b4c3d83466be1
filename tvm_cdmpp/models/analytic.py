"""An analytic latency estimate: the score before anything was measured, and the base of learning.

A roofline over the leaves of a program (Williams et al., 2009), with the memory side split by
cache level: a leaf takes as long as the slowest of its arithmetic, its loads and stores, and the
traffic into each cache, plus a share of the rest, since they overlap only in part. Parallel loops
divide the time by the cores they keep busy. The constants are round figures of current cores; the
predictor learns what they leave out. GPUs have terms of their own, in `analytic_gpu`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import (
    ACCESS_SLOTS,
    NUM_INNER_LOOPS,
    TRAFFIC_CAPACITIES_BYTES,
    CompactASTBatch,
)
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models.analytic_gpu import gpu_terms_s
from tvm_cdmpp.models.facts import Count, Facts, Flag, FloatArray

_CYCLES_PER_OP = {
    "float_compare": 0.5,
    "float_div": 5.0,
    "float_math": 15.0,
    "int_add": 0.25,
    "int_mul": 0.25,
    "int_div": 5.0,
    "int_compare": 0.25,
    "int_math": 1.0,
    "select": 0.25,
    "bool": 0.25,
    "cast": 0.25,
}
"""Cycles per operation and vector beyond multiply-adds, on a core that starts two a cycle."""

_LOOP_CYCLES = 1.0
"""Compare, add and jump, per iteration of a loop that is not unrolled."""
_COMPILER_UNROLLS = 4.0
"""Steps that the compiler unrolls on its own."""
_MOVE_CYCLES = 1.0
"""Per vector loaded."""
_BROADCAST_CYCLES = 0.5
"""Per value loaded that all lanes share."""
_STORE_CYCLES = 2.0
"""Per vector of a sum that is loaded, added to and stored."""
_KEPT_CYCLES = 0.5
"""The same, when the sum stays in a register."""
_REGISTERS, _REGISTERS_OF_WIDE = 16, 32
"""Vector registers for sums; the second with vectors of 64 bytes and more, as of AVX-512. Arm has
32 as well, which the figures of a device do not tell."""
_AUTOMATIC_LANES_EXPONENT = 0.5
"""Lanes to expect of a loop that is left to the compiler: it vectorizes some, and some not."""
_OVERLAP_LOST = 0.25
"""Share of the faster resources' time that does not hide behind the slowest."""
_PARALLEL_START_S = 3e-6
PROGRAM_START_S = 5e-7
"""Of every program, whatever it does."""
_L2_BYTES_PER_CYCLE = 32.0
_L3_BYTES_PER_CYCLE = 12.0


TERMS = ("arithmetic", "load_store", "into_l1", "into_l2", "into_l3", "start")
"""What bounds a leaf; all but the start of threads overlap."""

_BOUND_NAMES = ("compute", "loads and stores", "L2 cache", "L3 cache", "memory", "start-up")


def estimate_latency_s(batch: CompactASTBatch, device: DeviceSpec) -> FloatArray:
    """Estimate the latency of programs.

    Parameters
    ----------
    batch
        Compact ASTs of n programs.
    device
        Hardware to estimate for.

    Returns
    -------
    latencies_s
        Seconds, of shape (n,), finite and positive.
    """
    return sum_leaves(batch, estimate_leaf_latency_s(batch, device))


def bound_names(device: DeviceSpec) -> dict[str, str]:
    """Return what the bounds of `TERMS` are called on a device, by where the bytes come from."""
    names = dict(zip(TERMS, _BOUND_NAMES, strict=True))
    return names if device.l3_bytes else {**names, "into_l2": "memory"}


def bound_shares(program: CompactASTBatch, device: DeviceSpec) -> dict[str, float]:
    """Return the share of a program's estimate by what bounds it, named as by `bound_names`."""
    terms_s = leaf_terms_s(program, device).sum(axis=1)
    names, total_s = bound_names(device), float(terms_s.sum()) or 1.0
    shares = dict.fromkeys(names.values(), 0.0)
    for term, seconds in zip(TERMS, terms_s, strict=True):
        shares[names[term]] += float(seconds) / total_s
    return shares


def sum_leaves(batch: CompactASTBatch, leaf_s: FloatArray) -> FloatArray:
    """Return the seconds that programs take, given those of their leaves; shape (n,)."""
    programs = np.repeat(np.arange(len(batch)), batch.leaf_counts)
    return PROGRAM_START_S + np.bincount(programs, leaf_s, minlength=len(batch))


def estimate_leaf_latency_s(batch: CompactASTBatch, device: DeviceSpec) -> FloatArray:
    """Estimate the seconds that each leaf takes; shape (leaves,)."""
    return combine_terms(leaf_terms_s(batch, device))


def combine_terms(terms_s: FloatArray) -> FloatArray:
    """Return the seconds of leaves from their terms, of shape (len(TERMS), leaves)."""
    times, start = terms_s[:-1], terms_s[-1]
    slowest = times.max(axis=0)
    total: FloatArray = slowest + _OVERLAP_LOST * (times.sum(axis=0) - slowest) + start
    return total


def leaf_terms_s(batch: CompactASTBatch, device: DeviceSpec) -> FloatArray:
    """Estimate what bounds each leaf: seconds by resource, of shape (len(TERMS), leaves)."""
    facts = Facts(batch)
    count, flag = facts.count, facts.flag
    if device.kind == "gpu":
        return gpu_terms_s(count, flag, device)

    lanes = _lanes(count, flag, device)
    multiply_adds = np.maximum(count("float_add_ops"), count("float_mul_ops"))
    cycles = multiply_adds / device.fused_multiply_adds_per_cycle
    for name, per_op in _CYCLES_PER_OP.items():
        cycles = cycles + per_op * count(f"{name}_ops")
    arithmetic = cycles / lanes
    # A reduction in the innermost loop waits for its own sum, 4 cycles each time.
    chained = flag("inner0_is_reduce") & ~flag("is_vectorized")
    arithmetic = np.maximum(arithmetic, np.where(chained, 2.0 * multiply_adds, 0.0) / lanes)
    executions = count("executions")
    moves = sum(
        np.where(
            flag(f"{slot}_is_invariant"),
            _BROADCAST_CYCLES,
            np.where(flag(f"{slot}_is_contiguous"), _MOVE_CYCLES, _MOVE_CYCLES * lanes),
        )
        * (count(f"{slot}_element_bytes") > 0)
        for slot in ACCESS_SLOTS[1:]
    )
    registers = _REGISTERS_OF_WIDE if device.simd_bytes >= 64 else _REGISTERS
    kept = _accumulator_bytes(count, flag) <= registers * device.simd_bytes
    stored = np.where(flag("write_is_contiguous") | flag("write_is_invariant"), 1.0, lanes)
    summed = (count("reduce_executions") > 1) & ~flag("is_init")
    moves = moves + stored * np.where(summed & kept, _KEPT_CYCLES, _STORE_CYCLES)
    load_store = moves * executions / lanes
    # Steps of an unrolled body are single lanes, unless its innermost loop is vectorized.
    steps = executions / np.where(flag("is_vectorized"), lanes, 1.0)
    loops = _LOOP_CYCLES * steps / np.maximum(count("unrolled_body"), _COMPILER_UNROLLS)

    parallel = np.maximum(count("parallel_extent"), 1.0)
    busy = parallel / np.ceil(parallel / device.cores)
    per_second = device.clock_hz * busy
    sizes = (device.l1_bytes, device.l2_bytes, max(device.l3_bytes, device.l2_bytes) / busy)
    into_l1, into_l2, into_l3 = (_traffic(count, size) for size in sizes)
    terms: FloatArray = np.stack(
        [
            (arithmetic + loops) / per_second,
            load_store / per_second,
            into_l1 / _L2_BYTES_PER_CYCLE / per_second,
            into_l2 / _L3_BYTES_PER_CYCLE / per_second,
            into_l3 / device.bandwidth_bytes_per_s,
            np.where(parallel > 1, _PARALLEL_START_S, 0.0),
        ]
    )
    return terms


def _accumulator_bytes(count: Count, flag: Flag) -> FloatArray:
    """Bytes of the sums that are open at once: the tile inside the innermost reduction loop."""
    tile = count("write_element_bytes")
    open_ = np.ones(len(tile), dtype=bool)
    for n in range(NUM_INNER_LOOPS):
        open_ &= ~flag(f"inner{n}_is_reduce")
        tile = tile * np.where(open_, count(f"inner{n}_extent") + 1.0, 1.0)
    return tile


def _lanes(count: Count, flag: Flag, device: DeviceSpec) -> FloatArray:
    """Vector lanes in use: of a vectorized loop, or of one that the compiler can vectorize."""
    straight = np.ones(len(count("executions")), dtype=bool)
    for slot in ACCESS_SLOTS:
        unused = count(f"{slot}_element_bytes") == 0
        straight &= unused | flag(f"{slot}_is_contiguous") | flag(f"{slot}_is_invariant")
    extent = np.where(flag("is_vectorized"), count("vector_extent"), count("inner0_extent") + 1.0)
    extent = np.maximum(extent, 1.0)  # a vector without the field would divide zero by zero
    automatic = straight & flag("write_is_contiguous")
    # A loop of 20 on 16 lanes takes two vectors: 10 lanes are used.
    full = np.maximum(extent / np.ceil(extent / device.simd_lanes), 1.0)
    hoped_for = np.where(automatic, full**_AUTOMATIC_LANES_EXPONENT, 1.0)
    lanes: FloatArray = np.where(flag("is_vectorized"), full, hoped_for)
    return lanes


def _traffic(count: Count, size_bytes: npt.ArrayLike) -> FloatArray:
    """Bytes moved into a cache, at the largest tabulated capacity that is not above its size."""
    capacities = np.array(TRAFFIC_CAPACITIES_BYTES, dtype=np.float64)
    curve = np.stack([count(f"traffic_{int(c)}") for c in TRAFFIC_CAPACITIES_BYTES])
    chosen = np.searchsorted(capacities, np.asarray(size_bytes), side="right") - 1
    chosen = np.broadcast_to(np.maximum(chosen, 0), curve.shape[1:])
    moved: FloatArray = curve[chosen, np.arange(curve.shape[1])]
    return moved
