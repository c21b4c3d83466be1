"""List scheduling of operators onto the queues of a device, and the timeline that comes of it.

As in the replayer of CDMPP, which is dPRO's (Hu et al., MLSys 2022): an operator is ready when all
that it waits for has ended; ready operators go, the first ready first, onto the queue that is free
first; communication has a queue of its own. Before every operator its queue is held up by a
start-up. A serial device has one queue, which makes the latency a sum.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvm_cdmpp.errors import ConfigError, NetworkError
from tvm_cdmpp.replay.graph import OperatorGraph

COMMUNICATION_QUEUE = "communication"


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueConfig:
    """How a device runs the operators of a network."""

    queues: int = 1
    """Operators that run side by side; 1 for CPUs and for GPUs with one stream."""
    operator_start_s: float = 0.0
    """Before each operator, in its queue. The 0.04 us that TVM's executor adds on a CPU are left
    out."""
    network_start_s: float = 0.0
    """Once per run."""

    @staticmethod
    def of(kind: str, queues: int = 1) -> QueueConfig:
        """Return what is assumed of a kind of device, "cpu", "gpu" or "accelerator".

        A GPU takes 2 us to launch an operator on a stream that is busy.
        """
        if kind == "cpu":
            return QueueConfig(queues=queues)
        return QueueConfig(queues=queues, operator_start_s=2e-6, network_start_s=1e-5)

    def __post_init__(self) -> None:
        """Reject what no device has."""
        if not isinstance(self.queues, int) or self.queues < 1:
            raise ConfigError(f"a device has at least 1 queue; got {self.queues!r}")
        for seconds in (self.operator_start_s, self.network_start_s):
            if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
                raise ConfigError(
                    f"start-up times must be finite and not be negative; got {seconds!r} s"
                )


@dataclass(frozen=True, slots=True)
class Event:
    """One operator on the timeline."""

    operator: int
    """Its place in the order of execution."""
    queue: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """When every operator of a network runs."""

    graph: OperatorGraph
    events: tuple[Event, ...]
    """One per operator, in the order of execution."""
    latency_s: float
    """From the start of the network to the end of its last operator."""

    def chrome_trace(self) -> dict[str, Any]:
        """Return the timeline for `chrome://tracing` or Perfetto, in microseconds."""
        queues = list(dict.fromkeys(event.queue for event in self.events))
        names = [
            {"name": "thread_name", "ph": "M", "pid": 0, "tid": number, "args": {"name": queue}}
            for number, queue in enumerate(queues)
        ]
        return {
            "displayTimeUnit": "ms",
            "traceEvents": names
            + [
                {
                    "name": self.graph.operators[event.operator].function,
                    "cat": self.graph.operators[event.operator].kind,
                    "ph": "X",
                    "pid": 0,
                    "tid": queues.index(event.queue),
                    "ts": 1e6 * event.start_s,
                    "dur": 1e6 * (event.end_s - event.start_s),
                    "args": {
                        "operator": self.graph.operators[event.operator].name,
                        "waits for": list(self.graph.operators[event.operator].inputs),
                    },
                }
                for event in self.events
            ],
        }


def replay(
    graph: OperatorGraph, latency_s: Mapping[str, float], config: QueueConfig | None = None
) -> Timeline:
    """Simulate one run of a network.

    Parameters
    ----------
    graph
        Its operators.
    latency_s
        Seconds of each function, finite and at least 0.
    config
        The device's queues; one by default.

    Raises
    ------
    NetworkError
        The graph has no operator, operators wait for what is not there or for each other, or a
        function has no latency or one that cannot be.
    """
    config = config or QueueConfig()
    operators = graph.operators
    _check(graph, latency_s)
    free_s = dict.fromkeys((f"queue {n}" for n in range(config.queues)), config.network_start_s)
    free_s[COMMUNICATION_QUEUE] = config.network_start_s
    readers: list[list[int]] = [[] for _ in operators]
    for number, operator in enumerate(operators):
        for before in operator.inputs:
            readers[before].append(number)
    waiting = [len(operator.inputs) for operator in operators]
    ready_s = [config.network_start_s] * len(operators)
    ready = [(ready_s[n], n) for n, count in enumerate(waiting) if not count]
    events: list[Event | None] = [None] * len(operators)
    while ready:
        since_s, number = heapq.heappop(ready)
        operator = operators[number]
        is_communication = operator.kind == "communication"
        fitting = [q for q in free_s if (q == COMMUNICATION_QUEUE) == is_communication]
        queue = min(fitting, key=lambda name: free_s[name])
        start_s = max(since_s, free_s[queue]) + config.operator_start_s
        end_s = start_s + latency_s[operator.function]
        free_s[queue] = end_s
        events[number] = Event(number, queue, start_s, end_s)
        for reader in readers[number]:
            ready_s[reader] = max(ready_s[reader], end_s)
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, (ready_s[reader], reader))
    placed = tuple(event for event in events if event is not None)
    return Timeline(graph, placed, max(event.end_s for event in placed))


def _check(graph: OperatorGraph, latency_s: Mapping[str, float]) -> None:
    """Refuse what cannot be replayed."""
    operators = graph.operators
    missing = sorted({o.function for o in operators} - set(latency_s))
    if missing or not operators:
        raise NetworkError(
            f"Every function needs a latency; {', '.join(missing)} has none."
            if missing
            else "The network has no operator: there is nothing to replay."
        )
    for number, operator in enumerate(operators):
        if not all(0 <= before < number for before in operator.inputs):
            raise NetworkError(
                f"An operator waits for operators before it; number {number}, {operator.name}, "
                f"waits for {', '.join(map(str, operator.inputs))}."
            )
    for function in graph.counts:
        if not 0 <= latency_s[function] < math.inf:
            raise NetworkError(
                f"A latency must be finite seconds of at least 0; got {latency_s[function]} for "
                f"{function}."
            )
