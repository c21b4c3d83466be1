"""Figures of devices and their vectors."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_cdmpp.devices.spec import (
    DEVICE_FIELDS,
    FIGURES,
    OPTIONAL_FIGURES,
    RANGES,
    REQUIRED_FIGURES,
    DeviceSpec,
    generic_gpu,
)
from tvm_cdmpp.errors import ConfigError


def test_default_device_is_the_origin() -> None:
    np.testing.assert_array_equal(DeviceSpec(name="x", kind="cpu").vector(), np.zeros(9))


def test_vector_holds_logarithms() -> None:
    device = DeviceSpec(name="x", kind="gpu", cores=32, l1_bytes=2**14, bandwidth_bytes_per_s=1e11)
    vector = dict(zip(DEVICE_FIELDS, device.vector(), strict=True))
    assert vector["is_gpu"] == 1
    assert vector["cores"] == 2
    assert vector["peak_flops"] == 2
    assert vector["l1_bytes"] == -1
    assert vector["bandwidth_bytes_per_s"] == 1
    assert vector["clock_hz"] == vector["l3_bytes"] == 0


def test_peak() -> None:
    device = DeviceSpec(name="x", kind="cpu", cores=4, clock_hz=2e9, simd_bytes=64)
    assert device.simd_lanes == 16
    assert device.peak_flops == 4 * 2e9 * 16 * 2 * 2


@given(st.fixed_dictionaries({name: st.floats(*RANGES[name][:2]) for name in REQUIRED_FIGURES}))
def test_vectors_are_finite(figures: dict[str, float]) -> None:
    figures["simd_bytes"] = int(figures["simd_bytes"])
    vector = DeviceSpec(name="x", kind="cpu", **figures).vector()  # type: ignore[arg-type]
    assert vector.shape == (len(DEVICE_FIELDS),)
    assert vector.dtype == np.float32
    assert np.isfinite(vector).all()


@pytest.mark.parametrize("figure", [*REQUIRED_FIGURES, *OPTIONAL_FIGURES])
@pytest.mark.parametrize("value", [-1, 0.5, float("nan"), float("inf")])
def test_bad_figures(figure: str, value: float) -> None:
    arguments: dict[str, Any] = {figure: value}
    if figure == "l3_bytes" and value == 0.5:
        return
    with pytest.raises(ConfigError, match=f"{figure} of device 'broken'.*got {value}"):
        DeviceSpec(name="broken", kind="cpu", **arguments)


def test_no_last_level_cache() -> None:
    assert np.isfinite(DeviceSpec(name="x", kind="cpu", l3_bytes=0).vector()).all()


def test_generic_gpu() -> None:
    device = generic_gpu("cuda")
    assert (device.name, device.kind) == ("cuda", "gpu")
    assert device.vector()[0] == 1
    assert 1e12 < device.peak_flops < 1e15


@pytest.mark.parametrize("figure", REQUIRED_FIGURES)
def test_required_figures_are_not_none(figure: str) -> None:
    with pytest.raises(ConfigError, match=f"{figure} of device 'x'.*got None"):
        DeviceSpec(name="x", kind="cpu", **{figure: None})  # type: ignore[arg-type]


def test_a_register_holds_a_value() -> None:
    with pytest.raises(ConfigError, match=r"must be 4 to 65536 bytes.*; got 3"):
        DeviceSpec(name="x", kind="cpu", simd_bytes=3)


@pytest.mark.parametrize(
    ("figure", "value", "unit"),
    [
        ("clock_hz", 2.2, "Hz"), ("clock_hz", 2200, "Hz"), ("clock_hz", 2.2e6, "Hz"),
        ("l1_bytes", 32, "bytes"), ("l2_bytes", 256, "bytes"), ("l3_bytes", 16, "bytes"),
        ("bandwidth_bytes_per_s", 50, "bytes per second"),
        ("bandwidth_bytes_per_s", 51200, "bytes per second"),
        ("shared_bytes_per_core", 96, "bytes"), ("float16_flops", 65, "operations per second"),
        ("int8_ops", 130, "operations per second"), ("cores", 1e9, "cores"),
    ],
)  # fmt: skip
def test_a_figure_in_another_unit_is_refused(figure: str, value: float, unit: str) -> None:
    figures: dict[str, Any] = {figure: value}
    with pytest.raises(ConfigError, match=rf"{figure} of device 'x' must be .* {unit}.*; got "):
        DeviceSpec(name="x", kind="cpu", **figures)


def test_every_figure_has_a_range() -> None:
    assert tuple(RANGES) == FIGURES


def test_devices_are_equal_when_their_figures_are() -> None:
    device = DeviceSpec(name="x", kind="cpu")
    told = DeviceSpec(name="x", kind="cpu", aliases=("y",), sources={"cores": "z"}, note="n")
    assert device == told
    assert hash(device) == hash(told)
    assert device != DeviceSpec(name="x", kind="cpu", float16_flops=1e12)
