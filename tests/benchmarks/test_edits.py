"""Edits of a program are of their kind, and are judged one by one."""

import json

import numpy as np

from benchmarks.agreement import SAYINGS
from benchmarks.edits import _judged, edits_of
from tests.tiny_tasks import invent, matmul
from tvm_cdmpp.devices import find_device
from tvm_cdmpp.extract import dump_records
from tvm_cdmpp.models import TrainedPredictor, load_weights


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


def test_what_is_said_stands_next_to_what_was_measured() -> None:
    task = matmul(64, 64, 64)
    (measured,), _ = invent(task, [1.0])
    edited = edits_of(task, measured.state, per_kind=1, seed=0)
    predictor, device = load_weights("evaluation"), find_device("epyc-7452")
    assert isinstance(predictor, TrainedPredictor)
    generator = np.random.default_rng(0)
    rows = list(_judged(edited, [1.0, 0.5, None], predictor, device, generator))
    assert [row["kind"] for row in rows] == ["unrolling", "tile"]
    assert [row["measured"] for row in rows] == [np.log(0.5), None]
    assert all(row.keys() >= set(SAYINGS) for row in rows)
