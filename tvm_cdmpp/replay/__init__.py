"""The latency of a network from those of its operators."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.replay.graph import Operator, OperatorGraph, Value, read_graph
    from tvm_cdmpp.replay.prediction import (
        FunctionPrediction,
        NetworkForecast,
        NetworkPrediction,
        predict,
    )
    from tvm_cdmpp.replay.repeated import in_network_s
    from tvm_cdmpp.replay.spreads import CORRELATION, joint_spread
    from tvm_cdmpp.replay.timeline import Event, QueueConfig, Timeline, replay
    from tvm_cdmpp.replay.warm import WarmEstimates

__getattr__, __dir__ = offer(__name__)
