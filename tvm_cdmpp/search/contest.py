"""A contest: the same search with several cost models, side by side.

What makes the comparison fair:

- Searches with the same seed take turns, round by round and in alternating order (A B, B A, ...),
  so that a machine that slows down slows all of them. A search's time is that of its own rounds.
- All measure the same number of programs, in the same way, one log per search.
- At the end the winners of all searches are timed together (see `winners`).

A folder holds one log and one history per search. A contest that was interrupted goes on where it
was; searches that are done are not run again. A history is written after every batch, so a round
that a kill cut short keeps its programs and their time; that of the programs in flight is lost, and
so are they.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge import load_tvm, task_name
from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.files import locked, parse_json, write_atomically
from tvm_cdmpp.measure import Failures, MeasureSession
from tvm_cdmpp.search.baselines import arm_of, num_threads
from tvm_cdmpp.search.budget import largest_round
from tvm_cdmpp.search.comparison import (
    CompareSettings,
    Point,
    SearchComparison,
    SearchResult,
    TurnReport,
)
from tvm_cdmpp.search.provenance import describe_machine, find_commit
from tvm_cdmpp.search.reports import RoundReport, TimeSplit, TuneSettings
from tvm_cdmpp.search.tuner import NetworkTuner
from tvm_cdmpp.search.winners import WinnerTimes, time_winners

auto_scheduler = load_tvm().auto_scheduler

OnRound = Callable[[TurnReport], None]


def run_contest(
    network: str,
    tasks: Sequence[Any],
    weights: Sequence[int],
    settings: CompareSettings,
    *,
    folder: Path,
    session: MeasureSession,
    command: str = "",
    on_round: OnRound = lambda report: None,
) -> SearchComparison:
    """Search with every model and seed, then time the winners together.

    Parameters
    ----------
    network
        Its name, for the report.
    tasks, weights
        What to tune, and how often each task occurs.
    settings
        What to compare.
    folder
        Where logs and histories are; made if it does not exist.
    session
        An entered session; after its `stop`, the contest ends early and incomplete.
    command
        How the contest was started, for the report.
    on_round
        Called after every round.

    Returns
    -------
    comparison
        Its settings give the size that rounds really had.

    Raises
    ------
    ConfigError
        The trials are too few to tune every task.
    RecordError
        The folder holds another contest or one that is going on, or cannot be written.
    MeasureError
        A search could build and run nothing at all.
    """
    if settings.trials < len(tasks):
        raise ConfigError(
            f"{settings.trials} trials are too few for a comparison over {len(tasks)} tasks; "
            "give more trials or fewer tasks"
        )
    round_size = min(settings.round_size, largest_round(settings.trials, len(tasks)))
    settings = dataclasses.replace(settings, round_size=round_size)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "comparison.lock", f"a comparison in {folder}"):
        searches = [
            _Search(model, seed, folder, tasks, settings)
            for seed in range(settings.seeds)
            for model in settings.models
        ]
        turns = _Turns(searches, settings.trials, on_round)
        for seed in range(settings.seeds):
            group = [search for search in searches if search.seed == seed]
            for search in group:
                search.open(tasks, weights, settings, session)
            turns.take(group)
        times = _time_winners(searches, tasks, settings, session)
        return SearchComparison(
            network=network,
            target=str(tasks[0].target),
            tasks=tuple(task_name(task) for task in tasks),
            weights=tuple(weights),
            settings=settings,
            searches=tuple(
                search.result(weights, winner)
                for search, winner in zip(searches, times, strict=True)
            ),
            complete=not session.stopping,
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            command=command,
            commit=find_commit(),
            machine=describe_machine(),
            threads={model: num_threads(model) for model in settings.models},
        )


def _time_winners(
    searches: Sequence["_Search"],
    tasks: Sequence[Any],
    settings: CompareSettings,
    session: MeasureSession,
) -> Sequence[WinnerTimes | None]:
    """Time the winners; None for each when the session was stopped."""
    try:
        session.check()
        return time_winners([search.log for search in searches], tasks, settings.measure)
    except Exception:  # older TVMs turn SearchStopped into a TVMError on its way through C++
        if not session.stopping:
            raise
        return [None] * len(searches)


class _Search:
    """One search, what it left in the folder, and what it adds to that."""

    def __init__(
        self,
        model: str,
        seed: int,
        folder: Path,
        tasks: Sequence[Any],
        settings: CompareSettings,
    ) -> None:
        self.model, self.seed = model, seed
        name = f"{model.replace(':', '-')}-seed{seed}"
        self.log = folder / f"{name}.json"
        self._history = folder / f"{name}.history.json"
        self._points: list[Point] = []
        self._split = TimeSplit()
        self._tuner: NetworkTuner | None = None
        self._header = {
            "model": model,
            "seed": seed,
            "round_size": settings.round_size,
            "target": str(tasks[0].target),
            "tasks": [str(task.workload_key) for task in tasks],
            "measure": dataclasses.asdict(settings.measure),
        }
        self._load()
        if self.trials > settings.trials:
            raise RecordError(
                f"{self._history} has {self.trials} trials already, more than the "
                f"{settings.trials} asked for. Choose another folder, or ask for as many."
            )

    @property
    def trials(self) -> int:
        """Programs measured so far, those of a round that a kill cut short only after `open`."""
        return self._points[-1].trials if self._points else 0

    def open(
        self,
        tasks: Sequence[Any],
        weights: Sequence[int],
        settings: CompareSettings,
        session: MeasureSession,
    ) -> None:
        """Get ready to go on, unless all trials are done."""
        if self.trials == settings.trials:
            return
        kind, search = arm_of(self.model)
        self._tuner = NetworkTuner(
            tasks,
            weights,
            kind,
            TuneSettings(
                trials=settings.trials,
                round_size=settings.round_size,
                seed=self.seed,
                search=search,
                measure=settings.measure,
            ),
            log=self.log,
            session=session,
            on_batch=self._save,
        )
        if self._tuner.trials < self.trials:
            raise RecordError(
                f"{self.log} has {self._tuner.trials} records, but its history knows "
                f"{self.trials}. Choose another folder, or put the log back."
            )
        if self._tuner.trials > self.trials:  # a kill inside a round
            self._add_point(self._tuner.trials, self._tuner.network_latency_s)

    def rounds(self) -> Iterator[RoundReport]:
        """Yield the reports of the rounds that were missing."""
        if self._tuner is None:
            return
        self._save()  # from now on, a log without a history is not ours
        for report in self._tuner.rounds():
            self._split += report.split
            self._add_point(report.trials, report.network_latency_s)
            yield report

    def result(self, weights: Sequence[int], winners: WinnerTimes | None) -> SearchResult:
        """Return the whole search, with the re-measured latencies of its winners."""
        return SearchResult(
            model=self.model,
            seed=self.seed,
            points=tuple(self._points),
            split=self._split,
            failures=_count_failures(self.log),
            remeasured_latency_s=winners.latency_s(weights) if winners else None,
            remeasured_task_latencies_s=winners.task_latencies_s if winners else (),
            remeasured_passes_s=winners.pass_latencies_s(weights) if winners else (),
            failed_passes=winners.failed_passes if winners else 0,
        )

    def _add_point(self, trials: int, network_latency_s: float | None) -> None:
        self._points.append(
            Point(
                trials=trials,
                elapsed_s=self._split.total_s,
                network_latency_s=network_latency_s,
            )
        )
        self._save()

    def _save(self, in_round: TimeSplit | None = None) -> None:
        content = {
            **self._header,
            "points": [dataclasses.asdict(point) for point in self._points],
            "split": dataclasses.asdict(self._split + (in_round or TimeSplit())),
        }
        try:
            write_atomically(self._history, json.dumps(content).encode())
        except OSError as error:
            raise RecordError(
                f"the history {self._history} cannot be written: {error.strerror}"
            ) from error

    def _load(self) -> None:
        if not self._history.exists():
            if self.log.exists() and self.log.stat().st_size:
                raise RecordError(
                    f"{self.log} has no history ({self._history.name}) next to it, so the time it "
                    "took is unknown. Choose another folder, or remove the log."
                )
            return
        try:
            content = parse_json(self._history.read_text(encoding="utf-8"))
            header = {key: content[key] for key in self._header}
            points = [Point(**point) for point in content["points"]]
            split = TimeSplit(**content["split"])
            options = {
                "round_size": f"--round {header['round_size']}",
                "measure": "--build-timeout {build_timeout_s} --run-timeout {run_timeout_s}".format(
                    **header["measure"]
                ),
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(
                f"the history {self._history} cannot be read: {error}. Choose another folder."
            ) from error
        differ = [key for key in header if header[key] != self._header[key]]
        if differ:
            had = " ".join(options[key] for key in differ if key in options)
            raise RecordError(
                f"{self._history} belongs to another comparison: its {' and '.join(differ)} "
                f"differ{had and f' (it had {had})'}. Choose another folder."
            )
        self._points, self._split = points, split


class _Turns:
    """The searches of a contest, round by round, and how far all of them are."""

    def __init__(self, searches: Sequence[_Search], trials: int, on_round: OnRound) -> None:
        self._searches = searches
        self._trials_in_all = trials * len(searches)
        self._on_round = on_round
        self._measured = 0
        self._elapsed_s = 0.0

    def take(self, group: Sequence[_Search]) -> None:
        """Run the searches of one seed: forwards, backwards, forwards, ..."""
        turns = [(search, search.rounds()) for search in group]
        while turns:
            left = []
            for search, rounds in turns:
                report = next(rounds, None)
                if report is not None:
                    self._on_round(self._report(search, report))
                    left.append((search, rounds))
            turns = left[::-1]

    def _report(self, search: _Search, report: RoundReport) -> TurnReport:
        self._measured += report.measured
        self._elapsed_s += report.split.total_s
        trials = sum(search.trials for search in self._searches)
        return TurnReport(
            model=search.model,
            seed=search.seed,
            round=report,
            trials=trials,
            trials_in_all=self._trials_in_all,
            eta_s=self._elapsed_s / max(1, self._measured) * (self._trials_in_all - trials),
        )


def _count_failures(log: Path) -> dict[str, int]:
    """Count a log's failed programs by kind of failure."""
    failures = Failures()
    if log.exists():
        for _, result in auto_scheduler.RecordReader(str(log)):
            failures.count(result)
    return dict(failures.counts)
