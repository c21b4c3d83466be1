"""The comparison of models on the official splits."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import accuracy
from benchmarks.accuracy import known_models
from benchmarks.accuracy_tables import accuracy_sections
from benchmarks.pretrained import Pretrained
from benchmarks.stored import StoredPrograms
from benchmarks.tlp import TLP
from tests.data.logs import book, import_all, log_file, records, write_log
from tests.models.baselines.examples import small
from tests.models.contract import CPU, MeanOfLeafCount
from tests.models.programs import random_batch
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.devices.detect import find_device
from tvm_cdmpp.models.additive import AdditiveConfig
from tvm_cdmpp.models.baselines.mlp import MLPPredictor
from tvm_cdmpp.models.baselines.roofline import RooflinePredictor
from tvm_cdmpp.models.baselines.trees import TreeOptions, TreePredictor
from tvm_cdmpp.models.fitting import FitConfig
from tvm_cdmpp.models.network import PredictorConfig
from tvm_cdmpp.models.predictor import Predictor
from tvm_cdmpp.models.rows import TrainingRows
from tvm_cdmpp.models.trained import TrainedPredictor
from tvm_cdmpp.models.weights import load_weights
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.features import load_features
from tvm_cdmpp.train.pretraining import PretrainSettings
from tvm_cdmpp.train.rows import rows_of_store


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
    monkeypatch.setattr(accuracy, "known_models", lambda *_: models)
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
    floor = made["networks-simple-0"]["devices"]["xeon-silver-4210"]["noise_floor"]
    assert f"| xeon-silver-4210 | 7 | {floor['mape']:.1f} % ({floor['basis']}) | " in section
    assert "| simple | " in section

    monkeypatch.setattr(accuracy, "make_part", None)
    run(folder)
    with pytest.raises(SystemExit, match="is of other settings"):
        run(folder, per_task=6)


def test_known_models_can_be_made() -> None:
    model = accuracy.known_models()["cdmpp-untrained"].make(3)
    assert isinstance(model, Predictor)


def test_devices_can_be_taken_by_their_own_vectors() -> None:
    usual = load_weights("evaluation")
    own = accuracy.known_models()["cdmpp-own-vectors"].make(0)
    batch, known = random_batch(5), find_device("x86-24t")
    for device, is_same in ((known, True), (replace(known, l2_bytes=2**24), False)):
        told, found = (model.predict(batch, device).latency_s for model in (usual, own))
        assert np.allclose(told, found, rtol=1e-6) == is_same


def test_weights_must_be_of_the_split(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "known_models", known_models)
    arguments = [str(folder / "store"), "--models", "cdmpp-weights", "--out", str(folder / "out")]
    with pytest.raises(SystemExit, match="needs --weights FILE"):
        accuracy.main(arguments)
    weights = tmp_path / "weights.safetensors"
    untrained = TrainedPredictor.untrained(AdditiveConfig(), seed=0)
    TrainedPredictor(untrained.experts, {"split": "paper"}).save(weights)
    arguments += ["--weights", str(weights), "--splits"]
    with pytest.raises(SystemExit, match="of the split 'networks'; got 'paper'"):
        accuracy.main([*arguments, "networks"])


@pytest.mark.parametrize("name", ["tlp", "mtl-tlp-paper"])
def test_models_that_read_the_store(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = accuracy.Model(lambda _: brief(name), reads_store=True)
    monkeypatch.setattr(accuracy, "known_models", lambda *_: {name: model})
    run(folder)
    part = json.loads((folder / "out" / f"networks-{name}-0.json").read_text())
    # Five programs of the training part, in each of three minibatches.
    assert part["training"]["programs_seen"] == 15
    assert part["training"]["rows_per_s"] == pytest.approx(15 / part["training"]["seconds"])
    assert part["all"]["programs"] == 7
    assert np.isfinite(part["all"]["mape"])


def brief(name: str) -> TLP:
    model = TLP.untrained("paper" if "paper" in name else "tuned", by_device="mtl" in name)
    return replace(
        model,
        config=replace(model.config, width=16, attention_heads=2),
        training=replace(model.training, steps=3),
    )


def test_every_model_counts_what_it_saw() -> None:
    rows = TrainingRows.on(CPU, random_batch(20), np.full(20, 1e-4), np.zeros(20, np.int64))
    roofline, trees = RooflinePredictor(), TreePredictor(TreeOptions(rounds=3, row_share=1.0))
    network = small(MLPPredictor, steps=4)
    predictor = Predictor.untrained(PredictorConfig(), 0)
    predictor.fit_config = FitConfig(steps=2)
    network.fit(rows, seed=0)
    for model, expected in ((roofline, 20), (trees, 60), (predictor, 40)):
        model.fit(rows, seed=0)
        assert accuracy.programs_seen(model, 20) == expected
    assert accuracy.programs_seen(network, 20) == 80


def test_the_predictor_is_trained_on_the_rows_of_the_others(folder: Path) -> None:
    store = RecordStore.open(folder / "store")
    rows, used = rows_of_store(store, load_features(store), np.arange(len(store)))
    config = TrainConfig(
        steps=60, groups_per_batch=2, programs_per_group=4, window_batches=20, warm_up=0.3
    )
    model = Pretrained(PretrainSettings(config=config))
    programs = StoredPrograms(store, used, rows)
    before = model.predict(programs).latency_s
    model.fit(programs, seed=0)
    assert model.programs_seen == 60 * 2 * 4
    after = model.predict(programs).latency_s
    errors = [np.abs(np.log(found / rows.latencies_s)).mean() for found in (before, after)]
    assert errors[1] < 0.8 * errors[0]
