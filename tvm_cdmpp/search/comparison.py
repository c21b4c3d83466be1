"""What a comparison of cost models is given and what it yields."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.files import parse_json
from tvm_cdmpp.measure import MeasureOptions, RemoteDevices
from tvm_cdmpp.search.baselines import COST_MODELS, arm_of
from tvm_cdmpp.search.reports import RoundReport, TimeSplit


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareSettings:
    """What is compared, and with which budget."""

    models: tuple[str, ...]
    """Arms, each once: kinds for `make_cost_model`, with `:evolve` where the search is that."""
    seeds: int = 1
    """Searches per model, with the seeds 0, 1, ..."""
    trials: int = 1000
    """Programs each search measures."""
    round_size: int = 64
    """Programs per round; in a `SearchComparison`, what the trials left of that."""
    measure: MeasureOptions = field(default_factory=MeasureOptions)

    def __post_init__(self) -> None:
        arms = {arm_of(name) for name in self.models}
        if not arms or len(arms) < len(self.models):
            raise ConfigError(
                f"expected some of {', '.join(COST_MODELS)}, each once; "
                f"got {', '.join(self.models) or 'nothing'}"
            )
        for name in ("seeds", "trials", "round_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnReport:
    """What one round of one search did, and where the comparison stands after it."""

    model: str
    seed: int
    round: RoundReport
    trials: int
    """Programs measured so far by all searches, earlier runs of the comparison included."""
    trials_in_all: int
    eta_s: float
    """Expected time to the end of all searches, at this run's pace."""


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
    remeasured_passes_s: tuple[float, ...] = ()
    """That latency in each pass over all tasks in which no winner failed."""
    failed_passes: int = 0
    """Failures of winners, over all tasks and passes; the latencies are without them."""

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
    threads: dict[str, int] = field(default_factory=dict)
    """Threads that each cost model scores with."""
    untuned_latency_s: float | None = None
    """The whole network as TVM compiles it without a log; None when not all its tasks were
    compared. Unlike the other latencies, it includes what is between the tasks, and caches are
    warm."""

    def of_model(self, model: str) -> list[SearchResult]:
        """Return a model's searches, by seed."""
        return [search for search in self.searches if search.model == model]

    def to_json(self) -> str:
        """Return everything as JSON text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "SearchComparison":
        """Return what `to_json` wrote.

        Raises
        ------
        RecordError
            The text is something else.
        """
        try:
            content = parse_json(text)
            settings = content["settings"]
            measure = dict(settings["measure"])
            if measure["remote"] is not None:
                measure["remote"] = RemoteDevices(**measure["remote"])
            content["settings"] = CompareSettings(
                **{
                    **settings,
                    "models": tuple(settings["models"]),
                    "measure": MeasureOptions(**measure),
                }
            )
            content["searches"] = tuple(_read_search(search) for search in content["searches"])
            for name in ("tasks", "weights"):
                content[name] = tuple(content[name])
            return cls(**content)
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(f"expected the JSON of a comparison: {error}") from error


def check_covers(file: Path, settings: CompareSettings, tasks: Sequence[str], target: str) -> None:
    """Raise unless a new comparison holds all that the one in a file does.

    Parameters
    ----------
    file
        Where the new comparison will be written; nothing is there to be lost if it is missing.
    settings, tasks, target
        What the new comparison compares.

    Raises
    ------
    RecordError
        The new one has fewer models, seeds or trials, or is of something else.
    """
    if not file.exists():
        return
    try:
        old = SearchComparison.from_json(file.read_text(encoding="utf-8"))
    except (OSError, RecordError) as error:
        raise RecordError(
            f"{file} would be replaced, but cannot be read: {error}. Choose another folder."
        ) from error
    covered = (
        set(old.settings.models) <= set(settings.models)
        and old.settings.seeds <= settings.seeds
        and old.settings.trials <= settings.trials
        and (old.tasks, old.target) == (tuple(tasks), target)
    )
    if not covered:
        raise RecordError(
            f"{file} holds another comparison: {', '.join(old.settings.models)} on "
            f"{len(old.tasks)} tasks of {old.network} for {old.target}, {old.settings.trials} "
            f"trials, {old.settings.seeds} seeds. It would be lost. Choose another folder, or ask "
            "for at least the same models, trials and seeds."
        )


def _read_search(content: dict[str, Any]) -> SearchResult:
    lists = ("remeasured_task_latencies_s", "remeasured_passes_s")
    return SearchResult(
        **{
            **content,
            **{name: tuple(content[name]) for name in lists if name in content},
            "points": tuple(Point(**point) for point in content["points"]),
            "split": TimeSplit(**content["split"]),
        }
    )
