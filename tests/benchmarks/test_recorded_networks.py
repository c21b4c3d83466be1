"""Sums over the tasks of recorded logs, on a store from end to end."""

import json
from pathlib import Path

import pytest

from benchmarks.recorded_networks import main
from tests.data.logs import book, import_all, log_file, records, write_log

SIZES = (37, 80, 96, 64, 48, 56)
TRAINED = (100, 104, 108, 112)


def test_a_log_is_a_network_if_nothing_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [record for size in SIZES for record in records(4, size)]
    others = [record for size in TRAINED for record in records(4, size)]
    for record in made[-4:]:
        record["r"][1] = 4  # no program of the last task ran
    for record in made[1::4]:
        record["r"][0] = [1e-6]  # the fastest of each task
    held_out, trained = (
        write_log(tmp_path / f"{name}.json", lines)
        for name, lines in (("held", made), ("trained", others))
    )
    logs = [
        log_file(held_out, "x86-24t", network="resnet_50"),
        log_file(trained, "x86-24t", network="vgg_16"),
    ]
    import_all(tmp_path / "store", *logs, known=book(*SIZES, *TRAINED))
    out = tmp_path / "found.json"
    assert main([str(tmp_path / "store"), "--out", str(out)]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["network"], row["device"]) == ("resnet_50", "x86-24t")
    assert (row["tasks"], row["tasks_without_program"]) == (5, 1)
    assert row["measured_s"] == pytest.approx(5e-6)
    low, high = row["interval_s"]
    assert 0.0 < low < row["predicted_s"] < high
    assert "| resnet_50 | x86-24t | 5 of 6 |" in capsys.readouterr().out
