"""`tvm-cdmpp device` as a user types it, with a home folder of its own."""

import json
from pathlib import Path

import pytest

from tests.devices.test_cuda import T4
from tests.devices.test_jsonform import FIGURES, document, with_figures
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.devices import detect
from tvm_cdmpp.devices.calibration import DeviceCalibration, Levels
from tvm_cdmpp.devices.detect import find_device
from tvm_cdmpp.devices.jsonform import parse_devices
from tvm_cdmpp.devices.kept_calibrations import calibration_file, keep_calibration
from tvm_cdmpp.devices.registry import built_in_devices, user_device_file
from tvm_cdmpp.devices.spec import DEVICE_FIELDS
from tvm_cdmpp.devices.spec import FIGURES as ALL_FIGURES
from tvm_cdmpp.errors import UnknownDeviceError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def write(folder: Path, content: object) -> str:
    file = folder / "new.json"
    file.write_text(json.dumps(content))
    return str(file)


def test_show_lists_all(capsys: Capture) -> None:
    assert main(["device", "show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {device.name for device in built_in_devices()} <= {line.split(" ")[0] for line in lines}
    (line,) = (line for line in lines if line.startswith("t4 "))
    assert "1.59 GHz" in line
    assert "8.141 TFLOP/s" in line
    assert "320 GB/s" in line
    here = detect.detect_cpu().name
    assert lines[-1] == f"this machine: {here}"
    assert sum(line.split(" ")[0] == here for line in lines) == 1


def test_show_one_with_units_and_sources(capsys: Capture) -> None:
    assert main(["device", "show", "NVIDIA V100"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("v100-sxm2 (gpu), also v100")
    for name in {*ALL_FIGURES, *DEVICE_FIELDS}:
        assert f"\n{name} " in shown
    # The README says nine.
    begin, also = shown.index("the predictor sees:"), shown.index("also known:")
    seen = [name for name in DEVICE_FIELDS if begin < shown.index(f"\n{name} ") < also]
    assert len(seen) == len(DEVICE_FIELDS) == 9
    for name in set(ALL_FIGURES) - set(DEVICE_FIELDS):
        assert shown.index(f"\n{name} ") > also
    for text in ("1.53 GHz", "900 GB/s", "96 KiB", "6 MiB", "125 TFLOP/s", "62.67 TOP/s",
                 "NVIDIA Tesla V100 GPU architecture white paper", "15.67 TFLOP/s",
                 "Taken where only V100 is stated."):  # fmt: skip
        assert text in shown


def test_show_an_unknown_one(capsys: Capture) -> None:
    assert main(["device", "show", "t5"]) == 2
    assert "got 't5' (did you mean" in capsys.readouterr().err


def test_show_a_file(home: Path, capsys: Capture) -> None:
    assert main(["device", "show", "--file", write(home, document())]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("my-cpu (cpu)\n")
    assert "unknown" in shown
    assert main(["device", "show", "--file", str(home / "missing")]) == 2
    assert "missing" in capsys.readouterr().err


def test_add_then_show(home: Path, capsys: Capture) -> None:
    file = write(home, document())
    assert main(["device", "add", file]) == 0
    assert capsys.readouterr().out == f"added my-cpu\nin {user_device_file()}\n"
    assert find_device("My CPU").cores == FIGURES["cores"]
    assert main(["device", "show"]) == 0
    assert "my-cpu" in capsys.readouterr().out
    assert main(["device", "add", write(home, with_figures(cores=5))]) == 0
    assert "replaced my-cpu" in capsys.readouterr().out
    assert find_device("my-cpu").cores == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_figures(clock_hz="3 GHz"), 'clock_hz must be a number; got "3 GHz"'),
        (with_figures(clock_hz=2.2), "must be 10000000 to 1e+11 Hz (2.2 GHz are 2.2e9); got 2.2"),
        (document(name="t4"), "'t4' is a built-in device; give yours another name"),
    ],
)
def test_add_refuses(home: Path, capsys: Capture, content: object, message: str) -> None:
    assert main(["device", "add", write(home, content)]) == 2
    assert message in capsys.readouterr().err
    assert not user_device_file().exists()


def test_remove(home: Path, capsys: Capture) -> None:
    assert main(["device", "add", write(home, document())]) == 0
    capsys.readouterr()
    assert main(["device", "remove", "t4"]) == 2
    assert "'t4' is a built-in device, which cannot be removed" in capsys.readouterr().err
    assert main(["device", "remove", "my-cpu"]) == 0
    assert capsys.readouterr().out == f"removed my-cpu\nfrom {user_device_file()}\n"
    assert main(["device", "remove", "my-cpu"]) == 2
    assert "which has none; got 'my-cpu'" in capsys.readouterr().err
    assert main(["device", "show", "my-cpu"]) == 2


def test_detect_shows_this_machine(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "read_cuda_gpus", lambda: ())
    assert main(["device", "detect"]) == 0
    shown = capsys.readouterr().out
    assert "(cpu)" in shown
    assert "no CUDA GPU" in shown
    here = shown.split(" ")[0]
    assert main(["device", "show", here]) == 0
    assert capsys.readouterr().out.startswith(f"{here} (cpu)")


def test_detected_devices_can_be_added(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = T4.__class__(**{**vars(T4), "name": "Tesla T99", "multiprocessors": 99})
    monkeypatch.setattr(detect, "read_cuda_gpus", lambda: (gpu,))
    assert main(["device", "detect", "--json"]) == 0
    text = capsys.readouterr().out
    _, detected = parse_devices(text, "stdout")
    assert (detected.name, detected.cores) == ("tesla-t99", 99)
    found = json.loads(text)
    found["devices"] = found["devices"][1:]
    assert main(["device", "add", write(home, found)]) == 0
    assert find_device("NVIDIA Tesla T99") == detected


def test_a_device_described_after_this_machine_is_not_calibrated(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect, "read_cuda_gpus", lambda: ())
    here = detect.detect_cpu().name
    levels = DeviceCalibration(levels=(Levels(weights="a", level=0.5),))
    keep_calibration(here, levels, calibration_file())
    assert find_device(here).calibration == levels
    assert main(["device", "detect", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    found["devices"][0] |= {"name": "another-cpu", "aliases": []}
    assert main(["device", "add", write(home, found)]) == 0
    assert find_device("another-cpu").calibration is None


def test_a_failing_driver_is_told_and_the_cpu_shown(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise UnknownDeviceError("cuInit fails")

    monkeypatch.setattr(detect, "read_cuda_gpus", fail)
    assert main(["device", "detect", "--json"]) == 1
    out, err = capsys.readouterr()
    assert len(parse_devices(out, "stdout")) == 1
    assert "cuInit fails" in err


@pytest.mark.parametrize("arguments", [[], ["show", "t4", "--file", "x"], ["add"], ["paint"]])
def test_wrong_command_lines(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["device", *arguments])
    assert exit_info.value.code == 2


def test_add_says_what_it_cannot_add(home: Path, capsys: Capture) -> None:
    assert main(["device", "add", write(home, {"format": 1, "devices": []})]) == 2
    assert "holds no device" in capsys.readouterr().err
    assert main(["device", "add", str(home / "none.json")]) == 2
    assert "none.json cannot be read: No such file" in capsys.readouterr().err
