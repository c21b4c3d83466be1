"""A network is timed as a whole, and each of its operators with real values in its memory."""

import itertools
import json
import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.operator_times import Array, TimedNetwork, _twice
from tvm_cdmpp.bridge import load_tvm, quiet_tvm

tvm = load_tvm()
relay = tvm.relay


@pytest.mark.parametrize("short_s", [0.0, math.inf])
def test_each_operator_is_timed_with_what_it_has_in_the_network(short_s: float) -> None:
    x, w = relay.var("x", shape=(4, 256)), relay.var("w", shape=(256, 256))
    rows = relay.var("rows", shape=(4,), dtype="int64")
    y = relay.nn.relu(relay.nn.dense(relay.take(w, rows, axis=0), w))
    mod = tvm.IRModule.from_expr(relay.Function([x, w, rows], relay.nn.softmax(relay.add(x, y))))
    rng = np.random.default_rng(0)
    weights = {"w": tvm.nd.array(rng.standard_normal((256, 256), dtype=np.float32))}
    with quiet_tvm():
        factory = relay.build(mod, target="llvm", params=weights)
    # An index that is not there would end the process.
    inputs: dict[str, Array] = {
        "x": np.ones((4, 256), np.float32),
        "rows": np.array([0, 255, 3, 9], np.int64),
    }
    timed = TimedNetwork(factory.module, inputs, short_s=short_s)
    assert timed.parameters == set(factory.get_params())
    inside_s = timed.inside_s()
    assert list(inside_s) == timed.functions
    assert len(inside_s) >= 3
    for function, seconds in inside_s.items():
        assert 0 <= seconds < 0.1  # what is left out of a short network may have been noise
        alone_s = timed.alone_s(function, 3)
        assert alone_s.shape == (3,)
        assert ((alone_s > 0) & (alone_s < 0.1)).all()
    assert (timed.run_s(3) > 0).all()


def test_calls_of_one_function_count_as_their_mean() -> None:
    x, w = relay.var("x", shape=(64, 512)), relay.var("w", shape=(512, 512))
    y = x
    for _ in range(3):
        y = relay.nn.relu(relay.nn.dense(y, w))
    mod = tvm.IRModule.from_expr(relay.Function([x, w], y))
    with quiet_tvm():
        factory = relay.build(mod, target="llvm")
    inputs: dict[str, Array] = {
        "x": np.ones((64, 512), np.float32), "w": np.ones((512, 512), np.float32)
    }  # fmt: skip
    timed = TimedNetwork(factory.module, inputs, short_s=0.0)
    calls = Counter(operator.function for operator in timed._operators)
    assert max(calls.values()) == 3
    (named,) = {name for name, number in calls.items() if number == 3}
    durations_us = itertools.count(2.0)
    told = [
        {"Name": call["Name"], "Duration (us)": SimpleNamespace(microseconds=next(durations_us))}
        for call in timed._profile().calls
        if str(call["Name"]) in calls
    ]
    timed._profile = lambda: SimpleNamespace(calls=told)  # type: ignore[assignment]
    of_function = [
        call["Duration (us)"].microseconds for call in told if str(call["Name"]) == named
    ]
    assert len(of_function) == 3
    assert timed.inside_s()[named] == pytest.approx(1e-6 * np.mean(of_function))


@pytest.mark.parametrize(("size", "number"), [(4, 10), (1 << 22, 1)])
def test_a_network_shorter_than_reading_a_clock_is_run_several_times(
    size: int, number: int
) -> None:
    x = relay.var("x", shape=(size,))
    mod = tvm.IRModule.from_expr(relay.Function([x], relay.nn.relu(x)))
    with quiet_tvm():
        factory = relay.build(mod, target="llvm")
    timed = TimedNetwork(factory.module, {"x": np.ones(size, np.float32)})
    assert timed._run.keywords["number"] == number
    assert timed.run_s(2).shape == (2,)


def test_an_operator_of_a_short_network_takes_half_of_what_two_take_longer_than_none() -> None:
    timed = _product_and_softmax()
    product, softmax = timed.functions
    (no_product, two_products), _ = timed._changed
    # Calls are really left out and added: a product takes most of the time.
    turns = [  # as the machine may be busy
        [min(run(repeat=9)().results) for run in (timed._run, no_product, two_products)]
        for _ in range(3)
    ]
    once_s, none_s, two_s = map(min, zip(*turns, strict=True))
    assert none_s < once_s / 2
    assert 1.5 * once_s < two_s < 3 * once_s
    told = iter([2e-6, 8e-6, 5.5e-6, 5e-6])
    timed._changed = [[lambda repeat: lambda: SimpleNamespace(results=[next(told)])] * 2] * 2
    assert timed.inside_s() == {product: pytest.approx(3e-6), softmax: 0.0}


def test_calling_an_operator_twice_changes_no_result() -> None:
    x, w = relay.var("x", shape=(2, 32)), relay.var("w", shape=(8, 32))
    halves = relay.split(relay.nn.dense(x, w), 2, axis=1)
    mod = tvm.IRModule.from_expr(
        relay.Function([x, w], relay.Tuple([relay.nn.softmax(halves[0]), relay.exp(halves[1])]))
    )
    with quiet_tvm():
        factory = relay.build(mod, target="llvm")
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in (
        ("x", (2, 32)), ("w", (8, 32))
    )}  # fmt: skip
    graph = json.loads(factory.get_graph_json())
    calls = [n for n, node in enumerate(graph["nodes"]) if node["op"] != "null"]
    assert any(
        graph["node_row_ptr"][n + 1] - graph["node_row_ptr"][n] > 1 for n in calls
    )  # one of several outputs

    def outputs(graph: dict[str, Any]) -> list[Array]:
        executor = tvm.contrib.graph_executor.create(json.dumps(graph), factory.module, tvm.cpu(0))
        executor.run(**inputs)
        return [executor.get_output(n).numpy() for n in range(executor.get_num_outputs())]

    expected = outputs(graph)
    for number in calls:
        changed = dict(_twice(graph, number))
        assert sum(node["op"] != "null" for node in changed["nodes"]) == len(calls) + 1
        for found, wanted in zip(outputs(changed), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def _product_and_softmax() -> TimedNetwork:
    x, w = relay.var("x", shape=(1, 4096)), relay.var("w", shape=(512, 4096))
    mod = tvm.IRModule.from_expr(relay.Function([x, w], relay.nn.softmax(relay.nn.dense(x, w))))
    with quiet_tvm():
        factory = relay.build(mod, target="llvm")
    inputs: dict[str, Array] = {
        "x": np.ones((1, 4096), np.float32), "w": np.ones((512, 4096), np.float32)
    }  # fmt: skip
    return TimedNetwork(factory.module, inputs, short_s=math.inf)
