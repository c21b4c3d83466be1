"""Edits of a program are of their kind."""

import json

import numpy as np

from benchmarks.edits import edits_of
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
