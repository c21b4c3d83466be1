"""Every baseline meets the contract of models."""

from tests.models.baselines.examples import small
from tests.models.contract import ModelContract
from tvm_cdmpp.models.baselines.graph import GraphPredictor
from tvm_cdmpp.models.baselines.habitat import HabitatPredictor
from tvm_cdmpp.models.baselines.lstm import RecursiveLSTMPredictor
from tvm_cdmpp.models.baselines.mlp import MLPPredictor
from tvm_cdmpp.models.baselines.roofline import RooflinePredictor
from tvm_cdmpp.models.baselines.trees import TreeOptions, TreePredictor


class TestRoofline(ModelContract):
    make = RooflinePredictor


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


class TestHabitatOfThePaper(ModelContract):
    make = staticmethod(lambda: small(HabitatPredictor, "paper"))


class TestGraph(ModelContract):
    make = staticmethod(lambda: small(GraphPredictor, "skip"))


class TestGraphWithoutSkips(ModelContract):
    make = staticmethod(lambda: small(GraphPredictor, "plain"))
