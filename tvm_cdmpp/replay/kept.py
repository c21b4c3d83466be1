"""What caches keep of a program inside of a network.

Ansor measures each program by itself on CPUs: everything but its first input is flushed out of the
caches before each run. In a network the weights that fit are still there when they are used again,
and what was computed just now is. A product with one or four rows, which does little with each
weight, takes half as long then; a convolution takes the same.

The constants are from products with 1 to 16 rows, small convolutions and pools by TVM's own
schedules on two cores of an EPYC of the third generation, each run both ways.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import Leaf
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models import sum_registers
from tvm_cdmpp.replay.physics import busy_cores, overlapped_s, traffic_s

_EMPTY_BYTES_PER_S = 12.5e9
"""Of main memory for one core where the caches for addresses are empty as well, and streams are too
short for prefetchers to run far ahead."""
_MOVE_CYCLES = 1.0
"""Per vector loaded."""
_BROADCAST_CYCLES = 0.5
"""Per value that all lanes share."""
_SUM_CYCLES = 6.0
"""Until a sum can be added to again, at the clock that a device is known by: 4 for a multiply-add,
8 where the sum goes through the first cache in between."""


class Kept(NamedTuple):
    """What a program's work is estimated to take; starts do not count."""

    inside_s: float
    """Inside of a network."""
    alone_s: float
    """By itself, with empty caches."""

    @property
    def share(self) -> float:
        """Of the time alone, what is left in a network."""
        return self.inside_s / self.alone_s

    def work_s(self, alone_s: float, level: float = 0.0) -> float:
        """Return what work takes in a network, given what it does take alone.

        Parameters
        ----------
        alone_s
            By itself, with empty caches.
        level
            ln(measured / returned) of work of which nothing stays, where that was measured.

        By what factor that is not as estimated is known of what stays; of the waits that are gone
        it tells nothing. Which of the two the factor is of, nobody knows: the root of the share
        lies between the share, as if it were of both alike, and 1, as if what stays had all of it.
        Nothing takes longer in a network than alone.
        """
        off = alone_s / self.alone_s
        known = math.pow(off, math.sqrt(self.share)) * math.exp(level * (1.0 - self.share))
        return min(alone_s, self.inside_s * known)


_ALL = Kept(1.0, 1.0)


def kept_work(
    leaves: Sequence[Leaf],
    compute_s: npt.NDArray[np.floating[Any]],
    device: DeviceSpec,
    network_bytes: float,
) -> Kept:
    """Estimate what a program's work takes inside of a network, and alone.

    Parameters
    ----------
    leaves
        Of the program.
    compute_s
        Seconds of arithmetic, and of loads and stores from the first cache; (2, leaves).
    device
        A CPU.
    network_bytes
        Memory of the whole network: what is used before the program runs again.
    """
    if all(len(leaf.accesses) <= 2 for leaf in leaves):
        return _ALL  # no leaf reads two buffers: one input, which is not flushed
    seconds = [
        _with_sums_in_registers(leaf, float(arithmetic_s), float(moves_s), device)
        for leaf, (arithmetic_s, moves_s) in zip(leaves, compute_s.T, strict=True)
    ]
    inside_s, alone_s = (
        sum(
            overlapped_s(
                (*of_leaf, *traffic_s(leaf, device, gone_bytes, gone_bytes, _EMPTY_BYTES_PER_S))
            )
            for leaf, of_leaf in zip(leaves, seconds, strict=True)
        )
        for gone_bytes in (network_bytes, math.inf)
    )
    return Kept(inside_s, alone_s)


def _with_sums_in_registers(
    leaf: Leaf, arithmetic_s: float, moves_s: float, device: DeviceSpec
) -> tuple[float, float]:
    """Return seconds of arithmetic, and of loads and stores, where registers hold a tile of sums.

    What is loaded for one sum of the tile is there for the others, which the base of the predictors
    does not count on.
    """
    reductions = [place for place, loop in enumerate(leaf.loops) if loop.is_reduce]
    if not reductions:
        return arithmetic_s, moves_s
    first = reductions[-1] + 1
    extents = [loop.extent for loop in leaf.loops]
    tile = math.prod(extents[first:])
    lanes = device.simd_bytes / leaf.accesses[0].element_bytes
    if first == len(extents) or not lanes <= tile <= sum_registers(device) * lanes:
        return arithmetic_s, moves_s
    cycles = 0.0
    for access in leaf.accesses[1:]:
        steps = access.steps[first:]
        values = math.prod(
            extent for extent, step in zip(extents[first:], steps, strict=True) if step
        )
        cycles += values * (_MOVE_CYCLES / lanes if steps[-1] == 1 else _BROADCAST_CYCLES)
    tiles = math.prod(extents) / tile
    per_second = device.clock_hz * busy_cores(leaf, device)
    return arithmetic_s, max(
        min(moves_s, tiles * cycles / per_second), tiles * _SUM_CYCLES / per_second
    )
