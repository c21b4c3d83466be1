"""An analytic latency estimate: the score before anything was measured, and the base of learning.

A roofline over the leaves of a program (Williams et al., 2009), with the memory side split by
cache level: a leaf takes as long as the slowest of its arithmetic, its loads and stores, and the
traffic into each cache, plus a share of the rest, since they overlap only in part. Parallel loops
divide the time by the cores they keep busy. The constants are round figures of current cores; the
predictor learns what they leave out. GPUs have terms of their own, in `analytic_gpu`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_cdmpp.ast import (
    ACCESS_SLOTS,
    TRAFFIC_CAPACITIES_BYTES,
    CompactASTBatch,
)
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models.analytic_gpu import gpu_terms_s
from tvm_cdmpp.models.facts import Count, Facts, Flag, FloatArray, Mask

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
_COMPILER_UNROLLS = 8.0
"""Steps that the compiler unrolls on its own."""
_MOVE_CYCLES = 1.0
"""Per vector loaded, or per value that is put into a lane of one."""
_BROADCAST_CYCLES = 0.5
"""Per value that all lanes share, or that code without vectors loads."""
_STORE_CYCLES = 1.0
"""Per vector; the load and the addition of a sum that is not in a register hide behind it."""
_KEPT_CYCLES = 0.5
"""Per vector of a sum that stays in a register, as it is stored in the end."""
_ADD_LATENCY = 4.0
"""Cycles until a sum can be added to again."""
_STEPS_AHEAD = 128.0
"""Steps of scalar code that a core looks ahead for sums that do not wait for each other."""
_REGISTERS, _REGISTERS_OF_WIDE = 12.0, 28.0
"""Vector registers for sums, as four of 16 or 32 hold what is multiplied; the second with vectors
of 64 bytes and more, as of AVX-512. Arm has 32 as well, which the figures of a device do not tell.
"""
_FAR_SPILLS = 2.0
"""Times that a sum without register costs as much in a buffer that is not of the tile alone."""
_OVERLAP_LOST = 0.25
"""Share of the faster resources' time that does not hide behind the slowest."""
_PARALLEL_START_S = 3e-6
PROGRAM_START_S = 5e-7
"""Of every program, whatever it does."""
_L2_BYTES_PER_CYCLE = 48.0
_L3_BYTES_PER_CYCLE = 12.0
_LINE_BYTES = 64.0


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


def sum_registers(device: DeviceSpec) -> float:
    """Return how many vectors of sums the registers of a CPU hold."""
    return _REGISTERS_OF_WIDE if device.simd_bytes >= 64 else _REGISTERS


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

    columns = _columns(count, flag)
    lanes = _lanes(count, flag, device, columns)
    vectors = count("executions") / lanes
    multiply_adds = np.maximum(count("float_add_ops"), count("float_mul_ops"))
    cycles = multiply_adds / device.fused_multiply_adds_per_cycle
    for name, per_op in _CYCLES_PER_OP.items():
        cycles = cycles + per_op * count(f"{name}_ops")
    sums = _sums(count, flag, device, lanes)
    arithmetic = np.maximum(cycles / lanes, sums.wait_cycles * vectors)
    # Steps of an unrolled body are single lanes, unless its innermost loop is vectorized.
    wide = np.where(flag("is_vectorized"), np.maximum(count("vector_extent"), 1.0), 1.0)
    loops = _LOOP_CYCLES * count("executions") / wide
    loops = loops / np.maximum(count("unrolled_body"), _COMPILER_UNROLLS)
    loads = _load_cycles(count, flag, lanes, columns)

    parallel = np.maximum(count("parallel_extent"), 1.0)
    busy = parallel / np.ceil(parallel / device.cores)
    per_second = device.clock_hz * busy
    sizes = (device.l1_bytes, device.l2_bytes, max(device.l3_bytes, device.l2_bytes) / busy)
    into_l1, into_l2, into_l3 = (_traffic(count, size, columns) for size in sizes)
    terms: FloatArray = np.stack(
        [
            (arithmetic + loops) / per_second,
            vectors * (loads + sums.store_cycles) / per_second,
            into_l1 / _L2_BYTES_PER_CYCLE / per_second,
            into_l2 / _L3_BYTES_PER_CYCLE / per_second,
            into_l3 / device.bandwidth_bytes_per_s,
            np.where(parallel > 1, _PARALLEL_START_S, 0.0),
        ]
    )
    return terms


@dataclass(frozen=True)
class _Sums:
    """What one vector of results costs, beside its arithmetic."""

    store_cycles: FloatArray
    """To store it: a sum in registers once it is complete, others each time."""
    wait_cycles: FloatArray
    """For the additions before it, shared by the sums that are open at once."""


