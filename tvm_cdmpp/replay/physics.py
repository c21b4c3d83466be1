"""What CPUs take for functions that no predictor was trained on.

Ansor's programs, which predictors are trained on, are tuned, vectorized and take microseconds or
more. Between them, a network copies, concatenates, adds and calls `erf`: functions of one schedule,
many of which take tens of nanoseconds. Here a roofline per leaf says what they take, as the base of
the predictors (`models.estimate_latency_s`) does, but it knows more of such functions:

- A parallel loop is as many runs of iterations as there are threads, not iterations that are alone:
  a concatenation is a parallel loop over single elements, and LLVM makes copies of whole lines of
  it. Iterations one after the other find the lines in the cache that they share.
- What a network hands on was written just now: it comes from the last cache. Of a network that fits
  into the caches of the cores all stays there, its code as well; of a larger one, as much as fits.
- Calls of the C library are made for one element at a time, and prevent vectors.
- Threads are woken once for each parallel loop, and only by functions that have one.

Cycles are round figures of current cores, from microbenchmarks of single functions where it says so
(one thread of an EPYC with AVX-512 and glibc 2.36, minimum of many runs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm_cdmpp.ast import OP_CLASSES, Access, Leaf
from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models import PROGRAM_START_S, bound_names
from tvm_cdmpp.networks import OwnFunction
from tvm_cdmpp.replay.library_calls import LIBRARY_CYCLES, cycles_of, library_calls

tvm = load_tvm()

_CALL_S = 2e-8
"""Of a compiled function, whatever it does: TVM's executor calls a pointer; a `relu` of one element
takes 18 ns. Where nothing of it is in a core's cache any more, it is `PROGRAM_START_S`, as for
programs that are measured by themselves: a few waits of 80 ns for lines and pages."""
_WAKE_S = 1.5e-6
"""To hand a parallel loop to a thread that spins, and to see that it has ended: two transfers of a
line between cores, and a `sched_yield` of the one that waits. Below 1 us at best, 3 us and more on
a machine with other work."""
_WAKE_THREAD_S = 1.5e-7
"""For each further thread: one more line that is written to it, one after the other, and one more
turn of the counter that all threads share. 3 us with 12 threads, of which small programs that were
measured on such a machine took 4 us."""

_OP_CYCLES = {
    "float_div": 5.0, "float_compare": 0.5, "float_math": 5.0, "int_add": 0.25, "int_mul": 0.25,
    "int_div": 5.0, "int_math": 1.0, "select": 0.25, "cast": 0.25,
}  # fmt: skip
"""Per operation and vector beyond multiply-adds, on a core that starts two a cycle; `float_math` is
what needs no library, such as square roots and rounding. Conditions on loops cost nothing: most are
always true, which TVM finds out when it compiles."""
_SCALAR_SHARE = 0.5
"""Of that, for a single value: wide vectors go through units of half their width."""
_LOAD_CYCLES = 0.5
_STORE_CYCLES = 1.0
_GATHER_CYCLES = 0.5
"""Per element that is not next to the one before: two loads a cycle, as for vectors."""
_GUARD_CYCLES = 0.5
"""Per element of a vectorized loop with a condition in it, which TVM turns into a serial one."""
_LOOP_CYCLES = 0.25
"""Per iteration; loops are unrolled by four, by TVM or by LLVM."""
_HOPED_FOR = 0.5
"""Exponent of the lanes to expect where LLVM may vectorize and does not always, as in
`models.analytic`. A mere copy it does."""
_OVERLAP_LOST = 0.25
"""Share of the faster resources' time that does not hide behind the slowest, as there."""

_LINE_BYTES = 64
_L2_BYTES_PER_CYCLE = 48.0
"""Of a stream into the first cache, of the 64 that current cores have at best."""
_L3_BYTES_PER_CYCLE = 32.0
"""Of a stream into the second, as much as can be. Concatenations of 0.4 and 2.8 MB have 109 and 96
GB/s at 2.6 GHz and above."""
_LAST_BYTES_PER_CORE = 4 * 2**20
"""Of the last cache that a core can count on. Chips have one to four MB for each core; a rented
machine of two cores shows the 32 MB of all eight, of which it kept 8 on two machines: of the
depthwise convolutions of networks at batch 4 the median took 2.9 and 2.5 times what was predicted
where all 32 counted, 1.2 and 1.6 times with that."""
_CORE_BYTES_PER_S = 25e9
"""Of main memory for one core: some 32 lines under way that take 80 ns each."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a function takes."""

    bounds_s: Mapping[str, float]
    """Seconds of each resource, named as by `models.bound_names`; they overlap."""
    latency_s: float


