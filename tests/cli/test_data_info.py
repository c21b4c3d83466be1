"""`tvm-cdmpp data info`, as it is typed."""

import json
from pathlib import Path

import pytest

from tests.data.logs import book, import_all, log_file, records, write_log
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.train.features import find_features, load_features


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two workloads on two devices; one program failed, one was measured again."""
    first, again, second = records(12), records(1), records(5, 80)
    first[3]["r"] = [[1e10], 4, 0.1, 5]
    again[0]["r"][3] = 9_000_000
    logs = [
        log_file(write_log(tmp_path / "a.json", first), network="resnet_50"),
        log_file(write_log(tmp_path / "b.json", again), network="resnet_50"),
        log_file(write_log(tmp_path / "c.json", second), device="amd-mi50", network="vgg_16"),
    ]
    import_all(tmp_path / "store", *logs, known=book(37, 80))
    return tmp_path / "store"


def test_tables_and_plots(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = folder.parent / "page.png"
    assert main(["data", "info", str(folder), "--out", str(page)]) == 0
    shown = capsys.readouterr().out
    table = [line.split() for line in shown.splitlines()]
    assert "17 programs, 2 tasks, 2 workloads; 1 failed, 1 measured again" in shown
    assert ["test-cpu", "1", "12", "8.3%"] in [row[:4] for row in table]
    assert ["amd-mi50", "1", "5", "0.0%"] in [row[:4] for row in table]
    assert ["reduction", "2", "17"] in table
    assert ["networks", "-", "-", "-", "-"] in table
    said = " ".join(shown.split())
    assert "networks, devices, devices-shared-workloads, vendor: the train part of the" in said
    assert said.count("part of the split is empty") == said.count("take all records") == 1
    assert page.read_bytes().startswith(b"\x89PNG")
    assert list(folder.parent.glob("*tmp*")) == []


def test_json_with_and_without_features(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = RecordStore.open(folder)
    assert find_features(store) is None
    found = []
    for sampled in (True, False):
        assert main(["data", "info", str(folder), "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
        assert found[-1]["leaves"].pop("sampled") is sampled
        load_features(store)
    assert sum(row["records"] for row in found[0]["devices"]) == found[0]["records"] == 17
    assert all(sum(row["histogram"]) == row["records"] - row["failed"]
               for row in found[0]["devices"])  # fmt: skip
    # All programs of one task, and ten of the larger one.
    assert found[0]["leaves"]["programs"] == 15
    assert found[1]["leaves"]["programs"] == 17
    assert found[0]["leaves"]["counts"].keys() <= found[1]["leaves"]["counts"].keys()


def test_programs_that_look_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """25 pairs of which one level or the next has a factor, and that are 20 % apart."""
    made = records(50)
    for number, record in enumerate(made):
        pair, second = divmod(number, 2)
        inner, outer = 2 ** (pair % 5 + 1), (2, 3, 4, 6, 8)[pair // 5]
        factors = [inner, 1] if second else [1, inner]
        record["i"][1][1] = [["SP", 2, 2, 64, factors, 1], ["SP", 2, 1, 48, [outer], 1]]
        record["r"][0] = [8e-4 if second else 1e-3]
    folder = tmp_path / "store"
    import_all(folder, write_log(tmp_path / "a.json", made))
    assert main(["data", "info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["devices"][0]["alike"] is None
    assert main(["data", "info", str(folder), "--alike", "--json"]) == 0
    (device,) = json.loads(capsys.readouterr().out)["devices"]
    assert device["noise"]["basis"] == "unknown"
    assert device["alike"]["pairs"] == 25
    assert device["alike"]["difference_mean"] == pytest.approx(0.2)
    page = tmp_path / "page.png"
    assert main(["data", "info", str(folder), "--alike", "--out", str(page)]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["test-cpu", "25", "<=", "14%", "(14%)"] in table
    assert page.is_file()


def test_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", str(tmp_path)]) == 2
    assert "holds no record store" in capsys.readouterr().err
