"""`tvm-cdmpp data import`, as it is typed."""

import json
import lzma
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.logs import records, workload_entry, write_log
from tests.extract import sampling
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.extract.handover import dump_records
from tvm_cdmpp.networks.network import extract_tasks, load_network, tvm


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = write_log(folder / "a.json", records(4))
    with log.open("a") as file:
        file.write("half a li")
    write_log(folder / "b.json", records(2))
    with lzma.open(folder / "workloads.jsonl.xz", "wt") as packed:
        packed.write(json.dumps(workload_entry()) + "\n")
    return folder


def test_the_table_tells_what_became_of_every_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "store"
    assert main(["data", "import", str(folder), "--device", "x86-8t", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    table = [line.split() for line in shown.splitlines()]
    assert ["a.json", "5", "4", "0", "1"] in table
    assert ["b.json", "2", "0", "2", "0"] in table
    assert "copy, first in each log:" in shown
    assert ["all", "7", "4", "2", "1"] in table
    assert "a.json:5: not JSON" in shown
    assert "4 distinct programs in" in shown
    assert len(RecordStore.open(out)) == 4


def test_a_device_that_is_not_known_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(folder.parent / "store")
    assert main(["data", "import", str(folder), "--device", "bogus-dev", "--out", out]) == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: Expected the name of a known device; got 'bogus-dev'")
    assert "`tvm-cdmpp device add` adds one. The records are stored under this name" in said
    assert main(["data", "import", str(folder), "--device", "x86-8t", "--out", out + "2"]) == 0
    assert capsys.readouterr().err == ""


def test_the_store_has_a_default_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert main(["data", "import", "logs", "--device", "x86-8t"]) == 0
    assert len(RecordStore.open("records")) == 4


def test_json_and_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(folder.parent / "store")
    command = ["data", "import", str(folder / "a.json"), "--device", "x86-8t", "--out", out]
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bins"] == {"kept": 4, "unreadable": 1}
    assert report["logs"][0]["recovered"] == 4
    assert main(command) == 0
    assert "not read: a.json (same content as a.json" in capsys.readouterr().out


def test_a_foreign_folder_is_refused_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "table.parquet").touch()
    command = ["data", "import", str(folder / "a.json"), "--device", "x86-8t", "--out"]
    assert main([*command, str(folder)]) == 2
    assert "is no record store and holds other files" in capsys.readouterr().err.replace("\n", " ")
    assert (folder / "table.parquet").exists()


def test_files_next_to_logs_are_not_read_as_logs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor are those of a store in the same folder, such as the default one."""
    for name in ("a.json.calibration.jsonl", "a.history.json", "comparison.json"):
        (folder / name).write_text("{}")
    (folder / "a.json.calibration.jsonl").write_text("")
    command = ["data", "import", str(folder), "--device", "x86-8t", "--json"]
    for _ in range(2):
        assert main([*command, "--out", str(folder / "records")]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["ignored"] == [
            "a.history.json", "a.json.calibration.jsonl", "comparison.json",
        ]  # fmt: skip
    assert len(RecordStore.open(folder / "records").inputs) == 2


def test_a_pipe_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main(["data", "import", str(tmp_path / "pipe"), "--device", "x", "--out", "o"]) == 2
    assert "a pipe or a device" in capsys.readouterr().err.replace("\n", " ")


def test_workloads_are_derived_from_networks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tvm.target.Target("llvm -mcpu=core-avx2")
    tasks, weights = extract_tasks(load_network("dcgan"), target)
    task, weight = tasks[0], weights[0]
    lines = dump_records(task, sampling.sample_states(task, 3)).decode().splitlines()
    made = [json.loads(line) for line in lines]
    for record in made:
        record["r"] = [[1e-3], 0, 0.5, 1000]
    log = write_log(tmp_path / "dcgan.json", made)
    command = ["data", "import", str(log), "--device", "x86-8t", "--out"]
    assert main([*command, str(tmp_path / "store")]) == 0
    assert "are derived from --networks" in capsys.readouterr().out
    # The store that did not know the workload reads these lines now.
    derive = [*command, str(tmp_path / "store"), "--networks", "dcgan"]
    assert main([*derive, "--json"]) == 0
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report["bins"]["kept"] == 3
    assert report["not_derived"] == {}
    # Where there is no terminal, what takes minutes is told line by line.
    assert "deriving tasks of dcgan, as written, for llvm" in shown.err.replace("\n", " ")
    assert len(RecordStore.open(tmp_path / "store")) == 3
    assert main(derive) == 0
    assert "not read: dcgan.json (same content" in capsys.readouterr().out
    (workload,) = RecordStore.open(tmp_path / "store").workloads.to_pylist()
    assert workload["names"] == [task.workload_key]
    assert (workload["networks"], workload["network_weights"]) == (["dcgan"], [weight])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "x", "--networks", "resnet18"], "Did you mean resnet-18"),
        ([], "give --device NAME"),
        (["--device", "My GPU"], "lower-case words"),
        (["--device", "x", "--sources", "none.json"], "none.json cannot be read"),
        (["--device", "x", "--batch", "4"], "there is no --networks"),
    ],
)
def test_wrong_arguments(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "store"
    assert main(["data", "import", str(folder), "--out", str(out), *arguments]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not out.exists()


# Segments as the real ones, but shorter.
_SHORT_SEGMENTS = """
import sys
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.data import spool
spool._SEGMENT_LINES = 1000
main(sys.argv[1:])
"""


def test_a_kill_within_a_log_costs_a_segment(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, out = write_log(folder / "a.json", records(4) * 6000), folder.parent / "store"
    command = ["data", "import", str(log), "--device", "x86-8t", "--out"]
    with subprocess.Popen([sys.executable, "-c", _SHORT_SEGMENTS, *command, str(out)]) as process:
        deadline = time.monotonic() + 60
        while not any((out / ".import").glob("*-1.parquet")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    assert process.returncode < 0
    assert not (out / "store.json").exists()
    (description,) = (out / ".import").glob("*.json")
    content = json.loads(description.read_bytes())
    assert not content["finished"]
    assert content["lines"] % 1000 == 0 < content["lines"]
    assert main([*command, str(out)]) == 0
    assert "logs read, wholly or in part, by an import that did not end: 1\n" in (
        capsys.readouterr().out
    )
    whole = folder.parent / "whole"
    assert main([*command, str(whole)]) == 0
    assert RecordStore.open(out).content_hash == RecordStore.open(whole).content_hash
    assert RecordStore.open(out).inputs == RecordStore.open(whole).inputs
