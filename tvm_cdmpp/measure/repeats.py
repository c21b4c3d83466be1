"""Fewer timings of slow programs, so that they fit into the timeout of a run.

All repeats of a program share one timeout. A program of a second would lose it with ten of them,
and with it everything that is known of its task. So a run that times out is tried once more with a
single repeat, and the other programs of its task get so many as its fastest one has time for.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge import failed, latency_s, timed_out

# Where timeout, number and repeat stand among the arguments of TVM's functions that run programs.
LOCAL_TIMES, REMOTE_TIMES = slice(2, 5), slice(7, 10)
# What a program may take longer than the fastest one known, and still not time out.
_MARGIN = 2.0


class FewerRepeats:
    """Runs programs as TVM does, those of slow tasks with fewer repeats."""

    def __init__(self) -> None:
        # Latency of the fastest program of each task one of whose programs timed out.
        self._slow_s: dict[str, float] = {}

    def run(self, times: slice, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Run built programs.

        Parameters
        ----------
        times
            Where timeout, number and repeat stand among the arguments.
        function
            TVM's function that runs programs.
        args
            Its arguments; the first two are the `MeasureInput` and `BuildResult` of each program.

        Returns
        -------
        results
            One `MeasureResult` per program.
        """
        inputs, built, *rest = args
        timeout_s, _, repeat = args[times]
        at = times.stop - 1 - 2  # of the repeats, among the rest

        def measure(members: Sequence[int], repeat: int) -> list[Any]:
            if not members:
                return []
            few = [[column[m] for m in members] for column in (inputs, built)]
            return list(function(*few, *rest[:at], repeat, *rest[at + 1 :]))

        results: list[Any] = [None] * len(inputs)
        keys = [str(item.task.workload_key) for item in inputs]
        for key in dict.fromkeys(keys):
            members = [m for m in range(len(inputs)) if keys[m] == key]
            fitting = self._fitting(key, float(timeout_s), int(repeat))
            for m, result in zip(members, measure(members, fitting), strict=True):
                results[m] = result
            late = [m for m in members if built[m].error_no == 0 and timed_out(results[m])]
            if fitting > 1:
                for m, result in zip(late, measure(late, 1), strict=True):
                    results[m] = result
            for m in late:  # TVM leaves the files of what it could not run
                shutil.rmtree(Path(built[m].filename).parent, ignore_errors=True)
            if late or key in self._slow_s:
                known_s = [latency_s(results[m]) for m in members if not failed(results[m])]
                self._slow_s[key] = min([*known_s, self._slow_s.get(key, float(timeout_s))])
        return results

    def _fitting(self, key: str, timeout_s: float, repeat: int) -> int:
        """Return how many repeats of a task's programs fit, next to the run that warms up."""
        if key not in self._slow_s:
            return repeat
        return max(1, min(repeat, int(timeout_s / (_MARGIN * self._slow_s[key])) - 1))