def _sums(count: Count, flag: Flag, device: DeviceSpec, lanes: FloatArray) -> _Sums:
    """Tell what is kept of the tile inside the innermost reduction loop."""
    tile = np.maximum(count("spatial_inside"), 1.0)
    open_ = tile / np.minimum(lanes, tile)
    spilled = np.clip(open_ / sum_registers(device) - 1.0, 0.0, 1.0)
    spilled = spilled * np.where(flag("write_is_inside"), 1.0, _FAR_SPILLS)
    summed = (count("reduce_executions") > 1) & ~flag("is_init")
    stored = np.where(summed, _KEPT_CYCLES + _STORE_CYCLES * spilled, _STORE_CYCLES)
    per_vector = np.where(flag("write_is_contiguous") | flag("write_is_invariant"), 1.0, lanes)
    ahead = _STEPS_AHEAD / np.maximum(count("reduce_inside"), 1.0)
    wait = np.where(summed, _ADD_LATENCY / np.maximum(open_, ahead), 0.0)
    return _Sums(per_vector * stored, wait)


def _load_cycles(count: Count, flag: Flag, lanes: FloatArray, columns: Mask) -> FloatArray:
    """Cycles to load the operands of one vector of results."""
    cycles = np.zeros(len(lanes))
    for slot in ACCESS_SLOTS[1:]:
        # To fill a vector from many places takes a move for each lane.
        is_row = flag(f"{slot}_is_contiguous") | columns
        single = flag(f"{slot}_is_invariant") | (~is_row & (lanes == 1.0))
        one = np.where(single, _BROADCAST_CYCLES, _MOVE_CYCLES * np.where(is_row, 1.0, lanes))
        cycles = cycles + np.where(count(f"{slot}_element_bytes") > 0, one, 0.0)
    return cycles


def _columns(count: Count, flag: Flag) -> Mask:
    """Where values are summed up with loops around, as of pooling and sums over rows.

    The compiler unrolls the sum and vectorizes the loop around it, along rows.
    """
    around = count("executions") / np.maximum(count("parallel_extent"), 1.0)
    alone = (count("read1_element_bytes") == 0) & ~flag("is_vectorized")
    columns: Mask = flag("inner0_is_reduce") & alone & (around > count("reduce_inside"))
    return columns


def _lanes(count: Count, flag: Flag, device: DeviceSpec, columns: Mask) -> FloatArray:
    """Vector lanes in use: of a vectorized loop, or of one that the compiler can vectorize."""
    straight = np.ones(len(count("executions")), dtype=bool)
    for slot in ACCESS_SLOTS:
        unused = count(f"{slot}_element_bytes") == 0
        straight &= unused | flag(f"{slot}_is_contiguous") | flag(f"{slot}_is_invariant")
    extent = np.where(flag("is_vectorized"), count("vector_extent"), count("inner0_extent") + 1.0)
    extent = np.maximum(extent, 1.0)  # a vector without the field would divide zero by zero
    around = count("executions") / np.maximum(count("parallel_extent"), 1.0)
    around = around / np.maximum(count("reduce_inside"), 1.0)
    extent = np.where(columns, np.minimum(around, device.simd_lanes), extent)
    automatic = columns | (straight & flag("write_is_contiguous"))
    # A loop of 20 on 16 lanes takes two vectors: 10 lanes are used.
    full = np.maximum(extent / np.ceil(extent / device.simd_lanes), 1.0)
    lanes: FloatArray = np.where(flag("is_vectorized") | automatic, full, 1.0)
    return lanes


def _traffic(count: Count, size_bytes: float | FloatArray, columns: Mask) -> FloatArray:
    """Bytes moved into a cache, at the largest tabulated capacity that is not above its size.

    Lines of a column that fits are still there for the next column.
    """
    capacities = np.array(TRAFFIC_CAPACITIES_BYTES, dtype=np.float64)
    curve = np.stack([count(f"traffic_{int(c)}") for c in TRAFFIC_CAPACITIES_BYTES])
    chosen = np.searchsorted(capacities, np.asarray(size_bytes), side="right") - 1
    chosen = np.broadcast_to(np.maximum(chosen, 0), curve.shape[1:])
    moved: FloatArray = curve[chosen, np.arange(curve.shape[1])]
    again = columns & (_LINE_BYTES * count("reduce_inside") <= size_bytes)
    loaded = count("executions") * count("read0_element_bytes")
    kept: FloatArray = np.where(again & (loaded > 0), np.minimum(moved, loaded), moved)
    return kept
