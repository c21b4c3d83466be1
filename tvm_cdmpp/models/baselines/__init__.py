"""Models to compare the predictor with; all learn from the same rows, behind the same contract."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.models.baselines.base import NetworkPredictor
    from tvm_cdmpp.models.baselines.graph import GraphConfig, GraphPredictor
    from tvm_cdmpp.models.baselines.habitat import HabitatConfig, HabitatPredictor
    from tvm_cdmpp.models.baselines.inputs import inputs_of_rows
    from tvm_cdmpp.models.baselines.lstm import LSTMConfig, RecursiveLSTMPredictor
    from tvm_cdmpp.models.baselines.mlp import MLPConfig, MLPPredictor
    from tvm_cdmpp.models.baselines.roofline import RooflinePredictor
    from tvm_cdmpp.models.baselines.saved import ModelSize
    from tvm_cdmpp.models.baselines.table import BASELINES, Baseline, make_baseline
    from tvm_cdmpp.models.baselines.training import (
        LatencyScale,
        ProgramNetwork,
        Training,
        layers_of,
        score_layer,
        train,
    )
    from tvm_cdmpp.models.baselines.trees import TreeOptions, TreePredictor

__getattr__, __dir__ = offer(__name__)
