"""A model is asked once for each program, and says the same when it is looked at again."""

from typing import Any

import numpy as np

from tests.models.programs import random_batch
from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.models import Prediction
from tvm_cdmpp.search.evolve.answers import Answers
from tvm_cdmpp.search.evolve.space import fingerprints


class Asked:
    """Says something else of every program, and keeps which it was asked for."""

    def __init__(self) -> None:
        self.programs: list[int] = []

    def predict_asts(self, _of: Any, batch: CompactASTBatch) -> Prediction:
        keys = fingerprints(batch)
        self.programs += keys.tolist()
        return Prediction(1e-6 * (1 + keys % 1009), (1 + keys % 7) / 8)


def test_what_was_said_is_remembered() -> None:
    model, batch = Asked(), random_batch(60)
    answers, expected = Answers(model, None), Asked().predict_asts(None, batch)
    scores = answers.score(batch.take(np.arange(40)))
    some = np.random.default_rng(0).permutation(60)[:50]
    for _ in range(2):
        latency_s, runs_probability = answers.of(batch.take(some))
        np.testing.assert_array_equal(latency_s, expected.latency_s[some])
        np.testing.assert_array_equal(runs_probability, expected.runs_probability[some])
    known = expected.runs_probability / expected.latency_s
    np.testing.assert_array_equal(scores, known[:40])
    keys = fingerprints(batch)
    assert model.programs == [*keys[:40], *keys[some[some >= 40]]]


def test_nothing_was_asked_yet() -> None:
    model, batch = Asked(), random_batch(5)
    latency_s, _ = Answers(model, None).of(batch)
    np.testing.assert_array_equal(latency_s, model.predict_asts(None, batch).latency_s)
    assert not len(Answers(model, None).of(batch.take(np.arange(0)))[0])
