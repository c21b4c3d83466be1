"""The tasks of networks, found by the hashes in keys of logs."""

import json
from typing import Any

import pytest

from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.data.workload_book import flat_key, workload_id
from tvm_cdmpp.errors import NetworkError
from tvm_cdmpp.networks.network import Network, extract_tasks, load_network, relay, tvm
from tvm_cdmpp.workloads.derive import (
    FORMS,
    DerivedWorkloads,
    derive_tasks,
    usable_target,
)
from tvm_cdmpp.workloads.keys import keys_of

topi, te = load_tvm().topi, load_tvm().te
NO_KEY = f'["{"0" * 32}", [1, 8]]'


def placeholders(*shapes: tuple[int, ...]) -> list[Any]:
    return [te.placeholder(shape, name=f"p{place}") for place, shape in enumerate(shapes)]


def dense() -> list[Any]:
    data, weight, bias = placeholders((1, 1024), (1000, 1024), (1, 1000))
    return [data, weight, bias, topi.add(topi.nn.dense(data, weight), bias)]


def conv() -> list[Any]:
    data, weight, bias = placeholders((1, 14, 14, 512), (3, 3, 512, 512), (1, 1, 1, 512))
    total = topi.add(topi.nn.conv2d_nhwc(data, weight, 2, 1, 1), bias)
    zero = tvm.tir.const(0, "float32")
    relu = te.compute(
        total.shape,
        lambda ax0, ax1, ax2, ax3: te.max(total[ax0, ax1, ax2, ax3], zero),
        name="T_relu",
    )
    return [data, weight, bias, relu]


def pool() -> list[Any]:
    (data,) = placeholders((1, 64, 112, 112))
    return [data, topi.nn.pool2d(data, [3, 3], [2, 2], [1, 1], [1, 1, 1, 1], "max")]


def conv_network() -> Network:
    """Make a convolution for which GPU schedules look for AutoTVM's logs of similar devices."""
    data = relay.var("data", shape=(1, 16, 16, 16))
    weight = relay.var("weight", shape=(7, 7, 16, 32))
    conv = relay.nn.conv2d(
        data, weight, kernel_size=(7, 7), channels=32, padding=(3, 3), strides=(2, 2),
        data_layout="NHWC", kernel_layout="HWIO",
    )  # fmt: skip
    mod = tvm.IRModule.from_expr(relay.Function([data, weight], relay.nn.relu(conv)))
    return Network(
        name="conv", mod=relay.transform.InferType()(mod), params={},
        inputs={"data": ((1, 16, 16, 16), "float32"), "weight": ((7, 7, 16, 32), "float32")},
    )  # fmt: skip


# Hashes of published logs of 2020 to 2023.
@pytest.mark.parametrize(
    ("tensors", "old"),
    [
        (dense, "00a059b856ac30ac172b6252254479a6"),
        (conv, "12b88bedece6984af589a28b43e0f3c4"),
        (pool, "f890bb6d32c1ddbcd5f0feaa58cc84a7"),
    ],
)
def test_keys_of_older_versions(tensors: Any, old: str) -> None:
    dag = tvm.auto_scheduler.ComputeDAG(tensors())
    keys = keys_of(dag)
    today = json.loads(dag.workload_key())
    assert flat_key(json.dumps(today)) in keys
    assert today[0] != old
    assert flat_key(json.dumps([old, *today[1:]])) in keys


def test_all_tasks_of_a_network_are_found() -> None:
    tasks, weights = extract_tasks(load_network("mlp"), tvm.target.Target("llvm -mcpu=core-avx2"))
    told: list[tuple[str, int, int]] = []
    derived = DerivedWorkloads(["mlp"], lambda *progress: told.append(progress))
    for task, weight in zip(tasks, weights, strict=True):
        found = derived.find(task.workload_key, "llvm -link-params=0 -mcpu=core-avx2")
        assert found is not None
        assert found.names[0] == task.workload_key
        assert dict(found.networks) == {"mlp": weight}
        assert found.derived_from.startswith("mlp, ")
        assert found.workload_id == workload_id(tvm.ir.save_json(task.compute_dag.tensors))
    assert derived.find(NO_KEY, "llvm -mcpu=core-avx2") is None
    assert not derived.failures
    target = "llvm -keys=cpu -mcpu=core-avx2"
    assert told == [(f"mlp, {form}, for {target}", n, 4) for n, form in enumerate(FORMS)]


@pytest.mark.parametrize("target", ["no such target", "{"])
def test_a_target_that_tvm_does_not_know_is_named(target: str) -> None:
    derived = DerivedWorkloads([])
    assert derived.find(NO_KEY, target) is None
    assert list(derived.failures) == [target]


def test_a_target_that_cannot_be_searched_for_is_named() -> None:
    for form in FORMS:
        found, failures, _ = derive_tasks(conv_network(), "hexagon -mcpu=hexagonv66", form)
        assert not found
        assert all("hexagon" in name for name in failures)


def test_what_cannot_be_compiled_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise TypeError("takes 6 arguments")

    monkeypatch.setattr("tvm.topi.nn.conv2d_nhwc", refuse)
    found, failures, seen = derive_tasks(conv_network(), "llvm", "as written")
    assert not found
    assert "takes 6 arguments" in failures["conv, as written, llvm"]
    # Channels come last in it as it is.
    assert derive_tasks(conv_network(), "llvm", "channels last", seen) == ({}, {}, seen)


def test_a_network_that_does_not_exist() -> None:
    with pytest.raises(NetworkError, match="Did you mean resnet-18"):
        DerivedWorkloads(["resnet18"])


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("llvm -keys=cpu -link-params=0 -mcpu=skylake-avx512", {"mcpu": "skylake-avx512"}),
        ("cuda -arch=sm_75 -model=2080ti -no-such-option=1", {"arch": "sm_75", "model": "2080ti"}),
    ],
)
def test_refused_options_of_a_target_are_left_out(text: str, options: dict[str, str]) -> None:
    target = usable_target(text)
    assert {name: str(target.attrs[name]) for name in options} == options


@pytest.mark.parametrize("target", ["cuda -arch=sm_75", "rocm -mcpu=gfx906", "opencl"])
def test_tasks_for_gpus_need_neither_gpu_nor_internet(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("tried to download")

    monkeypatch.setattr("tvm.autotvm.tophub.download_package", refuse)
    tasks, _ = extract_tasks(conv_network(), tvm.target.Target(target))
    assert any(task.workload_key.endswith("[1, 8, 8, 32]]") for task in tasks)
