"""What a comparison of cost models is given and what it yields."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.measure.session import MeasureOptions
from tvm_cdmpp.search.baselines import COST_MODELS
from tvm_cdmpp.search.reports import TimeSplit


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareSettings:
    """What is compared, and with which budget."""

    models: tuple[str, ...]
    """Kinds for `make_cost_model`, each once."""
    seeds: int = 1
    """Searches per model, with the seeds 0, 1, ..."""
    trials: int = 1000
    """Programs each search measures."""
    round_size: int = 64
    """Programs per round."""
    measure: MeasureOptions = field(default_factory=MeasureOptions)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.models) - set(COST_MODELS))
        if unknown or not self.models or len(set(self.models)) < len(self.models):
            raise ConfigError(
                f"expected some of {', '.join(COST_MODELS)}, each once; "
                f"got {', '.join(self.models) or 'nothing'}"
            )
        for name in ("seeds", "trials", "round_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """Where a search stood after a round."""

    trials: int
    elapsed_s: float
    network_latency_s: float | None
    """As measured during the search; None while a task has no valid program."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """One search of a comparison."""

    model: str
    seed: int
    points: tuple[Point, ...]
    split: TimeSplit
    failures: dict[str, int]
    """Programs that failed, by kind of failure."""
    remeasured_latency_s: float | None = None
    """Latency of the winners, timed together with those of all other searches."""
    remeasured_task_latencies_s: tuple[float | None, ...] = ()

    def latency_at(self, trials: int) -> float | None:
        """Return the network latency, as searched, after so many trials."""
        known = [p.network_latency_s for p in self.points if p.trials <= trials]
        return known[-1] if known else None

    @property
    def best_latency_s(self) -> float | None:
        """The network latency at the end, as searched."""
        return self.points[-1].network_latency_s if self.points else None

    def first_reaching(self, latency_s: float) -> Point | None:
        """Return the first point with at most this latency, as searched."""
        for point in self.points:
            if point.network_latency_s is not None and point.network_latency_s <= latency_s:
                return point
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchComparison:
    """All searches, and all that is needed to repeat them."""

    network: str
    target: str
    tasks: tuple[str, ...]
    weights: tuple[int, ...]
    settings: CompareSettings
    searches: tuple[SearchResult, ...]
    complete: bool
    """False when the comparison was stopped; there are no re-measured latencies then."""
    date: str
    command: str
    commit: str | None
    """Commit of this package, when it runs from a git checkout."""
    machine: dict[str, Any]

    def of_model(self, model: str) -> list[SearchResult]:
        """Return a model's searches, by seed."""
        return [search for search in self.searches if search.model == model]

    def to_json(self) -> str:
        """Return everything as JSON text."""
        return json.dumps(asdict(self), indent=1) + "\n"
