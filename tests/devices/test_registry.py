"""The built-in devices, how they are found, and the user's own."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_cdmpp.devices.detect import find_device
from tvm_cdmpp.devices.jsonform import dump_devices
from tvm_cdmpp.devices.registry import (
    Registry,
    add_devices,
    built_in_devices,
    load_registry,
    read_device_file,
    remove_devices,
    user_device_file,
)
from tvm_cdmpp.devices.spec import FIGURES, DeviceSpec
from tvm_cdmpp.errors import ConfigError, UnknownDeviceError

DEVICES = built_in_devices()
MINE = DeviceSpec(name="my-cpu", kind="cpu", aliases=("Box 7",))

# What data sheets say of float32, in TFLOP/s; the package computes it from other figures.
PUBLISHED = {
    "k80": 4.37, "p4": 5.5, "p100-pcie": 9.3, "p100-sxm2": 10.6, "v100-sxm2": 15.7,
    "v100-pcie": 14, "t4": 8.1, "gtx-1080-ti": 11.3, "gtx-1650": 2.98, "rtx-2080-ti": 13.4,
    "rtx-3060": 12.7, "rtx-3080": 29.8, "rtx-3090": 35.6, "a10": 31.2, "a30": 10.3,
    "a100-40gb": 19.5, "a100-80gb-sxm4": 19.5, "a100-80gb-pcie": 19.5, "l4": 30.3, "l40s": 91.6,
    "rtx-4080": 48.7, "rtx-4090": 82.6, "rtx-5090": 104.8, "h100-sxm": 67, "h100-pcie": 51.2,
    "h200": 67, "mi50": 13.3, "mi100": 23.1, "mi250x-gcd": 23.95, "mi300x": 163.4,
    "apple-m1-gpu": 2.6,
}  # fmt: skip
# Devices of published measurements, under the names that these state.
MEASURED = {
    "apple-m1": "cpu", "cortex-a72": "cpu", "x86-16t-ryzen3700x-or-nitro5": "cpu",
    "x86-8t-ryzen3700x-or-nitro5": "cpu", "x86-4t-ryzen3700x-or-nitro5": "cpu",
    "x86-avx2-4t": "cpu", "xeon-silver-4210": "cpu", "x86-24t": "cpu", "a100": "gpu",
    "apple-m1-gpu": "gpu", "gtx1650": "gpu", "k80": "gpu", "mi50": "gpu", "mobile-opencl": "gpu",
    "rtx2080ti": "gpu", "2080ti": "gpu", "rtx3080": "gpu", "rtx3090": "gpu", "rtx4090": "gpu",
    "sm75-gtx1650class": "gpu", "sm75-unknown": "gpu", "t4": "gpu", "v100": "gpu",
    "platinum-8272": "cpu", "e5-2673": "cpu", "epyc-7452": "cpu", "graviton2": "cpu",
    "p100": "gpu", "hl-100": "accelerator",
}  # fmt: skip


def test_vectors_are_finite_and_distinct() -> None:
    vectors = np.stack([device.vector() for device in DEVICES])
    assert np.isfinite(vectors).all()
    assert (np.abs(vectors) < 40).all()
    assert len(np.unique(vectors, axis=0)) == len(DEVICES)


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_every_figure_has_a_source_and_is_plausible(device: DeviceSpec) -> None:
    known = [name for name in FIGURES if getattr(device, name) is not None]
    assert sorted(device.sources) == sorted(known)
    assert 4e8 <= device.clock_hz <= 6e9
    assert 4e9 <= device.bandwidth_bytes_per_s <= 1e13
    if device.kind == "gpu":
        assert device.simd_lanes in (8, 32, 64)
        if device.shared_bytes_per_core and device.shared_bytes_per_block:
            assert device.shared_bytes_per_block <= device.shared_bytes_per_core <= device.l1_bytes
    else:
        assert device.l1_bytes <= device.l2_bytes
    if "assumed" in "".join(device.sources.values()):
        assert device.note


@pytest.mark.parametrize(("name", "tflops"), PUBLISHED.items())
def test_peaks_are_those_of_data_sheets(name: str, tflops: float) -> None:
    assert find_device(name).peak_flops == pytest.approx(tflops * 1e12, rel=0.015)


def test_half_precision_is_at_least_as_fast() -> None:
    for device in DEVICES:
        if device.float16_flops is not None:
            assert device.float16_flops >= 0.999 * device.peak_flops, device.name
        if device.int8_ops is not None:
            assert device.int8_ops >= device.peak_flops, device.name


@pytest.mark.parametrize(("name", "kind"), MEASURED.items())
def test_devices_of_measurements_are_known(name: str, kind: str) -> None:
    assert find_device(name).kind == kind


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("Tesla T4", "t4"), ("Tesla_T4", "t4"), ("nvidia-t4", "t4"), ("Tesla K80", "k80"),
        ("NVIDIA GeForce RTX 3090", "rtx-3090"), ("GeForce GTX 1650", "gtx-1650"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"), ("NVIDIA A100 80GB PCIe", "a100-80gb-pcie"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"), ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"), ("NVIDIA L4", "l4"), ("Tesla V100-SXM2-16GB", "v100-sxm2"),
        ("Intel(R) Xeon(R) Platinum 8272CL CPU @ 2.60GHz", "xeon-platinum-8272cl"),
        ("Intel(R) Xeon(R) CPU E5-2673 v4 @ 2.30GHz", "xeon-e5-2673-v4"),
        ("Intel(R) Xeon(R) Platinum 8480+", "xeon-platinum-8480+"),
        ("12th Gen Intel(R) Core(TM) i9-12900K", "core-i9-12900k"),
        ("AMD EPYC 7452 32-Core Processor", "epyc-7452"), ("Apple M1", "apple-m1"),
        ("AMD Instinct MI100", "mi100"), ("Apple M1 GPU", "apple-m1-gpu"), ("HL 100", "hl-100"),
    ],
)  # fmt: skip
def test_names_as_machines_tell_them(told: str, name: str) -> None:
    assert find_device(told).name == name


@pytest.mark.parametrize(
    "told", ["", "AMD EPYC", "Intel CPU", "NVIDIA GeForce RTX 3080 Laptop GPU", "EPYC-7V13"]
)
def test_other_names_match_nothing(told: str) -> None:
    assert Registry(DEVICES).match(told) is None


@given(st.sampled_from(DEVICES), st.data())
def test_lookup_is_forgiving(device: DeviceSpec, data: st.DataObject) -> None:
    separators = data.draw(st.lists(st.sampled_from(["", " ", "-", "_"]), min_size=9, max_size=9))
    words = device.name.split("-")
    name = "".join(w + s for w, s in zip(words, [*separators[: len(words) - 1], ""], strict=True))
    if data.draw(st.booleans()):
        name = name.upper()
    assert find_device(f" {name} ") is device


@pytest.mark.parametrize(
    ("name", "similar"),
    [("t5", "t4"), ("RTX 3099", "rtx-3090"), ("v1000", "v100-sxm2"), ("graviton 5", "graviton2")],
)
def test_an_unknown_name_gives_similar_ones(name: str, similar: str) -> None:
    with pytest.raises(UnknownDeviceError, match=f"got '{name}'.*did you mean .*{similar}"):
        find_device(name)


def test_an_unknown_name_may_be_like_none() -> None:
    with pytest.raises(UnknownDeviceError, match=r"got 'quux'\. `tvm-cdmpp device show`"):
        find_device("quux")


def test_names_are_those_of_one_device() -> None:
    for other, message in (
        (replace(MINE, name="my", aliases=()), "'my' is one of both 'my-cpu' and 'my'"),
        (replace(MINE, name="box7", aliases=()), "'box7' is one of both 'my-cpu' and 'box7'"),
        (replace(MINE, name="t4"), "'t4' is a built-in device"),
        (
            replace(MINE, name="x", aliases=("NVIDIA T4",)),
            "'NVIDIA T4' is a name of the built",
        ),
        (MINE, "'my-cpu' is given twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            Registry((*DEVICES, MINE, other))


def test_the_user_s_devices(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "devices.json"
    assert load_registry(file).devices == DEVICES
    assert add_devices([MINE], file) == ()
    assert load_registry(file).find("BOX 7") == MINE
    assert load_registry(file).find("t4") is find_device("t4")
    other = replace(MINE, name="other", aliases=())
    faster = replace(MINE, clock_hz=4e9)
    assert add_devices([other, faster], file) == ("my-cpu",)
    assert read_device_file(file) == (other, faster)
    assert {path.name for path in file.parent.iterdir()} == {"devices.json", ".devices.json.lock"}


def test_devices_are_removed(tmp_path: Path) -> None:
    file = tmp_path / "devices.json"
    other = replace(MINE, name="other", aliases=())
    add_devices([MINE, other], file)
    for names, error, message in (
        (["other", "quux"], UnknownDeviceError, "has my-cpu, other; got 'quux'"),
        (["other", "T4"], ConfigError, "'T4' is a built-in device"),
    ):
        with pytest.raises(error, match=message):
            remove_devices(names, file)
        assert read_device_file(file) == (MINE, other)
    assert remove_devices(["BOX 7"], file) == ("my-cpu",)
    assert load_registry(file).devices == (*DEVICES, other)


@pytest.mark.parametrize(
    "device", [replace(MINE, name="intel-cpu"), replace(MINE, aliases=("NVIDIA",))]
)
def test_a_name_that_would_not_be_found_is_refused(tmp_path: Path, device: DeviceSpec) -> None:
    file = tmp_path / "devices.json"
    with pytest.raises(ConfigError, match="must say more than a vendor"):
        add_devices([device], file)
    assert not file.exists()


def test_one_that_is_in_a_file_nevertheless_is_removed_by_that_name_only(tmp_path: Path) -> None:
    file = tmp_path / "devices.json"
    file.write_text(dump_devices([replace(MINE, name="nvidia", aliases=())]))
    with pytest.raises(UnknownDeviceError, match="has nvidia; got 'intel'"):
        remove_devices(["intel"], file)
    assert remove_devices(["nvidia"], file) == ("nvidia",)


def test_a_name_that_became_a_built_in_one_can_be_removed(tmp_path: Path) -> None:
    file = tmp_path / "devices.json"
    file.write_text(dump_devices([replace(MINE, name="t4", aliases=())]))
    with pytest.raises(ConfigError, match="tvm-cdmpp device remove t4"):
        load_registry(file)
    assert remove_devices(["t4"], file) == ("t4",)
    assert load_registry(file).devices == DEVICES


def test_refused_devices_leave_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "devices.json"
    add_devices([MINE], file)
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="'t4'"):
        add_devices([replace(MINE, name="t4", aliases=())], file)
    assert file.read_bytes() == before
    file.write_text("{")
    with pytest.raises(ConfigError, match=str(file)):
        add_devices([MINE], file)
    assert file.read_text() == "{"
    with pytest.raises(ConfigError, match=str(file)):
        load_registry(file)


@pytest.mark.parametrize(
    ("variable", "folder"), [("HOME", ".config/tvm-cdmpp"), ("XDG_CONFIG_HOME", "tvm-cdmpp")]
)
def test_the_default_file_is_in_the_user_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, folder: str
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    file = user_device_file()
    assert file == tmp_path / folder / "devices.json"
    add_devices([MINE], file)
    assert find_device("my cpu") == MINE


def test_without_a_home_the_built_in_devices_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert find_device("t4").name == "t4"
    with pytest.raises(ConfigError, match="Set HOME"):
        user_device_file()
