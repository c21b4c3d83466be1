"""Integrated gradients: what the inputs get adds up to what they explain."""

import math

import numpy as np
import pytest

from tests.models.programs import extract, parallel_rows, random_batch
from tvm_cdmpp.ast import FIELDS, GROUPS, concatenate
from tvm_cdmpp.devices import find_device
from tvm_cdmpp.models import TrainedPredictor, attribute, load_weights

DEVICE = find_device("epyc-7452")


def trained() -> TrainedPredictor:
    predictor = load_weights("evaluation")
    assert isinstance(predictor, TrainedPredictor)
    return predictor


def test_attributions_add_up_to_the_difference_of_the_predictions() -> None:
    predictor, batch = trained(), random_batch(20)
    alike = [batch.take([place]) for place in np.flatnonzero(batch.leaf_counts == 4)]
    # Their leaves also stand in other places of the tree.
    moved = next(p for p in alike if (p.positions != alike[0].positions).any())
    batch = concatenate([alike[0], moved])
    assert (batch.vectors_of(0) != batch.vectors_of(1)).any()
    first, second = batch.take([0]), batch.take([1])
    found = attribute(predictor, first, DEVICE, second, steps=1024)
    predicted_s = predictor.predict(batch, DEVICE).latency_s
    assert found.latency_s == pytest.approx(predicted_s[0], rel=1e-4)
    assert found.reference_s == pytest.approx(predicted_s[1], rel=1e-4)
    difference = math.log(found.latency_s / found.reference_s)
    assert sum(found.groups.values()) == pytest.approx(difference, abs=0.01)
    assert set(found.groups) == {*GROUPS, "bounds", "analytic estimate", "places of leaves"}
    assert len(found.fields) == len(FIELDS)
    sizes = np.abs(list(found.groups.values()))
    assert (sizes[:-1] >= sizes[1:]).all()


def test_a_program_next_to_itself_is_moved_by_nothing() -> None:
    program = extract([parallel_rows(4)])
    found = attribute(trained(), program, DEVICE, program)
    assert not any(found.groups.values())
    assert found.latency_s == found.reference_s


def test_programs_with_other_leaves_are_compared_with_the_average_leaf() -> None:
    predictor, batch = trained(), random_batch(20)
    program, other = (batch.take([int(np.argmax(batch.leaf_counts == n))]) for n in (3, 4))
    found = attribute(predictor, program, DEVICE, other)
    assert found == attribute(predictor, program, DEVICE)