def call_s(device: DeviceSpec, network_bytes: float) -> float:
    """Return what one call of a function of a network takes on a CPU, whatever it does.

    Parameters
    ----------
    device
        A CPU.
    network_bytes
        Memory of the whole network: what is used before the function is called again.
    """
    gone = share_gone(device.l2_bytes, network_bytes / device.cores)
    return _CALL_S + gone * (PROGRAM_START_S - _CALL_S)


def estimate_function(
    program: Any, leaves: Sequence[Leaf], device: DeviceSpec, network_bytes: float
) -> Estimate:
    """Estimate what one call of a function takes on a CPU.

    Parameters
    ----------
    program
        The `PrimFunc`.
    leaves
        Of it, as from `extract.leaves_of`.
    device
        A CPU; its cores, clock, vectors, caches and bandwidth count, and what was measured of
        waking its threads and of such functions.
    network_bytes
        Memory of the whole network.
    """
    names = list(bound_names(device).values())
    bounds_s = dict.fromkeys(names, 0.0)
    latency_s = call_s(device, network_bytes) + wake_s(leaves, device)
    bounds_s["start-up"] = latency_s
    library = library_calls(program)
    for leaf in leaves:
        calls = [LIBRARY_CYCLES[name] for name in library.get(leaf.name, ())]
        slower = _slower(device, calls_library=bool(calls))
        found_s = _leaf_times_s(leaf, calls, device, network_bytes)
        times_s = tuple(slower * seconds for seconds in found_s)
        latency_s += overlapped_s(times_s)
        for name, seconds in zip(names, times_s, strict=False):
            bounds_s[name] += seconds
    return Estimate(bounds_s, latency_s)


def unrecorded_calls_s(program: Any, leaves: Sequence[Leaf], device: DeviceSpec) -> float:
    """Return what calls of the C library take on a CPU that no program has that was trained on.

    Those have none but `exp`. Networks have `erf` fused into convolutions and products, and it runs
    when these have ended.
    """
    library, total_s = library_calls(program), 0.0
    for leaf in leaves:
        cycles = cycles_of(name for name in library.get(leaf.name, ()) if name != "exp")
        executions = math.prod(loop.extent for loop in leaf.loops)
        total_s += cycles * executions / (device.clock_hz * busy_cores(leaf, device))
    return _slower(device, calls_library=True) * total_s


def _slower(device: DeviceSpec, *, calls_library: bool) -> float:
    """Return by what factor the work of a leaf was measured to be slower than estimated."""
    if device.calibration is None:
        return 1.0
    plain, library = device.calibration.plain_level, device.calibration.library_level
    level = library if calls_library and library is not None else plain
    return 1.0 if level is None else math.exp(level)


def plain_s(function: OwnFunction, device: DeviceSpec) -> tuple[float, float]:
    """Return what the start and the work of a function take that runs again and again by itself.

    Parameters
    ----------
    function
        With all that it reads in the caches, as far as these have room.
    device
        A CPU.
    """
    found = estimate_function(function.program, function.leaves, device, moved_bytes(function))
    start_s = found.bounds_s["start-up"]
    return start_s, found.latency_s - start_s


def moved_bytes(function: OwnFunction) -> float:
    """Return the bytes of all that a function reads and writes."""
    return math.fsum(
        math.prod(int(size) for size in buffer.shape) * tvm.DataType(buffer.dtype).bits / 8
        for buffer in function.program.buffer_map.values()
    )


def wake_s(leaves: Sequence[Leaf], device: DeviceSpec) -> float:
    """Return what it takes a CPU to wake threads, once for every parallel loop of a function.

    A device that was calibrated tells what it takes there to wake them all.
    """
    widths = dict[int, int]()
    for leaf in leaves:
        widths[leaf.nest] = max(widths.get(leaf.nest, 1), _parallel(leaf))
    woken = [min(width, device.cores) - 1 for width in widths.values()]
    usual_s = sum(map(_usual_wake_s, woken))
    measured_s = device.calibration.wake_s if device.calibration else None
    if measured_s is None or device.cores == 1:
        return usual_s
    return usual_s * measured_s / _usual_wake_s(device.cores - 1)


