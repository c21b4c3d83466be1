"""How fast this machine is at the moment, told by a program that runs again with every batch.

A virtual machine may be slow for seconds, when its cores share physical ones with each other or
with strangers: on one of two cores all programs took 1.3 to 1.7 times as long for a third of the
time, in phases of one to twenty seconds, all repeats alike. What is measured then says little of
the program next to those that were measured at other times.

So the fastest program of a task runs first with every batch of it, in place of another that would
run after a pause (see `doubtful`). What it takes longer than it did at its fastest, the others are
taken to have taken longer, too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tvm_cdmpp.bridge import failed, load_tvm
from tvm_cdmpp.measure.doubtful import copy_built

_MeasureResult: Any = load_tvm().auto_scheduler.MeasureResult

_SLOW = 1.2
"""Time of the reference to its fastest, from which on the machine is slow; less is noise."""
_FASTER = 0.9
"""Time of a program to that of the reference, from which on it takes its place."""


@dataclass(slots=True)
class _Reference:
    """A program that runs again and again."""

    measured: Any
    built: Any
    """Its `BuildResult`, whose file is kept."""
    fastest_s: float


class Pace:
    """Runs programs with a reference, while it is watched.

    Attributes
    ----------
    slowness
        How many times as long as at its fastest the reference took with the last batch; 1 where
        that is little, or where there was no reference yet.
    batches
        How many ran with a reference.
    slow
        The slowness of those for which it was not 1.
    """

    def __init__(self) -> None:
        self.slowness = 1.0
        self.batches = 0
        self.slow: list[float] = []
        self.watches = False
        self._references: dict[str, _Reference] = {}
        self._last: _Reference | None = None
        self._folder: TemporaryDirectory[str] | None = None
        self._files = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Let sessions run programs with a reference until the end of the `with` block."""
        self.watches = True
        try:
            yield
        finally:
            self.watches = False

    def close(self) -> None:
        """Forget the references, and remove their files."""
        self._references.clear()
        self._last = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def run(
        self, function: Callable[..., Any], inputs: Sequence[Any], built: Sequence[Any], *args: Any
    ) -> list[Any]:
        """Run a batch of one task.

        Parameters
        ----------
        function
            Runs programs, and removes what was built.
        inputs, built
            `MeasureInput` and `BuildResult` of each program.
        args
            Its other arguments.

        Returns
        -------
        results
            One `MeasureResult` per program, as measured.
        """
        key = str(inputs[0].task.workload_key)
        reference = self._references.get(key) or self._last
        self.slowness = 1.0
        with TemporaryDirectory(prefix="tvm-cdmpp-") as folder:
            copies = [copy_built(each, Path(folder, str(n))) for n, each in enumerate(built)]
            if reference is None:
                results = list(function(inputs, built, *args))
            else:
                again = copy_built(reference.built, Path(folder, "reference"))
                columns = [reference.measured, *inputs], [again, *built]
                first, *results = function(*columns, *args)
                self._see(reference, first)
            self._keep_fastest(key, inputs, copies, results)
        return results

    def __str__(self) -> str:
        """Return a sentence; nothing where the machine was never slow."""
        if not self.slow:
            return ""
        return (
            f"{len(self.slow)} of {self.batches} batches ran while this machine was slow, by a "
            f"factor of {statistics.median(self.slow):.2f} in the median, which the search allowed "
            "for"
        )

    def _see(self, reference: _Reference, result: Any) -> None:
        now_s = _fastest_s(result)
        if now_s is None:
            return
        self.batches += 1
        ratio = now_s / reference.fastest_s
        reference.fastest_s = min(now_s, reference.fastest_s)
        if ratio >= _SLOW:
            self.slowness = ratio
            self.slow.append(ratio)

    def _keep_fastest(
        self, key: str, inputs: Sequence[Any], copies: Sequence[Any], results: Sequence[Any]
    ) -> None:
        """Make the fastest program of a batch the reference, if it is faster than that."""
        times = {n: s for n, each in enumerate(results) if (s := _fastest_s(each)) is not None}
        if not times:
            return
        best = min(times, key=lambda n: times[n])
        fastest_s, known = times[best] / self.slowness, self._references.get(key)
        if known is None or fastest_s < _FASTER * known.fastest_s:
            self._folder = self._folder or TemporaryDirectory(prefix="tvm-cdmpp-")
            self._files += 1
            kept = copy_built(copies[best], Path(self._folder.name, str(self._files)))
            known = self._references[key] = _Reference(inputs[best], kept, fastest_s)
        self._last = known


def at_full_pace(result: Any, slowness: float) -> Any:
    """Return what a `MeasureResult` would be if the machine had not been so many times as slow."""
    if slowness == 1.0 or failed(result):
        return result
    costs_s = [float(cost) / slowness for cost in result.costs]
    return _MeasureResult(
        costs_s, 0, "", float(result.all_cost), float(result.timestamp)
    )  # fmt: skip


def _fastest_s(result: Any) -> float | None:
    """Return the fastest repeat; None for a failure."""
    costs_s = [] if failed(result) else [float(cost) for cost in result.costs]
    return min(costs_s) if costs_s and min(costs_s) > 0 else None
