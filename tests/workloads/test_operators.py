"""Workloads of common operators, made anew from the hash and the shapes in a key."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.data.workload_book import flat_key, is_hash, workload_id
from tvm_cdmpp.extract.dag import load_dag
from tvm_cdmpp.workloads.keys import keys_of
from tvm_cdmpp.workloads.operators import rebuild_operator

tvm = load_tvm()
te, topi = tvm.te, tvm.topi
sizes = st.integers(1, 40)


def placeholders(*shapes: tuple[int, ...]) -> list[Any]:
    return [te.placeholder(shape, name=f"p{place}") for place, shape in enumerate(shapes)]


@st.composite
def products(draw: Any) -> list[Any]:
    n, k, m, batch = (draw(sizes) for _ in range(4))
    kind = draw(st.sampled_from(["dense", "bias", "relu", "batch", "batch NN"]))
    if kind.startswith("batch"):
        transposed = kind == "batch"
        inputs = placeholders((batch, n, k), (batch, m, k) if transposed else (batch, k, m))
        return [*inputs, topi.nn.batch_matmul(*inputs, transpose_b=transposed)]
    bias = draw(st.sampled_from([(m,), (1, m)]))
    inputs = placeholders((n, k), (m, k), *([] if kind == "dense" else [bias]))
    result = topi.nn.dense(*inputs[:2])
    if kind != "dense":
        result = topi.add(result, inputs[2])
    return [*inputs, topi.cpp.nn.relu(result) if kind == "relu" else result]


@st.composite
def reductions(draw: Any) -> list[Any]:
    (data,) = placeholders(tuple(draw(st.lists(sizes, min_size=2, max_size=4))))
    total = topi.sum(data, -1, keepdims=True)
    mean = topi.divide(total, tvm.tir.const(int(data.shape[-1]), "float32"))
    largest = topi.max(data, -1, keepdims=True)
    return [data, draw(st.sampled_from([total, mean, largest, topi.nn.softmax(data)]))]


@st.composite
def convolutions(draw: Any) -> list[Any]:
    channels, filters = draw(sizes), draw(sizes)
    kernel, stride = draw(st.sampled_from([(1, 1), (3, 1), (3, 2), (5, 1), (7, 2)]))
    size = draw(st.integers(kernel, 30))
    data, weight, bias = placeholders(
        (1, channels, size, size), (filters, channels, kernel, kernel), (1, filters, 1, 1)
    )
    product = topi.nn.conv2d_nchw(data, weight, stride, kernel // 2, 1)
    result = topi.cpp.nn.relu(topi.add(product, bias))
    return [data, weight, product] if draw(st.booleans()) else [data, weight, bias, result]


@settings(max_examples=60, deadline=None)
@given(products() | reductions() | convolutions(), st.booleans(), st.randoms())
def test_an_operator_comes_back(tensors: list[Any], flat: bool, random: Any) -> None:
    dag = tvm.auto_scheduler.ComputeDAG(tensors)
    key = dag.workload_key()
    if flat:  # as an old version of TVM writes it
        key = f"[{random.choice(sorted(keys_of(dag)))}]"
    (made,) = rebuild_operator(key)
    again = load_dag(made)
    assert again.flop_ct == dag.flop_ct
    assert again.workload_key() == dag.workload_key()
    if len(tensors[0].shape) < 4 or int(tensors[0].shape[2]) % 2:
        assert workload_id(made) == workload_id(tvm.ir.save_json(tensors))


@pytest.mark.parametrize(
    ("old", "shapes", "flops"),
    [
        ("9847f8cc0b305137f49f2c5c0c8ab25d",
         [[16384, 3072], [768, 3072], [768], [16384, 768]],
         2 * 16384 * 3072 * 768 + 16384 * 768),
        ("5a5d7a8547d34798d6f42c3bb7a23a25",
         [[1, 16, 212, 168], [32, 16, 3, 3], [1, 32, 1, 1], [1, 32, 212, 168]],
         2 * 212 * 168 * 32 * (16 * 9 + 1)),
        ("2dde9ffcbf97381c0f0307643e09dac5", [[128, 128, 768], [128, 128, 1]], 128 * 128 * 769),
    ],
)  # fmt: skip
def test_keys_of_published_logs(old: str, shapes: list[list[int]], flops: int) -> None:
    (dag,) = rebuild_operator(json.dumps([old, *shapes]))
    assert load_dag(dag).flop_ct == flops


@pytest.mark.parametrize(
    "key",
    [
        json.dumps(["0" * 32, [8, 8], [8, 8], [8, 8]]),
        json.dumps(["0" * 32]),
        json.dumps(["0" * 32, [0, 8], [8, 0], [8, 8]]),
        json.dumps(["0" * 32, [1, 8, 8, 8], [8, 8, 3, 3], [1, 8, 0, 0]]),
        json.dumps(["0" * 32, "text", {"a": 1}]),
        json.dumps(["0" * 32, [1, 2**70], [3, 2**70], [1, 3]]),
        json.dumps(["0" * 32, [1.5, 8], [-8, None], [True, 8]]),
        '["' + "0" * 32 + '", [1,',
    ],
)
def test_other_keys_are_not_guessed(key: str) -> None:
    assert is_hash(key) or len(key) < 40
    assert rebuild_operator(key) == []
    assert flat_key(key)
