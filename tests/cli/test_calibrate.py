"""`tvm-cdmpp device calibrate`, and what `tune` makes of it, with a home folder of its own."""

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tvm_cdmpp
from tvm_cdmpp.bridge.target import default_target, device_of
from tvm_cdmpp.cli import calibrate
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.cli.show import stderr_console
from tvm_cdmpp.devices.calibration import DeviceCalibration, Levels
from tvm_cdmpp.devices.kept_calibrations import (
    calibration_file,
    keep_calibration,
    read_calibrations,
)
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession
from tvm_cdmpp.models import Predictor, PredictorConfig
from tvm_cdmpp.models.trained import TrainedPredictor
from tvm_cdmpp.models.weights import load_weights
from tvm_cdmpp.search.reports import TuneSettings

Capture = pytest.CaptureFixture[str]
KEPT = DeviceCalibration(levels=(Levels(weights="other", level=0.25),), date="2026-01-31")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def origin(name: str) -> str:
    predictor = load_weights(name)
    assert isinstance(predictor, TrainedPredictor)
    return predictor.origin


def test_a_machine_is_calibrated_shown_and_forgotten(capsys: Capture) -> None:
    assert main(["device", "calibrate", "--programs", "8", "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert f"measuring at most 8 small programs on {said['device']}" in err
    for stage in ("small programs: 0", "small programs: 8", "products with full caches: 4"):
        assert f"\n{stage} of 8\n" in err
    assert "\nwaking threads\n" in err
    assert (f"{len(said['programs'])} of 8 small" in err) == (len(said["programs"]) < 8)
    assert ("warning: the machine was busy" in err) == said["disturbed"]
    missed = said["wake_s"] is None and device_of(default_target()).cores > 1
    assert ("what waking threads takes could not be told" in err) == missed
    for name, what in (
        ("plain_level", "such as copies,"),
        ("library_level", "such as erf,"),
        ("kept_level", "stay in the caches"),
    ):
        assert said[name] is None or abs(said[name]) < 6  # None on a busy machine
        assert (f"{what} take could not be told" in err) == (said[name] is None)
    untold = said["untold"]
    named = f"{len(untold)} functions with full caches do not count: {'; '.join(untold)}\n"
    assert (named in err) == bool(untold)
    assert 4 <= len(said["programs"]) <= 8
    assert {program["own"] for program in said["programs"]} == {False, True}
    assert set(said["levels"][0]["own_operators"]) == {"conv2d", "matmul"}
    own = [0.0, *(program["log_ratio"] for program in said["programs"] if program["own"])]
    assert min(own) - 0.1 <= said["levels"][0]["own_level"] <= max(own) + 0.1
    assert [entry["weights"] for entry in said["levels"]] == [
        *map(origin, ("shipped", "evaluation"))
    ]
    here = device_of(default_target())
    assert here.calibration is not None
    assert here.name == said["device"]
    assert here.level(origin("shipped")) == said["levels"][0]["level"]
    ratios = [program["log_ratio"] for program in said["programs"]]
    assert min(ratios) - 0.1 <= said["levels"][0]["level"] <= max(ratios) + 0.1 or math.isclose(
        said["levels"][0]["level"], 0.0, abs_tol=0.5
    )
    calibrate._print(here.calibration, here.name)
    told = capsys.readouterr().out
    assert ("such as copies, take " in told) == (here.calibration.plain_level is not None)
    assert ("such as erf, take " in told) == (here.calibration.library_level is not None)
    assert ("stay in the caches take " in told) == (here.calibration.kept_level is not None)
    calibrate._print(replace(here.calibration, disturbed=True), here.name)
    assert "\nwarning: the machine was busy" in (told := capsys.readouterr().out)
    assert f"in all: {calibrate.describe_levels(here.calibration.levels[0])}\n" in told
    assert main(["device", "calibrate", "--forget"]) == 0
    assert capsys.readouterr().out == f"forgot {here.name}\n"
    assert device_of(default_target()).calibration is None
    assert main(["device", "calibrate", "--forget"]) == 0
    assert capsys.readouterr().out == f"nothing was kept of {here.name}\n"


def test_weights_of_ones_own_have_levels_as_well(tmp_path: Path, capsys: Capture) -> None:
    own, file = load_weights("evaluation"), tmp_path / "own.safetensors"
    assert isinstance(own, TrainedPredictor)
    TrainedPredictor(own.experts, {"command": "mine"}).save(file)
    command = ["device", "calibrate", "--programs", "8", "--json", "--weights", str(file)]
    assert main(command) == 0
    said = json.loads(capsys.readouterr().out)
    assert [entry["weights"] for entry in said["levels"]] == [
        *map(origin, ("shipped", "evaluation", str(file)))
    ]
    assert said["levels"][2]["level"] == said["levels"][1]["level"]
    assert len({entry["weights"] for entry in said["levels"]}) == 3


def test_a_model_that_learned_in_a_search_alone_has_no_levels(
    tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "search.safetensors"
    Predictor.untrained(PredictorConfig(), 0).save(file)
    assert main(["device", "calibrate", "--programs", "8", "--weights", str(file)]) == 2
    assert "learns in a search alone" in capsys.readouterr().err


def test_show_tells_what_is_kept(capsys: Capture) -> None:
    keep_calibration("t4", KEPT, calibration_file())
    assert main(["device", "show", "t4"]) == 0
    told = (
        "calibrated on 2026-01-31 with 0 programs: programs such as a search finds take 1.28 times "
        "what is predicted"
    )
    assert f"{told}\n" in capsys.readouterr().out
    own = replace(KEPT, levels=(replace(KEPT.levels[0], own_level=-0.25),))
    keep_calibration("t4", own, calibration_file())
    assert main(["device", "show", "t4"]) == 0
    told += ", those with TVM's own schedules 0.78 times"
    assert f"{told}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((160, 160, 160), ""),
        ((160, 160, 158), "158 of 160 small programs ran: 2 not built, or failed"),
        (
            (160, 151, 149),
            "149 of 160 small programs ran: 9 not to be had, as some operators have too few "
            "that differ; 2 not built, or failed",
        ),
    ],
)
def test_programs_that_did_not_run_are_told(counts: tuple[int, int, int], said: str) -> None:
    assert calibrate.describe_missing(*counts) == said


def test_a_killed_calibration_leaves_the_one_before(home: Path) -> None:
    name = device_of(default_target()).name
    keep_calibration(name, KEPT, calibration_file())
    before = calibration_file().read_bytes()
    command = subprocess.Popen(
        [sys.executable, "-m", "tvm_cdmpp", "device", "calibrate"],
        cwd=Path(tvm_cdmpp.__file__).parents[1],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stderr is not None
    assert "measuring at most 160 small programs" in command.stderr.readline()
    command.send_signal(signal.SIGKILL)
    command.communicate()
    assert calibration_file().read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--programs", "3"], "--programs must be 8 to 1000, got 3"),
        (["--device", "t5"], "got 't5'"),
        (["--key", "k"], "--rpc and --key belong together"),
        (["--rpc", "h:1", "--key", "k"], "give the --target of the remote devices"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: Capture) -> None:
    assert main(["device", "calibrate", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("weights", "changes", "known", "measures"),
    [
        ("shipped", {}, False, True),
        ("evaluation", {}, False, True),
        ("shipped", {"trials": 599}, False, False),
        ("shipped", {"time_s": 400.0}, False, False),
        ("shipped", {}, True, False),
        ("evaluation", {}, True, True),
        ("none", {}, False, False),
        (None, {}, False, False),
    ],
)
def test_tune_calibrates_only_where_it_pays(
    weights: str | None,
    changes: dict[str, Any],
    known: bool,
    measures: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = default_target()
    found = DeviceCalibration(levels=(Levels(weights=origin("shipped"), level=0.5),))
    if known:
        keep_calibration(device_of(target).name, found, calibration_file())
    asked: list[Any] = []

    def measure(*arguments: Any) -> DeviceCalibration:
        asked.append(arguments)
        return found

    monkeypatch.setattr(calibrate, "measure_and_keep", measure)
    settings = TuneSettings(
        **{"trials": 600, "time_s": 1000.0, "measure": MeasureOptions(), **changes}
    )
    device, left = calibrate.calibrate_first(
        weights, target, None, settings, MeasureSession(), stderr_console()
    )
    assert device is None
    assert (len(asked) == 1) == measures
    assert (left.time_s < settings.time_s) == measures


def test_a_damaged_file_is_named(capsys: Capture) -> None:
    calibration_file().parent.mkdir(parents=True)
    calibration_file().write_text("{")
    assert main(["device", "show", "t4"]) == 2
    assert f"The calibrations in {calibration_file()} cannot be read" in capsys.readouterr().err
    calibration_file().unlink()
    assert read_calibrations(calibration_file()) == {}


def test_a_damaged_calibration_is_replaced_or_forgotten(capsys: Capture) -> None:
    name = device_of(default_target()).name
    keep_calibration("t4", KEPT, calibration_file())
    content = json.loads(calibration_file().read_text())
    content["calibrations"][name] = KEPT.to_json() | {"date": 5}
    for then in (["--forget"], ["--programs", "8"]):
        calibration_file().write_text(json.dumps(content))
        assert main(["device", "show", "t4"]) == 0
        assert main(["device", "show", name]) == 2
        assert f"{calibration_file()}, '{name}', must be" in capsys.readouterr().err
        assert main(["device", "calibrate", *then]) == 0
        assert main(["device", "show", name]) == 0
        assert read_calibrations(calibration_file())["t4"] == KEPT
