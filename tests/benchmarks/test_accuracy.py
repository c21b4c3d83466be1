"""The comparison of models on the official splits."""

import json
from pathlib import Path

import pytest

from benchmarks import accuracy
from benchmarks.accuracy_tables import accuracy_sections
from tests.data.logs import book, import_all, log_file, records, write_log
from tests.models.contract import MeanOfLeafCount
from tvm_cdmpp.models.network import PredictorConfig
from tvm_cdmpp.models.predictor import Predictor


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    logs = [
        log_file(write_log(tmp_path / "a.json", records(12)), "x86-24t", network="alexnet"),
        log_file(
            write_log(tmp_path / "b.json", records(9, 80)), "xeon-silver-4210", network="vgg_16"
        ),
        log_file(
            write_log(tmp_path / "c.json", records(7, 96)), "xeon-silver-4210", network="resnet_50"
        ),
    ]
    import_all(tmp_path / "store", *logs, known=book(37, 80, 96))
    models = {
        "ready": accuracy.Model(
            lambda _: Predictor.untrained(PredictorConfig(), seed=0), is_fitted=False
        ),
        "simple": accuracy.Model(lambda _: MeanOfLeafCount()),
    }
    monkeypatch.setattr(accuracy, "known_models", lambda: models)
    return tmp_path


def run(folder: Path, per_task: int = 5) -> None:
    options = ["--splits", "networks", "--seeds", "2", "--per-task", str(per_task)]
    accuracy.main([str(folder / "store"), "--out", str(folder / "out"), *options])


def test_every_part_is_made_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(folder)
    made = {path.stem: json.loads(path.read_text()) for path in (folder / "out").iterdir()}
    assert made.keys() == {"networks-ready-0", "networks-simple-0", "networks-simple-1"}
    assert made["networks-ready-0"]["training"] is None
    # The validation part, one of two workloads, is not trained on.
    assert made["networks-simple-0"]["training"]["rows"] == 5
    assert made["networks-simple-0"]["parameters"] == 0
    assert made["networks-ready-0"]["bytes"] > 4 * made["networks-ready-0"]["parameters"] > 0
    for part in made.values():
        assert part["devices"].keys() == {"xeon-silver-4210"}
        assert part["all"]["programs"] == part["inference"]["rows"] == 7
        assert part["all"]["intervals"]["mape"]
    (section,) = accuracy_sections(folder / "out")
    assert f"| ready | {made['networks-ready-0']['all']['mape']:.1f} % (" in section
    assert "| xeon-silver-4210 | 7 | " in section
    assert "| simple | " in section

    monkeypatch.setattr(accuracy, "make_part", None)
    run(folder)
    with pytest.raises(SystemExit, match="is of other settings"):
        run(folder, per_task=6)


def test_known_models_can_be_made() -> None:
    model = accuracy.known_models()["cdmpp-untrained"].make(3)
    assert isinstance(model, Predictor)
