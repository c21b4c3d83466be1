"""Building and running programs in child processes that outlive a batch.

TVM measures a round in batches of twice its build workers, and starts new child processes for each
batch. Importing TVM takes such a process longer than building and running a small program, so most
of a measurement is spent on starting up. `MeasureSession` lends TVM's own build and run functions
long-lived workers (the code that builds, runs and reports errors stays TVM's), and around them it
keeps the time of both halves and stops a search between two batches.

The build and run functions are called in a thread that blocks SIGINT. Child processes inherit
that, so Ctrl-C in a terminal reaches the search only and the batch in flight ends well.
"""

import contextlib
import io
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from tvm_cdmpp.bridge import check_compiler, load_tvm
from tvm_cdmpp.errors import CDMPPError, ConfigError, MeasureError, RecordError
from tvm_cdmpp.files import locked
from tvm_cdmpp.measure.doubtful import SecondRuns
from tvm_cdmpp.measure.linking import SessionBuilder, build_func_of
from tvm_cdmpp.measure.pace import Pace
from tvm_cdmpp.measure.repeats import LOCAL_TIMES, REMOTE_TIMES, FewerRepeats
from tvm_cdmpp.measure.watched import WatchedPool

tvm = load_tvm()
_measure = tvm.auto_scheduler.measure
_popen_pool = tvm.contrib.popen_pool

_BUILD = "auto_scheduler.local_builder.build"
_BUILD_FUNC = 3
"""Place of the function's kind among the arguments of a build."""
_RUN = "auto_scheduler.local_runner.run"
_RUN_REMOTE = "auto_scheduler.rpc_runner.run"
_CONNECT_TIMEOUT_S = 5
# Workers start afresh after so many programs, which bounds what a leak can take.
_USES_PER_WORKER = 512
# Time to wait for a remote device that others use, next to the timeout of a run.
_WAIT_S = 60.0


class SearchStopped(CDMPPError):  # noqa: N818 -- no error, a request
    """A search was asked to stop; nothing is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteDevices:
    """Devices that TVM RPC servers offer under one key of a tracker."""

    host: str
    port: int
    key: str

    def count(self) -> int:
        """Ask the tracker how many servers it has for the key.

        Raises
        ------
        MeasureError
            The tracker does not answer, or has none.
        """
        where = f"the RPC tracker at {self.host}:{self.port}"
        try:
            # TVM itself would try for a minute.
            socket.create_connection((self.host, self.port), _CONNECT_TIMEOUT_S).close()
            tracker = tvm.rpc.connect_tracker(self.host, self.port)
            try:
                summary = tracker.summary()
            finally:
                tracker.close()
        except (OSError, RuntimeError) as error:
            raise MeasureError(
                f"{where} does not answer: {error}. Start one with `tvm-cdmpp rpc tracker --port "
                f"{self.port}`, or correct the address."
            ) from error
        keys = Counter(
            str(server["key"]).removeprefix("server:") for server in summary["server_info"]
        )
        if not keys[self.key]:
            others = ", ".join(sorted(keys)) or "none at all"
            raise MeasureError(
                f"{where} has no server for the key {self.key!r}; it has {others}. Start one with "
                f"`tvm-cdmpp rpc server --tracker {self.host}:{self.port} --key {self.key}` on the "
                "device."
            )
        return keys[self.key]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureOptions:
    """How programs are measured, on this machine or on remote devices."""

    build_timeout_s: int = 15
    """Time after which a build counts as failed."""
    run_timeout_s: int = 10
    """Time after which a run, all its repeats together, counts as failed."""
    repeat: int = 10
    """How many times a program is timed, less if it is slow; its latency is the mean."""
    remote: RemoteDevices | None = None
    """Where programs run; None for this machine, where they are built in any case."""

    def __post_init__(self) -> None:
        """Reject what measures nothing."""
        for name in ("run_timeout_s", "repeat"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; got {getattr(self, name)}")

    def builder(self) -> Any:
        """Return TVM's builder, for use in a session: one build per core at a time."""
        return SessionBuilder(self.build_timeout_s, is_local=self.remote is None)

    def runner(self, *, on_cpu: bool, most_repeats: int | None = None) -> Any:
        """Return TVM's runner; on a CPU, caches are flushed before each timed run.

        The flush brings an operator's latency closer to what it has inside a network, where other
        operators used the caches in between. TVM then times single runs.

        Raises
        ------
        MeasureError
            There are no such remote devices.
        """
        if most_repeats is not None:
            return replace(self, repeat=min(most_repeats, self.repeat)).runner(on_cpu=on_cpu)
        if self.remote is not None:
            return self._remote_runner(self.remote, on_cpu=on_cpu)
        return tvm.auto_scheduler.LocalRunner(
            timeout=self.run_timeout_s, repeat=self.repeat, enable_cpu_cache_flush=on_cpu
        )

    def _remote_runner(self, remote: RemoteDevices, *, on_cpu: bool) -> Any:
        number = remote.count()
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # TVM prints that it found a device
                return tvm.auto_scheduler.RPCRunner(
                    remote.key,
                    remote.host,
                    remote.port,
                    n_parallel=number,
                    timeout=self.run_timeout_s,
                    number=1 if on_cpu else 3,
                    repeat=self.repeat,
                    min_repeat_ms=0 if on_cpu else 100,
                    enable_cpu_cache_flush=on_cpu,
                )
        except RuntimeError as error:
            raise MeasureError(
                f"none of the {number} servers for the key {remote.key!r} became free within "
                f"{self.run_timeout_s} s; others may be using them, so try again later."
            ) from error


