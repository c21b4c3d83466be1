"""What functions that were timed again and again by themselves take inside of a network."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_cdmpp.bridge import load_tvm, target_for
from tvm_cdmpp.devices import find_device
from tvm_cdmpp.errors import NetworkError
from tvm_cdmpp.networks import lower_network, network_of_relay
from tvm_cdmpp.replay import Operator, OperatorGraph, Value, in_network_s, read_graph
from tvm_cdmpp.replay.physics import counted_last_bytes
from tvm_cdmpp.replay.repeated import _reuse_distances

tvm = load_tvm()
relay = tvm.relay
CORE_BYTES_PER_S = 25e9
"""Of memory for one core, which runs what has no program that could be read."""
CPU = replace(find_device("epyc-7452"), cores=2, l3_bytes=32.0 * 2**20)
MB = 2**20


def chain(*calls: tuple[str, dict[int, int]]) -> OperatorGraph:
    """Operators one after the other, by function and the bytes of each storage it touches."""
    operators = [
        Operator(
            f"o{place}",
            function,
            (place - 1,) * (place > 0),
            tuple(Value(storage, size // 4, float(size)) for storage, size in sizes.items()),
        )
        for place, (function, sizes) in enumerate(calls)
    ]
    return OperatorGraph(tuple(operators), 0.0)


def added_s(graph: OperatorGraph, device: Any = CPU) -> dict[str, float]:
    alone_s = dict.fromkeys(graph.counts, 1e-3)
    return {name: s - 1e-3 for name, s in in_network_s(graph, {}, alone_s, device).items()}


def test_in_a_network_that_the_cores_keep_nothing_is_added() -> None:
    graph = chain(("f", {0: 1000, 1: 2000}), ("g", {1: 2000, 2: 500}))
    assert added_s(graph) == pytest.approx({"f": 0.0, "g": 0.0}, abs=1e-12)


def test_weights_come_from_memory_and_what_was_just_computed_does_not() -> None:
    weights = 64 * MB
    small = MB // 2
    graph = chain(("f", {0: weights, 1: small}), ("g", {1: small}))
    found = added_s(graph)
    of_memory_s = weights / CORE_BYTES_PER_S
    assert found["f"] > 0.3 * of_memory_s  # the rest is missing by itself as well
    assert 0 < found["g"] < 0.02 * of_memory_s
    # Nothing in between: the same weights again, by another function.
    again = added_s(chain(("f", {0: 6 * MB, 1: small}), ("g", {0: 6 * MB, 2: small})))
    assert again["f"] == pytest.approx(again["g"], rel=0.1)
    far = added_s(
        chain(("f", {0: 6 * MB}), ("h", {3: 99 * MB}), ("g", {0: 6 * MB}), ("h", {4: 99 * MB}))
    )
    assert far["f"] > 3 * again["f"]


@pytest.mark.parametrize("l3_bytes", [0.0, 4.0 * MB, 32.0 * MB])
def test_the_more_a_network_touches_the_longer_its_functions_wait(l3_bytes: float) -> None:
    device = replace(CPU, name="caches", l3_bytes=l3_bytes)
    assert counted_last_bytes(device, 2) <= max(2 * device.l2_bytes, 8 * MB)
    waits_s = [
        added_s(chain(("f", {0: 2 * MB, 1: MB}), ("g", {1: MB, 2: size})), device)["f"]
        for size in (1000, MB, 4 * MB, 16 * MB, 64 * MB, 1024 * MB)
    ]
    assert waits_s == sorted(waits_s)
    assert 0 <= waits_s[0] < 0.2 * waits_s[-1]
    # All of it from memory; without a last cache most of that is missing by itself as well.
    all_s = 3 * MB / CORE_BYTES_PER_S
    assert (0.6 if l3_bytes else 0.1) * all_s < waits_s[-1] < 2 * all_s


def test_calls_of_one_function_count_by_their_mean() -> None:
    near = ("f", {0: 4 * MB, 1: 100})
    apart = chain(near, ("h", {5: 50 * MB}), ("f", {0: 4 * MB, 2: 100}))
    once = chain(("f", {0: 4 * MB, 1: 100}), ("h", {5: 50 * MB}))
    next_to_itself = chain(("h", {5: 50 * MB}), near, ("f", {0: 4 * MB, 2: 100}))
    far_s, one_far_s = added_s(once)["f"], added_s(next_to_itself)["f"]
    assert 0 < one_far_s < far_s
    # In a cycle of two, one is far from the other, and near to the one of the next run.
    assert added_s(apart)["f"] == pytest.approx(one_far_s, rel=1e-6)


def test_other_kinds_of_devices_take_what_was_measured() -> None:
    graph = chain(("f", {0: 64 * MB}), ("g", {1: 64 * MB}))
    assert added_s(graph, find_device("t4")) == pytest.approx({"f": 0.0, "g": 0.0})


@pytest.mark.parametrize(("name", "seconds"), [("h", 1.0), ("f", math.nan), ("f", -1.0)])
def test_what_cannot_be_is_refused(name: str, seconds: float) -> None:
    with pytest.raises(NetworkError, match=f"of at least 0; got {seconds} for {name}"):
        in_network_s(chain(("f", {0: 1000})), {}, {name: seconds}, CPU)


def test_of_a_table_only_the_rows_that_are_looked_up_count() -> None:
    """A table of 30 MB, of which a run looks up eight rows, goes through no cache."""
    rows = relay.var("rows", shape=(8,), dtype="int32")
    table, weight = relay.var("table", shape=(60000, 128)), relay.var("weight", shape=(128, 128))
    out = relay.nn.dense(relay.take(table, rows, axis=0), weight)
    params = {
        "table": tvm.nd.array(tvm.nd.empty((60000, 128)).numpy()),
        "weight": tvm.nd.array(tvm.nd.empty((128, 128)).numpy()),
    }
    mod = tvm.IRModule.from_expr(relay.Function(relay.analysis.free_vars(out), out))
    lowered = lower_network(network_of_relay("lookup", mod, params), target_for(CPU), None)
    graph = read_graph(lowered.graph_json, lowered.parameters)
    assert max(v.num_bytes for o in graph.operators for v in o.values) == 60000 * 128 * 4
    alone_s = dict.fromkeys(graph.counts, 1e-4)
    known = in_network_s(graph, lowered.programs, alone_s, CPU)
    unknown = in_network_s(graph, {}, alone_s, CPU)
    assert sum(known.values()) == pytest.approx(sum(alone_s.values()), abs=2e-6)
    assert sum(unknown.values()) > sum(known.values()) + 1e-5


storages = st.dictionaries(st.integers(0, 5), st.integers(1, 100).map(float), max_size=4)


@given(st.lists(storages, min_size=1, max_size=8))
def test_distances_are_what_was_touched_since(calls: list[dict[int, float]]) -> None:
    """As told by looking back, one call after the other, into the run before."""
    for place, found in enumerate(_reuse_distances(calls)):
        assert found.keys() == calls[place].keys()
        before = [*calls[place:], *calls[:place]][::-1]  # the call before is the first
        for storage, distance in found.items():
            since = dict[int, float]()
            for call in before:
                later = dict(since)
                for other, size in call.items():
                    later.setdefault(other, size)
                if storage in call:
                    break
                since = later
            # Of the call that touched it last, what its order puts behind counts as well.
            order = list(call)
            behind = {
                other: call[other]
                for other in order[order.index(storage) + 1 :]
                if other not in since
            }
            expected = math.fsum([*since.values(), *behind.values()]) + calls[place][storage]
            assert distance == pytest.approx(expected)
