"""Labels and flags: what is known of made-up measurements must come out."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.logs import import_all, records, task_of, write_log
from tests.data.measurements import measured
from tests.extract import sampling
from tvm_cdmpp.data.quality import (
    PEAK_MARGIN,
    Measurements,
    _medians,
    contended,
    least_seconds,
    make_labels,
    output_bytes,
    read_measurements,
)
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.devices.registry import Registry
from tvm_cdmpp.devices.spec import DeviceSpec


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.1, 9)), min_size=1, max_size=60))
def test_medians_are_those_of_numpy(made: list[tuple[int, float]]) -> None:
    group, values = (np.array(column) for column in zip(*made, strict=True))
    found, medians, counts = _medians(group, values)
    for code, median, count in zip(found, medians, counts, strict=True):
        assert median == pytest.approx(np.median(values[group == code]))
        assert count == (group == code).sum()
    assert set(found) == set(group)


def test_a_contended_time_is_found_and_does_not_count() -> None:
    rng = np.random.default_rng(1)
    true_s = rng.uniform(1e-4, 1e-2, 100)
    runs = [true_s * factor * np.exp(rng.normal(0, 0.02, 100)) for factor in (1, 1, 1.13)]
    rows, logs = np.tile(np.arange(100), 3), np.repeat([0, 1, 2], 100)
    made = measured(rows, np.concatenate(runs), logs)
    busy = contended(made)
    assert set(made.log[busy]) == {2}
    assert busy.sum() == 100
    few = made.row < 10
    part = Measurements(**{f: getattr(made, f)[few] for f in made.__dataclass_fields__})
    assert not contended(part).any()


def test_nothing_is_contended_without_repeats() -> None:
    assert not contended(measured(np.arange(30), np.ones(30))).any()
    assert not contended(measured(np.arange(0), np.ones(0))).any()


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    """Program 0 failed; 1 was measured three times, one of these far off; the others once."""
    first, second, third = records(6), records(2), records(2)
    first[0]["r"] = [[1e10], 4, 0.1, 5]
    for record, costs in ((first[1], [2e-3, 4e-3]), (second[1], [3.2e-3]), (third[1], [9e-3])):
        record["r"][0] = costs
    logs = [
        write_log(tmp_path / f"{name}.json", made)
        for name, made in (("a", first), ("b", second[1:]), ("c", third[1:]))
    ]
    import_all(tmp_path / "store", *logs)
    return RecordStore.open(tmp_path / "store")


def test_labels(store: RecordStore) -> None:
    labels = make_labels(store, registry=Registry(()))
    assert np.isnan(labels.latency_s[0])
    assert labels.latency_s[1] == pytest.approx(3.2e-3)
    expected = [np.mean([1e-3 * (n + 1), 2e-3]) for n in range(2, 6)]
    np.testing.assert_allclose(labels.latency_s[2:], expected)
    assert labels.measurements.tolist() == [0, 3, 1, 1, 1, 1]
    assert not labels.contended.any()
    assert not labels.impossible.any()


def test_a_contended_time_changes_labels_only_where_there_is_no_other(tmp_path: Path) -> None:
    """An hour in which all takes half as long again, and the only one of the last program."""
    calm, busy = records(25)[:24], records(25)
    for number, record in enumerate(calm):
        record["r"] = [[1e-3 * (number + 1)], 0, 0.5, number]
    for number, record in enumerate(busy):
        record["r"] = [[1.5e-3 * (number + 1)], 0, 0.5, 7200 + number]
    log = write_log(tmp_path / "a.json", [*calm, *busy])
    import_all(tmp_path / "store", log)
    labels = make_labels(RecordStore.open(tmp_path / "store"), registry=Registry(()))
    expected = [1e-3 * (number + 1) for number in range(24)] + [37.5e-3]
    np.testing.assert_allclose(labels.latency_s, expected)
    assert labels.measurements.tolist() == [1] * 25
    assert labels.contended.tolist() == [False] * 24 + [True]
    assert not labels.noisy.any()


def test_measurements_and_their_spread(store: RecordStore) -> None:
    found = read_measurements(store)
    assert found.row.tolist() == [1, 1, 1, 2, 3, 4, 5]
    assert found.repeats.tolist() == [2, 1, 1, 2, 2, 2, 2]
    assert found.variation[0] == pytest.approx(np.std([2, 4], ddof=1) / 3)
    assert np.isnan(found.variation[1])


def test_faster_than_the_device_allows(store: RecordStore) -> None:
    flops = store.workloads["flops"][0].as_py()
    # So slow that its peak, margin included, allows no program below 3.1 ms.
    spec = DeviceSpec(
        name="test-cpu", kind="cpu", cores=1, simd_bytes=4, fused_multiply_adds_per_cycle=1,
        clock_hz=flops / 3.1e-3 / PEAK_MARGIN["cpu"] / 2,
    )  # fmt: skip
    labels = make_labels(store, registry=Registry((spec,)))
    assert labels.above_peak.tolist() == list(labels.latency_s < 3.1e-3)
    assert labels.above_peak.any()
    assert not labels.above_bandwidth.any()
    assert np.isfinite(labels.latency_s).sum() == 5


def test_least_seconds() -> None:
    gpu = DeviceSpec(name="g", kind="gpu", l2_bytes=1000, l3_bytes=0, bandwidth_bytes_per_s=1e9)
    margin = PEAK_MARGIN["gpu"]
    assert least_seconds(gpu, 1e9, 500) == (1e9 / gpu.peak_flops / margin, 0.0)
    assert least_seconds(gpu, None, 10**9)[1] == pytest.approx((1e9 - 1000) / 1e9 / margin)
    # Nobody states this device's peak for other types.
    assert least_seconds(gpu, 1e9, 0, '"dtype": "float16"')[0] == 0


def test_output_bytes() -> None:
    tensors = task_of(37).compute_dag.tensors
    size = np.prod([int(extent) for extent in tensors[-1].shape])
    assert output_bytes(sampling.tvm.ir.save_json(tensors)) == 4 * size