class MeasureSession:
    """Scope in which TVM measures with long-lived workers; enter it once, around all searches.

    Attributes
    ----------
    build_s, run_s
        Wall time spent in building and in running programs so far.
    second_runs
        How many programs ran twice so far.
    pace
        How fast this machine is; told while it is watched, by programs that run here.

    Raises
    ------
    MissingDependencyError
        On entering: there is no C++ compiler to link programs with.
    """

    def __init__(self) -> None:
        self.build_s = 0.0
        self.run_s = 0.0
        self.second_runs = SecondRuns()
        self.pace = Pace()
        self._stopping = False
        self._pools: dict[tuple[int, float | None], Any] = {}
        self._runner: Any = None
        self._devices: RemoteDevices | None = None
        """Where the programs of the batch in flight run, if not here."""
        self._remote_timeout_s = _WAIT_S
        self._repeats = FewerRepeats()
        self._logs: set[Path] = set()
        self._scope = ExitStack()

    def __enter__(self) -> "MeasureSession":
        check_compiler()
        self._thread = ThreadPoolExecutor(1, "measure", initializer=_block_interrupts)
        self._replace(_measure, "PopenPoolExecutor", self._pool)
        self._replace(_measure, "PopenWorker", self._worker)
        self._override(_BUILD, self._build)
        self._override(_RUN, partial(self._run, LOCAL_TIMES))
        self._override(_RUN_REMOTE, self._run_remote)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._scope.close()
        self._logs.clear()
        self.pace.close()
        # Dropping the last reference to a worker ends its process.
        self._pools.clear()
        if self._runner is not None:
            self._runner.kill()
        self._thread.shutdown(cancel_futures=True)

    def hold(self, log: Path) -> None:
        """Keep other processes from writing a log until the session ends.

        Two searches that write one log would not know of each other's records.

        Raises
        ------
        RecordError
            A search of another session is writing it, or its folder cannot be written.
        """
        log = log.absolute()
        if log in self._logs:
            return
        lock = log.with_name(f".{log.name}.lock")
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._scope.enter_context(locked(lock, f"a search that writes {log}"))
        except OSError as error:
            raise RecordError(
                f"the log {log} cannot be written: {error.strerror}. Choose another log, or make "
                "its folder writable."
            ) from error
        self._logs.add(log)

    def stop(self) -> None:
        """Let the batch in flight end, then raise `SearchStopped` from the search."""
        self._stopping = True

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    def check(self) -> None:
        """Raise `SearchStopped` once `stop` was called."""
        if self._stopping:
            raise SearchStopped("the search was asked to stop")

    def _build(self, function: Any, *args: Any) -> Any:
        self.check()  # between batches only: what was built is also run and recorded
        begin = time.perf_counter()
        try:
            with build_func_of(str(args[_BUILD_FUNC])):
                return self._thread.submit(function, *args).result()
        finally:
            self.build_s += time.perf_counter() - begin

    def _run(self, times: slice, function: Any, *args: Any) -> Any:
        begin = time.perf_counter()
        try:
            if not args[times.stop]:  # else a repeat runs so many milliseconds, and steadily
                function = partial(self.second_runs.run, function)
                if self.pace.watches and times == LOCAL_TIMES:
                    function = partial(self.pace.run, function)
            return self._thread.submit(self._repeats.run, times, function, *args).result()
        finally:
            self.run_s += time.perf_counter() - begin

    def _run_remote(self, function: Any, *args: Any) -> Any:
        key, host, port = args[2:5]
        self._devices = RemoteDevices(host=str(host), port=int(port), key=str(key))
        self._remote_timeout_s = _WAIT_S + float(args[REMOTE_TIMES][0])
        return self._run(REMOTE_TIMES, function, *args)

    def _pool(self, n_parallel: int, timeout_s: float | None = None, *args: Any) -> Any:
        key = (n_parallel, timeout_s)
        if key not in self._pools:
            self._pools[key] = (
                _popen_pool.PopenPoolExecutor(
                    n_parallel, timeout_s, *args, maximum_process_uses=_USES_PER_WORKER
                )
                if timeout_s is not None or self._devices is None
                else WatchedPool(
                    n_parallel, self._remote_timeout_s, self._devices.count, _USES_PER_WORKER
                )
            )
        return self._pools[key]

    def _worker(self) -> Any:
        if self._runner is None:
            self._runner = _popen_pool.PopenWorker(maximum_uses=_USES_PER_WORKER)
        return self._runner

    def _override(self, name: str, function: Callable[..., Any]) -> None:
        original = tvm.get_global_func(name)
        tvm.register_func(name, partial(function, original), override=True)
        self._scope.callback(tvm.register_func, name, original, override=True)

    def _replace(self, module: Any, name: str, value: Any) -> None:
        self._scope.callback(setattr, module, name, getattr(module, name))
        setattr(module, name, value)


def _block_interrupts() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
