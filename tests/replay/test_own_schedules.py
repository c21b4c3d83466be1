"""Levels of TVM's own schedules: measured with the real TVM, and where predictions use them."""

import math
from dataclasses import replace
from typing import Any

import pytest

from tvm_cdmpp.ast import Leaf
from tvm_cdmpp.bridge import default_target, device_of, load_tvm, parse_target, target_for
from tvm_cdmpp.devices import DeviceCalibration, find_device
from tvm_cdmpp.errors import ConfigError, MeasureError
from tvm_cdmpp.networks import deploy, random_inputs
from tvm_cdmpp.networks.deployment import Deployed
from tvm_cdmpp.replay import OWN_KINDS, NetworkForecast, measure_own_schedules
from tvm_cdmpp.replay.own_pricing import own_kind
from tvm_cdmpp.replay.own_schedules import sample_network

tvm = load_tvm()

CPU = "epyc-7452"


def with_levels(target: Any = None, **own_schedules: float) -> DeviceCalibration:
    target = target or target_for(find_device(CPU))
    return DeviceCalibration(levels=(), own_schedules=own_schedules, own_target=str(target))


def test_operators_are_priced_by_the_level_of_their_kind() -> None:
    forecast, device = NetworkForecast(sample_network("conv2d")), find_device(CPU)
    plain, base, slower, other = (
        forecast.on(replace(device, calibration=calibration))
        for calibration in (
            None, with_levels(conv2d=0.0), with_levels(conv2d=math.log(2.0)), with_levels(pool=1.0),
        )
    )  # fmt: skip
    assert other.latency_s == plain.latency_s
    for before, after in zip(base.tasks, slower.tasks, strict=True):
        if "conv2d" in before.name:
            assert (before.basis, after.basis) == ("own schedule", "own schedule")
            assert after.latency_s == pytest.approx(2 * before.latency_s, rel=0.02)
        else:
            assert after.latency_s == before.latency_s
    assert any("own schedules of their kind" in remark for remark in slower.remarks)
    assert {task.basis for task in plain.tasks} == {"predicted", "analytic estimate"}


def test_schedules_that_are_not_tvms_own_have_no_such_level() -> None:
    device = find_device(CPU)
    calibrated = replace(device, calibration=with_levels(**dict.fromkeys(OWN_KINDS, 1.0)))
    forecast = NetworkForecast(sample_network("softmax"), trials=8)
    assert forecast.on(calibrated).latency_s == forecast.on(device).latency_s


def test_a_level_makes_the_prediction_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    kind, device = "dense", replace(device_of(default_target()), calibration=None)
    target = target_for(device)
    monkeypatch.setattr(Deployed, "time_s", lambda self, inputs, times: [4e-3, 5e-3, 9e-3])
    levels = measure_own_schedules(device, target, [kind])
    assert list(levels) == [kind]
    calibrated = replace(device, calibration=with_levels(target_for(device), **levels))
    found = NetworkForecast(sample_network(kind)).on(calibrated)
    assert found.latency_s == pytest.approx(5e-3, rel=1e-6)


@pytest.mark.parametrize("kind", OWN_KINDS)
def test_samples_have_operators_of_their_kind_alone(kind: str) -> None:
    forecast = NetworkForecast(sample_network(kind))
    calibrated = replace(find_device(CPU), calibration=with_levels(**{kind: 0.5}))
    found = {task.basis for task in forecast.on(calibrated).tasks}
    assert "own schedule" in found
    assert "predicted" not in found


def test_own_schedules_are_timed_here() -> None:
    target, told = default_target(), list[str]()
    kinds = ["pool", "softmax"]
    levels = measure_own_schedules(
        device_of(target), target, kinds, on_kind=lambda kind, problem: told.append(kind)
    )
    assert told == kinds
    assert set(levels) <= set(kinds)
    assert all(abs(level) < 5 for level in levels.values())


def test_what_does_not_run_or_hardly_works_has_no_level(monkeypatch: pytest.MonkeyPatch) -> None:
    target, told = default_target(), dict[str, str]()

    def time_s(self: Deployed, inputs: Any, times: int) -> list[float]:
        if self.network.name == "pool":
            raise MeasureError("pool does not run")
        return [1e-7]

    monkeypatch.setattr(Deployed, "time_s", time_s)
    levels = measure_own_schedules(
        device_of(target), target, ["pool", "softmax"], on_kind=told.__setitem__
    )
    assert levels == {}
    assert told["pool"] == "pool does not run"
    assert "a network of softmax takes 0 us, and its starts" in told["softmax"]


def test_a_network_that_does_not_run_is_an_error_of_measuring() -> None:
    network = sample_network("softmax")
    deployed = deploy(network, parse_target("llvm"))
    inputs = random_inputs(network, seed=0)
    assert min(deployed.time_s(inputs, 2)) > 0
    broken = replace(deployed, factory={"default": fails})
    with pytest.raises(MeasureError, match="softmax does not run here"):
        broken.time_s(inputs, 2)


def fails(device: Any) -> Any:
    raise tvm.TVMError("a library is missing")


def test_levels_are_of_the_target_that_was_compiled_for() -> None:
    device = find_device(CPU)
    other = replace(device, calibration=with_levels("llvm -mcpu=x86-64", softmax=1.0))
    forecast = NetworkForecast(sample_network("softmax"))
    assert forecast.on(other).latency_s == forecast.on(device).latency_s
    (said,) = set(forecast.on(other).remarks) - set(forecast.on(device).remarks)
    assert said.endswith("predicted instead: 'llvm -mcpu=x86-64'")


FLOATS, INTEGERS = (1, 1), (0, 0, 0, 0, 0, 1)


@pytest.mark.parametrize(
    ("function", "stored", "compute_bytes", "ops", "kind"),
    [
        ("fused_nn_contrib_depthwise_conv2d_NCHWc", "DepthwiseConv2d", 4, FLOATS,
         "depthwise_conv2d"),
        ("fused_nn_conv2d_add", "DepthwiseConv2d", 4, FLOATS, None),
        ("fused_nn_conv2d_transpose_tanh", "compute", 4, FLOATS, "conv2d_transpose"),
        ("fused_nn_batch_matmul_1", "T_batch_matmul_NN", 4, FLOATS, "batch_matmul_NN"),
        ("fused_nn_batch_matmul_1", "T_batch_matmul_NT_global_rf", 4, FLOATS, "batch_matmul_NT"),
        ("fused_nn_contrib_conv2d_NCHWc", "conv", 2, FLOATS, None),
        ("fused_nn_contrib_conv2d_NCHWc_int8", "conv", 4, INTEGERS, None),
        ("fused_variance", "T_divide", 4, FLOATS, None),
    ],
)  # fmt: skip
def test_kinds_are_told_by_names(
    function: str, stored: str, compute_bytes: int, ops: tuple[int, ...], kind: str | None
) -> None:
    leaf = Leaf(
        name=stored, buffer=0, nest=0, is_init=False, position=0, unroll_limit=0,
        compute_bytes=compute_bytes, ops=ops, loops=(), accesses=(),
    )  # fmt: skip
    assert own_kind(function, [leaf]) == kind


def test_a_level_that_no_machine_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="within 20 of 0"):
        with_levels(conv2d=1e3)
