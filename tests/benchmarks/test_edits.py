"""Edits of a program are of their kind, and shares count what they say."""

import json

import numpy as np
import pytest

from benchmarks.edits import edits_of, shares
from tests.tiny_tasks import invent, matmul
from tvm_cdmpp.extract import dump_records


def test_an_edit_changes_unrolling_or_one_tile() -> None:
    task = matmul(64, 64, 64)
    (measured,), _ = invent(task, [1.0])
    edited = edits_of(task, measured.state, per_kind=2, seed=0)
    assert edited.kinds == ("unrolling", "unrolling", "tile", "tile")
    lines = dump_records(task, edited.states).splitlines()
    base, *others = (json.loads(line)["i"][1][1] for line in lines)
    changes = [
        {step[0] for step, was in zip(steps, base, strict=True) if step != was} for steps in others
    ]
    assert changes == [{"PR"}] * 2 + [{"SP"}] * 2
    again = edits_of(task, measured.state, per_kind=2, seed=0)
    assert np.array_equal(again.batch.vectors, edited.batch.vectors)


def test_shares_are_of_edits_that_tell_something() -> None:
    said_and_measured = [
        ("a", -0.3, -0.5), ("a", -0.1, 0.2), ("a", 0.2, 0.3), ("b", -0.4, -0.1),
        ("b", -0.4, 0.01), ("b", 0.4, None), ("b", -0.03, -0.2),
    ]  # fmt: skip
    found = shares([{"task": t, "said": s, "measured": m} for t, s, m in said_and_measured])
    assert (found["edits"], found["too_alike"]) == (7, 1)
    assert found["said_good_are_good"]["share"] == pytest.approx(2 / 3)
    assert found["said_good_are_good"]["edits"] == 3
    assert found["as_measured"]["share"] == pytest.approx(4 / 5)
    assert found["good"]["share"] == pytest.approx(3 / 5)
    low, high = found["good"]["interval"]
    assert low <= 0.6 <= high
    assert shares([])["good"] is None
