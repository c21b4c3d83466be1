"""Programs whose timings are in doubt run twice, and the faster run counts.

- The first program after a pause, in which others were built: cores that slept are not up to speed,
  and its threads may share one. On a virtual machine of two cores one in four of these programs
  took just twice as long as at any other time, in all of its repeats; most of that is gone since
  programs are timed off the cores of TVM's workers, where these are bound.
- A program whose repeats differ: TVM goes by their mean, and one that was interrupted may count for
  as much as all others.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tvm_cdmpp.bridge import failed, load_tvm

_BuildResult: Any = load_tvm().auto_scheduler.measure.BuildResult

_DIFFER = 1.2
"""Mean of the repeats to the fastest of them, from which on they differ."""
_SHORT_S = 0.25
"""Repeats that take longer together outlast any disturbance of these kinds."""


@dataclass(slots=True)
class SecondRuns:
    """Runs programs, and those again whose timings are in doubt.

    Attributes
    ----------
    total
        Programs that ran twice.
    counted
        Those of them whose second run was the faster one, so that it counts.
    """

    total: int = 0
    counted: int = 0

    def run(
        self, function: Callable[..., Any], inputs: Sequence[Any], built: Sequence[Any], *args: Any
    ) -> list[Any]:
        """Run a batch.

        Parameters
        ----------
        function
            TVM's function that runs programs, and removes what was built.
        inputs, built
            `MeasureInput` and `BuildResult` of each program.
        args
            Its other arguments.

        Returns
        -------
        results
            One `MeasureResult` per program.
        """
        with TemporaryDirectory(prefix="tvm-cdmpp-") as folder:
            copies = [copy_built(each, Path(folder, str(n))) for n, each in enumerate(built)]
            results = list(function(inputs, built, *args))
            doubtful = [n for n, each in enumerate(results) if is_doubtful(each, is_first=n == 0)]
            if doubtful:
                columns = [[column[n] for n in doubtful] for column in (inputs, copies)]
                self.total += len(doubtful)
                for n, again in zip(doubtful, function(*columns, *args), strict=True):
                    if 0 < sum(_costs_s(again)) < sum(_costs_s(results[n])):
                        self.counted += 1
                        results[n] = again
        return results

    def __str__(self) -> str:
        """Return a sentence; nothing where no program ran twice."""
        if not self.total:
            return ""
        return (
            f"{self.total} programs ran twice, as their timings were in doubt; "
            f"for {self.counted} the second run was the faster one, and counts"
        )


def is_doubtful(result: Any, *, is_first: bool) -> bool:
    """Tell whether the timings of a program are in doubt.

    Parameters
    ----------
    result
        Its `MeasureResult`.
    is_first
        Whether it ran after a pause.
    """
    costs_s = _costs_s(result)
    if not costs_s or not 0 < sum(costs_s) < _SHORT_S:
        return False
    return is_first or sum(costs_s) > _DIFFER * min(costs_s) * len(costs_s)


def _costs_s(result: Any) -> list[float]:
    return [] if failed(result) else [float(cost) for cost in result.costs]


def copy_built(built: Any, folder: Path) -> Any:
    """Return the same program in another folder, without copying the file if possible."""
    if built.error_no != 0:
        return built
    folder.mkdir()
    file = folder / Path(built.filename).name
    try:
        os.link(built.filename, file)
    except OSError:  # another file system
        shutil.copyfile(built.filename, file)
    return _BuildResult(
        str(file), built.args, built.error_no, str(built.error_msg), built.time_cost
    )
