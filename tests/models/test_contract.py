"""Every model meets the contract."""

from tests.models.contract import MeanOfLeafCount, ModelContract
from tvm_cdmpp.models.additive import AdditiveConfig
from tvm_cdmpp.models.network import PredictorConfig
from tvm_cdmpp.models.predictor import Predictor
from tvm_cdmpp.models.trained import TrainedPredictor


class TestPredictor(ModelContract):
    make = staticmethod(lambda: Predictor.untrained(PredictorConfig(), seed=0))


class TestTrainedPredictor(ModelContract):
    make = staticmethod(lambda: TrainedPredictor.untrained(AdditiveConfig(), seed=0))


class TestSimplestModel(ModelContract):
    make = MeanOfLeafCount
