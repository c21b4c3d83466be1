"""Measuring a batch on a machine that is quiet, and writing it down with what vouches for it.

After each batch the calibration program is measured: if the machine was noisy the batch is measured
again after a pause, and it is an error, or goes on and marks the batch, if it stays so.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np

from tvm_cdmpp.bridge import failed, possible_latency_s
from tvm_cdmpp.errors import MeasureError
from tvm_cdmpp.measure.calibration import Calibration, CalibrationConfig, matmul_timer
from tvm_cdmpp.measure.doubtful import copy_built
from tvm_cdmpp.measure.outcomes import record_batch
from tvm_cdmpp.measure.session import MeasureOptions
from tvm_cdmpp.measure.untuned import build_all
from tvm_cdmpp.networks import OwnFunction

_Value = TypeVar("_Value")

_LOOK_EVERY_S = 0.1  # while pausing, for a request to stop


class QuietMachine:
    """Builds, runs and records batches; use it inside an entered `MeasureSession`.

    Parameters
    ----------
    target
        What programs are built for.
    options
        How they are measured.
    config
        What is noisy, and what follows.
    log
        The Ansor log; calibrations go to `LOG.calibration.jsonl`.
    measure_calibration
        Returns the latency of the calibration program in seconds; TVM's measurement of it by
        default.
    passes
        How many times a batch runs, each time in another order; of each program's runs the middle
        one counts, and one that failed does not run again. A machine that others use may be slow
        for seconds, which the calibration program need not see, but seldom at most moments.

    Attributes
    ----------
    calibration
        Of this run.
    check_s
        Seconds of the calibration program that vouch for the last batch: after its pass that was
        the middle one by them.
    stopping
        Set by others: whether a pause is to end, and no batch to be measured again.

    Raises
    ------
    MeasureError
        The remote devices cannot be reached.
    """

    def __init__(
        self,
        target: Any,
        options: MeasureOptions,
        config: CalibrationConfig,
        *,
        log: Path,
        measure_calibration: Callable[[], float] | None = None,
        passes: int = 1,
    ) -> None:
        self._passes, self._random = passes, np.random.default_rng(0)
        self._target, self._config, self._log = target, config, log
        self._builder = options.builder()
        self._runner = options.runner(on_cpu=str(target.kind.name) == "llvm")
        self._num_lines = log.read_bytes().count(b"\n")
        self.calibration = Calibration(
            measure_calibration
            or matmul_timer(
                self._builder,
                self._runner,
                target,
                num_devices=1 if options.remote is None else options.remote.count(),
            ),
            config,
            calibration_file(log),
        )
        self.check_s = 0.0
        self.stopping = False

    def start(self) -> None:
        """Learn what is quiet; a machine that is busy at the start must not set the scale.

        Raises
        ------
        MeasureError
            The machine stays noisy.
        """
        config = self._config
        for attempt in range(config.attempts):
            if attempt:
                self._pause()
            for _ in range(config.start_measurements):
                self.calibration.check()
                self.calibration.write(self._num_lines, 0)
            recent = self.calibration.latencies_s[-config.start_measurements :]
            # The first program of a process is slower, so one of them may be.
            if sum(map(self.calibration.is_noisy, recent)) <= 1 or self.stopping:
                return
        if not config.keep_noisy:
            raise self._noisy_error()

    def measure(
        self, inputs: list[Any], functions: Sequence[OwnFunction | None] | None = None
    ) -> tuple[list[Any], int] | None:
        """Return results and attempts; None when asked to stop before any pass was quiet.

        Parameters
        ----------
        inputs, functions
            As of `build_all`; no functions where all are programs of a search.

        Raises
        ------
        MeasureError
            The machine stays noisy.
        """
        own = functions or [None] * len(inputs)
        built = build_all(inputs, own, self._builder, self._target)
        runs = [list[Any]() for _ in inputs]
        checks_s, attempts = list[float](), 0
        with _kept(built) as copies_of:
            for _ in range(self._passes):
                places = [n for n, found in enumerate(runs) if not any(map(failed, found))]
                if not places or (checks_s and self.stopping):
                    break
                self._random.shuffle(places)
                chosen = [inputs[place] for place in places]
                passed = self._quiet_pass(chosen, partial(copies_of, places))
                if passed is None:
                    break
                results, attempt = passed
                attempts += attempt
                checks_s.append(self.calibration.latencies_s[-1])
                for place, result in zip(places, results, strict=True):
                    runs[place].append(result)
        if not checks_s:
            return None
        self.check_s = _middle(checks_s, float)
        return [_middle(found, possible_latency_s) for found in runs], attempts

    def _quiet_pass(
        self, inputs: list[Any], copies: Callable[[], list[Any]]
    ) -> tuple[list[Any], int] | None:
        """Run built programs, again while the machine is noisy; None when asked to stop then."""
        config = self._config
        for attempt in range(1, config.attempts + 1):
            results = list(self._runner.run(inputs, copies(), verbose=0))
            quiet = self.calibration.check()
            if quiet or (attempt == config.attempts and config.keep_noisy):
                return results, attempt
            self.calibration.write(self._num_lines, 0)
            if attempt < config.attempts:
                self._pause()
            if self.stopping:
                return None
        raise self._noisy_error()

    def record(
        self, inputs: list[Any], results: list[Any], wakes_s: Sequence[float] = ()
    ) -> list[tuple[Any, Any]]:
        """Write a batch and its calibration; return what is in the log, as `record_batch`."""
        # First: a crash in between leaves a row that the next one overrides, not unmarked records.
        self.calibration.write(self._num_lines, len(inputs), self.check_s, wakes_s)
        recorded = record_batch(self._log, inputs, results)
        self._num_lines += len(recorded)
        if len(recorded) < len(inputs):
            self.calibration.write(self._num_lines - len(recorded), len(recorded), self.check_s)
        return recorded

    def _pause(self) -> None:
        end = time.monotonic() + self._config.pause_s
        while not self.stopping and (left_s := end - time.monotonic()) > 0:
            time.sleep(min(_LOOK_EVERY_S, left_s))

    def _noisy_error(self) -> MeasureError:
        config, latencies_s = self._config, self.calibration.latencies_s
        return MeasureError(
            f"the machine is noisy: the calibration program took {1e3 * latencies_s[-1]:.4g} ms, "
            f"its best is {1e3 * min(latencies_s):.4g} ms, and {config.attempts} attempts with "
            f"pauses of {config.pause_s:g} s did not bring it within {config.bound:.0%}. The log "
            f"{self._log} holds all quiet batches. End other programs and run again, or let noisy "
            f"batches be kept (`--keep-noisy`) and marked in {calibration_file(self._log)}."
        )


@contextmanager
def _kept(built: Sequence[Any]) -> Iterator[Callable[[Sequence[int]], list[Any]]]:
    """Let programs run more than once, as a runner removes what it is given: copies of some."""
    numbers = count()
    with TemporaryDirectory(prefix="tvm-cdmpp-") as folder:
        try:
            yield lambda places: [
                copy_built(built[place], Path(folder, str(next(numbers)))) for place in places
            ]
        finally:
            for each in built:
                if each.error_no == 0:
                    shutil.rmtree(Path(each.filename).parent, ignore_errors=True)


def _middle(values: Sequence[_Value], key: Callable[[_Value], float]) -> _Value:
    """Return the middle one by a key, the lower one of two."""
    return sorted(values, key=key)[(len(values) - 1) // 2]


def calibration_file(log: Path) -> Path:
    """Return where the calibrations of a log are: next to it."""
    return log.with_name(f"{log.name}.calibration.jsonl")
