"""Choosing a device: orders and regrets of invented latencies, and a store from end to end."""

import json
from pathlib import Path

import pytest

from benchmarks.device_choice import Best, compare, judge, main, overall
from tests.data.logs import book, import_all, log_file, records, write_log


def best(measured: float, predicted: float, peak: float = 1.0, estimate: float = 1.0) -> Best:
    return Best(measured, predicted, estimate, peak, held_out=False)


def test_orders_and_regret() -> None:
    pairs = [
        (best(1.0, 2.0), best(2.0, 3.0, 0.5, 2.0)),  # predicted and estimate right, peak wrong
        (best(3.0, 1.0), best(2.0, 2.0, 0.5, 0.5)),  # predicted wrong by half
        (best(1.0, 2.0), best(1.04, 1.0, 0.5, 2.0)),  # too close to tell
    ]
    found = judge(pairs)
    assert (found["compared"], found["differ"]) == (3, 2)
    assert found["predicted"] == {"right": 0.5, "regret": pytest.approx((0.5 + 0.04) / 3)}
    assert found["estimate"] == {"right": 1.0, "regret": 0.0}
    assert found["peak"] == {"right": 0.5, "regret": pytest.approx((1.0 + 0.04) / 3)}
    assert judge([])["predicted"] == {"right": None, "regret": None}


def test_networks_are_weighted_sums() -> None:
    workloads = range(5)
    fast_first = {w: best(1.0, 1.0) for w in workloads} | {4: best(100.0, 1.0)}
    second = {w: best(2.0, 2.0) for w in workloads}
    networks = {"small": dict.fromkeys((0, 1, 2), 1.0), "large": {2: 1.0, 3: 1.0, 4: 1.0}}
    (row,) = compare({"a": fast_first, "b": second, "c": {0: best(1, 1)}}, networks)
    assert row["devices"] == ["a", "b"]
    assert row["operators"]["predicted"]["right"] == 0.8
    assert row["networks"]["predicted"] == {
        "right": 0.5,
        "regret": pytest.approx((102 / 6 - 1) / 2),
    }
    networks["large"][4] = 0.01
    (row,) = compare({"a": fast_first, "b": second}, networks)
    assert row["networks"]["predicted"]["right"] == 1.0
    assert overall([row, row])["networks"]["compared"] == 4
    assert overall([row])["operators"]["predicted"]["right"] == 0.8


def test_a_store_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = (37, 80, 96, 64, 48)
    logs = []
    for size in sizes:
        for device, factor in (("x86-24t", 1), ("x86-4t", 3)):
            made = records(6, size)
            for record in made:
                record["r"][0] = [factor * cost for cost in record["r"][0]]
            path = write_log(tmp_path / f"{device}{size}.json", made)
            network = "resnet_50" if size == 37 else "vgg_16"
            logs.append(log_file(path, device, network=network))
    import_all(tmp_path / "store", *logs, known=book(*sizes))
    assert main([str(tmp_path / "store"), "--out", str(tmp_path), "--per-task", "5"]) == 0
    found = json.loads((tmp_path / "device-choice.json").read_text())
    (row,) = found["pairs"]
    assert row["first_is_faster"] == 1.0
    assert row["operators"]["compared"] == 5
    assert row["held_out"]["compared"] == 1
    assert row["networks"]["compared"] == 1
    assert row["operators"]["peak"]["right"] == 1.0
    assert "| all pairs | operators | 5 | 5 | " in capsys.readouterr().out
