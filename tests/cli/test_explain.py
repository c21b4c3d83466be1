"""`explain` and `report` over a log of tiny tasks."""

import json
import math
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.search.logs import write_tiny_log
from tvm_cdmpp import search
from tvm_cdmpp.ast import FIELDS
from tvm_cdmpp.cli import legend, show
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.devices import (
    DeviceCalibration,
    DeviceSpec,
    Levels,
    calibration_file,
    detect_cpu,
    keep_calibration,
)
from tvm_cdmpp.models import TrainedPredictor, load_weights
from tvm_cdmpp.models.attribution import INPUT_GROUPS, MEASURED, PLACES
from tvm_cdmpp.search import MeasuredLog, explanation, read_measured_log

ESTIMATE = "analytic estimate"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_log(tmp_path_factory.mktemp("log") / "log.json")


def test_a_line_is_explained_next_to_another(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", f"{log}:3", "--against", "4"]) == 0
    out = capsys.readouterr().out
    for text in (
        "line 3 of",
        "roofline",
        "stores",
        "(start-up)",
        "for ",
        "relative to average leaves",
        "line 3 relative to line 4",
        "nearest measured",
    ):
        assert text in out


def test_json_names_lines_and_measurements(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(log), "--task", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["line"] == 9  # the best of the task
    assert 9 not in [neighbour["line"] for neighbour in found["neighbours"]]
    assert found["measured_s"] == pytest.approx(1e-5)
    assert found["latency_s"] > 0


def test_a_prediction_below_the_roofline_is_remarked(
    log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["explain", str(log)]) == 0
    out = capsys.readouterr().out
    assert "the prediction is" in out and "the measured latency" in out
    assert "below the roofline" not in out
    for bound, basis in (("memory", "main memory at"), ("compute", "")):
        monkeypatch.setattr(explanation, "task_roofline", lambda task, device, by=bound: (1.0, by))
        assert main(["explain", str(log)]) == 0
        out = capsys.readouterr().out
        assert f"roofline 1 s by {bound} ({basis}" in out
        assert ("below the roofline: caches hold its data" in out) == (bound == "memory")
        assert "the device is faster than its nominal figures" in out


def test_a_measurement_outside_of_the_interval_is_remarked(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remarked = set()
    for line in range(3, 10):
        assert main(["explain", f"{log}:{line}", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        low, high = found["interval_s"]
        outside = not low <= found["measured_s"] <= high
        assert main(["explain", f"{log}:{line}"]) == 0
        out = capsys.readouterr().out
        assert ("outside of the 90 % interval" in out) == outside
        assert "runs with a probability" not in out  # it ran
        remarked.add(outside)
    assert True in remarked
    assert main(["explain", f"{log}:2"]) == 0
    assert "failed; by prediction it runs with a probability of" in capsys.readouterr().out


def test_long_lines_of_the_loops_are_cut_in_the_middle(
    log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = f"for i (0,4)\n  for j ({'min(64, ' * 60}j))\n    {'C' * 300} = ...  12.5%"
    monkeypatch.setattr(explanation, "_with_shares", lambda *_: drawn)
    assert main(["explain", str(log)]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = lines.index("for i (0,4)")
    assert lines[first + 1].startswith("  for j (min(64, ") and " ... " in lines[first + 1]
    assert lines[first + 2].endswith("CC = ...  12.5%")
    assert all(len(line) <= 110 for line in lines[first : first + 3])
    assert main(["explain", str(log), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loops"] == drawn


def test_the_lines_of_the_explained_task_are_told(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, lines in enumerate((range(1, 10), range(10, 19))):
        assert main(["explain", str(log), "--task", str(number)]) == 0
        told = f"the task has the lines {lines[0]}-{lines[-1]}"
        assert told == capsys.readouterr().out.splitlines()[1]
        assert main(["explain", str(log), "--task", str(number), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["task_lines"] == list(lines)


def test_tasks_of_one_name_are_told_apart_in_json_too(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = log.read_text().splitlines(keepends=True)[:2]
    others = [line.replace("-num-cores=4", "-num-cores=8") for line in records]
    path = tmp_path / "log.json"
    path.write_text("".join(records + others))
    shutil.copy(log.with_name("workloads.jsonl"), tmp_path)
    assert main(["explain", str(path), "--json"]) == 0
    name = json.loads(capsys.readouterr().out)["task"]
    assert "#" in name
    assert main(["explain", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{name} on ")


def test_next_to_average_leaves_the_size_of_the_program_is_left_out(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", f"{log}:3", "--json"]) == 0
    assert next(iter(json.loads(capsys.readouterr().out)["attribution"]["groups"])) == ESTIMATE
    assert main(["explain", f"{log}:3"]) == 0
    groups = table(capsys.readouterr().out, "relative to average leaves")
    assert len(groups) == 6
    assert ESTIMATE not in groups


def test_the_groups_lead_from_one_prediction_to_the_other(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line, other in ((18, 10), (10, 18), (3, 4)):
        arguments = ["explain", f"{log}:{line}", "--against", str(other)]
        assert main([*arguments, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert main(arguments) == 0
        out = capsys.readouterr().out
        groups = table(out, f"line {line} relative to line {other}")
        assert list(groups)[-2:] == ["(others)", "(total)"]
        total = groups.pop("(total)")
        assert total == pytest.approx(found["latency_s"] / found["other_s"], abs=0.005)
        assert math.prod(groups.values()) == pytest.approx(total, rel=0.005 * len(groups))
        from_to = f"{show.latency(found['other_s'])} to {show.latency(found['latency_s'])}"
        assert f"from {from_to}; factors multiply" in out


def table(out: str, title: str) -> dict[str, float]:
    """Return the factors in the table of a title."""
    rows = out.split(f"\n{title}\n")[1].split("\n\n")[0]
    found = re.findall(r"^(.+?) +([+-]\d+)%  ", rows, re.MULTILINE)
    return {name: 1 + float(percent) / 100 for name, percent in found}


def test_every_key_of_the_json_is_documented(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", f"{log}:3", "--against", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    page = (Path(__file__).parents[2] / "docs" / "explain.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", page.split("\n### JSON\n")[1], re.MULTILINE)
    told = {key: meaning for keys, meaning in rows for key in re.findall("`(.+?)`", keys)}
    assert set(told) == set(found)
    for key, nested in (
        ("leaves", found["leaves"][0]),
        ("neighbours", found["neighbours"][0]),
        ("attribution", found["attribution"]),
    ):
        for name in nested:
            assert f"`{name}`" in told[key]


def test_this_machine_is_said_to_be_uncalibrated(
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    name, page = detect_cpu().name, tmp_path / "page.html"
    for device, calibrated, said in (
        ("epyc-7452", False, False),
        (name, False, True),
        (name, True, False),
    ):
        if calibrated:
            levels = (Levels(weights="others", level=0.1),)
            keep_calibration(name, DeviceCalibration(levels=levels), calibration_file())
        on = ["--device", device]
        assert main(["explain", str(log), *on]) == 0
        text = f"{name} is this machine and was not calibrated: "
        assert (text in capsys.readouterr().out) == said
        assert main(["explain", str(log), *on, "--json"]) == 0
        remarks = json.loads(capsys.readouterr().out)["remarks"]
        assert [remark.startswith(text) for remark in remarks] == [True] * said
        assert main(["report", str(log), "--out", str(page), *on]) == 0
        assert page.read_text().count(text) == said
        capsys.readouterr()


def test_every_group_and_field_has_a_meaning() -> None:
    for group in (*INPUT_GROUPS, PLACES, MEASURED):
        assert legend.meaning_of_group(group)
    for field in FIELDS:
        assert legend.meaning_of_field(field.name)
    meaning = "what is stored: elements between iterations of the innermost loop"
    assert legend.meaning_of_field("write_stride") == meaning


def test_the_level_of_a_calibration_is_told(
    log: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    page = tmp_path / "page.html"
    for factor in (1.0, 1.5):
        if factor != 1:
            weights = load_weights("shipped")
            assert isinstance(weights, TrainedPredictor)
            levels = (Levels(weights=weights.origin, level=math.log(factor)),)
            keep_calibration("epyc-7452", DeviceCalibration(levels=levels), calibration_file())
        assert main(["explain", str(log)]) == 0
        assert ("1.50 times what the weights say" in capsys.readouterr().out) == (factor != 1)
        assert main(["report", str(log), "--out", str(page)]) == 0
        assert ("at the measured level of the device" in page.read_text()) == (factor != 1)
        assert ">1 tiny_matmul 128x32" in page.read_text()  # as `explain --task 1` counts


def test_a_difference_that_the_model_misses_is_remarked(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remarked = set()
    for other in ("10", "14", "17"):
        assert main(["explain", f"{log}:18", "--against", other, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        measured = found["other_measured_s"] / found["measured_s"]
        missed = abs(math.log(measured * found["latency_s"] / found["other_s"])) > math.log(1.5)
        assert main(["explain", f"{log}:18", "--against", other]) == 0
        assert ("the model misses some" in capsys.readouterr().out) == missed
        remarked.add(missed)
    assert remarked == {False, True}


@pytest.mark.parametrize("command", ["explain", "report"])
def test_what_tvm_says_of_each_record_is_dropped(
    log: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    def read(path: Path, device: DeviceSpec | None) -> MeasuredLog:
        os.write(2, b"Warning: Unable to detect CUDA version")
        return read_measured_log(path, device)

    monkeypatch.setattr(search, "read_measured_log", read)
    page = ["--out", str(tmp_path / "page.html")] if command == "report" else []
    assert main([command, str(log), *page]) == 0
    assert "Warning" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{log}:99"], "line 99 is no line of"),
        (["{log}:0"], "its lines have the numbers 1 to 18"),
        (["{log}:3", "--against", "0"], "--against 0 is no line of"),
        (["{log}", "--task", "7"], "got 7. They are 0 tiny_matmul 64x64,64x64 float32; 1 tiny"),
        (["{log}", "--task", "-1"], "--task must be at least 0; got -1"),
        (["{log}:3", "--task", "0"], "a line says which task"),
        (["{log}:3", "--against", "12"], "which has the lines 1-9; line 12 is of"),
        (["{log}.missing"], "cannot be read"),
        (["{log}", "--device", "no-such-device"], "known device"),
        (["{log}:1", "--device", "t4"], "line 1: 't4' is a gpu, and programs for llvm"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    log: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["explain", *(text.format(log=log) for text in arguments)]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def nameless(log: Path, tmp_path: Path) -> Path:
    """A log whose target does not say which device it is of, but that it is not this one."""
    text = log.read_text().replace("-model=epyc-7452", "-mtriple=aarch64-linux-android")
    path = tmp_path / "log.json"
    path.write_text(text)
    shutil.copy(log.with_name("workloads.jsonl"), tmp_path)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "{log}"], "Give the device that {log} was measured on: --device D;"),
        (["report", "{log}"], "Give the device that {log} was measured on: --device D;"),
        (["explain", "{log}:65"], "line 65 is no line of"),
        (["explain", "{log}", "--task", "-1"], "--task must be"),
        (["explain", "{log}", "--against", "0"], "--against 0"),
    ],
)
def test_a_missing_device_is_told_after_what_is_typed_wrongly(
    nameless: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([text.format(log=nameless) for text in arguments]) == 2
    error = capsys.readouterr().err
    assert message.format(log=nameless) in error
    assert "CDMPPModel" not in error


@pytest.mark.parametrize(
    "name",
    [
        "log.json", "workloads.jsonl", "folder", "log.json/page.html", "log.json.own.jsonl",
        "log.json.curve.jsonl", "log.json.calibration.jsonl", "log.json.bad", "log.json.tvm.txt",
        "log.json.state.safetensors", "log.history.json",
    ],
)  # fmt: skip
def test_a_report_takes_no_file_that_it_reads(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for file in (log, log.with_name("workloads.jsonl")):
        shutil.copy(file, tmp_path)
    (tmp_path / "log.json.own.jsonl").write_text("records of `adapt`")
    (tmp_path / "folder").mkdir()
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    line = ["report", str(tmp_path / "log.json"), "--out", str(tmp_path / "folder" / ".." / name)]
    assert main([*line, "--device", "epyc-7452"]) == 2
    assert "tvm-cdmpp: --out" in capsys.readouterr().err
    assert all(file.read_bytes() == content for file, content in before.items())


def test_a_report_is_one_page(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(log), "--out", str(page)]) == 0
    assert "2 tasks, 18 programs" in capsys.readouterr().out
    content = page.read_text(encoding="utf-8")
    assert (content.count("<svg viewBox"), content.count('<svg class="mark"')) == (2, 2)


def test_one_task_and_one_program_are_counted_as_one(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, page = tmp_path / "log.json", tmp_path / "page.html"
    path.write_text(log.read_text().splitlines()[0] + "\n{\n")
    shutil.copy(log.with_name("workloads.jsonl"), tmp_path)
    assert main(["report", str(path), "--out", str(page)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"1 task, 1 program: {page}\n"
    assert printed.err.startswith("1 line could not be used; line 2: ")
    assert main(["explain", str(path)]) == 0
    assert "1 line cannot be used; line 2: " in capsys.readouterr().out
