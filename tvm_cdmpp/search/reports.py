"""What a search is given and what it reports: plain values, ready for `dataclasses.asdict`."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tvm_cdmpp.arguments import check_seed
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.measure import MeasureOptions

if TYPE_CHECKING:
    from tvm_cdmpp.search.guard import Overruled

SEARCHES = ("sketch", "evolve")
"""TVM's `SketchPolicy`; or its sketches, and evolution without TVM, for CDMPP models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneSettings:
    """The budget and the set-up of a search."""

    trials: int = 1000
    """Programs to measure in all, those in the log included."""
    round_size: int = 64
    """Programs to measure per round, less when the trials are few."""
    seed: int = 0
    search: str = "sketch"
    """How candidates are found, one of `SEARCHES`."""
    time_s: float = math.inf
    """Time for the rounds of one run; none starts that would not fit."""
    tasks: tuple[int, ...] | None = None
    """Indices of the tasks to tune; None for all."""
    measure: MeasureOptions = field(default_factory=MeasureOptions)

    def __post_init__(self) -> None:
        for name in ("trials", "round_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        check_seed(self.seed)
        if not self.time_s > 0:
            raise ConfigError(f"the time for a search must be above 0 s, got {self.time_s}")
        if self.search not in SEARCHES:
            raise ConfigError(
                f"unknown search {self.search!r}; expected one of {', '.join(SEARCHES)}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeSplit:
    """Where the wall time of a search went."""

    search_s: float = 0.0
    """Sampling and mutating candidates, and all that is not one of the others."""
    predict_s: float = 0.0
    update_s: float = 0.0
    build_s: float = 0.0
    run_s: float = 0.0

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.search_s + self.predict_s + self.update_s + self.build_s + self.run_s

    def __add__(self, other: "TimeSplit") -> "TimeSplit":
        return TimeSplit(
            search_s=self.search_s + other.search_s,
            predict_s=self.predict_s + other.predict_s,
            update_s=self.update_s + other.update_s,
            build_s=self.build_s + other.build_s,
            run_s=self.run_s + other.run_s,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundReport:
    """What one round did and where the search stands after it."""

    task: int
    """Index of the task in the list that the tuner was given."""
    name: str
    task_latency_s: float | None
    """Latency of the task's best program; None while there is no valid one."""
    network_latency_s: float | None
    """Sum of weight times best latency over the tuned tasks; None while one has no program."""
    measured: int
    """Programs measured in this round."""
    failures: dict[str, int]
    """Those of them that failed, by kind of failure."""
    trials: int
    """Programs measured so far, those found in the log included."""
    trials_in_all: int
    """The search's budget."""
    split: TimeSplit
    """The time of this round."""
    elapsed_s: float
    """The time of all rounds of this run so far."""
    eta_s: float
    """Expected time to the end, at this run's pace."""
    overruled: "tuple[Overruled, ...]" = ()
    """Classes of operator for which the weights that the model started with are wrong here, as this
    round was the first of the run to show."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskResult:
    """What the search found for a task."""

    name: str
    weight: int
    flops: float
    """Floating point operations of one run; negative where TVM cannot count them."""
    trials: int
    latency_s: float | None
    """Of the best program; None without a valid one."""
    tuned: bool
    """False when there were fewer trials than tasks and others had more work."""
