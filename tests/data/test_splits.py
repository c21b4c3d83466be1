"""Splits share nothing, lose nothing, and hold out what may be of a held-out network."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.logs import book, import_all, log_file, records, write_log
from tvm_cdmpp.data.splits import (
    Split,
    SplitRule,
    check_split,
    choose_validation,
    every_fifth,
    held_out_workloads,
    official_rules,
    official_split,
    split_store,
)
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.errors import SplitError

SIZES = (37, 40, 48, 64)
RULE = SplitRule(
    name="test", kind="networks", networks=("resnet_50",), mixed_logs=("mixed-source",)
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    """Four workloads: of resnet_50 (and, too, of a log that does not say), mixed, plain, plain."""
    folder = tmp_path_factory.mktemp("splits")
    made = {size: records(12, size) for size in SIZES}
    logs = {
        "a": (made[37][:6], {"network": "resnet_50"}),
        "b": (made[37][6:9] + made[40][:6], {"network": ""}),
        "c": (made[40][6:], {"network": "vgg_16", "device": "gpu-1"}),
        "d": (made[48][:6] + made[64][:6], {"network": "vgg_16"}),
        "e": (made[48][6:] + made[37][9:], {"network": "vgg_16", "device": "gpu-1"}),
    }
    files = [
        log_file(write_log(folder / f"{name}.json", lines), **known)
        for name, (lines, known) in logs.items()
    ]
    import_all(folder / "store", *files, known=book(*SIZES))
    return RecordStore.open(folder / "store")


def workloads(store: RecordStore, rows: Any) -> set[str]:
    names = store.columns("workload_id")["workload_id"].to_pylist()
    return {names[row] for row in rows}


def ids(store: RecordStore) -> list[str]:
    """The workloads' identities by size, which the task table has in the order of the logs."""
    found: list[str] = store.workloads["workload_id"].to_pylist()
    assert len(found) == len(SIZES)
    return found


def parts_of(split: Split) -> list[int]:
    return sorted(np.concatenate([split.train, split.validation, split.test, split.left_out]))


def test_held_out_wherever_it_may_occur(store: RecordStore) -> None:
    """The workload of the network in other logs, and all of the log that does not say."""
    held = held_out_workloads(store, RULE)
    assert held == set(ids(store)[:2])
    split = split_store(store, RULE, validation_share=0.5)
    assert workloads(store, split.test) == held
    assert split.sizes() == {"train": 6, "validation": 12, "test": 24, "left_out": 0} or (
        split.sizes() == {"train": 12, "validation": 6, "test": 24, "left_out": 0}
    )


@pytest.mark.parametrize("pattern", ["d\\.json", "D.JSON"])
def test_logs_that_are_named_as_mixed(store: RecordStore, pattern: str) -> None:
    rule = replace(RULE, networks=(), mixed_logs=(pattern,))
    assert held_out_workloads(store, rule) == set(ids(store)[2:])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "rule",
    [
        RULE,
        SplitRule(name="w", kind="workloads"),
        SplitRule(name="d", kind="devices", devices=("gpu-1",), shared_workloads=True),
        SplitRule(name="p", kind="latencies"),
    ],
    ids=lambda rule: rule.kind,
)
def test_complete_disjoint_and_deterministic(
    store: RecordStore, rule: SplitRule, seed: int
) -> None:
    if rule.kind == "workloads":
        rule = replace(rule, workloads=(ids(store)[0],))
    split = split_store(store, rule, validation_share=0.4, seed=seed)
    assert parts_of(split) == list(range(len(store)))
    again = split_store(store, rule, validation_share=0.4, seed=seed)
    assert all(np.array_equal(getattr(split, p), getattr(again, p)) for p in split.sizes())
    train, validation = (workloads(store, rows) for rows in (split.train, split.validation))
    assert train.isdisjoint(validation)
    if rule.kind in ("networks", "workloads"):
        assert (train | validation).isdisjoint(workloads(store, split.test))
    # What is held out does not depend on the seed.
    other = split_store(store, rule, validation_share=0.4, seed=seed + 1)
    assert np.array_equal(split.test, other.test)


