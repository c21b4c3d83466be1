"""List scheduling: what must hold of every timeline, whatever the graph."""

import json
import math
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.replay.test_graph import NODES, graph_json
from tvm_cdmpp.errors import ConfigError, NetworkError
from tvm_cdmpp.replay import Operator, OperatorGraph, QueueConfig, read_graph, replay

free_queues = partial(QueueConfig, operator_start_s=0.0, network_start_s=0.0)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[OperatorGraph, dict[str, float]]:
    number = draw(st.integers(1, 12))
    operators = []
    for place in range(number):
        inputs = draw(st.sets(st.integers(0, place - 1), max_size=3)) if place else set()
        function = draw(st.sampled_from(["f", "g", "h", "__copy"]))
        operators.append(Operator(f"o{place}", function, tuple(sorted(inputs))))
    seconds = st.floats(0.1, 10.0)
    latency_s = {name: draw(seconds) for name in ("f", "g", "h", "__copy")}
    return OperatorGraph(tuple(operators), 0.0), latency_s


@given(graphs(), st.integers(1, 4))
def test_a_timeline_is_possible_and_no_queue_idles_without_need(
    given_graph: tuple[OperatorGraph, dict[str, float]], queues: int
) -> None:
    graph, latency_s = given_graph
    timeline = replay(graph, latency_s, free_queues(queues=queues))
    by_queue: dict[str, list[tuple[float, float]]] = {}
    longest: list[float] = []
    for operator, event in zip(graph.operators, timeline.events, strict=True):
        assert event.end_s == event.start_s + latency_s[operator.function]
        assert all(timeline.events[i].end_s <= event.start_s for i in operator.inputs)
        assert (event.queue == "communication") == (operator.kind == "communication")
        by_queue.setdefault(event.queue, []).append((event.start_s, event.end_s))
        before = max((longest[i] for i in operator.inputs), default=0.0)
        longest.append(before + latency_s[operator.function])
    for spans in by_queue.values():
        spans.sort()
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
    compute_s = sum(latency_s[o.function] for o in graph.operators if o.kind == "compute")
    moved_s = sum(latency_s[o.function] for o in graph.operators if o.kind != "compute")
    slack = 1 + 1e-9
    assert timeline.latency_s * slack >= max([compute_s / queues, moved_s, *longest])
    # Graham's bound for list scheduling (1969), with communication on a queue of its own.
    assert timeline.latency_s <= (compute_s / queues + moved_s + max(longest)) * slack


def test_one_queue_adds_up_with_a_start_up_per_operator_and_network() -> None:
    nodes = [*NODES[:-1], ("c", "pool", [5, 3])]
    timeline = replay(
        read_graph(graph_json(nodes)),
        {"transform": 1.0, "conv": 2.0, "pool": 4.0},
        QueueConfig(operator_start_s=0.25, network_start_s=8.0),
    )
    assert timeline.latency_s == 8.0 + (1.0 + 2 * 2.0 + 4.0) + 4 * 0.25


def test_branches_run_side_by_side_and_copies_beside_them() -> None:
    nodes = [("x", "", []), ("a", "f", [0]), ("b", "f", [0]), ("c", "__copy", [0])]
    graph, latency_s = read_graph(graph_json(nodes)), {"f": 3.0, "__copy": 2.0}
    assert replay(graph, latency_s, free_queues(queues=2)).latency_s == 3.0
    assert replay(graph, latency_s, free_queues()).latency_s == 6.0


def test_the_trace_has_every_operator_on_its_queue() -> None:
    latency_s = {"transform": 1e-6, "conv": 2e-6, "__copy": 4e-6}
    timeline = replay(read_graph(graph_json(NODES)), latency_s, free_queues())
    trace = json.loads(json.dumps(timeline.chrome_trace()))
    named = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M"}
    events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert [e["name"] for e in events] == ["transform", "conv", "conv", "__copy"]
    assert [named[e["tid"]] for e in events] == ["queue 0"] * 3 + ["communication"]
    assert [e["dur"] for e in events] == pytest.approx([1, 2, 2, 4])
    assert [e["ts"] for e in events] == pytest.approx([0, 1, 3, 5])


def test_what_cannot_be_replayed_is_refused() -> None:
    with pytest.raises(NetworkError, match="conv, transform has none"):
        replay(read_graph(graph_json(NODES)), {"__copy": 1.0})
    with pytest.raises(NetworkError, match="no operator"):
        replay(OperatorGraph((), 0.0), {})
    for queues in (0, 1.5, "2"):
        with pytest.raises(ConfigError, match=f"at least 1 queue; got {queues!r}"):
            QueueConfig(queues=queues)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="start-up times must be finite"):
        QueueConfig(network_start_s="a")  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, -math.inf])
def test_seconds_that_cannot_be_are_refused(seconds: float) -> None:
    latency_s = {"transform": 1.0, "conv": seconds, "__copy": 1.0}
    with pytest.raises(NetworkError, match=rf"at least 0; got {seconds} for conv\."):
        replay(read_graph(graph_json(NODES)), latency_s)
    # Of a function that the network does not call, nothing is asked.
    graph = read_graph(graph_json(NODES))
    assert replay(graph, {**latency_s, "conv": 0.0, "other": seconds}).latency_s == 2.0
    for field in ("operator_start_s", "network_start_s"):
        with pytest.raises(ConfigError, match=f"must be finite and not be negative; got {seconds}"):
            QueueConfig(**{field: seconds})  # type: ignore[arg-type]


def test_gpus_take_a_start_up_however_many_queues() -> None:
    for kind, least_s in (("cpu", 0.0), ("gpu", 1e-5 + 2e-6), ("accelerator", 1e-5 + 2e-6)):
        config = QueueConfig.of(kind, queues=3)
        assert (config.queues, config.operator_start_s + config.network_start_s) == (3, least_s)


@pytest.mark.parametrize("inputs", [(0,), (1,), (5,), (-1,)])
def test_operators_wait_for_those_before_them(inputs: tuple[int, ...]) -> None:
    graph = OperatorGraph((Operator("a", "f", inputs), Operator("b", "f", (0,))), 0.0)
    with pytest.raises(NetworkError, match="number 0, a, waits for"):
        replay(graph, {"f": 1.0})
