"""The same search with several cost models, side by side.

What makes the comparison fair:

- Searches with the same seed take turns, round by round and in alternating order (A B, B A, ...),
  so that a machine that slows down slows all of them. A search's time is that of its own rounds.
- All measure the same number of programs, in the same way, one log per search.
- The best of many noisy measurements is too good to be true. So at the end, the winners of all
  searches are built anew and timed together, several times in turns; what counts is the median.

A folder holds one log and one history per search. A comparison that was interrupted goes on where
it was; searches that are done are not run again.
"""

import dataclasses
import itertools
import json
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import tvm_cdmpp
from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.bridge.tasks import task_name
from tvm_cdmpp.devices.host import read_host_cpu
from tvm_cdmpp.errors import ConfigError, MeasureError, RecordError
from tvm_cdmpp.files import write_atomically
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession
from tvm_cdmpp.search.comparison import CompareSettings, Point, SearchComparison, SearchResult
from tvm_cdmpp.search.reports import RoundReport, TimeSplit, TuneSettings
from tvm_cdmpp.search.tuner import NetworkTuner

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler

_FINAL_PASSES = 5


OnRound = Callable[[str, int, RoundReport], None]


def compare_models(
    network: str,
    tasks: Sequence[Any],
    weights: Sequence[int],
    settings: CompareSettings,
    *,
    folder: Path,
    session: MeasureSession,
    command: str = "",
    on_round: OnRound = lambda model, seed, report: None,
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
        An entered session; after its `stop`, the comparison ends early and incomplete.
    command
        How the comparison was started, for the report.
    on_round
        Called after every round with model, seed and report.

    Raises
    ------
    ConfigError
        The trials are too few to tune every task.
    RecordError
        The folder holds another comparison, or cannot be written.
    MeasureError
        A search could build and run nothing at all.
    """
    searches: list[_Search] = []
    for seed in range(settings.seeds):
        group = [_Search(model, seed, folder) for model in settings.models]
        for search in group:
            search.open(tasks, weights, settings, session)
        _take_turns(group, on_round)
        searches += group
    latencies: Sequence[Sequence[float | None]] = [()] * len(searches)
    try:
        session.check()
        latencies = remeasure([search.log for search in searches], tasks, settings.measure)
    except Exception:  # older TVMs turn SearchStopped into a TVMError on its way through C++
        if not session.stopping:
            raise
    return SearchComparison(
        network=network,
        target=str(tasks[0].target),
        tasks=tuple(task_name(task) for task in tasks),
        weights=tuple(weights),
        settings=settings,
        searches=tuple(
            search.result(weights, column)
            for search, column in zip(searches, latencies, strict=True)
        ),
        complete=not session.stopping,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=command,
        commit=_commit(),
        machine=_machine(),
    )


def remeasure(
    logs: Sequence[Path], tasks: Sequence[Any], options: MeasureOptions
) -> list[list[float | None]]:
    """Time the best programs of several logs together, in turns.

    Returns
    -------
    latencies_s
        Per log and task, the median over all passes; None where a log has no valid program.
    """
    builder = options.builder()
    runner = options.runner(on_cpu=str(tasks[0].target.kind.name) == "llvm")
    winners = [_winners(log, tasks) for log in logs]
    samples: dict[tuple[int, int], list[float]] = {
        (index, k): []
        for k, best in enumerate(winners)
        for index in range(len(tasks))
        if best[index] is not None
    }
    # All tasks in every pass, so that a disturbance of some seconds meets one sample of each; and
    # each pass begins with another log, since what runs first after a build may be disturbed by it.
    for number, index in itertools.product(range(_FINAL_PASSES), range(len(tasks))):
        turn = [k for k, best in enumerate(winners) if best[index] is not None]
        turn = turn[number % len(turn) :] + turn[: number % len(turn)] if turn else []
        programs = [winners[k][index] for k in turn]
        results = (
            runner.run(programs, builder.build(programs, verbose=0), verbose=0) if turn else ()
        )
        for k, result in zip(turn, results, strict=True):
            if int(result.error_no) == 0:
                samples[index, k] += [float(cost.value) for cost in result.costs]
    latencies_s: list[list[float | None]] = [[None] * len(tasks) for _ in logs]
    for (index, k), values in samples.items():
        if not values:
            raise MeasureError(
                f"the best program of {task_name(tasks[index])} in {logs[k]} ran during the "
                "search but not at the end. Run the same command again to repeat this step."
            )
        latencies_s[k][index] = statistics.median(values)
    return latencies_s


class _Search:
    """One search, what it left in the folder, and what it adds to that."""

    def __init__(self, model: str, seed: int, folder: Path) -> None:
        self.model, self.seed = model, seed
        self.log = folder / f"{model}-seed{seed}.json"
        self._history = folder / f"{model}-seed{seed}.history.json"
        self._points: list[Point] = []
        self._split = TimeSplit()
        self._failures: dict[str, int] = {}
        self._tuner: NetworkTuner | None = None

    def open(
        self,
        tasks: Sequence[Any],
        weights: Sequence[int],
        settings: CompareSettings,
        session: MeasureSession,
    ) -> None:
        """Read what is there, and get ready to go on unless all trials are done."""
        self._header = {
            "model": self.model,
            "seed": self.seed,
            "round_size": settings.round_size,
            "target": str(tasks[0].target),
            "tasks": [str(task.workload_key) for task in tasks],
        }
        self._load()
        if self._points and self._points[-1].trials >= settings.trials:
            return
        self._tuner = NetworkTuner(
            tasks,
            weights,
            self.model,
            TuneSettings(
                trials=settings.trials,
                round_size=settings.round_size,
                seed=self.seed,
                measure=settings.measure,
            ),
            log=self.log,
            session=session,
        )
        if self._tuner.left_out:
            raise ConfigError(
                f"{settings.trials} trials are too few for a comparison over {len(tasks)} tasks; "
                "give more trials or fewer tasks"
            )
        self._earlier_s = self._split.total_s

    def rounds(self) -> Iterator[RoundReport]:
        """Yield the reports of the rounds that were missing."""
        if self._tuner is None:
            return
        for report in self._tuner.rounds():
            point = Point(
                trials=report.trials,
                elapsed_s=self._earlier_s + report.elapsed_s,
                network_latency_s=report.network_latency_s,
            )
            self._points.append(point)
            self._split += report.split
            for kind, number in report.failures.items():
                self._failures[kind] = self._failures.get(kind, 0) + number
            self._save()
            yield report

    def result(self, weights: Sequence[int], latencies_s: Sequence[float | None]) -> SearchResult:
        """Return the whole search, with the re-measured latencies of its winners."""
        known = [s * w for s, w in zip(latencies_s, weights, strict=False) if s is not None]
        whole = bool(latencies_s) and len(known) == len(weights)
        return SearchResult(
            model=self.model,
            seed=self.seed,
            points=tuple(self._points),
            split=self._split,
            failures=self._failures,
            remeasured_latency_s=sum(known) if whole else None,
            remeasured_task_latencies_s=tuple(latencies_s),
        )

    def _save(self) -> None:
        content = {
            **self._header,
            "points": [dataclasses.asdict(point) for point in self._points],
            "split": dataclasses.asdict(self._split),
            "failures": self._failures,
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
            content = json.loads(self._history.read_text(encoding="utf-8"))
            header = {key: content[key] for key in self._header}
            points = [Point(**point) for point in content["points"]]
            split, failures = TimeSplit(**content["split"]), dict(content["failures"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(
                f"the history {self._history} cannot be read: {error}. Choose another folder."
            ) from error
        differ = [key for key in header if header[key] != self._header[key]]
        if differ:
            raise RecordError(
                f"{self._history} belongs to another comparison: its {' and '.join(differ)} "
                "differ. Choose another folder."
            )
        self._points, self._split, self._failures = points, split, failures


def _take_turns(group: Sequence[_Search], on_round: OnRound) -> None:
    """Run the searches of one seed round by round: forwards, backwards, forwards, ..."""
    turns = [(search, search.rounds()) for search in group]
    while turns:
        left = []
        for search, rounds in turns:
            report = next(rounds, None)
            if report is not None:
                on_round(search.model, search.seed, report)
                left.append((search, rounds))
        turns = left[::-1]


def _winners(log: Path, tasks: Sequence[Any]) -> list[Any]:
    """Return a log's best program for each task, None where it has no valid one."""
    best: dict[str, tuple[float, Any]] = {}
    for measured, result in auto_scheduler.RecordReader(str(log)):
        if int(result.error_no) == 0:
            latency_s = statistics.fmean(cost.value for cost in result.costs)
            key = str(measured.task.workload_key)
            if key not in best or latency_s < best[key][0]:
                best[key] = (latency_s, measured.state)
    return [
        auto_scheduler.MeasureInput(task, best[str(task.workload_key)][1])
        if str(task.workload_key) in best
        else None
        for task in tasks
    ]


def _machine() -> dict[str, Any]:
    cpu = read_host_cpu()
    return {
        "cpu": cpu.name,
        "physical_cores": cpu.physical_cores,
        "system": platform.platform(),
        "python": platform.python_version(),
        "tvm": str(tvm.__version__),
        "tvm_cdmpp": tvm_cdmpp.__version__,
    }


def _commit() -> str | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with suppress(OSError, subprocess.CalledProcessError):
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails outside of our checkout
        return git("describe", "--always", "--dirty", "--abbrev=12")
    return None
