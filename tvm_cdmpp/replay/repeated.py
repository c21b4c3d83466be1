"""What functions take inside of a network on a CPU that were timed again and again by themselves.

By itself such a function finds all that it reads in the caches, as far as they have room, so its
latencies add up to less than a network takes. Inside,

- of the cores' own caches all goes through that the network touches in a run, and the share of it
  is gone that has no room;
- in the last cache is what was touched a short time ago. What went through since then, the reuse
  distance (Mattson et al., IBM Systems Journal 1970), is little for what was just computed, and the
  whole network for its weights.

What is gone comes at the rates of `replay.physics` and is waited for; a call takes longer, too,
where its code and arguments are gone. By itself a function has the last cache as large as it is,
inside the part that cores can count on: a pool that reads 12 MB took 3.2 ms at first and 0.9 ms
from the eighth run on, on a chip with 32 MB for eight cores, and 2.9 ms inside of a network of
61 MB.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tvm_cdmpp.ast import Leaf
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.errors import NetworkError
from tvm_cdmpp.extract import leaves_by_name
from tvm_cdmpp.replay.graph import Operator, OperatorGraph, Value
from tvm_cdmpp.replay.physics import (
    busy_cores,
    bytes_of_lines,
    call_s,
    counted_last_bytes,
    fetch_s,
    share_gone,
)


def in_network_s(
    graph: OperatorGraph,
    programs: Mapping[str, Any],
    latency_s: Mapping[str, float],
    device: DeviceSpec,
) -> dict[str, float]:
    """Return what calls of functions take in a network, the mean of each function's calls.

    Parameters
    ----------
    graph
        The network.
    programs
        `PrimFunc` by function, where there is one; they tell how much of a table is looked up.
    latency_s
        Seconds of functions of the graph that were timed again and again by themselves.
    device
        Where. What other kinds than CPUs take is returned as it is.

    Raises
    ------
    NetworkError
        The graph has no such function, or what it takes is not finite seconds of at least 0.
    """
    for name, seconds in latency_s.items():
        if name not in graph.counts or not 0 <= seconds < math.inf:
            raise NetworkError(
                f"Expected finite seconds of functions of the network, of at least 0; got "
                f"{seconds!r} for {name}."
            )
    if device.kind != "cpu":
        return dict(latency_s)
    leaves = leaves_by_name(graph.counts, programs, device.cores)
    touched = [_touched_bytes(call, leaves[call.function]) for call in graph.operators]
    largest = defaultdict[int, float](float)
    for of_call in touched:
        for storage, num_bytes in of_call.items():
            largest[storage] = max(largest[storage], num_bytes)
    network_bytes = sum(largest.values())
    waits_s = defaultdict[str, list[float]](list)
    for call, of_call, distances in zip(
        graph.operators, touched, _reuse_distances(touched), strict=True
    ):
        if call.function in latency_s:
            busy = max((busy_cores(leaf, device) for leaf in leaves[call.function]), default=1.0)
            waits_s[call.function].append(_wait_s(of_call, distances, network_bytes, device, busy))
    return {
        name: seconds + math.fsum(waits_s[name]) / len(waits_s[name])
        for name, seconds in latency_s.items()
    }


def _wait_s(
    touched: Mapping[int, float],
    distances: Mapping[int, float],
    network_bytes: float,
    device: DeviceSpec,
    busy: float,
) -> float:
    """Return how much longer one call takes inside of a network than again and again by itself."""
    own_bytes = sum(touched.values())
    cores_bytes, counted_bytes = device.l2_bytes * busy, counted_last_bytes(device, busy)
    whole_bytes = max(device.l3_bytes, cores_bytes)
    into_l2 = own_bytes * (
        share_gone(cores_bytes, network_bytes) - share_gone(cores_bytes, own_bytes)
    )
    into_last = sum(
        num_bytes * share_gone(counted_bytes, distances[storage])
        for storage, num_bytes in touched.items()
    ) - own_bytes * share_gone(whole_bytes, own_bytes)
    called_s = call_s(device, network_bytes) - call_s(device, own_bytes)
    return called_s + sum(fetch_s(max(into_l2, 0.0), max(into_last, 0.0), device, busy))


def _touched_bytes(call: Operator, leaves: Sequence[Leaf]) -> dict[int, float]:
    """Return the bytes of each storage that a call touches."""
    found = defaultdict[int, float](float)
    for value in call.values:
        found[value.storage] = max(found[value.storage], _touched(value, leaves))
    return dict(found)


def _touched(value: Value, leaves: Sequence[Leaf]) -> float:
    """Return the bytes that a function touches of a value, which are few where it looks up rows.

    Programs know values by their number of elements only; what fits several has at least as much.
    """
    lines = [
        bytes_of_lines(access, 0, [loop.extent for loop in leaf.loops])
        for leaf in leaves
        for access in leaf.accesses
        if math.prod(access.shape) == value.num_elements
    ]
    return min(value.num_bytes, sum(lines)) if lines else value.num_bytes


def _reuse_distances(touched: Sequence[Mapping[int, float]]) -> list[dict[int, float]]:
    """Return the bytes touched since the last touch of each storage of a call, and in it now.

    The network runs again and again: in the second of two runs all was touched before.
    """
    order = dict[int, float]()  # the last touched is the last
    distances = []
    for of_call in (*touched, *touched):
        since, found = 0.0, dict[int, float]()
        for storage, num_bytes in reversed(order.items()):
            if storage in of_call:
                found[storage] = since + of_call[storage]
            since += num_bytes
        distances.append(found)
        for storage, num_bytes in of_call.items():
            order.pop(storage, None)
            order[storage] = num_bytes
    return distances[len(touched) :]
