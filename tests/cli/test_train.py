"""`tvm-cdmpp train`, on a small store: weights that `eval` takes, several processes, bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.logs import book, import_all, log_file, records, write_log
from tests.models.programs import random_batch
from tvm_cdmpp.ast import SCHEMA_VERSION
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.data import RecordStore
from tvm_cdmpp.devices.detect import find_device
from tvm_cdmpp.models import AdditiveConfig, TrainedPredictor
from tvm_cdmpp.models.weights import load_weights

SMALL = ["--split", "none", "--kinds", "cpu", "--steps", "40", "--width", "16", "--layers", "1"]
SETTING = {"config": {"groups_per_batch": 24}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    made = [*records(12), *records(12, 80), *records(12, 50)]
    log = log_file(write_log(folder / "a.json", made), "x86-8t")
    import_all(folder / "store", log, known=book(37, 80, 50))
    (folder / "setting.json").write_text(json.dumps(SETTING), encoding="utf-8")
    return folder / "store"


@pytest.fixture(scope="module")
def small(store: Path) -> list[str]:
    return [*SMALL, "--config", str(store.with_name("setting.json"))]


def test_weights_that_can_be_evaluated(
    store: Path, small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w.safetensors"
    assert main(["train", str(store), "--out", str(out), *small]) == 0
    assert "wrote" in capsys.readouterr().out
    about = load_weights(out).about  # type: ignore[union-attr]
    assert (about["split"], about["kinds"]["cpu"]["settings"]["config"]["steps"]) == (None, 40)
    assert main(["eval", str(store), "--weights", str(out), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["devices"]["x86-8t"]
    assert figures["programs"] == 36
    assert np.isfinite(figures["mape"])


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", "meta"])
def test_a_device_that_pytorch_does_not_have_is_named(
    name: str, store: Path, small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w.safetensors"
    assert main(["train", str(store), "--out", str(out), "--torch-device", name, *small]) == 2
    assert f"PyTorch cannot compute on '{name}'" in capsys.readouterr().err
    assert not out.exists()


def test_a_kind_alone_leaves_the_network_of_the_other(
    store: Path, small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device, batch = find_device("amd-mi50"), random_batch(5)
    out, known = tmp_path / "w.safetensors", TrainedPredictor.untrained(AdditiveConfig(), 3)
    about = {"split": None, "schema_version": SCHEMA_VERSION, "kinds": {"gpu": {"command": "x"}}}
    known.about = {**about, "data_hash": RecordStore.open(store).content_hash}
    known.save(out)
    assert main(["train", str(store), "--out", str(out), *small]) == 0
    found = load_weights(out)
    assert isinstance(found, TrainedPredictor)
    assert set(found.about["kinds"]) == {"cpu", "gpu"}
    expected = known.predict(batch, device).latency_s
    np.testing.assert_allclose(found.predict(batch, device).latency_s, expected, rtol=1e-2)
    known.about = {**about, "data_hash": "another"}
    known.save(out)
    assert main(["train", str(store), "--out", str(out), *small]) == 2
    assert "holds a network of gpus with another data_hash" in capsys.readouterr().err
    known.about = {"from": "elsewhere"}
    known.save(out)
    before = out.read_bytes()
    assert main(["train", str(store), "--out", str(out), *small]) == 2
    assert "does not say which of its networks" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_two_processes_train_together(store: Path, small: list[str], tmp_path: Path) -> None:
    alone, both = tmp_path / "alone", tmp_path / "both"
    arguments = ["tvm_cdmpp", "train", str(store), *small, "--out"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m"]
    for command in (
        [sys.executable, "-m", *arguments, str(alone)],
        [*torchrun, *arguments, str(both)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
    device, batch = find_device("x86-8t"), random_batch(40)
    one, two = (
        np.log(load_weights(file).predict(batch, device).latency_s) for file in (alone, both)
    )
    # Other batches, so not the same to the bit; the level, far from the estimate, is learned.
    assert np.abs(one - two).mean() < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kinds", "tpu"], "--kinds must be some of cpu,gpu"),
        (
            ["--split", "networks", "--kinds", "cpu"],
            "part of the split 'networks' is empty",
        ),
        (["--split", "nonsense"], "no official split 'nonsense'"),
        (["--steps", "0"], "steps"),
    ],
)
def test_bad_input_is_named(
    store: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", str(store), "--out", str(tmp_path / "w"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{out}", "--split", "nonsense"], "no official split 'nonsense'"),
        (["--out", "{store}/store.json"], "--out must be a file of its own"),
        (["--out", "{setting}", "--config", "{setting}"], "is that of --config"),
        (["--out", "{store}"], "--out must be a file; "),
    ],
)
def test_what_is_typed_wrongly_leaves_no_trace(
    store: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    setting = store.with_name("setting.json")
    names = {"out": tmp_path / "w", "store": store, "setting": setting}
    before = sorted(store.parent.rglob("*"))
    assert main(["train", str(store), *(text.format(**names) for text in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert sorted(store.parent.rglob("*")) == before
