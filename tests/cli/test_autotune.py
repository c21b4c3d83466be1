"""`tvm-cdmpp autotune`: two trials, the table, and training with what was found."""

import json
from pathlib import Path

import pytest

from tests.data.logs import book, import_all, log_file, records, write_log
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.models.weights import load_weights

SMALL = ["--split", "none", "--kinds", "cpu", "--steps", "80"]


@pytest.fixture
def store(tmp_path: Path) -> str:
    log = log_file(write_log(tmp_path / "a.json", [*records(9), *records(9, 80)]), "x86-8t")
    import_all(tmp_path / "store", log, known=book(37, 80))
    return str(tmp_path / "store")


def test_two_trials_and_training_with_the_better_one(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, out = tmp_path / "study", tmp_path / "w.safetensors"
    assert main(["autotune", store, "--out", str(study), "--trials", "2", *SMALL]) == 0
    shown = capsys.readouterr()
    assert "2 of 2 trials came to their end" in shown.out
    assert "config.learning_rate" in shown.out
    assert "trial 1  validation median error cpu" in shown.err
    summary = json.loads((study / "summary.json").read_text())
    assert [trial["trial"] for trial in summary["trials"]] == [0, 1]
    found = ["--config", str(study / "summary.json"), *SMALL, "--layers", "1"]
    assert main(["train", store, "--out", str(out), *found]) == 0
    settings = load_weights(out).about["kinds"]["cpu"]["settings"]  # type: ignore[union-attr]
    assert settings["config"]["average"] == summary["config"]["average"]
    assert settings["config"]["steps"] == 80
    assert settings["network"]["layers"] == 1


def test_bad_input(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "study")]
    assert main(["autotune", store, *out, "--kinds", "tpu"]) == 2
    assert "kinds must be some of cpu, gpu" in capsys.readouterr().err
    assert main(["train", store, *out, "--config", str(tmp_path / "none.json")]) == 2
    assert "expected a JSON file with a setting" in capsys.readouterr().err
