"""Searches that can be killed and go on: a log and a file each, turns between them, winners.

Below a folder there is one for each task, with `ARM-SEED.log.json`, what was measured, and
`ARM-SEED.json`, the seconds at the end of every batch and the time by parts; and `winners.json`,
the best programs of all searches timed together. Files are written after every batch: a kill loses
the programs in flight, and their time.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.search_arms import Arm, Job, Search
from benchmarks.search_summary import Curve
from benchmarks.search_tasks import NamedTask
from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.errors import CDMPPError, RecordError
from tvm_cdmpp.files import write_atomically
from tvm_cdmpp.measure import MeasureOptions, MeasureSession
from tvm_cdmpp.search import TimeSplit
from tvm_cdmpp.search.winners import time_winners

tvm = load_tvm()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all searches share; a folder is for one of these."""

    trials: int
    round_size: int
    recorded_per_task: int | None = None
    """Recorded programs of a task that trees were grown on ahead; None without such arms."""
    measure: MeasureOptions = field(default_factory=MeasureOptions)


class SearchRun:
    """One search of one task.

    Parameters
    ----------
    named
        The task.
    arm_name, arm, seed
        How it is searched.
    settings, folder
        Of the comparison.

    Raises
    ------
    RecordError
        The folder has this search with other settings.
    """

    def __init__(
        self,
        named: NamedTask,
        arm_name: str,
        arm: Arm,
        seed: int,
        *,
        settings: Settings,
        folder: Path,
    ) -> None:
        self.named, self.arm_name, self.seed = named, arm_name, seed
        stem = folder / named.name / f"{arm_name}-{seed}"
        self.log = stem.with_name(f"{stem.name}.log.json")
        self._arm, self._settings = arm, settings
        self._file = stem.with_name(f"{stem.name}.json")
        self._header = {
            "task": named.description,
            "workload": str(named.task.workload_key),
            "target": str(named.task.target),
            "trials": settings.trials,
            "round_size": settings.round_size,
            "measure": asdict(settings.measure),
        }
        self._batches: list[dict[str, Any]] = []
        self._split = TimeSplit()
        self.error: str | None = None
        self.is_over = False
        if self._file.exists():
            self._load()

    def rounds(self, session: MeasureSession) -> Iterator[str]:
        """Search on, yielding what became of each round in words; a search ends by an error, too.

        After `MeasureSession.stop` it is not over, and goes on another time.
        """
        if self.is_over:
            return
        self._log_lines()  # the folder must be there
        parts = self._arm(
            Job(
                task=self.named.task,
                seed=self.seed,
                trials=self._settings.trials,
                round_size=self._settings.round_size,
                log=self.log,
                session=session,
                options=self._settings.measure,
                on_batch=self._on_batch,
            )
        )
        try:
            yield from self._rounds_of(parts)
        except Exception as error:
            if session.stopping:
                return
            if not isinstance(error, (CDMPPError, tvm.TVMError)):
                raise
            self.error = str(error)
        if not session.stopping:
            self.is_over = True
            self._save(self._split)

    def _rounds_of(self, parts: Iterator[Search]) -> Iterator[str]:
        for part in parts:
            self._part, self._before = part, self._split
            for _ in part.rounds():
                self._split = self._before + part.elapsed
                self._save(self._split)
                yield self._words()

    def curve(self) -> Curve:
        """Return what was found, and when."""
        latencies_s = tuple(self._latencies_s())
        batches = [(b["trials"], sum(b["split_s"].values())) for b in self._batches]
        if len(latencies_s) > (batches[-1][0] if batches else 0):  # a kill right after a batch
            batches.append((len(latencies_s), self._split.total_s))
        return Curve(
            task=self.named.name,
            arm=self.arm_name,
            seed=self.seed,
            latencies_s=latencies_s,
            batches=tuple(batches),
            split_s=asdict(self._split),
        )

    def _on_batch(self, in_round: TimeSplit) -> None:
        now = self._before + self._part.elapsed + in_round
        latencies_s = self._latencies_s()
        best_s = min(latencies_s, default=math.inf)
        self._batches.append(
            {
                "trials": len(latencies_s),
                "latency_s": best_s if math.isfinite(best_s) else None,
                "split_s": asdict(now),
            }
        )
        self._save(now)

    def _words(self) -> str:
        latency_s = self._batches[-1]["latency_s"] if self._batches else None
        best = "no program runs yet" if latency_s is None else f"{1e3 * latency_s:.4g} ms"
        trials = self._batches[-1]["trials"] if self._batches else 0
        return (
            f"{self.named.name} {self.arm_name} seed {self.seed}: {trials}/{self._settings.trials} "
            f"trials, {best}, {self._split.total_s:.0f} s"
        )

    def _latencies_s(self) -> list[float]:
        """Return the latencies of the log, in order; infinite for failures."""
        found = []
        for line in self._log_lines():
            costs, error_no, *_ = json.loads(line)["r"]
            found.append(math.inf if error_no else statistics.fmean(costs))
        return found

    def _log_lines(self) -> list[str]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith("{") and line.endswith("}")]

    def _save(self, split: TimeSplit) -> None:
        content = {
            **self._header,
            "is_over": self.is_over,
            "error": self.error,
            "split_s": asdict(split),
            "batches": self._batches,
        }
        write_atomically(self._file, json.dumps(content, indent=1).encode())

    def _load(self) -> None:
        content = json.loads(self._file.read_text(encoding="utf-8"))
        differ = [name for name, value in self._header.items() if content[name] != value]
        if differ:
            raise RecordError(
                f"{self._file} is of another comparison: its {' and '.join(differ)} differ. "
                "Choose another folder."
            )
        self._batches, self._split = content["batches"], TimeSplit(**content["split_s"])
        self.is_over, self.error = content["is_over"], content["error"]


def take_turns(runs: Sequence[SearchRun], session: MeasureSession) -> None:
    """Run searches round by round: forwards, backwards, forwards, ..., printing every round."""
    turns = [(run, run.rounds(session)) for run in runs]
    while turns:
        left = []
        for run, rounds in turns:
            words = next(rounds, None)
            if words is not None:
                print(words, flush=True)
                left.append((run, rounds))
            elif run.error:
                print(f"{run.named.name} {run.arm_name} seed {run.seed}: {run.error}", flush=True)
        turns = left[::-1]


def timed_winners(
    named: NamedTask, runs: Sequence[SearchRun], folder: Path, options: MeasureOptions
) -> dict[str, dict[str, Any]]:
    """Time the best programs of a task's searches together, or read what was timed before.

    Returns
    -------
    winners
        By arm and seed, `ARM-SEED`: the median latency, and how often the program failed.
    """
    file = folder / named.name / "winners.json"
    with_program = [run for run in runs if math.isfinite(run.curve().latency_at(1 << 30))]
    names = [f"{run.arm_name}-{run.seed}" for run in with_program]
    if file.exists():
        known: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        if set(known) == set(names):
            return known
    times = time_winners([run.log for run in with_program], [named.task], options) if names else []
    found = {
        name: {"latency_s": of_run.task_latencies_s[0], "failed_passes": of_run.failed_passes}
        for name, of_run in zip(names, times, strict=True)
    }
    write_atomically(file, json.dumps(found, indent=1).encode())
    return found
