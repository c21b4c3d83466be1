"""What it takes a CPU to hand a parallel loop to its threads, and to see that it has ended.

That is one microsecond on one machine and three on another, and most of what small networks take.
A loop that does next to nothing is measured with threads and without, again and again, so that
threads wait for work as they do inside of a network.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_cdmpp.bridge import hardware_params, load_tvm

if TYPE_CHECKING:
    from tvm_cdmpp.measure.session import MeasureOptions

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler

_LONGEST_S = 1e-4
"""What takes longer waits for other programs of a busy machine, not for a thread."""
_PER_CORE = 16
"""Elements; too few for the loop itself to count."""
_LOOK_EVERY_S = 0.02
_REPEATS = 5
"""Of a tenth of a second each; their median is within 1 % of that of ten, by the mean of 21."""


def wait_until_idle(longest_s: float = 0.5) -> None:
    """Wait until nothing else runs on this machine, where Linux tells.

    After its last loop a worker thread of TVM spins for some tenths of a second, on a core of
    which another process's worker has to make do with the rest: waking that one then takes three
    times as long.

    Parameters
    ----------
    longest_s
        On a machine that is never idle, go on after that.
    """
    end = time.monotonic() + longest_s
    while _running() > 1 and time.monotonic() < end:
        time.sleep(_LOOK_EVERY_S)


def _running() -> int:
    """Return how many threads run or could, this one included; 1 where that is not known."""
    with suppress(OSError):
        for line in Path("/proc/stat").read_text().splitlines():
            name, *values = line.split()
            if name == "procs_running":
                return int(values[0])
    return 1


class Wakes:
    """What waking threads takes, measured at several moments, as it changes from one to the next.

    Parameters
    ----------
    options, target
        How loops are measured, and where; nothing is, where that is no CPU of several cores.
    cores
        Of which each runs a thread.
    known_s
        What it took when that was measured before.
    """

    def __init__(
        self, options: "MeasureOptions", target: Any, cores: int, known_s: Iterable[float] = ()
    ) -> None:
        self._found_s = list(known_s)
        self._is_here = options.remote is None
        self._measure: Callable[[], float | None] = lambda: None
        if str(target.kind.name) == "llvm" and cores > 1:
            runner = options.runner(on_cpu=False, most_repeats=_REPEATS)
            self._measure = wake_timer(options.builder(), runner, target, cores=cores)

    def take(self) -> float | None:
        """Measure once more; return what it takes now, None where that was not found."""
        if self._is_here:
            wait_until_idle()
        found_s = self._measure()
        if found_s is not None:
            self._found_s.append(found_s)
        return found_s

    @property
    def mean_s(self) -> float | None:
        """The mean, without the tenth at either end; None where none was found.

        On a rented machine it is one figure while its cores are near each other on the host, and
        another while they are not; networks meet both.
        """
        kept = len(self._found_s) // 10
        found_s = sorted(self._found_s)[kept : len(self._found_s) - kept]
        return float(np.mean(found_s)) if found_s else None


def wake_timer(builder: Any, runner: Any, target: Any, *, cores: int) -> Callable[[], float | None]:
    """Return a function that measures what waking the threads takes.

    Parameters
    ----------
    builder
        TVM's.
    runner
        TVM's, one that does not flush caches.
    target
        A CPU.
    cores
        Of which each runs a thread.

    Returns
    -------
    measure
        Returns seconds; None where the loop does not run, no slower with threads, or so slow that
        the machine must be busy.
    """
    inputs = [_loop(target, cores, is_parallel=is_parallel) for is_parallel in (False, True)]

    def measure() -> float | None:
        results = runner.run(inputs, builder.build(inputs, verbose=0), verbose=0)
        if any(int(result.error_no) != 0 for result in results):
            return None
        alone_s, woken_s = (float(np.median([c.value for c in r.costs])) for r in results)
        return woken_s - alone_s if alone_s < woken_s < alone_s + _LONGEST_S else None

    return measure


def _loop(target: Any, cores: int, *, is_parallel: bool) -> Any:
    """Return a `MeasureInput` of the loop."""
    size = _PER_CORE * cores
    x = tvm.te.placeholder((size,), name="x")
    y = tvm.te.compute((size,), lambda i: x[i] + tvm.tir.const(1.0, "float32"), name="y")
    dag = auto_scheduler.ComputeDAG([x, y])
    # By tensors, not by function, so that child processes need not import this module.
    key = auto_scheduler.workload_registry.register_workload_tensors(dag.workload_key(), [x, y])
    task = auto_scheduler.SearchTask(
        workload_key=key, compute_dag=dag, target=target, hardware_params=hardware_params(target)
    )
    state = dag.get_init_state()
    if is_parallel:
        state.parallel(y, state[y].iters[0])
    return auto_scheduler.MeasureInput(task, state)
