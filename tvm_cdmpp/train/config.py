"""How a network is trained ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tvm_cdmpp.errors import ConfigError

PROGRAMS_PER_GROUP = 64
"""Programs of a group in a window."""

Domain = Literal["none", "cmd", "mmd"]
DomainLayer = Literal["features", "encoder"]
Ranking = Literal["pairwise", "listmle"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train."""

    steps: int = 21_000
    groups_per_batch: int = 96
    programs_per_group: int = 16
    window_batches: int = 80
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warm_up: float = 0.1
    label_power: float = 0.0
    """Errors are taken of the logarithm of the latency, or, with a power above 0, of its Box-Cox
    transform: of the square root with 0.5, of the latency itself with 1."""
    huber_delta: float = 0.3
    """Errors of the label beyond which they count linearly."""
    relative_weight: float = 3.0
    """Of the relative error, the other part of CDMPP's hybrid loss."""
    ranking: Ranking = "pairwise"
    """Loss of the order within a group; see `ranking`."""
    ranking_weight: float = 0.3
    ranking_scale: float = 5.0
    spread_weight: float = 0.1
    failure_weight: float = 0.1
    gradient_clip: float = 1.0
    average: float = 0.999
    """Decay of the running mean of the weights, which is what is kept."""
    rare_exponent: float = 0.0
    """A group weighs (groups of its operator)^-exponent."""
    domain: Domain = "none"
    """Distance between the latent vectors of the rows trained on and those of unlabelled rows."""
    domain_weight: float = 0.1
    domain_layer: DomainLayer = "features"
    """Which latent vectors: `features`, what the last layer is linear in, or `encoder`."""

    def __post_init__(self) -> None:
        """Reject settings that cannot train."""
        choices = (
            ("domain", Domain, self.domain),
            ("domain_layer", DomainLayer, self.domain_layer),
            ("ranking", Ranking, self.ranking),
        )
        for name, known, given in choices:
            if given not in get_args(known):
                raise ConfigError(
                    f"{name} must be one of {', '.join(get_args(known))}; got '{given}'."
                )
        if not 0 <= self.label_power <= 1:
            raise ConfigError(f"label_power must be in [0, 1]; got {self.label_power}.")
        if min(self.steps, self.groups_per_batch, self.window_batches) < 1:
            raise ConfigError("steps, groups_per_batch and window_batches must be at least 1.")
        if not 2 <= self.programs_per_group <= PROGRAMS_PER_GROUP:
            raise ConfigError(
                f"programs_per_group must be 2 to {PROGRAMS_PER_GROUP}; "
                f"got {self.programs_per_group}."
            )