def test_workloads_of_held_out_devices(store: RecordStore) -> None:
    rule = SplitRule(name="d", kind="devices", devices=("gpu-1",))
    with pytest.raises(SplitError, match=r"the train part .* is empty"):
        split_store(store, rule)
    devices = store.columns("device")["device"].to_pylist()
    shared = split_store(store, replace(rule, shared_workloads=True))
    assert {devices[row] for row in shared.test} == {"gpu-1"}
    assert {devices[row] for row in (*shared.train, *shared.validation)} == {"test-cpu"}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (replace(RULE, networks=("nothing",), mixed_logs=()), "the test part .* is empty"),
        (replace(RULE, mixed_logs=(".",)), "the train part .* is empty"),
        (SplitRule(name="d", kind="devices", devices=("none",)), "the test part .* is empty"),
    ],
)
def test_empty_parts(store: RecordStore, rule: SplitRule, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        split_store(store, rule)


def test_wrong_arguments(store: RecordStore) -> None:
    with pytest.raises(SplitError, match="known are networks, devices"):
        official_split(store, "nonsense")
    with pytest.raises(SplitError, match="between 0 and 1"):
        official_split(store, "paper", validation_share=1.0)


def test_overlaps_are_refused() -> None:
    a, b, c = (np.array(rows) for rows in ([0], [1], [2, 0]))
    split = Split(name="x", note="", train=a, validation=b, test=c, left_out=np.array([], int))
    with pytest.raises(SplitError, match="train and test of split 'x' must have no rows"):
        check_split(split, np.array([1, 2, 3]))
    split = replace(split, test=np.array([2]))
    with pytest.raises(SplitError, match="no workloads in common"):
        check_split(split, np.array([1, 2, 1]))
    check_split(split, np.array([1, 2, 1]), workloads_may_be_shared=True)
    with pytest.raises(SplitError, match="no workloads in common"):
        check_split(split, np.array([1, 1, 2]), workloads_may_be_shared=True)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
)
def test_validation_is_whole_workloads_of_the_training_part(
    made: list[tuple[int, bool]], share: float, seed: int
) -> None:
    codes = np.array([code for code, _ in made])
    train = np.array([is_train for _, is_train in made])
    names = np.array([f"w{number}" for number in range(7)])
    chosen = choose_validation(names, codes, train, share, seed)
    assert not (chosen & ~train).any()
    assert chosen.any() == train.any()
    for code in set(codes[chosen]):
        assert chosen[train & (codes == code)].all()


@given(st.lists(st.one_of(st.floats(1e-6, 1), st.just(np.nan)), max_size=40))
def test_every_fifth_is_spread_over_latencies(latencies: list[float]) -> None:
    values = np.array(latencies, float)
    marked = every_fifth(values, np.zeros(len(values), int))
    known = int((~np.isnan(values)).sum())
    assert marked.sum() == known // 5
    assert not np.isnan(values[marked]).any()


def test_official_rules() -> None:
    rules = official_rules()
    assert list(rules) == ["networks", "devices", "devices-shared-workloads", "vendor", "paper"]
    assert all(rule.note for rule in rules.values())
    assert "Only to compare" in rules["paper"].note
    assert rules["devices"].devices == rules["devices-shared-workloads"].devices
    rule = rules["networks"]

    def holds_out(name: str) -> bool:
        return any(re.search(pattern, name, re.IGNORECASE) for pattern in rule.networks)

    held = ("resnet_50", "ResNet-50", "gluon_resnet_50_v1_nhwc1", "mobilenet_v2", "bert_base_cand")
    assert all(map(holds_out, held))
    kept = ("wide_resnet_50", "resnet_152", "resnet_18", "mobilenet_v3", "mobilenet_testing")
    assert not any(map(holds_out, kept))
