"""`tvm-cdmpp finetune`: weights for a device and for a network that `eval` takes, and bad input."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.logs import book, import_all, log_file, records, write_log
from tests.models.programs import random_batch
from tvm_cdmpp import train
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.devices.detect import find_device
from tvm_cdmpp.devices.host import read_host_cpu
from tvm_cdmpp.models.additive import AdditiveConfig
from tvm_cdmpp.models.neighbours import Neighbours
from tvm_cdmpp.models.trained import TrainedPredictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetune")
    slower = records(12)
    for record in slower:
        record["r"][0] = [3 * cost for cost in record["r"][0]]
    first = write_log(folder / "a.json", records(12))
    second = write_log(folder / "b.json", records(12, 80))
    import_all(
        folder / "store",
        log_file(first, "x86-24t", network="vgg_16"),
        log_file(second, "x86-24t", network="alexnet"),
        log_file(write_log(folder / "c.json", slower), "x86-8t", network="vgg_16"),
        known=book(37, 80),
    )
    predictor = TrainedPredictor.untrained(AdditiveConfig(width=16, layers=1, hidden=16), 0)
    predictor.save(folder / "weights")
    return folder


def arguments(folder: Path, out: Path, *more: str) -> list[str]:
    start = str(folder / "weights")
    return ["finetune", str(folder / "store"), "--weights", start, "--out", str(out), *more]


def test_a_device_gets_better(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w.safetensors"
    assert main(arguments(folder, out, "--device", "x86-8t", "--records", "6")) == 0
    shown = capsys.readouterr()
    assert "wrote" in shown.out
    assert "cpu: 6 measured programs of the target, 6 others, 24 of the sources" in shown.err
    errors = []
    for weights in (folder / "weights", out):
        assert main(["eval", str(folder / "store"), "--weights", str(weights), "--json"]) == 0
        errors.append(json.loads(capsys.readouterr().out)["devices"]["x86-8t"]["median_ape"])
    # The estimate that it starts from is short by a factor of hundreds.
    assert 100.0 - errors[1] > 1.5 * (100.0 - errors[0])
    about = TrainedPredictor.load(out).about
    assert about["programs"]["cpu"]["measured"] == 6
    batch, device = random_batch(20), find_device("nvidia-v100")
    start, found = (TrainedPredictor.load(file) for file in (folder / "weights", out))
    np.testing.assert_array_equal(
        start.predict(batch, device).latency_s, found.predict(batch, device).latency_s
    )
    # Run again, it finds all done.
    before = out.read_bytes()
    assert main(arguments(folder, out, "--device", "x86-8t", "--records", "6")) == 0
    assert out.read_bytes() == before


def test_this_machine_is_a_device_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = replace(read_host_cpu(), name="ACME Chip 9")
    monkeypatch.setattr("tvm_cdmpp.devices.detect.read_host_cpu", lambda: host)
    log = log_file(write_log(tmp_path / "a.json", records(12)), "acme-chip-9")
    import_all(tmp_path / "store", log)
    more = ("--device", "acme-chip-9", "--records", "6", "--steps", "2")
    line = arguments(folder, tmp_path / "w", *more)
    line[1] = str(tmp_path / "store")
    assert main(line) == 0
    assert TrainedPredictor.load(tmp_path / "w").about["programs"]["cpu"]["measured"] == 6


def test_a_network_needs_no_measurement(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    assert main(arguments(folder, out, "--network", "vgg_16", "--steps", "5")) == 0
    about = TrainedPredictor.load(out).about
    assert about["programs"]["cpu"] == {"measured": 0, "unlabelled": 24, "sources": 12}
    assert about["settings"]["config"]["domain"] == "cmd"


def test_what_was_measured_of_single_programs_is_not_taken_over(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = TrainedPredictor.load(folder / "weights")
    batch = random_batch(20)
    start.experts["cpu"].neighbours = (Neighbours.fit(batch, np.full(20, 2.0)),)
    start.save(tmp_path / "adapted")
    line = arguments(folder, tmp_path / "w", "--device", "x86-8t", "--records", "2", "--steps", "2")
    line[line.index("--weights") + 1] = str(tmp_path / "adapted")
    assert main(line) == 0
    assert "is not taken over" in capsys.readouterr().err
    assert TrainedPredictor.load(tmp_path / "w").experts["cpu"].neighbours == ()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "must be a device, a network, or both"),
        (("--device", "x"), "no device 'x'; it has x86-24t, x86-8t"),
        (("--network", "vgg_16", "--domain", "none"), "only --domain cmd or mmd"),
        (("--device", "x86-8t", "--split", "nonsense"), "no official split 'nonsense'"),
        (("--device", "x86-8t", "--weights", "nonsense"), "No weights 'nonsense'"),
        (("--device", "x86-8t", "--out", "{folder}/store/store.json"), "is in the record store"),
        (("--device", "x86-8t", "--out", "{folder}/weights"), "is that of --weights"),
    ],
)
def test_bad_input_is_named(
    folder: Path,
    tmp_path: Path,
    more: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delattr(train, "load_features")  # it takes long; what is wrong is told before
    more = tuple(text.format(folder=folder) for text in more)
    assert main(arguments(folder, tmp_path / "w", *more)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_weights_of_a_search_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = TrainedPredictor.load(folder / "weights")
    expert = predictor.experts["cpu"]
    expert.ahead = expert.network.state_dict()
    predictor.save(tmp_path / "search")
    more = ["--device", "x86-8t", "--weights", str(tmp_path / "search")]
    assert main(arguments(folder, tmp_path / "w", *more)) == 2
    assert "must be those that `train` wrote" in capsys.readouterr().err
