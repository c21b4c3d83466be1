"""The best programs of several logs, timed together.

The best of many noisy measurements is too good to be true. So winners are built anew and timed
several times, in turns; what counts is the median.
"""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge import load_tvm, task_name
from tvm_cdmpp.errors import MeasureError
from tvm_cdmpp.measure import MeasureOptions

auto_scheduler = load_tvm().auto_scheduler

PASSES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class WinnerTimes:
    """How long the best programs of one log took."""

    samples_s: tuple[tuple[tuple[float, ...], ...] | None, ...]
    """Per task and pass, the latencies; empty where the program failed in that pass, and None
    instead of passes where the log has no valid program of the task."""

    @property
    def task_latencies_s(self) -> tuple[float | None, ...]:
        """Per task, the median over all passes."""
        return tuple(
            None if passes is None else statistics.median(itertools.chain(*passes))
            for passes in self.samples_s
        )

    @property
    def failed_passes(self) -> int:
        """Failures, over all tasks and passes; the medians are without them."""
        return sum(not samples for passes in self.samples_s for samples in passes or ())

    def latency_s(self, weights: Sequence[int]) -> float | None:
        """Return the sum of weight times latency; None while a task has no program."""
        return _weighted_sum(self.task_latencies_s, weights)

    def pass_latencies_s(self, weights: Sequence[int]) -> tuple[float, ...]:
        """Return that sum for each pass in which no program failed."""
        if any(passes is None for passes in self.samples_s):
            return ()
        columns = zip(*(passes or () for passes in self.samples_s), strict=True)
        sums = (
            _weighted_sum([statistics.median(s) if s else None for s in column], weights)
            for column in columns
        )
        return tuple(latency_s for latency_s in sums if latency_s is not None)


def time_winners(
    logs: Sequence[Path], tasks: Sequence[Any], options: MeasureOptions
) -> list[WinnerTimes]:
    """Time the best programs of several logs together, in `PASSES` passes.

    All tasks are in every pass, so that a disturbance of some seconds meets one sample of each;
    each pass begins with another log. What runs first after a build may take twice as long, so
    the first program of a task is run once more before them, and that run is not counted.

    Raises
    ------
    MeasureError
        A program failed in every pass.
    """
    builder = options.builder()
    runner = options.runner(on_cpu=str(tasks[0].target.kind.name) == "llvm")
    winners = [_best_programs(log, tasks) for log in logs]
    samples: list[list[list[tuple[float, ...]]]] = [[[] for _ in tasks] for _ in logs]
    for number, index in itertools.product(range(PASSES), range(len(tasks))):
        turn = [k for k, best in enumerate(winners) if best[index] is not None]
        if not turn:
            continue
        turn = turn[number % len(turn) :] + turn[: number % len(turn)]
        programs = [winners[k][index] for k in (turn[0], *turn)]
        _, *results = runner.run(programs, builder.build(programs, verbose=0), verbose=0)
        for k, result in zip(turn, results, strict=True):
            failed = int(result.error_no) != 0
            costs = () if failed else tuple(float(cost.value) for cost in result.costs)
            samples[k][index].append(costs)
    for k, index in itertools.product(range(len(logs)), range(len(tasks))):
        if winners[k][index] is not None and not any(samples[k][index]):
            raise MeasureError(
                f"the best program of {task_name(tasks[index])} in {logs[k]} ran during the "
                "search but not at the end. Run the same command again to repeat this step."
            )
    return [
        WinnerTimes(
            samples_s=tuple(
                None if program is None else tuple(passes)
                for program, passes in zip(best, of_log, strict=True)
            )
        )
        for best, of_log in zip(winners, samples, strict=True)
    ]


def _weighted_sum(latencies_s: Sequence[float | None], weights: Sequence[int]) -> float | None:
    known = [s * w for s, w in zip(latencies_s, weights, strict=True) if s is not None]
    return sum(known) if len(known) == len(weights) else None


def _best_programs(log: Path, tasks: Sequence[Any]) -> list[Any]:
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
