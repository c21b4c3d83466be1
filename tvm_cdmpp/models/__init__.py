"""Predictors of a program's latency."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.models.adaptation import AdaptConfig, adapt, thin
    from tvm_cdmpp.models.additive import AdditiveConfig, AdditiveNetwork, Output
    from tvm_cdmpp.models.analytic import (
        PROGRAM_START_S,
        TERMS,
        bound_names,
        bound_shares,
        combine_terms,
        estimate_latency_s,
        leaf_terms_s,
        sum_registers,
    )
    from tvm_cdmpp.models.attribution import INPUT_GROUPS, Attribution, attribute
    from tvm_cdmpp.models.baselines import (
        BASELINES,
        Baseline,
        ModelSize,
        TreeOptions,
        TreePredictor,
        make_baseline,
    )
    from tvm_cdmpp.models.checkpoint import Content, read_checkpoint, write_checkpoint
    from tvm_cdmpp.models.contract import CostPredictor, Prediction
    from tvm_cdmpp.models.fitting import FitConfig
    from tvm_cdmpp.models.intervals import SIGMAS_90, interval
    from tvm_cdmpp.models.leaves import (
        NUM_INPUTS,
        Leaves,
        leaf_inputs,
        make_leaves,
        stack_devices,
    )
    from tvm_cdmpp.models.neighbours import Neighbours
    from tvm_cdmpp.models.network import Inputs, Network, PredictorConfig, torch_threads
    from tvm_cdmpp.models.predictor import Predictor
    from tvm_cdmpp.models.rows import ASTSource, Ints, Machine, TrainingRows
    from tvm_cdmpp.models.trained import Expert, TrainedPredictor, round_weights
    from tvm_cdmpp.models.weight_files import WEIGHTS, find_weights
    from tvm_cdmpp.models.weights import load_weights, predictor_of

__getattr__, __dir__ = offer(__name__)
