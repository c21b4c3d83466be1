"""Every baseline meets the contract of models."""

import numpy as np
import pytest

from tests.models.baselines.examples import small
from tests.models.contract import CPU, ModelContract
from tests.models.programs import random_batch
from tvm_cdmpp.models.baselines.graph import GraphPredictor
from tvm_cdmpp.models.baselines.habitat import HabitatPredictor
from tvm_cdmpp.models.baselines.lstm import RecursiveLSTMPredictor
from tvm_cdmpp.models.baselines.mlp import MLPPredictor
from tvm_cdmpp.models.baselines.roofline import RooflinePredictor
from tvm_cdmpp.models.baselines.trees import TreeOptions, TreePredictor
from tvm_cdmpp.models.rows import TrainingRows


class TestRoofline(ModelContract):
    make = RooflinePredictor

    def test_learning_brings_the_level_nearer(self) -> None:
        """The median gets there; estimates stay as far apart as they were."""
        batch = random_batch(64)
        model = RooflinePredictor()
        model.fit(TrainingRows.on(CPU, batch, np.full(64, 30.0), np.zeros(64, np.int64)), seed=0)
        assert np.median(model.predict(batch, CPU).latency_s) == pytest.approx(30.0, rel=0.1)


class TestTrees(ModelContract):
    make = staticmethod(lambda: TreePredictor(TreeOptions(rounds=60, depth=4)))


class TestMLP(ModelContract):
    make = staticmethod(lambda: small(MLPPredictor))


class TestMLPOfThePaper(ModelContract):
    make = staticmethod(lambda: small(MLPPredictor, "paper"))


class TestLSTM(ModelContract):
    make = staticmethod(lambda: small(RecursiveLSTMPredictor))


class TestLSTMOfThePaper(ModelContract):
    make = staticmethod(lambda: small(RecursiveLSTMPredictor, "paper"))


class TestHabitat(ModelContract):
    make = staticmethod(lambda: small(HabitatPredictor))


class TestGraph(ModelContract):
    make = staticmethod(lambda: small(GraphPredictor, "skip"))
