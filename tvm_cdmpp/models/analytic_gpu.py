"""The analytic estimate's terms on GPUs, where threads hide latencies and blocks take turns.

A multiprocessor runs the blocks it is given in waves, as many at once as its threads, registers and
shared memory allow; the one with the most blocks ends last. The fewer warps it has in flight, the
more of every latency shows. The constants are round figures of GPUs since Kepler.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_cdmpp.ast import ACCESS_SLOTS, OP_CLASSES
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models.facts import Count, Flag, FloatArray

_INSTRUCTIONS = {"float_div": 10.0, "float_math": 16.0, "int_div": 10.0, "int_math": 2.0}
"""Of one operation; others are one, a multiplication and the addition after it together."""
_LOOP_INSTRUCTIONS, _COMPILER_UNROLLS = 4.0, 4.0
"""Addresses, compare and jump, per iteration that is not unrolled; steps that the compiler unrolls
on its own."""
_WARPS_TO_HIDE = 4.0
"""Warps in flight that halve the latency that shows, one for each scheduler."""

_THREADS, _BLOCKS, _REGISTERS = 2048.0, 32.0, 65536.0
"""What one multiprocessor holds at once."""
_OTHER_REGISTERS = 32.0
"""Of a thread, beside what the program keeps in its own memory."""
_KEPT_REGISTERS, _KEPT_SHARE = 160.0, 0.75
"""Values that a thread keeps in its at most 255 registers, and the share of all registers that
blocks get for them."""
_WIDEST_BLOCK = 1024.0
"""Threads that the compiler for warps of 64, AMD's, leaves registers for, however few there are."""
_SPILLED_ACCESSES = 4.0
"""Per step of a sum whose values are not in registers: they are loaded and stored, and waited for.
"""

_SECTOR_BYTES, _SECTORS_PER_CYCLE = 32.0, 4.0
"""What memory is moved in, and how many a multiprocessor loads in a cycle."""
_L2_BYTES_PER_CYCLE = 32.0
"""Into one multiprocessor."""
_LATENCY_CYCLES = 400.0
"""Of an access to memory beyond the multiprocessor."""
_LOADS_AT_ONCE = 4.0
"""Loads of a thread that are on their way together."""
_KERNEL_START_S = 2.5e-6
_BLOCK_START_CYCLES = 2.0
"""Of every block, as one unit hands them out to all multiprocessors."""


@dataclass(frozen=True)
class _Grid:
    """How the threads of each leaf are laid out, and run."""

    blocks: FloatArray
    threads: FloatArray
    """Of a block."""
    warps: FloatArray
    """Of a block, the last of which may be partly empty."""
    kept: FloatArray
    """Values that one thread keeps, those of its virtual threads together."""
    turns: FloatArray
    """Blocks of the busiest multiprocessor."""
    resident: FloatArray
    """Blocks that it runs at once."""


@dataclass(frozen=True)
class _Accesses:
    """What one warp does in one step, outside of registers."""

    cycles: FloatArray
    """Of the load and store units; accesses to shared memory take one each."""
    bytes_: FloatArray
    """To and from beyond the multiprocessor."""
    loads: FloatArray
    """Instructions that load from there."""
    touched_bytes: FloatArray
    """By the whole program."""


def gpu_terms_s(count: Count, flag: Flag, device: DeviceSpec) -> FloatArray:
    """Estimate what bounds each leaf on a GPU: seconds, of shape (len(TERMS), leaves).

    Bytes come into multiprocessors ("into_l1") from the L2 cache, and into that ("into_l3") from
    memory.
    """
    grid = _grid(count, device)
    accesses = _accesses(count, flag, grid)
    fills = flag("write_is_shared")
    # What is copied for a block is copied once for all its virtual threads.
    copies = np.where(fills, np.maximum(count("vthread_extent"), 1.0), 1.0)
    steps = count("executions") / copies / (grid.blocks * grid.threads)
    core_steps = steps * grid.warps * grid.turns
    exposed = 1.0 + _WARPS_TO_HIDE / (grid.resident * grid.warps)

    issued = core_steps * exposed / device.fused_multiply_adds_per_cycle
    spilled = np.where(count("reduce_executions") > 1, _spilled_share(grid, device), 0.0)
    moves = core_steps * exposed * (accesses.cycles + _SPILLED_ACCESSES * spilled)
    # All threads of a block wait until its shared memory is filled, each time.
    stored = count("buffer_bytes") / np.maximum(count("write_element_bytes"), 1.0)
    lanes = grid.threads * np.maximum(count("vector_extent"), 1.0)
    rounds = np.where(fills, steps * grid.threads / np.maximum(stored, lanes), 0.0)
    waits = np.maximum(rounds, steps * accesses.loads / _LOADS_AT_ONCE)
    latency = _LATENCY_CYCLES * waits * grid.turns / grid.resident

    starts = ~(fills | flag("buffer_is_register") | flag("is_init"))
    start_s = _KERNEL_START_S + _BLOCK_START_CYCLES * grid.blocks / device.clock_hz
    terms: FloatArray = np.stack(
        [
            issued * _instructions(count) / device.clock_hz,
            np.maximum(moves, latency) / device.clock_hz,
            core_steps * accesses.bytes_ / _L2_BYTES_PER_CYCLE / device.clock_hz,
            np.zeros(len(steps)),
            accesses.touched_bytes / device.bandwidth_bytes_per_s,
            np.where(starts, start_s, 0.0),
        ]
    )
    return terms


