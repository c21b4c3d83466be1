"""`tvm-cdmpp adapt`: weights and records of a device, a run that goes on, and bad input."""

import errno
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest
import torch

from tests.data.logs import Record, book, import_all, log_file, records, write_log
from tests.tiny_tasks import shrink_search
from tvm_cdmpp import measure, train
from tvm_cdmpp.bridge import default_target, device_of
from tvm_cdmpp.bridge.logs import check_log
from tvm_cdmpp.cli.adapt import _print, describe_counted, describe_loss, describe_point
from tvm_cdmpp.cli.adapt_bench import _describe_start
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.data.importer import import_logs
from tvm_cdmpp.data.inputs import LogFile
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.data.workload_book import WorkloadBook
from tvm_cdmpp.devices import (
    DeviceCalibration,
    Levels,
    calibration_file,
    find_device,
    keep_calibration,
)
from tvm_cdmpp.measure import CalibrationConfig
from tvm_cdmpp.measure.waking import Wakes
from tvm_cdmpp.models import load_weights
from tvm_cdmpp.models.additive import AdditiveConfig
from tvm_cdmpp.models.trained import TrainedPredictor
from tvm_cdmpp.train import CurvePoint
from tvm_cdmpp.workloads.inspector import TvmInspector

SIZES = (37, 80, 96, 64, 48)
NETWORKS = {80: "alexnet", 96: "alexnet, lenet"}


def slower(size: int, factor: float) -> list[Record]:
    made = records(8, size)
    for record in made:
        record["r"][0] = [factor * cost for cost in record["r"][0]]
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapt")
    for store, device_factors in (
        ("store", {"x86-24t": 1, "x86-8t": 3}),
        ("unknown", {"nobody-knows-it": 1}),
    ):
        logs = [
            log_file(
                write_log(folder / f"{device}-{size}.json", slower(size, factor)),
                device,
                network=NETWORKS.get(size, "vgg_16"),
            )
            for size in SIZES
            for device, factor in device_factors.items()
        ]
        import_all(folder / store, *logs, known=book(*SIZES))
    predictor = TrainedPredictor.untrained(AdditiveConfig(width=16, layers=1, hidden=16), 0)
    predictor.save(folder / "weights")
    (folder / "no-log").write_text("no record\n")
    return folder


def arguments(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        "adapt", "--device", "x86-8t", "--budget", "24", "--batch", "8",
        "--weights", str(folder / "weights"), "--out", str(out / "w.safetensors"),
        "--records", str(out / "log.json"), *more,
    ]  # fmt: skip


def from_store(folder: Path, out: Path, *more: str) -> list[str]:
    return arguments(folder, out, "--from-store", str(folder / "store"), *more)


