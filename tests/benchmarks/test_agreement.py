"""What an explanation says of an edit is told apart from what the prediction says."""

import numpy as np
import pytest

from benchmarks import agreement
from benchmarks.agreement import said, share_over_tasks, shares
from tests.models.programs import random_batch
from tvm_cdmpp.devices import find_device
from tvm_cdmpp.models import Attribution, TrainedPredictor, load_weights


def trained() -> TrainedPredictor:
    predictor = load_weights("evaluation")
    assert isinstance(predictor, TrainedPredictor)
    return predictor


def test_the_largest_group_may_say_what_the_prediction_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = {"loops": -0.3, "reuse": 0.2, "traffic": 0.2, "gpu": 0.0}
    found = Attribution(groups, {}, reference_s=1.0, latency_s=1.1)
    monkeypatch.setattr(agreement, "attribute", lambda *_, **__: found)
    pair, generator = random_batch(1).take([0, 0]), np.random.default_rng(0)
    for _ in range(8):
        edit = said(pair, trained(), find_device("epyc-7452"), generator)
        assert edit["prediction"] == pytest.approx(np.log(1.1))
        assert edit["explanation"] == -0.3
        assert edit["any_group"] in (-0.3, 0.2)


def test_of_other_leaves_only_the_prediction_says_something() -> None:
    predictor, device, batch = trained(), find_device("epyc-7452"), random_batch(20)
    pair = batch.take([int(np.argmax(batch.leaf_counts == n)) for n in (3, 4)])
    before_s, after_s = predictor.predict(pair, device).latency_s
    assert said(pair, predictor, device, np.random.default_rng(0)) == {
        "prediction": pytest.approx(np.log(after_s / before_s)),
        "explanation": None,
        "any_group": None,
    }


def test_shares_are_of_edits_that_tell_something() -> None:
    said_and_measured = [
        ("a", -0.3, -0.5), ("a", -0.1, 0.2), ("a", 0.2, 0.3), ("b", -0.4, -0.1),
        ("b", -0.4, 0.01), ("b", 0.4, None), ("b", -0.03, -0.2),
    ]  # fmt: skip
    rows = [
        {"task": t, "prediction": s, "explanation": -s if t == "b" else None, "measured": m}
        for t, s, m in said_and_measured
    ]
    found = shares(rows, "prediction")
    assert (found["edits"], found["too_alike"]) == (7, 1)
    assert found["said_good_are_good"]["share"] == pytest.approx(2 / 3)
    assert found["said_good_are_good"]["cases"] == 3
    assert found["as_measured"]["share"] == pytest.approx(4 / 5)
    assert found["good"]["share"] == pytest.approx(3 / 5)
    low, high = found["good"]["interval"]
    assert low <= 0.6 <= high
    # The explanation says nothing of task a, and the contrary of task b.
    found = shares(rows, "explanation")
    assert (found["edits"], found["too_alike"]) == (4, 1)
    assert found["said_good_are_good"] is None
    assert found["as_measured"]["share"] == 0.0
    assert shares([], "prediction")["good"] is None


def test_a_share_is_as_uncertain_as_its_tasks_are_few() -> None:
    found = share_over_tasks(["a"] * 8 + ["b"] * 8, [1.0] * 8 + [0.0] * 8)
    assert found == {"share": 0.5, "interval": [0.0, 1.0], "cases": 16}
    among = [True] * 8 + [False] * 8
    found = share_over_tasks(["a"] * 8 + ["b"] * 8, [1.0] * 16, among)
    assert found == {"share": 1.0, "interval": [1.0, 1.0], "cases": 8}
    assert share_over_tasks([], []) is None
