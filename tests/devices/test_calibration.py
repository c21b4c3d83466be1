"""Calibrations: what is kept is read back, what is damaged is named, and who gets it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_cdmpp.devices import detect
from tvm_cdmpp.devices.calibration import DeviceCalibration, Levels, MeasuredProgram
from tvm_cdmpp.devices.detect import detect_cpu
from tvm_cdmpp.devices.host import HostCPU
from tvm_cdmpp.devices.jsonform import dump_devices, parse_devices
from tvm_cdmpp.devices.kept_calibrations import keep_calibration, keep_levels, read_calibrations
from tvm_cdmpp.devices.registry import load_registry
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import ConfigError

SLOWER = DeviceCalibration(
    levels=(
        Levels(
            weights="a",
            level=0.5,
            operators={"conv2d": 0.7, "pool": -0.1},
            own_level=0.9,
            own_operators={"conv2d": 1.2},
        ),
        Levels(weights="b", level=-0.25),
    ),
    programs=(MeasuredProgram(operator="pool", task="t", measured_s=1e-3, log_ratio=0.4),),
    date="2026-01-31T12:00:00+00:00",
    tvm="0.17.0",
    disturbed=True,
)
levels = st.builds(
    Levels,
    weights=st.text(max_size=4),
    level=st.floats(-20, 20),
    operators=st.dictionaries(st.text(max_size=4), st.floats(-20, 20), max_size=3),
    own_level=st.none() | st.floats(-20, 20),
    own_operators=st.dictionaries(st.text(max_size=4), st.floats(-20, 20), max_size=3),
    wake_s=st.none() | st.floats(1e-9, 0.09),
)
calibrations = st.builds(
    DeviceCalibration,
    levels=st.lists(levels, max_size=2).map(tuple),
    wake_s=st.none() | st.floats(1e-9, 0.09),
    plain_level=st.none() | st.floats(-20, 20),
    library_level=st.none() | st.floats(-20, 20),
    kept_level=st.none() | st.floats(-20, 20),
    commit=st.none() | st.text(max_size=4),
    disturbed=st.booleans(),
)


@given(calibrations)
def test_what_is_written_is_read(calibration: DeviceCalibration) -> None:
    content = json.loads(json.dumps(calibration.to_json()))
    read = DeviceCalibration.from_json(content, "file")
    assert read.to_json() == calibration.to_json()


def test_a_file_of_devices_takes_no_calibration_along() -> None:
    device = DeviceSpec(name="x", kind="cpu", calibration=SLOWER)
    plain = replace(device, calibration=None)
    assert parse_devices(dump_devices([device]), "file") == (plain,)
    old = json.loads(dump_devices([device]))
    old["devices"][0]["calibration"] = SLOWER.to_json()
    assert parse_devices(json.dumps(old), "file") == (plain,)


def test_levels_are_those_of_the_weights_and_the_operator() -> None:
    device = DeviceSpec(name="x", kind="cpu", calibration=SLOWER)
    assert [device.level(weights) for weights in ("a", "b", "c", "")] == [0.5, -0.25, 0.0, 0.0]
    conv2d = device.for_operator("conv2d")
    assert [conv2d.level(weights) for weights in "abc"] == [0.7, -0.25, 0.0]
    assert device.for_operator("softmax") == device != conv2d
    # No program is measured of this class: what is most like it counts, if a search schedules it.
    assert device.for_operator("conv3d") == conv2d
    assert device.for_operator("conv3d", own="conv3d") == device.for_operator("x", own="x")
    own = [device.for_operator("pool", own=own) for own in ("conv2d", "max_pool")]
    assert [[d.level(weights) for weights in "abc"] for d in own] == [
        [1.2, -0.25, 0.0],
        [0.9, -0.25, 0.0],
    ]
    # A class that was not measured has the level of its task's, where that was.
    assert device.for_operator("conv2d", own="conv2d_1x1").level("a") == 1.2
    # Where none was measured with TVM's own schedules, those of a search count.
    searched = replace(SLOWER.levels[0], own_level=None, own_operators={})
    old = replace(device, calibration=DeviceCalibration(levels=(searched,)))
    assert old.for_operator("pool", own="max_pool").level("a") == -0.1
    plain = replace(device, calibration=None)
    assert (plain.level("a"), plain.for_operator("pool")) == (0.0, plain)
    assert len({device, conv2d, plain, device.for_operator("softmax")}) == 3


def test_what_waking_took_since_counts_as_much_as_in_the_calibration() -> None:
    known, unknown = (DeviceCalibration(levels=(), wake_s=wake_s) for wake_s in (2e-6, None))
    assert known.mean_wake_s(1e-6) == pytest.approx(1.5e-6)
    assert unknown.mean_wake_s(1e-6) == 1e-6
    assert known.mean_wake_s(None) is None  # its own counts


def test_a_calibration_is_kept_and_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "new" / "calibrations.json"
    assert read_calibrations(file) == {}
    assert not keep_calibration("x", None, file)
    assert not keep_calibration("x", SLOWER, file)
    assert not keep_calibration("y", DeviceCalibration(levels=()), file)
    assert keep_calibration("x", replace(SLOWER, levels=()), file)
    assert read_calibrations(file)["x"].programs == SLOWER.programs
    # Levels of other weights stay, as these learned on top of them.
    assert read_calibrations(file)["x"].levels == SLOWER.levels
    anew = replace(SLOWER, levels=(Levels(weights="a", level=3.0),))
    keep_calibration("x", anew, file)
    assert read_calibrations(file)["x"].levels == (*anew.levels, SLOWER.levels[1])
    assert keep_calibration("x", None, file)
    assert list(read_calibrations(file)) == ["y"]


def test_levels_for_further_weights_are_kept_beside_the_others(tmp_path: Path) -> None:
    file, new = tmp_path / "calibrations.json", Levels(weights="new", level=1.0)
    keep_levels("x", new, file)
    assert not file.exists()
    keep_calibration("x", SLOWER, file)
    for levels in (replace(new, level=2.0), new):  # the second time they have some
        keep_levels("x", levels, file)
    found = read_calibrations(file)["x"]
    assert found.levels == (*SLOWER.levels, new)
    assert found.programs == SLOWER.programs


def test_devices_of_all_sources_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_file = tmp_path / "devices.json"
    user_file.write_text(dump_devices([DeviceSpec(name="my-cpu", kind="cpu")]))
    for name in ("t4", "my-cpu", "new-chip-9000"):
        keep_calibration(name, SLOWER, tmp_path / "calibrations.json")
    registry = load_registry(user_file)
    assert registry.find("NVIDIA T4").calibration == SLOWER
    assert registry.find("my-cpu").calibration == SLOWER
    assert registry.find("v100").calibration is None
    host = HostCPU(architecture="x86_64", name="New Chip 9000", flags=frozenset(), physical_cores=2)
    monkeypatch.setattr(detect, "read_host_cpu", lambda: host)
    assert detect_cpu(registry=registry).calibration == SLOWER


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read: .*Remove the file"),
        pytest.param("[" * 100_000, "cannot be read: it is nested .*Remove the file", id="deep"),
        ([], 'must be an object with "format": 1'),
        ({"format": 2}, 'must be an object with "format": 1'),
        ({"format": 1, "calibrations": []}, "must be an object, by the names of devices"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_named(tmp_path: Path, content: Any, message: str) -> None:
    file = tmp_path / "calibrations.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=message) as raised:
        keep_calibration("y", SLOWER, file)
    assert str(file) in str(raised.value)
    assert file.read_bytes() == before
    with pytest.raises(ConfigError, match=message):
        load_registry(tmp_path / "devices.json")


def test_how_many_do_not_count_is_read_from_files_of_earlier_versions() -> None:
    named = replace(SLOWER, untold=("copy 1x64 failed",))
    assert DeviceCalibration.from_json(named.to_json(), "x").untold == named.untold
    assert DeviceCalibration.from_json(SLOWER.to_json() | {"untold": 3}, "x") == SLOWER


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "'x', must be a calibration with levels"),
        ({}, "'levels' is missing"),
        ({"levels": [{"weights": "a", "level": "1"}]},
         "a level must be a number; got '1'"),
        ({"levels": [{"weights": "a", "level": 21}]},
         "a level must be within 20 of 0; got 21"),
        ({"levels": [{
            "weights": "a", "level": 0, "own_level": 0, "own_operators": {"pool": -21}}]},
         "a level must be within 20 of 0; got -21"),
        ({"levels": [], "more": 1}, "more"),
        ({"levels": [], "wake_s": 0},
         "wake_s must be above 0 and below 0.1 s; got 0"),
        ({"levels": [], "plain_level": 99},
         "a level must be within 20 of 0; got 99"),
        ({"levels": [], "wake_s": "1"}, "'x', must be"),
        ({"levels": [], "programs": [
            {"operator": "pool", "task": "t", "measured_s": 0, "log_ratio": 1}]},
         "a program of t must have finite seconds above 0"),
        ({"levels": [], "programs": [
            {"operator": "pool", "task": "t", "measured_s": 1, "log_ratio": 10**400}]},
         "'x', must be a calibration with .*: int too large"),
        ({"levels": [], "date": 5}, "date must be a text; got 5"),
        ({"levels": [], "commit": 5}, "commit must be a text; got 5"),
        ({"levels": [], "disturbed": "no"}, "disturbed must be true or false; got 'no'"),
        ({"levels": [], "untold": "1"}, "untold must be a list; got '1'"),
        ({"levels": [], "untold": [1]}, "untold must be a text; got 1"),
        ({"levels": [{"weights": "a", "level": 0, "own_operators": [1]}]},
         "own_operators must be an object"),
        (None, "'x', must be a calibration"),
    ],
)  # fmt: skip
def test_a_damaged_entry_concerns_its_device_alone(
    tmp_path: Path, entry: Any, message: str
) -> None:
    file = tmp_path / "calibrations.json"
    content = {"format": 1, "calibrations": {"t4": entry, "v100-sxm2": SLOWER.to_json()}}
    file.write_text(json.dumps(content))
    registry, message = load_registry(tmp_path / "devices.json"), message.replace("'x'", "'t4'")
    assert registry.find("v100-sxm2").calibration == SLOWER
    with pytest.raises(ConfigError, match=message) as raised:
        registry.find("t4")
    assert str(file) in str(raised.value)
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=message):
        keep_levels("t4", SLOWER.levels[0], file)
    assert file.read_bytes() == before
    keep_levels("v100-sxm2", Levels(weights="new", level=1.0), file)
    assert json.loads(file.read_text())["calibrations"]["t4"] == entry
    assert keep_calibration("t4", SLOWER, file)
    assert load_registry(tmp_path / "devices.json").find("t4").calibration == SLOWER
    file.write_text(json.dumps(content))
    assert keep_calibration("t4", None, file)
    assert list(read_calibrations(file)) == ["v100-sxm2"]


def test_what_is_in_the_way_of_the_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "folder" / "calibrations.json"
    folder.mkdir(parents=True)
    taken = tmp_path / "taken"
    taken.write_text("")
    for file, message in (
        (folder, f"{folder} is a folder, .* Move the folder away"),
        (taken / "tvm-cdmpp" / "calibrations.json", f"{taken} is no folder, .*XDG_CONFIG_HOME"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_calibrations(file)
        with pytest.raises(ConfigError, match=message):
            keep_calibration("x", SLOWER, file)