def _usual_wake_s(others: int) -> float:
    """Return what waking so many other threads for one loop takes on a machine like most."""
    return _WAKE_S + (others - 1) * _WAKE_THREAD_S if others else 0.0


def overlapped_s(times_s: Sequence[float]) -> float:
    """Return what a leaf takes, given the seconds of each of its resources."""
    slowest_s = max(times_s)
    return slowest_s + _OVERLAP_LOST * (sum(times_s) - slowest_s)


def _leaf_times_s(
    leaf: Leaf, library: Sequence[float], device: DeviceSpec, network_bytes: float
) -> tuple[float, ...]:
    """Return seconds of arithmetic, loads and stores, and traffic into each cache and from memory.

    In the order of `models.TERMS`, for those that have it.
    """
    per_second = device.clock_hz * busy_cores(leaf, device)
    executions = math.prod(loop.extent for loop in leaf.loops)
    arithmetic, moves = _cycles(leaf, library, device)
    return (
        arithmetic * executions / per_second,
        moves * executions / per_second,
        *traffic_s(leaf, device, network_bytes, 0.0),
    )


def traffic_s(
    leaf: Leaf,
    device: DeviceSpec,
    network_bytes: float,
    through_last_bytes: float,
    core_bytes_per_s: float = _CORE_BYTES_PER_S,
) -> tuple[float, float, float]:
    """Return a CPU's seconds of traffic into each cache and from memory.

    Parameters
    ----------
    leaf, device
        What runs where.
    network_bytes
        What goes through the cores' own caches before the leaf runs again.
    through_last_bytes
        The same of the last cache; 0 where that has all, as what was written just now.
    core_bytes_per_s
        What one core gets from memory.
    """
    busy = busy_cores(leaf, device)
    last_bytes = counted_last_bytes(device, busy) / busy
    into_l1 = busy * _traffic_bytes(leaf, device.l1_bytes, busy, network_bytes / busy)
    into_l2 = busy * _traffic_bytes(leaf, device.l2_bytes, busy, network_bytes / busy)
    into_l3 = busy * _traffic_bytes(leaf, last_bytes, busy, through_last_bytes / busy)
    return (
        into_l1 / _L2_BYTES_PER_CYCLE / (device.clock_hz * busy),
        *fetch_s(into_l2, into_l3, device, busy, core_bytes_per_s),
    )


def counted_last_bytes(device: DeviceSpec, busy: float) -> float:
    """Return what so many busy cores of a CPU can count on of the last cache."""
    return max(min(device.l3_bytes, device.cores * _LAST_BYTES_PER_CORE), device.l2_bytes * busy)


def fetch_s(
    into_l2_bytes: float,
    into_last_bytes: float,
    device: DeviceSpec,
    busy: float,
    core_bytes_per_s: float = _CORE_BYTES_PER_S,
) -> tuple[float, float]:
    """Return a CPU's seconds of traffic into the cores' second caches, and from memory.

    Parameters
    ----------
    into_l2_bytes, into_last_bytes
        Of all busy cores together.
    device
        A CPU; where it has two levels of caches only, the second is the last.
    busy
        Cores that share the work.
    core_bytes_per_s
        What one core gets from memory.
    """
    if not device.l3_bytes:
        into_l2_bytes = 0.0
    return (
        into_l2_bytes / _L3_BYTES_PER_CYCLE / (device.clock_hz * busy),
        into_last_bytes / min(device.bandwidth_bytes_per_s, busy * core_bytes_per_s),
    )