def _grid(count: Count, device: DeviceSpec) -> _Grid:
    threads = np.maximum(count("thread_extent"), 1.0)
    blocks = np.maximum(np.maximum(count("block_extent"), count("parallel_extent")), 1.0)
    warps = np.ceil(threads / device.simd_lanes)
    kept = np.maximum(count("vthread_extent"), 1.0) * count("register_bytes") / 4.0
    turns = np.ceil(blocks / device.cores)
    shared_bytes = device.shared_bytes_per_core or device.l1_bytes
    fit = np.minimum(
        np.minimum(_THREADS, _REGISTERS / (_OTHER_REGISTERS + kept)) / (warps * device.simd_lanes),
        shared_bytes / np.maximum(count("shared_bytes"), 1.0),
    )
    resident = np.minimum(np.clip(np.floor(fit), 1.0, _BLOCKS), turns)
    return _Grid(blocks, threads, warps, kept, turns, resident)


def _instructions(count: Count) -> FloatArray:
    """Instructions of one step of one warp."""
    ops = np.maximum(count("float_add_ops"), count("float_mul_ops"))
    for name in OP_CLASSES:
        if name not in ("float_add", "float_mul"):
            ops = ops + _INSTRUCTIONS.get(name, 1.0) * count(f"{name}_ops")
    loops = _LOOP_INSTRUCTIONS / np.maximum(count("unrolled_body"), _COMPILER_UNROLLS)
    instructions: FloatArray = ops / np.maximum(count("executions"), 1.0) + loops
    return instructions


def _spilled_share(grid: _Grid, device: DeviceSpec) -> FloatArray:
    """Share of the values that a thread keeps for which there are no registers."""
    threads = grid.warps * device.simd_lanes if device.simd_lanes <= 32 else _WIDEST_BLOCK
    room = np.minimum(_KEPT_REGISTERS, _KEPT_SHARE * _REGISTERS / threads)
    share: FloatArray = np.clip(grid.kept / room - 1.0, 0.0, 1.0)
    return share


def _accesses(count: Count, flag: Flag, grid: _Grid) -> _Accesses:
    """Sum up the accesses of a step.

    Values that the two innermost loops load again stay in registers, and so do those loaded from
    shared memory for a tile of sums: of a square one each serves a row or a column.
    """
    steps = (count("inner0_extent") + 1.0) * (count("inner1_extent") + 1.0)
    vector = np.maximum(count("vector_extent"), 1.0)
    tile_side = np.sqrt(np.maximum(grid.kept, 1.0))
    zeros = np.zeros(len(steps))
    cycles, bytes_, loads, touched_bytes = zeros, zeros, zeros, zeros
    for slot in ACCESS_SLOTS:
        element_bytes, sectors = count(f"{slot}_element_bytes"), count(f"{slot}_warp_sectors")
        shared = flag(f"{slot}_is_shared")
        # Registers have no sectors, but neither has anything where there are no threads.
        beyond = (element_bytes > 0) & ~shared & ((sectors > 0) | (grid.threads == 1.0))
        if slot == "write":
            beyond &= ~flag("buffer_is_register")
        fresh = count(f"{slot}_tile_bytes") / np.maximum(element_bytes * steps, 1.0)
        fresh = np.minimum(fresh, np.where(shared & (slot != "write"), 1.0 / tile_side, 1.0))
        instructions = fresh / vector
        sectors = np.maximum(sectors, 1.0)
        cycles = cycles + np.where(shared, instructions, 0.0)
        cycles = cycles + np.where(
            beyond, instructions * np.maximum(sectors / _SECTORS_PER_CYCLE, 1.0), 0.0
        )
        bytes_ = bytes_ + np.where(beyond, instructions * sectors * _SECTOR_BYTES, 0.0)
        touched_bytes = touched_bytes + np.where(beyond, count(f"{slot}_unique_bytes"), 0.0)
        if slot != "write":
            loads = np.maximum(loads, np.where(beyond, instructions, 0.0))
    return _Accesses(cycles, bytes_, loads, touched_bytes)
