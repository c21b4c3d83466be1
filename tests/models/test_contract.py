"""Every model meets the contract."""

import numpy as np

from tests.models.contract import MeanOfLeafCount, ModelContract
from tvm_cdmpp.models.additive import AdditiveConfig
from tvm_cdmpp.models.contract import Prediction
from tvm_cdmpp.models.network import PredictorConfig
from tvm_cdmpp.models.predictor import Predictor
from tvm_cdmpp.models.trained import TrainedPredictor


class TestPredictor(ModelContract):
    make = staticmethod(lambda: Predictor.untrained(PredictorConfig(), seed=0))


class TestTrainedPredictor(ModelContract):
    make = staticmethod(lambda: TrainedPredictor.untrained(AdditiveConfig(), seed=0))


class TestSimplestModel(ModelContract):
    make = MeanOfLeafCount


def test_the_less_sure_of_two_alike_comes_later() -> None:
    latency_s = np.array([1e-3, 1e-3, 1e-3])
    plain = Prediction(latency_s, np.ones(3))
    assert (plain.order_s == latency_s).all()
    unsure = Prediction(latency_s, np.ones(3), spread=np.array([0.3, 0.0, 1e9]))
    assert unsure.order_s[1] == latency_s[1] < unsure.order_s[0] < unsure.order_s[2] < np.inf
