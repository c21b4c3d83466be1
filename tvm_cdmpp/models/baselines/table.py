"""All baselines by name.

TLP (Zhai et al., ASPLOS 2023) and XGBoost on Ansor's features are not among them: the one reads the
primitives of a schedule, the other the lowered program, and what models are given here, compact
ASTs, no longer holds these. `benchmarks.tlp` and `benchmarks.ansor_trees` read them from a store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models.baselines.graph import GraphPredictor
from tvm_cdmpp.models.baselines.habitat import HabitatPredictor
from tvm_cdmpp.models.baselines.lstm import RecursiveLSTMPredictor
from tvm_cdmpp.models.baselines.mlp import MLPPredictor
from tvm_cdmpp.models.baselines.roofline import RooflinePredictor
from tvm_cdmpp.models.baselines.trees import TreePredictor
from tvm_cdmpp.models.contract import CostPredictor


@dataclass(frozen=True)
class Baseline:
    """A model to compare with."""

    predictor: type[CostPredictor]
    """Its class, to load saved ones."""
    description: str
    make: Callable[[int], CostPredictor]
    """Returns a fresh one, given a seed."""


def _network(
    predictor: type[GraphPredictor | HabitatPredictor | MLPPredictor | RecursiveLSTMPredictor],
    setting: str,
    description: str,
) -> Baseline:
    return Baseline(predictor, description, lambda seed: predictor.untrained(setting, seed=seed))


BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        "roofline": Baseline(
            RooflinePredictor,
            "the analytic estimate, with a level per device",
            lambda _: RooflinePredictor(),
        ),
        "trees": Baseline(
            TreePredictor,
            "XGBoost over a summary of the leaves, from the analytic estimate",
            lambda _: TreePredictor(),
        ),
        "tenset-mlp": _network(
            MLPPredictor, "tuned", "TenSet's MLP, trained on latencies and order"
        ),
        "tenset-mlp-paper": _network(
            MLPPredictor, "paper", "TenSet's MLP as published: it learns the order only"
        ),
        "tiramisu-lstm": _network(
            RecursiveLSTMPredictor,
            "tuned",
            "Tiramisu's LSTM over leaves, trained on latencies and order",
        ),
        "tiramisu-lstm-paper": _network(
            RecursiveLSTMPredictor,
            "paper",
            "Tiramisu's LSTM over leaves, trained on the percentage error as published",
        ),
        "habitat": _network(
            HabitatPredictor,
            "tuned",
            "Habitat's MLP for each class of operator, small, trained on latencies and order",
        ),
        "habitat-paper": _network(
            HabitatPredictor,
            "paper",
            "Habitat's MLP for each class of operator, size and percentage error as published",
        ),
        "graph": _network(GraphPredictor, "skip", "a graph network over neighbouring leaves"),
        "graph-plain": _network(
            GraphPredictor, "plain", "the graph network without skip connections"
        ),
    }
)
"""What the predictor is compared with; each learns from the same rows as the others."""


def make_baseline(name: str, *, seed: int) -> CostPredictor:
    """Make a fresh baseline.

    Raises
    ------
    ConfigError
        There is no baseline of this name.
    """
    if name not in BASELINES:
        raise ConfigError(f"unknown baseline '{name}'; expected one of {', '.join(BASELINES)}.")
    return BASELINES[name].make(seed)
