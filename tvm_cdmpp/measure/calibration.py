"""Whether a machine is quiet: one fixed small program, measured again and again.

The program is a matrix product with a fixed schedule, built and run exactly as the programs whose
measurements it vouches for, so it works on remote devices too. A latency by itself says nothing;
the lowest one of a run is what the others are held against. A machine that is equally busy all the
time goes unnoticed.

Figures are kept next to the log, one JSON object per line (`CalibrationRow`), so that records can
be judged again later, with another bound.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tvm_cdmpp.bridge import hardware_params, load_tvm
from tvm_cdmpp.errors import ConfigError, MeasureError, RecordError
from tvm_cdmpp.files import append_lines, parse_json

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler

_SIZE = 256  # of the square matrices: near a millisecond on one core, and built in no time
_TILE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationConfig:
    """When a machine counts as noisy, and what follows."""

    bound: float = 0.1
    """Noisy is what takes longer than (1 + bound) times the lowest latency of the run."""
    start_measurements: int = 3
    """Calibrations before the first batch."""
    attempts: int = 3
    """How often a batch is measured until the machine is quiet."""
    pause_s: float = 30.0
    """Time to wait before a batch is measured again."""
    keep_noisy: bool = False
    """Record a batch that stays noisy, and mark it, instead of stopping."""

    def __post_init__(self) -> None:
        """Reject what cannot be meant."""
        if self.bound <= 0 or self.pause_s < 0 or min(self.start_measurements, self.attempts) < 1:
            raise ConfigError(f"expected a bound > 0, a pause >= 0 and counts >= 1; got {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationRow:
    """One line of `LOG.calibration.jsonl`: a calibration, and the records it vouches for.

    A later row holds for records that two rows claim (a run was killed between the two files).
    """

    run: float
    """When the run began; Unix time in seconds."""
    time: float
    """When the calibration ended; Unix time in seconds."""
    latency_s: float
    """Of the calibration program."""
    best_latency_s: float
    """Lowest of the run so far, this one included."""
    bound: float
    noisy: bool
    """Whether `latency_s` is above (1 + bound) times `best_latency_s`."""
    first_line: int
    """First line of the log that was measured right before this calibration, from 0."""
    num_lines: int
    """How many lines; 0 at the start of a run, and where the batch was thrown away."""
    wakes_s: Sequence[float] = ()
    """What waking threads took before the batch and after it, where that was measured."""

    def __post_init__(self) -> None:
        """Reject what no file of calibrations holds."""
        if not all(isinstance(wake_s, float) and wake_s > 0 for wake_s in self.wakes_s):
            raise TypeError(f"wakes_s must be seconds above 0; got {self.wakes_s}")


class Calibration:
    """The calibrations of one run, in memory and in a file.

    Parameters
    ----------
    measure
        Returns the latency of the calibration program in seconds; see `matmul_timer`.
    config
        The bound.
    file
        JSON lines to append to.

    Attributes
    ----------
    latencies_s
        All calibrations of this run.
    """

    def __init__(self, measure: Callable[[], float], config: CalibrationConfig, file: Path) -> None:
        self.latencies_s: list[float] = []
        self._measure, self._config, self._file = measure, config, file
        self._run = time.time()

    def check(self) -> bool:
        """Measure once; return whether the machine is quiet.

        Raises
        ------
        MeasureError
            The calibration program does not run.
        """
        self.latencies_s.append(self._measure())
        return not self.is_noisy(self.latencies_s[-1])

    def is_noisy(self, latency_s: float) -> bool:
        """Tell whether a calibration is above the bound, by the lowest one so far."""
        return latency_s > (1 + self._config.bound) * min(self.latencies_s)

    def write(
        self,
        first_line: int,
        num_lines: int,
        latency_s: float | None = None,
        wakes_s: Sequence[float] = (),
    ) -> None:
        """Append a calibration to the file.

        Parameters
        ----------
        first_line, num_lines
            The records that it vouches for.
        latency_s
            Of the calibration program; the last one by default.
        wakes_s
            See `CalibrationRow`.

        Raises
        ------
        RecordError
            The file cannot be written.
        """
        if latency_s is None:
            latency_s = self.latencies_s[-1]
        row = CalibrationRow(
            run=self._run,
            time=time.time(),
            latency_s=latency_s,
            best_latency_s=min(self.latencies_s),
            bound=self._config.bound,
            noisy=self.is_noisy(latency_s),
            first_line=first_line,
            num_lines=num_lines,
            wakes_s=wakes_s,
        )
        try:
            append_lines(self._file, [json.dumps(asdict(row))])
        except OSError as error:
            raise RecordError(
                f"the calibration could not be written to {self._file}: {error.strerror}. Free "
                "some space or make the file writable, and run again."
            ) from error


def read_calibration(file: Path) -> list[CalibrationRow]:
    """Read a calibration file; half lines of killed runs, which vouch for nothing, are left out.

    Raises
    ------
    RecordError
        The file cannot be read, or holds something else.
    """
    rows = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{file} cannot be read: {error}. Repair or remove it.") from error
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(CalibrationRow(**parse_json(line)))
        except json.JSONDecodeError:
            continue
        except TypeError as error:
            raise RecordError(
                f"{file}:{number} is no calibration: {error}; repair or remove the file"
            ) from error
    return rows


def matmul_timer(
    builder: Any, runner: Any, target: Any, *, num_devices: int
) -> Callable[[], float]:
    """Return a function that measures the calibration program.

    Parameters
    ----------
    builder, runner
        TVM's, the same as for the programs to vouch for.
    target
        What to build for: a CPU or a GPU.
    num_devices
        So many copies are run at a time, so that each of the devices is likely to be seen; the
        slowest one counts.

    Returns
    -------
    measure
        Returns seconds: the median over the repeats of a measurement. It raises `MeasureError`
        when the program does not run.
    """
    program = calibration_program(target)

    def measure() -> float:
        inputs = [program] * num_devices
        results = runner.run(inputs, builder.build(inputs, verbose=0), verbose=0)
        for result in results:
            if int(result.error_no) != 0:
                reason = (str(result.error_msg).strip().splitlines() or ["no message"])[-1]
                raise MeasureError(
                    f"the calibration program does not run: {reason}. Run `tvm-cdmpp doctor`, "
                    "which tests the compiler, or look at the messages of the RPC server."
                )
        return max(float(np.median([c.value for c in result.costs])) for result in results)

    return measure


def calibration_program(target: Any) -> Any:
    """Return the calibration program: a `MeasureInput` with a fixed schedule."""
    te = tvm.te
    a = te.placeholder((_SIZE, _SIZE), name="A")
    b = te.placeholder((_SIZE, _SIZE), name="B")
    r = te.reduce_axis((0, _SIZE), name="r")
    c = te.compute((_SIZE, _SIZE), lambda i, j: te.sum(a[i, r] * b[r, j], axis=r), name="C")
    dag = auto_scheduler.ComputeDAG([a, b, c])
    # By tensors, not by function, so that child processes need not import this module.
    key = auto_scheduler.workload_registry.register_workload_tensors(dag.workload_key(), [a, b, c])
    task = auto_scheduler.SearchTask(
        workload_key=key, compute_dag=dag, target=target, hardware_params=hardware_params(target)
    )
    state = dag.get_init_state()
    i, j, r = state[c].iters
    outer_i, inner_i = state.split(c, i, [_TILE])
    outer_j, inner_j = state.split(c, j, [_TILE])
    if str(target.kind.name) == "llvm":
        state.reorder(c, [outer_i, outer_j, r, inner_i, inner_j])
        state.parallel(c, state[c].iters[0])
        state.vectorize(c, state[c].iters[4])
    else:
        state.reorder(c, [outer_i, outer_j, inner_i, inner_j, r])
        for number, axis in enumerate(("blockIdx.y", "blockIdx.x", "threadIdx.y", "threadIdx.x")):
            state.bind(c, state[c].iters[number], axis)
    return auto_scheduler.MeasureInput(task, state)
