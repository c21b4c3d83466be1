"""Levels of TVM's own schedules: measured with the real TVM, and where predictions use them."""

import math
from dataclasses import replace

import pytest

from tvm_cdmpp.bridge import default_target, device_of
from tvm_cdmpp.devices import DeviceCalibration, find_device
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.networks.deployment import Deployed
from tvm_cdmpp.replay import OWN_KINDS, NetworkForecast, measure_own_schedules
from tvm_cdmpp.replay.own_schedules import sample_network

CPU = "epyc-7452"


def with_levels(**own_schedules: float) -> DeviceCalibration:
    return DeviceCalibration(levels=(), own_schedules=own_schedules)


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
    target, kind = default_target(), "dense"
    device = replace(device_of(target), calibration=None)
    monkeypatch.setattr(Deployed, "time_s", lambda self, inputs, times: [4e-3, 5e-3, 9e-3])
    levels = measure_own_schedules(device, target, [kind])
    assert list(levels) == [kind]
    calibrated = replace(device, calibration=with_levels(**levels))
    found = NetworkForecast(sample_network(kind)).on(calibrated)
    assert found.latency_s == pytest.approx(5e-3, rel=1e-6)


@pytest.mark.parametrize("kind", OWN_KINDS)
def test_samples_have_operators_of_their_kind_alone(kind: str) -> None:
    forecast = NetworkForecast(sample_network(kind))
    calibrated = replace(find_device(CPU), calibration=with_levels(**{kind: 0.5}))
    assert not {task.basis for task in forecast.on(calibrated).tasks} & {"predicted"}


def test_own_schedules_are_timed_here() -> None:
    target, told = default_target(), list[str]()
    kinds = ["pool", "softmax"]
    levels = measure_own_schedules(device_of(target), target, kinds, on_kind=told.append)
    assert told == kinds
    assert list(levels) == kinds
    assert all(abs(level) < 5 for level in levels.values())


def test_a_level_that_no_machine_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="within 20 of 0"):
        with_levels(conv2d=1e3)
