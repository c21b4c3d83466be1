"""Running compiled networks in a process of their own.

A library that uses instructions this CPU lacks, or that overwrites memory, ends the process that
runs it. So that process is not the one that holds the results of a search.
"""

import multiprocessing
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from tvm_cdmpp.bridge import load_tvm, off_worker_cores, reason_of
from tvm_cdmpp.errors import MeasureError
from tvm_cdmpp.networks.outputs import Array

_MIN_SAMPLE_MS = 100
_END_TIMEOUT_S = 5


class NetworkProcess:
    """A child process with some exported networks; enter it to start it.

    Parameters
    ----------
    libraries
        What `Deployed.export` wrote.
    kind
        Kind of the target they were compiled for, such as "llvm".
    inputs
        One array per input, the same for all.

    Raises
    ------
    MeasureError
        From all methods: the process crashed, or could not load or run a network.
    """

    def __init__(self, libraries: Sequence[Path], kind: str, inputs: Mapping[str, Array]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share TVM's threads
        self._connection, self._other_end = context.Pipe()
        self._process = context.Process(
            target=_serve,
            args=(self._other_end, [str(path) for path in libraries], kind, dict(inputs)),
            daemon=True,
        )

    def __enter__(self) -> "NetworkProcess":
        self._process.start()
        self._other_end.close()  # so that the end of the process is the end of the connection
        try:
            self._receive()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def run(self, index: int) -> list[Array]:
        """Run a network once and return its outputs."""
        outputs: list[Array] = self._ask("run", index)
        return outputs

    def time(self, index: int) -> float:
        """Return a network's latency in seconds: the mean over 100 ms or one run, warmed up."""
        return float(self._ask("time", index))

    def _ask(self, verb: str, index: int) -> Any:
        with suppress(OSError):  # a process that is gone is noticed when its answer is missing
            self._connection.send((verb, index))
        return self._receive()

    def _receive(self) -> Any:
        try:
            error, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(_END_TIMEOUT_S)
            raise MeasureError(
                f"the process that ran the compiled network {_ending(self._process.exitcode)}"
            ) from None
        if error:
            raise MeasureError(f"the compiled network does not run: {error}")
        return answer

    def _end(self) -> None:
        self._connection.close()
        self._process.join(_END_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _ending(exit_code: int | None) -> str:
    if exit_code == -signal.SIGILL:
        return (
            "met an instruction that this CPU does not have. Give a --target whose -mcpu and "
            "-mattr this CPU supports"
        )
    if exit_code is not None and exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


def _serve(
    connection: Connection, libraries: Sequence[str], kind: str, inputs: Mapping[str, Array]
) -> None:
    """Answer requests, each with an error or its result, until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the parent's
    try:
        networks = _Networks(libraries, kind, inputs)
    except (RuntimeError, ValueError, OSError) as error:
        connection.send((reason_of(error), None))
        return
    connection.send(("", None))
    with suppress(EOFError, OSError):
        while True:
            verb, index = connection.recv()
            try:
                answer = networks.run(index) if verb == "run" else networks.time(index)
            except (RuntimeError, ValueError, OSError) as error:
                connection.send((reason_of(error), None))
            else:
                connection.send(("", answer))


class _Networks:
    """The networks, inside of the child process."""

    def __init__(self, libraries: Sequence[str], kind: str, inputs: Mapping[str, Array]) -> None:
        tvm = load_tvm()
        from tvm.contrib import graph_executor

        self._device = tvm.device(kind, 0)
        if not self._device.exist:
            raise MeasureError(f"this machine has no {kind} device")
        self._executors = []
        for library in libraries:
            factory = tvm.runtime.load_module(library)
            executor = graph_executor.GraphModule(factory["default"](self._device))
            for name, array in inputs.items():
                executor.set_input(name, array)
            self._executors.append(executor)

    def run(self, index: int) -> list[Array]:
        executor = self._executors[index]
        executor.run()
        return [executor.get_output(i).numpy() for i in range(executor.get_num_outputs())]

    def time(self, index: int) -> float:
        with off_worker_cores():
            result = self._executors[index].benchmark(
                self._device, repeat=1, number=1, min_repeat_ms=_MIN_SAMPLE_MS
            )
        return float(result.mean)