def test_a_device_of_a_store(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(from_store(folder, tmp_path, "--json")) == 0
    said, progress = capsys.readouterr()
    assert "preparing all programs of" in progress
    found = json.loads(said)
    curve = found["curve"]
    assert (found["is_better"], found["note"]) == (True, None)
    assert found["counted"] == curve[-1]["records"]
    assert [point["records"] for point in curve][:2] == [8, 16]
    assert curve[-1]["low"] <= curve[-1]["mape"] <= curve[-1]["high"]
    assert curve[-1]["mape"] < 0.8 * curve[-1]["start_mape"]
    # The records are an Ansor log that can be imported as it is.
    log = tmp_path / "log.json"
    book_of_log = WorkloadBook.read([tmp_path / "workloads.jsonl"])
    file = LogFile(path=log, name=log.name, device="x86-8t")
    import_logs([file], tmp_path / "again", book_of_log, TvmInspector(), lambda _: None)
    again = RecordStore.open(tmp_path / "again")
    assert len(again) == curve[-1]["records"]
    # The weights are good for `eval`, and say how they were made.
    weights = tmp_path / "w.safetensors"
    assert main(["eval", str(folder / "store"), "--weights", str(weights), "--json"]) == 0
    error = json.loads(capsys.readouterr().out)["devices"]["x86-8t"]["mape"]
    assert error < 0.8 * curve[-1]["start_mape"]
    about = TrainedPredictor.load(weights).about
    assert about["curve"] == curve
    assert about["learned"] == found["learned"]
    assert "level" in found["learned"]
    # Run again, it measures no more of what it has.
    before = log.read_bytes()
    assert main(from_store(folder, tmp_path)) == 0
    assert log.read_bytes().startswith(before)
    out, progress = capsys.readouterr()
    assert "preparing" not in progress  # done once
    assert "note: " not in progress + out
    assert "ended: " in out
    assert f"learned: {found['learned']}" in out


def test_errors_on_a_device_that_the_weights_learned_from_are_said_to_be_none_of_unseen_programs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = TrainedPredictor.load(folder / "weights")
    weights.about = {"data_hash": RecordStore.open(folder / "store").content_hash, "split": None}
    weights.save(tmp_path / "all")
    more = ["--weights", str(tmp_path / "all"), "--budget", "8"]
    note = "the weights that this starts from have learned from programs of x86-8t"
    assert main(from_store(folder, tmp_path, *more)) == 0
    out, progress = capsys.readouterr()
    assert f"note: {note}" in out
    assert progress.index(f"note: {note}") < progress.index("8 records")
    # It goes on from its records, and says so again.
    assert main(from_store(folder, tmp_path, *more, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["note"].startswith(note)


def test_weights_are_of_the_device_whatever_the_store_calls_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, own_name = "intel-xeon-silver-4210", "xeon-silver-4210"
    log = log_file(write_log(tmp_path / "a.json", slower(37, 1)), name, network="vgg_16")
    import_all(tmp_path / "store", log, known=book(*SIZES))
    more = ["--device", name, "--from-store", str(tmp_path / "store"), "--budget", "8", "--json"]
    assert main(arguments(folder, tmp_path, *more)) == 0
    assert json.loads(capsys.readouterr().out)["device"] == name
    found = TrainedPredictor.load(tmp_path / "w.safetensors")
    assert found.adapted_to == own_name
    remark = found.remark_on(find_device(name))
    assert remark == f"the weights learned from 8 records of {own_name}"


def test_a_network_that_only_a_log_of_several_names(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(from_store(folder, tmp_path, "--networks", "lenet", "--budget", "8")) == 0
    assert "8 records  1 tasks" in capsys.readouterr().err


def test_sources_and_networks(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--sources", str(folder / "store"), "--networks", "vgg_16", "--budget", "8"]
    assert main(from_store(folder, tmp_path, *more)) == 0
    assert re.search("8 records  [23] tasks", capsys.readouterr().err)
    found = TrainedPredictor.load(tmp_path / "w.safetensors")
    assert found.experts["cpu"].level == 0
    assert found.about["settings"]["sources"]


@pytest.fixture
def no_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong must be told before the features are loaded, which takes long."""
    monkeypatch.delattr(train, "load_features")


@pytest.mark.usefixtures("no_features")
def test_a_device_without_figures_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--device", "nobody-knows-it", "--from-store", str(folder / "unknown")]
    assert main(arguments(folder, tmp_path, *more)) == 2
    assert "got 'nobody-knows-it'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--budget", "7"), "at least one batch of 8 programs; got 7"),
        (("--device", "x"), "the store has no device 'x'; it has x86-24t, x86-8t"),
        (("--networks", "vgg_16,x"), "no network 'x'; it has alexnet, lenet, vgg_16\n"),
        (("--weights", "nonsense"), "No weights 'nonsense'"),
        (("--rpc", "host:9190", "--key", "k"), "--from-store measures nothing"),
        (("--from-store", "/nonexistent"), "holds no record store"),
        (("--out", "x.json", "--records", "x.json"), "--out must be a file of its own"),
        (("--out", "x.json.own.jsonl", "--records", "./x.json"), "a file of its own"),
        (("--out", "a/workloads.jsonl", "--records", "a/x.json"), "a file of its own"),
        (("--out", "x.json.tvm.txt", "--records", "x.json"), "--out must be a file of its own"),
        (("--out", ".x.json.lock", "--records", "x.json"), "--out must be a file of its own"),
        (("--out", ".workloads.jsonl.lock", "--records", "x.json"), "a file of its own"),
        (("--out", "{folder}/store/store.json"), "--out must be a file of its own"),
        (("--out", "{folder}/store/new/w"), "--out must be a file of its own"),
        (("--records", "{folder}/store/log.json"), "--records must be a file of its own"),
        (("--sources", "{folder}/unknown", "--out", "{folder}/unknown/w"), "a file of its own"),
        (("--out", "{folder}/weights"), "is that of --weights"),
        (("--records", "workloads.jsonl"), "must not be called workloads.jsonl"),
        (("--out", "/proc/nowhere/w"), "/proc/nowhere/w cannot be written"),
        (("--out", "/proc/w"), "--out: /proc/w cannot be written"),
        (("--records", "/proc/x"), "--records: /proc/x cannot be written"),
        (("--records", "/proc/nowhere/x"), "--records: /proc/nowhere/x cannot be written"),
        (("--records", "{folder}/weights"), "--records must be a file of its own"),
        (("--records", "{folder}/store"), "--records must be a file; "),
        (("--records", "{folder}/no-log"), "--records must be an Ansor log; line 1 of"),
    ],
)
@pytest.mark.usefixtures("no_features")
def test_bad_input_is_named(
    folder: Path,
    tmp_path: Path,
    more: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = (folder / "weights").read_bytes()
    more = tuple(text.format(folder=folder) for text in more)
    assert main(from_store(folder, tmp_path, *more)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("w*"))
    assert (folder / "weights").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "--networks must name what to measure"),
        (("--networks", "mlp", "--device", "quux"), "got 'quux'"),
        (("--networks", "mlp", "--rpc", "host:9190"), "--rpc and --key belong together"),
        (("--networks", "mlp", "--device", "t4"), "'t4' is a gpu, and programs for llvm"),
        (("--networks", "mlp", "--device", "t4"), "Give its --target (cuda for a GPU"),
        (("--networks", "mlp,{folder}/no-log", "--out", "{folder}/no-log"), "of --networks"),
        (("--networks", "{folder}/no-log", "--records", "{folder}/no-log"), "of --networks"),
        (("--networks", "mlp", "--input-shape", "data:1x9"), "are for model files; got names"),
    ],
)
def test_bad_input_of_a_live_run(
    folder: Path,
    tmp_path: Path,
    more: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = tuple(text.format(folder=folder) for text in more)
    assert main(arguments(folder, tmp_path, *more)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_levels_of_this_machine_are_learned_on_top_of_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Really measured: the machine is as fast as it is, whatever was kept of it before."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    shrink_search(monkeypatch)
    noisy = partial(CalibrationConfig, attempts=1)  # it does not wait for a quiet machine
    monkeypatch.setattr(measure, "CalibrationConfig", noisy)
    here, start = device_of(default_target()), load_weights("evaluation")
    assert isinstance(start, TrainedPredictor)
    levels = Levels(
        weights=start.origin, level=12.0, operators={"matmul": 12.5, "softmax": 13.0},
        own_level=12.0, own_operators={"matmul": 12.5, "conv2d": 11.5},
    )  # fmt: skip
    calibration = DeviceCalibration(levels=(levels,), wake_s=0.08)
    monkeypatch.setattr(Wakes, "mean_s", 0.02)
    keep_calibration(here.name, calibration, calibration_file())
    out = tmp_path / "w.safetensors"
    command = [
        "adapt", "--device", here.name, "--networks", "mlp", "--budget", "6", "--batch", "6",
        "--weights", "evaluation", "--out", str(out), "--records", str(tmp_path / "log.json"),
        "--keep-noisy",
    ]  # fmt: skip
    assert main([*command, "--json"]) == 0
    said, progress = capsys.readouterr()
    assert re.search(r"\n[01] of 1 batches were measured on a noisy machine", progress)
    (point,) = json.loads(said)["curve"]
    assert point["start_mape"] is None or point["start_mape"] > 1000  # e^12 times too slow
    found = TrainedPredictor.load(out)
    assert found.about["calibrated"]
    assert 0 < found.about["counted"] < found.about["records"]  # the fastest of each task
    settings = found.about["settings"]
    assert (settings["programs_per_task"], settings["whole_plan"]) == (4, True)
    assert settings["fastest_share"] == 1 / 4
    assert found.experts["cpu"].ahead is None
    neighbours = {each.own: each for each in found.experts["cpu"].neighbours}
    assert neighbours.keys() == {False, True}
    assert all(each.level < -3 for each in neighbours.values())
    (before, after) = device_of(default_target()).calibration.levels  # type: ignore[union-attr]
    assert before == levels
    assert (after.weights, after.level, after.operators) == (found.origin, 12.0, levels.operators)
    assert after.wake_s == pytest.approx(0.05)  # in the mean
    # It learned from TVM's own schedules on top of their levels, too.
    assert (after.own_level, after.own_operators) == (12.0, levels.own_operators)
    assert (tmp_path / "log.json.own.jsonl").read_text().count("\n") >= 2


def test_weights_that_cannot_be_written_leave_the_records(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def save(self: TrainedPredictor, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as full:
        full.setattr(TrainedPredictor, "save", save)
        assert main(from_store(folder, tmp_path)) == 2
    message = "w.safetensors cannot be written: No space left on device. The records are kept in"
    assert message in capsys.readouterr().err
    assert main(from_store(folder, tmp_path, "--out", str(tmp_path / "other"))) == 0
    assert "gain: by how much the last batch brought the error down" in capsys.readouterr().out
    assert TrainedPredictor.load(tmp_path / "other").about["device"] == "x86-8t"


def test_the_batch_that_a_file_leaves_open_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, free = tmp_path / "free.pt2", {"input": {0: torch.export.Dim("n", min=2, max=8)}}
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(4, 3),), dynamic_shapes=free)
    torch.export.save(program, path)
    log, name = tmp_path / "log.json", device_of(default_target()).name
    command = ["adapt", "--device", name, "--budget", "6", "--records", str(log)]
    assert main([*command, "--out", str(tmp_path / "w"), "--networks", str(path)]) == 2
    assert "give --input-batch N or --input-shape input:1x3 (" in capsys.readouterr().err


def test_one_program_has_no_interval() -> None:
    point = CurvePoint(
        records=6, failed=0, tasks=2, kept_back=1, mape=49.8, low=None, high=None,
        median=49.8, start_mape=44.0, gain=None,
    )  # fmt: skip
    assert describe_point(point) == "6 records  2 tasks  error 49.8% on 1 kept back, 44% at first"
    point = replace(point, kept_back=2, low=40.0, high=60.0)
    assert "error 49.8% (40% to 60%) on 2 kept back" in describe_point(point)
    # The mean is that of one of them.
    point = replace(point, median=12.0)
    assert "error 49.8% (40% to 60%; median 12%) on 2 kept back" in describe_point(point)


def test_torn_lines_of_functions_are_said_to_be_torn() -> None:
    candidates = MagicMock(own=np.ones(1, bool), __len__=lambda _: 1)
    bench = Mock(candidates=candidates, unusable=0, torn=1)
    bench.measured = MagicMock(own=np.array([True, False]), __len__=lambda _: 2)
    bench.log_report = replace(check_log(Path("log.json"), [], None), num_valid=1)
    (start, line) = _describe_start(bench, 1)
    own = "1 records and 1 of TVM's own schedules: 2 records in all"
    assert start.endswith(f"the log log.json continues with its {own}")
    assert line.startswith("1 lines of log.json.own.jsonl are torn")


def test_weights_that_are_not_better_are_said_to_be_none() -> None:
    point = CurvePoint(
        records=200, failed=0, tasks=50, kept_back=40, mape=51.0, low=27.0, high=80.0,
        median=21.0, start_mape=44.0, gain=0.1,
    )  # fmt: skip
    assert point.is_better is False
    (line,) = describe_loss(point, "shipped")
    assert "error is 51%, that of the weights 'shipped' 44%" in line
    assert replace(point, mape=43.0).is_better is True
    assert replace(point, mape=None).is_better is None
    assert describe_loss(replace(point, mape=43.0), "shipped") == []
    assert describe_loss(replace(point, mape=None), "shipped") == []


def test_the_table_has_gains_as_the_json_has(capsys: pytest.CaptureFixture[str]) -> None:
    point = CurvePoint(
        records=200, failed=2, tasks=50, kept_back=40, mape=51.0, low=27.0, high=80.0,
        median=21.0, start_mape=44.0, gain=-0.15,
    )  # fmt: skip
    args = Mock(json=False, device="t4", weights="shipped", out=Path("w"), records=Path("r"))
    _print(args, Mock(curve=[point], num_counted=198, ended="so it is"), "a level", None)
    out = capsys.readouterr().out
    assert out.splitlines()[3].split()[-2:] == ["44%", "-15%"]
    assert "learned: a level; from 198 of 200 records (2 failed)\n" in out


def test_it_is_said_which_records_taught_nothing() -> None:
    point = CurvePoint(
        records=100, failed=0, tasks=5, kept_back=9, mape=5.0, low=4.0, high=6.0,
        median=4.0, start_mape=6.0, gain=None,
    )  # fmt: skip
    failed = replace(point, failed=2)
    assert describe_counted(100, point) == "100 of 100 records"
    assert describe_counted(98, failed) == "98 of 100 records (2 failed)"
    assert describe_counted(25, point) == "25 of 100 records (the fastest of each task)"
    assert describe_counted(25, failed).endswith("(the fastest of each task; 2 failed)")


def test_a_foreign_log_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.json").write_text("{}\n")
    assert main(from_store(folder, tmp_path)) == 2
    assert "line 1 of" in capsys.readouterr().err
    assert (tmp_path / "log.json").read_text() == "{}\n"
