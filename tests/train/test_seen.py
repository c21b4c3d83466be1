"""Weights that have learned from a device are said to have."""

from __future__ import annotations

from typing import Any

import pytest

from tvm_cdmpp.devices import find_device
from tvm_cdmpp.models import AdditiveConfig, TrainedPredictor, load_weights
from tvm_cdmpp.train.seen import remark_on_seen

STORE = "a store's hash"


def remark(about: dict[str, Any], device: str = "nvidia-t4", store: str | None = STORE) -> str:
    weights = TrainedPredictor.untrained(AdditiveConfig(width=16, layers=1, hidden=16), 0)
    weights.about = about
    return remark_on_seen(weights, find_device(device), store) or ""


def test_weights_know_the_devices_of_their_training() -> None:
    shipped, evaluation = load_weights("shipped"), load_weights("evaluation")
    assert isinstance(shipped, TrainedPredictor)
    assert isinstance(evaluation, TrainedPredictor)
    device = find_device("cortex-a72")
    said = str(remark_on_seen(shipped, device))
    assert "have learned from programs of cortex-a72" in said
    assert "not those on unseen programs" in said
    assert "(`tvm-cdmpp train --split devices`)" in said
    assert remark_on_seen(evaluation, device) is None
    # It has learned from a few programs of it, of which the network says nothing.
    assert remark_on_seen(evaluation, device, evaluation.about["data_hash"]) is not None


@pytest.mark.parametrize("split", [None, "networks", "paper", "no split"])
def test_of_a_store_all_devices_were_learned_from(split: str | None) -> None:
    of_store = {"data_hash": STORE, "split": split}
    assert "programs of t4" in remark(of_store)
    assert "(`tvm-cdmpp train` on a store without its records)" in remark(of_store)
    assert "programs of t4" in remark({"device": "a10", "from": {"from": of_store}})
    assert remark(of_store, store=None) == remark(of_store, store="another") == ""
    assert remark({}, store=None) == remark({"from": "damaged"}) == ""


@pytest.mark.parametrize(
    ("split", "held_out", "learned_from"),
    [("devices", "cortex-a72", "nvidia-t4"), ("vendor", "amd-mi100", "cortex-a72")],
)
def test_but_for_those_that_a_split_holds_out(split: str, held_out: str, learned_from: str) -> None:
    of_store = {"data_hash": STORE, "split": split}
    assert remark(of_store, held_out) == ""
    assert remark(of_store, learned_from)
    said = remark({"data_hash": STORE, "split": None}, held_out)
    assert f"train --split {split}`" in said


def test_weights_that_adapt_made_have_learned_from_its_device() -> None:
    assert "programs of t4" in remark({"device": "t4"}, store=None)
    assert "programs of t4" in remark({"device": "a10", "from": {"device": "t4"}}, store=None)
    assert remark({"device": "a10"}, store=None) == ""
