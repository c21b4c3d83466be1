"""Scaling measurements of another device, and a table that says what is not known."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.latency_estimates import Source, roofline_s, wave_scaling
from benchmarks.latency_tables import CURVE, learning_curves, summary
from benchmarks.network_latency import OWN, Case, _curve, _mean_of, _medians_over, _replayed
from benchmarks.provenance import RESULTS
from tvm_cdmpp.devices.detect import find_device
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.replay import Operator, OperatorGraph, QueueConfig, replay

HERE = find_device("epyc-7452")
DEVICES = RESULTS.parent / "devices"
ROW = {
    "network": "mlp", "batch": 1, "schedules": "log", "measured_s": 4e-3, "replayed_s": 5e-3,
    "operators_s": {"dense": 1e-3},
    "functions": {
        "dense": {"count": 2, "flops": 1e6, "moved_bytes": 1e9},
        "other": {"count": 1, "flops": 2e9, "moved_bytes": 1.0},
    },
}  # fmt: skip


def test_moments_count_alike_and_a_disturbed_run_does_not() -> None:
    moments = [
        {"network": [s, s, 9.0], "operators": {"a": [s, 9.0, s]}, "alone": {"a": [s]}}
        for s in (1e-6, 3e-6, 2e-6)
    ]
    found = _mean_of(moments)
    assert found["network"] == found["operators"]["a"] == found["alone"]["a"]
    assert found["network"] == [pytest.approx(2e-6)]


@given(st.floats(0, 1e12), st.floats(1, 1e9))
def test_scaling_lies_between_that_of_memory_and_of_compute(flops: float, moved: float) -> None:
    figures = {"flops": flops, "moved_bytes": moved}
    assert wave_scaling(figures, HERE, HERE) == pytest.approx(1.0)
    other = replace(HERE, cores=2 * HERE.cores)
    twice = wave_scaling(figures, other, HERE)
    assert 1.0 - 1e-9 <= twice <= 2.0 + 1e-9
    back = wave_scaling(figures, other, replace(other, bandwidth_bytes_per_s=1e9))
    assert back >= 1.0


def test_what_bounds_an_operator_decides() -> None:
    half: DeviceSpec = replace(HERE, bandwidth_bytes_per_s=HERE.bandwidth_bytes_per_s / 2)
    moves, computes = ({"flops": f, "moved_bytes": b} for f, b in ((1.0, 1e9), (1e12, 1.0)))
    assert wave_scaling(moves, HERE, half) == pytest.approx(2.0, rel=1e-3)
    assert wave_scaling(computes, HERE, half) == pytest.approx(1.0, rel=1e-3)


def test_operators_that_are_missing_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "there.json"
    file.write_text(json.dumps({"rows": [ROW]}))
    source = Source.read(file, "epyc-7452")
    found = source.scale(ROW, HERE)
    assert found["scaled_without_source"] == 1
    other_s = roofline_s(ROW["functions"]["other"], HERE)  # type: ignore[index]
    assert found["scaled_s"] == pytest.approx(2e-3 + other_s)
    assert source.scale({**ROW, "batch": 2}, HERE) == {}


def test_the_other_device_may_be_a_file_of_figures() -> None:
    source = Source.read(RESULTS / "network-latency-avx512.json", str(DEVICES / "epyc-avx512.json"))
    assert (source.device.cores, source.device.simd_bytes) == (2, 64)
    row = source.rows["resnet-18", 1, "log"]
    same = source.scale(row, source.device)
    assert same["scaled_without_source"] == 0
    assert same["scaled_s"] == pytest.approx(row["replayed_s"], rel=0.1)


def test_the_table_says_what_is_not_known() -> None:
    lines = list(summary([{**ROW, "scaled_s": 2e-3}, ROW]))
    assert lines[0].endswith("| replayed | scaled from another device |")
    assert lines[2:] == [
        "| mlp | 1 | log | 4 ms | +25.0 % | -50.0 % |",
        "| mlp | 1 | log | 4 ms | +25.0 % | - |",
        "| mean error |  |  |  | 25.0 % | 50.0 % |",
        "| largest error |  |  |  | 25.0 % | 50.0 % |",
        "| wanted: mean, largest |  |  |  | 5 %, 10 % |  |",
    ]


def test_intervals_that_hold_the_measurement_are_counted() -> None:
    wide, narrow = (
        {"predicted_s": 5e-3, "predicted_interval_s": ends}
        for ends in ((3e-3, 8e-3), (4.5e-3, 6e-3))
    )
    line = next(
        line for line in summary([{**ROW, **wide}, {**ROW, **narrow}]) if "interval" in line
    )
    assert line.split("|")[5:7] == ["  ", " 1 of 2 "]
    assert not any("interval" in line for line in summary([ROW]))


def test_the_curve_of_adapt_is_kept(tmp_path: Path) -> None:
    point = {name: float(place) for place, name in enumerate(CURVE)} | {"records": 40}
    file = tmp_path / "adapted.b4.json.curve.jsonl"
    file.write_text(json.dumps({**point, "learning": {}}) + "\n")
    assert _curve(tmp_path, 1) == []
    assert _curve(tmp_path, 4) == [point]
    assert list(learning_curves({"4": [point]}))[-1].startswith("| 4 | 40 | 1.0 | 2 % | 3 to 4 % |")


def test_operators_are_compared_with_the_network_of_their_own_round() -> None:
    operators = (Operator("a", "f", ()), Operator("b", "f", (0,)))
    graph = OperatorGraph(operators, 0.0)
    start_s = replay(graph, {"f": 0.0}, QueueConfig()).latency_s
    # The machine becomes slower from round to round, and nothing else changes.
    rounds = [
        {"network": [2 * seconds + start_s], "alone": {"f": [seconds, seconds, 9.0]}}
        for seconds in (1.0, 3.0, 4.0)
    ]
    assert _replayed(graph, rounds, "alone") == pytest.approx(1.0)
    assert _medians_over(rounds, "alone") == {"f": 4.0}


def test_a_file_has_its_inputs_at_the_size_of_the_batch(tmp_path: Path) -> None:
    named = Case("mlp", 4, tmp_path / "mlp.b4")
    assert (named.path, named.options) == ("mlp", [])
    file = Case("users-cnn.pt", 4, tmp_path / "users-cnn.pt.b4")
    assert file.path == str(tmp_path / "users-cnn.pt")
    assert file.options == ["--input-shape", "input:4x3x64x64"]


def test_rounds_that_are_kept_are_counted(tmp_path: Path) -> None:
    case = Case("mlp", 1, tmp_path)
    assert case.num_rounds() == 0
    case.measured.write_text(json.dumps({OWN: {"rounds": [{}, {}]}}))
    assert case.num_rounds() == 2
