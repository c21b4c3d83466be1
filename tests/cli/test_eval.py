"""`tvm-cdmpp eval`, as it is typed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.data.logs import book, import_all, log_file, records, write_log
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.devices.host import read_host_cpu
from tvm_cdmpp.models.additive import AdditiveConfig
from tvm_cdmpp.models.network import PredictorConfig
from tvm_cdmpp.models.predictor import Predictor
from tvm_cdmpp.models.trained import TrainedPredictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two devices and three networks; a program failed, one does not fit its DAG.

    On the CPU 30 programs were measured in two logs.
    """
    folder = tmp_path_factory.mktemp("eval")
    first, again, second = records(40), records(40)[:30], records(12, 80)
    first[35]["r"] = [[1e10], 4, 0.1, 5]
    first[36]["i"][1][1] = [["SP", 99, 0, 8, [1], 1]]
    first[36]["r"] = [[1e10], 1, 0, 5]
    for record in again:
        record["r"][0] = [cost * 1.1 for cost in record["r"][0]]
        record["r"][3] += 9_000_000
    logs = [
        log_file(write_log(folder / "a.json", first), "x86-24t", network="resnet_50"),
        log_file(write_log(folder / "b.json", again), "x86-24t", network="resnet_50"),
        log_file(write_log(folder / "c.json", second), "xeon-silver-4210", network="vgg_16"),
        log_file(
            write_log(folder / "d.json", records(9, 96)), "xeon-silver-4210", network="alexnet"
        ),
    ]
    import_all(folder / "store", *logs, known=book(37, 80, 96))
    Predictor.untrained(PredictorConfig(), seed=0).save(folder / "weights")
    return folder


def arguments(folder: Path, *more: str) -> list[str]:
    return ["eval", str(folder / "store"), "--weights", str(folder / "weights"), *more]


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(folder, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["weights"] == str(folder / "weights")
    assert (found["split"], found["part"]) == (None, None)
    assert (found["programs"], found["failed"], found["without_features"]) == (59, 1, 1)
    cpu, other = (found["devices"][name] for name in ("x86-24t", "xeon-silver-4210"))
    assert (cpu["programs"], cpu["failed"], cpu["tasks"]) == (38, 1, 1)
    assert (other["programs"], other["failed"], other["tasks"]) == (21, 0, 2)
    assert cpu["noise"]["basis"] == "between logs"
    assert cpu["noise"]["floor_mape"] == pytest.approx(0.0630, abs=0.001)
    assert other["noise"]["basis"] == "repeats"
    low, high = other["intervals"]["mape"]
    assert low <= other["mape"] <= high
    assert cpu["coverage90"] is None
    assert found["operators"]["matmul"]["programs"] == 59
    assert found["operators"].keys() == {"matmul"}


def test_records_of_this_machine(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    host = replace(read_host_cpu(), name="ACME Chip 9")
    monkeypatch.setattr("tvm_cdmpp.devices.detect.read_host_cpu", lambda: host)
    log = log_file(write_log(tmp_path / "a.json", records(8)), "acme-chip-9")
    import_all(tmp_path / "store", log)
    weights = str(folder / "weights")
    assert main(["eval", str(tmp_path / "store"), "--weights", weights, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["devices"]["acme-chip-9"]["programs"] == 8


def test_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(folder)) == 0
    shown = capsys.readouterr().out
    rows = [line.split() for line in shown.splitlines()]
    assert "59 measured, 1 failed, 1 without features" in " ".join(shown.split())
    assert ["x86-24t", "38", "1"] in [row[:3] for row in rows]
    assert ["6.3%", "(6.3%)"] in [row[-2:] for row in rows]
    assert ["matmul", "59", "3"] in [row[:3] for row in rows]


def test_part_of_a_split(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(folder, "--split", "networks", "--per-task", "10", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["split"], found["part"], found["per_task"]) == ("networks", "test", 10)
    assert found["devices"].keys() == {"x86-24t"}
    assert found["programs"] + found["failed"] + found["without_features"] == 10
    assert main(arguments(folder, "--split", "networks", "--part", "train", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["devices"].keys() == {"xeon-silver-4210"}


@pytest.mark.parametrize(
    ("about", "warning"),
    [
        ({}, None),
        ({"split": "networks"}, None),
        ({"split": "networks", "device": "t4", "records": 200}, None),
        (
            {"split": "networks", "device": "x86-24t", "records": 200},
            "learned from 200 records of x86-24t, which may be among these programs",
        ),
        ({"device": ["x86-24t"], "settings": 3}, None),
        ({"from": {"device": "x86-24t"}}, "learned from some records of x86-24t"),
        (
            {"settings": {"target": {"device": "x86-24t", "records": 9}}, "split": "networks"},
            "learned from 9 records of x86-24t",
        ),
        ({"split": "vendor"}, "were trained for 'vendor', not for the split 'networks', so"),
        ({"split": None}, "were trained on all records, not for the split 'networks', so"),
        ({"split": "networks", "from": {"split": None}}, "were trained on all records"),
    ],
)
def test_weights_may_have_seen_what_they_are_scored_on(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    about: dict[str, Any],
    warning: str | None,
) -> None:
    predictor = TrainedPredictor.untrained(AdditiveConfig(width=16, layers=1, hidden=16), 0)
    predictor.about = about
    predictor.save(tmp_path / "w")
    line = arguments(folder, "--weights", str(tmp_path / "w"), "--json")
    assert main([*line, "--split", "networks"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)["warning"]
    assert (found is None) == (warning is None)
    assert (warning or "") in (found or "")
    assert ("warning: " in shown.err) == (warning is not None)
    assert (found or "") in shown.err
    assert main(line) == 0  # of no split, only what they learned from a device is said
    found = json.loads(capsys.readouterr().out)["warning"]
    assert (found is not None) == ("learned" in (warning or ""))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--part", "train"], "name it with --split"),
        (["--per-task", "0"], "at least 1; got 0"),
        (["--split", "nonsense"], "no official split 'nonsense'"),
        (
            ["--split", "devices-shared-workloads"],
            "and `autotune` take all records with --split none, `eval` without --split",
        ),
        (["--weights", "nonsense"], "No weights 'nonsense'"),
    ],
)
def test_what_cannot_be_evaluated(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(arguments(folder, *more)) == 2
    assert message in capsys.readouterr().err


def test_a_device_whose_programs_all_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = records(3)
    for record in failed:
        record["r"] = [[1e10], 4, 0.1, 5]
    logs = [
        log_file(write_log(tmp_path / "a.json", records(5)), "x86-24t"),
        log_file(write_log(tmp_path / "b.json", failed), "xeon-silver-4210"),
    ]
    import_all(tmp_path / "store", *logs)
    Predictor.untrained(PredictorConfig(), seed=0).save(tmp_path / "weights")
    assert main(arguments(tmp_path, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["devices"]["xeon-silver-4210"] is None
    assert main(arguments(tmp_path)) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["xeon-silver-4210", *["-"] * 11] in rows
