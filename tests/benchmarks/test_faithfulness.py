"""Fields that are said to matter are set against others that could."""

import numpy as np
import pytest
import torch

from benchmarks.faithfulness import distances, remove
from tests.models.programs import random_batch
from tvm_cdmpp.ast import FIELDS
from tvm_cdmpp.devices import find_device
from tvm_cdmpp.models import TrainedPredictor, load_weights


def test_a_field_without_a_distance_is_that_of_the_average_leaf() -> None:
    mean, scale = torch.ones(len(FIELDS) + 1), torch.full((len(FIELDS) + 1,), 2.0)
    inputs = mean.repeat(2, 1)
    inputs[:, 3] += torch.tensor([0.0, 2.0])
    found = distances(inputs, mean, scale)
    assert found.shape == (len(FIELDS),)
    assert found.nonzero()[0].tolist() == [3]
    assert found[3] == pytest.approx(8**0.5)


def test_what_is_said_to_matter_changes_the_prediction_most() -> None:
    predictor = load_weights("evaluation")
    assert isinstance(predictor, TrainedPredictor)
    generator = np.random.default_rng(0)
    found = remove(predictor, random_batch(1), find_device("epyc-7452"), generator)
    assert found["said"] > found["random"] > 0.0
    assert found["farthest"] > 0.0