def _cycles(leaf: Leaf, library: Sequence[float], device: DeviceSpec) -> tuple[float, float]:
    """Return cycles of arithmetic, and of loads and stores, per execution of a leaf."""
    ops = dict(zip(OP_CLASSES, leaf.ops, strict=True))
    ops["float_math"] = max(ops["float_math"] - len(library), 0)
    multiply_adds = max(ops["float_add"], ops["float_mul"]) / device.fused_multiply_adds_per_cycle
    vector = multiply_adds + sum(cycles * ops[name] for name, cycles in _OP_CYCLES.items())
    inner = [access.steps[-1] if access.steps else 0 for access in leaf.accesses]
    reads = inner[1:]
    lanes, arithmetic = 1.0, sum(library)
    if leaf.loops:
        loop, is_line = leaf.loops[-1], inner[0] == 1 and all(step <= 1 for step in reads)
        if loop.kind == "vectorized" and _is_guarded(leaf):
            arithmetic += _GUARD_CYCLES
        elif not library and (loop.kind == "vectorized" or is_line):
            is_certain = loop.kind == "vectorized" or not any(leaf.ops)
            lanes = _full_lanes(loop.extent, leaf, device) ** (1.0 if is_certain else _HOPED_FOR)
    arithmetic += vector / lanes if lanes > 1 else _SCALAR_SHARE * vector
    arithmetic += _LOOP_CYCLES / lanes
    moves = sum(_LOAD_CYCLES / lanes if step <= 1 else _GATHER_CYCLES for step in reads)
    moves += _STORE_CYCLES / (lanes if inner[0] <= 1 else 1.0)
    return arithmetic, moves


def _full_lanes(extent: int, leaf: Leaf, device: DeviceSpec) -> float:
    """Return lanes in use: a loop of 20 on 16 lanes takes two vectors."""
    widest = max(access.element_bytes for access in leaf.accesses)
    return extent / math.ceil(extent / max(device.simd_bytes / widest, 1.0))


def _is_guarded(leaf: Leaf) -> bool:
    """Tell whether a condition decides over single elements.

    That is where loops run further than the buffer goes, and where something else is stored where
    what is read has ended, as in padding.
    """
    stored, *read = (math.prod(span[0] for span in access.cover) for access in leaf.accesses)
    executions = math.prod(loop.extent for loop in leaf.loops)
    chooses = leaf.ops[OP_CLASSES.index("select")] > 0
    return executions > stored or (chooses and max(read, default=0) < stored)


def _parallel(leaf: Leaf) -> int:
    return math.prod(loop.extent for loop in leaf.loops if loop.kind == "parallel")


def busy_cores(leaf: Leaf, device: DeviceSpec) -> float:
    """Return the cores that a leaf keeps busy: 3 runs on 2 cores take as long as 4."""
    parallel = _parallel(leaf)
    return parallel / math.ceil(parallel / device.cores)


def _traffic_bytes(leaf: Leaf, size_bytes: float, busy: float, network_bytes: float = 0.0) -> float:
    """Return what one core moves into its cache, or its part of one.

    Where the cache holds all that the leaf touches, that is moved once, as far as it is not there.
    Else there is an outermost loop whose body the cache holds. Its iterations share lines, the
    loops around it share nothing.
    """
    extents = [loop.extent for loop in leaf.loops]
    all_bytes = sum(bytes_of_lines(access, 0, extents) for access in leaf.accesses) / busy
    if all_bytes <= size_bytes or not extents:
        return all_bytes * share_gone(size_bytes, network_bytes)
    level = next(
        n
        for n in range(1, len(extents) + 1)
        if n == len(extents)
        or sum(bytes_of_lines(access, n, extents) for access in leaf.accesses) <= size_bytes
    )
    alone = sum(bytes_of_lines(access, level - 1, extents) for access in leaf.accesses)
    return math.prod(extents[: level - 1]) * alone / busy


def share_gone(size_bytes: float, network_bytes: float) -> float:
    """Return the share of what was used in the last run that a cache holds no more."""
    return max(0.0, 1.0 - size_bytes / network_bytes) if network_bytes else 0.0


def bytes_of_lines(access: Access, level: int, extents: Sequence[int]) -> float:
    """Return the bytes of all cache lines that a leaf's loops from a level inward touch.

    Rows that the data chooses may be anywhere in the buffer, but no more than are asked for.
    """
    lines = min(
        math.prod(extents[level:inner]) * _lines(access, inner)
        for inner in range(level, len(extents) + 1)
    )
    return float(_LINE_BYTES * lines)


def _lines(access: Access, level: int) -> int:
    """Return the lines of what lies between the first and the last element that are touched."""
    run, runs, is_whole = access.element_bytes, 1, True
    for span, length in zip(reversed(access.cover), reversed(access.shape), strict=True):
        if is_whole:
            run *= span[level]
        else:
            runs *= span[level]
        is_whole = is_whole and span[level] == length
    return runs * math.ceil(run / _LINE_BYTES)
