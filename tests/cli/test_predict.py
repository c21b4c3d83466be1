"""`predict`: tables, JSON, traces and plots of a named network."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tvm_cdmpp.cli.main import main
from tvm_cdmpp.cli.predict import describe_rate, describe_shares
from tvm_cdmpp.devices import (
    DeviceCalibration,
    Levels,
    calibration_file,
    detect_cpu,
    keep_calibration,
)


def test_devices_and_batches_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, plot = tmp_path / "trace.json", tmp_path / "new" / "plot.png"
    line = ["predict", "mlp", "--device", "epyc-7452,xeon-silver-4210,epyc-7452"]
    line += ["--batch", "1,2,2"]
    assert main([*line, "--trace", str(trace), "--plot", str(plot)]) == 0
    out, progress = capsys.readouterr()
    told = [f"forecast {n} of 4: " in progress for n in (1, 2, 3, 4)]
    assert all(told) and "forecast 2 of 4: xeon-silver-4210, batch 1" in progress
    assert re.search(r"^xeon-silver-4210, batch 1: \S+ us \(90 %: .* us\)$", progress, re.M)
    for text in ("mlp on epyc-7452, batch 2", "held down by", "by class:", "xeon-silver-4210"):
        assert text in out
    assert out.count("mlp on epyc-7452, batch 2") == 1
    assert "start-up of the network" not in out
    traces = sorted(tmp_path.glob("trace.*.json"))
    assert [t.name for t in traces] == [
        f"trace.{device}.{batch}.json"
        for device in ("epyc-7452", "xeon-silver-4210")
        for batch in (1, 2)
    ]
    assert json.loads(traces[0].read_bytes())["traceEvents"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    for line_of_file in (*(f"trace: {file}" for file in traces), f"plot: {plot}"):
        assert line_of_file in out.splitlines()


def test_json_is_by_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timeline = tmp_path / "new" / "timeline.PNG"
    assert main(["predict", "mlp", "--device", "t4", "--json", "--trace", str(timeline)]) == 0
    found = json.loads(capsys.readouterr().out)["devices"]["t4"]
    low, high = found["interval_s"]
    assert low < found["latency_s"] < high
    assert {"name", "count", "latency_s", "interval_s", "bound"} <= set(found["tasks"][0])
    assert timeline.read_bytes().startswith(b"\x89PNG")


def test_branches_run_side_by_side_on_a_gpu_with_queues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    names, weights = ("w0", "w1"), [0.5] * 64 * 64
    graph = helper.make_graph(
        [
            *(helper.make_node("MatMul", ["x", w], [f"y{w}"]) for w in names),
            helper.make_node("Concat", [f"y{w}" for w in names], ["y"], axis=0),
        ],
        "g",
        [helper.make_tensor_value_info("x", kind, [64, 64])],
        [helper.make_tensor_value_info("y", kind, [128, 64])],
        [
            helper.make_tensor(w, kind, [64, 64], [n * v for v in weights])
            for n, w in enumerate(names)
        ],
    )
    file = tmp_path / "branches.onnx"
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), file)
    found = {}
    for queues in ("1", "2"):
        line = ["predict", str(file), "--device", "t4,epyc-7452", "--queues", queues, "--json"]
        assert main(line) == 0
        found[queues] = json.loads(capsys.readouterr().out)["devices"]
    assert found["2"]["t4"]["latency_s"] < found["1"]["t4"]["latency_s"]
    assert found["2"]["epyc-7452"] == found["1"]["epyc-7452"]


def test_classes_that_take_next_to_no_time_are_not_listed() -> None:
    shares = {"conv2d": 0.97, "pool": 0.0149, "elementwise": 0.0099, "other": 0.0}
    assert describe_shares(shares) == "conv2d 97%, pool 1%"


def test_a_device_of_several_names_is_predicted_once(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    assert main(["predict", "mlp", "--device", "t4,nvidia-t4, T4", "--trace", str(trace)]) == 0
    assert list(tmp_path.iterdir()) == [trace]


def test_this_machine_goes_by_the_name_that_detect_gives_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = detect_cpu().name
    assert main(["predict", "mlp", "--device", name, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["devices"]) == [name]


def test_this_machine_is_said_to_be_uncalibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    name = detect_cpu().name
    for known in (False, True):
        if known:
            levels = (Levels(weights="others", level=0.1),)
            keep_calibration(name, DeviceCalibration(levels=levels), calibration_file())
        assert main(["predict", "mlp", "--device", f"{name},epyc-7452"]) == 0
        out = capsys.readouterr().out
        assert out.count("was not calibrated") == (not known)
        assert out.count("measures in three minutes") == (not known)


def test_the_rows_add_up_to_the_latency(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "mlp", "--device", "t4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [re.search(r"(\d+) +(\S+) us .* (?:predicted|assumed)$", line) for line in lines]
    sum_us = sum(int(row[1]) * float(row[2]) for row in rows if row)
    (whole,) = (line.split() for line in lines if line.startswith("t4 "))
    assert sum_us == pytest.approx(float(whole[2]), rel=2e-3)
    assert sum("start-up of the network" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "no-such"], "known device"),
        (["--device", ","], "got none"),
        (["--device", "t4", "--batch", "1,0"], "numbers from 1 to 1000000"),
        (["--device", "t4", "--batch", "1,99999999"], "got '1,99999999'"),
        (["--device", "t4", "--trials", "-1"], "must not be negative"),
        (["--device", "t4", "--queues", "0"], "--queues must be at least 1; got 0"),
        (["--device", "t4", "--trials", "4", "--log", "L"], "Give --log or --trials"),
        (["--device", "t4", "--log", "missing.json"], "missing.json"),
        (["--device", "t4", "--weights", "nonsense"], "No weights 'nonsense'"),
        (["--device", "t4", "--plot", "a.jpg"], "its name must end in .png; got a.jpg"),
        (["--device", "t4", "--trace", "."], "--trace must be a file; . is a folder"),
        (["--device", "t4", "--plot", "."], "--plot must be a file; . is a folder"),
        (["--device", "t4", "--log", "L", "--trace", "./L"], "--trace must be a file of its own"),
        (["--device", "t4", "--log", "L", "--plot", "L"], "L is that of --log"),
        (["--device", "t4", "--log", "L", "--trace", "workloads.jsonl"], "or one next to it"),
        (["--device", "t4", "--log", "L", "--trace", "L.own.jsonl"], "or one next to it"),
        (["--device", "t4", "--weights", "W", "--plot", "W"], "W is that of --weights"),
        (["--device", "t4", "--plot", "a.png", "--trace", "a.png"], "a.png is that of --trace"),
    ],
)
def test_a_wrong_command_line_is_told_at_once(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["predict", "mlp", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mlp", "--trials", "-1"], "must not be negative"),
        (["mlp", "--trials", "4", "--log", __file__], "Give --log or --trials"),
        (["mlp", "--log", "missing.json"], "There is no log missing.json"),
        (["mlp", "--weights", "nonsense"], "No weights 'nonsense'"),
        (["resnet18"], "Did you mean resnet-18"),
        (["missing.onnx"], "There is no network file missing.onnx"),
        (["mlp", "--log", "."], "There is no log ."),
    ],
)
def test_what_is_not_there_is_told_before_tvm_is_loaded(arguments: list[str], message: str) -> None:
    code = "import sys; from tvm_cdmpp.cli.main import main; code = main(sys.argv[1:]); "
    code += "sys.exit(9 if {'tvm', 'torch'} & set(sys.modules) else code)"
    command = [sys.executable, "-c", code, "predict", *arguments, "--device", "t4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert "forecast" not in done.stderr


@pytest.mark.parametrize("option", ["--trace", "--plot"])
def test_the_network_is_not_written_over(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, link = tmp_path / "model.onnx", tmp_path / "link.png"
    model.write_text("a model")
    link.symlink_to(model)
    for out in (model, link):
        assert main(["predict", str(model), "--device", "t4", option, str(out)]) == 2
        assert f"{option} must be a file of its own" in capsys.readouterr().err
    assert model.read_text() == "a model"


def test_files_of_several_devices_are_told_apart_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, plot = tmp_path / "trace.png", tmp_path / "trace.t4.1.png"
    line = ["predict", "mlp", "--device", "t4,nvidia-v100", "--trace", str(trace)]
    assert main([*line, "--plot", str(plot)]) == 2
    assert "--plot must be a file of its own" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("gflops", "written"),
    [(0.5, "0.5"), (99.97, "100"), (999.6, "1,000"), (1118.0, "1,120"), (31234.0, "31,200")],
)
def test_rates_have_three_digits(gflops: float, written: str) -> None:
    assert describe_rate(gflops) == written


def test_files_are_written_though_nobody_reads_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("json.dump", stop)
    monkeypatch.setattr("tvm_cdmpp.cli.main._discard_output", lambda: 1)
    trace, plot = tmp_path / "trace.json", tmp_path / "plot.png"
    line = ["predict", "mlp", "--device", "t4", "--trace", str(trace), "--plot", str(plot)]
    assert main([*line, "--json"]) == 1
    assert trace.exists() and plot.exists()
