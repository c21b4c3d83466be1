"""Compile a network with or without a log, run it, export it.

Without a log a CPU network is compiled the way stock TVM does best: channels-first convolutions
and TOPI's own schedules. With one it is compiled exactly as it was searched: channels-last, each
task with its best record, weights laid out as that program wants them. Tasks without a record fall
back to a TOPI schedule and are counted.
"""

import functools
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tvm_cdmpp.bridge import check_compiler, latency_s, load_tvm, quiet_tvm, read_records, reason_of
from tvm_cdmpp.errors import (
    ConfigError,
    MeasureError,
    NetworkError,
    RecordError,
)
from tvm_cdmpp.networks.network import (
    CHANNELS_FIRST,
    Network,
    change_layout,
    compiling,
    to_search_form,
)
from tvm_cdmpp.networks.outputs import Array

tvm = load_tvm()
relay = tvm.relay
_ApplyHistoryBest: Any = tvm.auto_scheduler.ApplyHistoryBest

Target: TypeAlias = Any

# Next to the weights, which are in the library and once more in what it is linked from.
_LEAST_FREE_BYTES = 8_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Deployed:
    """A compiled network."""

    network: Network
    target: Target
    factory: Any
    """What `relay.build` returned."""
    num_tasks_without_record: int
    """Tasks of the network that the log had no good record of; 0 if compiled without a log."""

    @functools.cached_property
    def _executor(self) -> Any:
        from tvm.contrib import graph_executor

        return graph_executor.GraphModule(self.factory["default"](self._device))

    @functools.cached_property
    def _device(self) -> Any:
        device = tvm.device(str(self.target.kind.name), 0)
        if not device.exist:
            raise MeasureError(
                f"{self.network.name} was compiled for {self.target.kind.name}, and this machine "
                "has no such device. Export it and run it where there is one."
            )
        return device

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Run the network once.

        Parameters
        ----------
        inputs
            One array per input.

        Raises
        ------
        NetworkError
            An input is missing, unknown, or of another shape or type.
        MeasureError
            There is no device to run on.
        """
        self._set_inputs(inputs)
        self._executor.run()
        return [
            self._executor.get_output(i).numpy() for i in range(self._executor.get_num_outputs())
        ]

    def export(self, path: Path) -> None:
        """Write the network, weights included, as a shared library.

        It loads anywhere TVM's runtime is: `tvm.runtime.load_module(path)["default"](device)`.

        Parameters
        ----------
        path
            Ends in `.so`; replaced in one step if it exists.

        Raises
        ------
        ConfigError
            The path does not end in `.so`, or its folder cannot be made.
        MissingDependencyError
            There is no C++ compiler to link with.
        MeasureError
            Linking or writing failed.
        """
        check_export_path(path)
        self._check_space(path)
        try:
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
                built = Path(folder) / path.name
                self.factory.export_library(str(built), workspace_dir=folder)
                built.replace(path)
        except (OSError, RuntimeError) as error:
            raise MeasureError(
                f"Could not export the library to {path}: {_why_not_linked(error)}."
            ) from error

    def _check_space(self, path: Path) -> None:
        """Raise `MeasureError` on a full disk, where LLVM would end the process."""
        weights = sum(int(w.numpy().nbytes) for w in self.factory.get_params().values())
        needed, free = 2 * weights + _LEAST_FREE_BYTES, shutil.disk_usage(path.parent).free
        if free < needed:
            raise MeasureError(
                f"Could not export the library to {path}: the disk is full; this takes "
                f"{needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free."
            )

    def _set_inputs(self, inputs: Mapping[str, Array]) -> None:
        expected = self.network.inputs
        if set(inputs) != set(expected):
            raise NetworkError(
                f"{self.network.name} takes the inputs {', '.join(expected)}; "
                f"got {', '.join(inputs) or 'none'}."
            )
        for name, (shape, dtype) in expected.items():
            array = inputs[name]
            if array.shape != shape or array.dtype.name != dtype:
                raise NetworkError(
                    f"Input {name} must be {dtype} of shape {shape}; "
                    f"got {array.dtype.name} of shape {array.shape}."
                )
            self._executor.set_input(name, array)


def deploy(network: Network, target: Target, log: Path | None = None) -> Deployed:
    """Compile a network.

    Parameters
    ----------
    network
        From `load_network`.
    target
        What to compile for.
    log
        Ansor log whose best records are applied; None for TOPI's own schedules.

    Raises
    ------
    RecordError
        The log does not exist or cannot be read.
    NetworkError
        TVM cannot compile the network.
    """
    best = None if log is None else load_best(log)
    with compiling(network.name, target), quiet_tvm(), compile_context(best):
        mod = compiled_form(network, target, best)
        factory = relay.build(mod, target=target, params=network.params)
    return Deployed(
        network=network,
        target=target,
        factory=factory,
        num_tasks_without_record=0 if best is None else len(best.missing),
    )


def check_export_path(path: Path) -> None:
    """Check, before hours of search, that a library could be exported to a path.

    Its folder is made if it does not exist.

    Raises
    ------
    ConfigError, MissingDependencyError
        As `Deployed.export`.
    """
    if path.suffix != ".so":
        raise ConfigError(f"The exported library's name must end in .so; got {path}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-"):
            pass
    except OSError as error:
        raise ConfigError(
            f"The library {path} cannot be written: {error.strerror}. Choose another place."
        ) from error
    check_compiler()


# ---------------------------------------------------------------- details


class CountingBest(_ApplyHistoryBest):
    """Stock `ApplyHistoryBest` that remembers what it had a record of, and what not.

    Parameters
    ----------
    records
        Pairs of `MeasureInput` and `MeasureResult`.

    Attributes
    ----------
    missing
        Keys of the tasks without a record.
    applied
        DAG of the task of each function that got the schedule of a record, by TVM's name for it.
    """

    def __init__(self, records: Iterable[tuple[Any, Any]]) -> None:
        super().__init__(records)
        self.missing: set[str] = set()
        self.applied: dict[str, str] = {}

    def query(
        self, target: Target, workload_key: str, has_complex_op: bool, dag: Any, func_name: str
    ) -> Any:
        """Return the best state of a task, if any, and note what there is."""
        state = super().query(target, workload_key, has_complex_op, dag, func_name)
        if state is not None:
            self.applied[str(func_name)] = str(tvm.ir.save_json(dag.tensors))
        elif has_complex_op:
            self.missing.add(str(workload_key))
        return state


def load_best(log: Path) -> CountingBest:
    """Return the best records of a log.

    Raises
    ------
    RecordError
        The log does not exist or cannot be read.
    """
    if not log.is_file():
        raise RecordError(f"There is no log {log} to take the schedules from.")
    records, problems = read_records(log)
    for number, (_, result) in records.items():
        try:
            latency_s(result)
        except RecordError as error:
            problems[number] = error
    if problems:
        first = min(problems)
        raise RecordError(
            f"Cannot use line {first} of the log {log}: {problems[first]}. Remove that line "
            f"({len(problems)} in all are like it), or tune once more with this log, which sets "
            "such lines aside."
        )
    return CountingBest(records.values())


def _why_not_linked(error: Exception) -> str:
    """Return what the linker complained about, which TVM puts between two lines of its own."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if not str(error).startswith("Compilation error:"):
        return reason_of(error)
    lines = [line.strip() for line in str(error).splitlines()[1:]]
    said = [line for line in lines if line and not line.startswith(("Command line:", "collect2:"))]
    return said[-1].rstrip(".") if said else "the C++ compiler failed without a message"


def compiled_form(network: Network, target: Target, best: CountingBest | None) -> Any:
    """Return the module that is compiled: as it was searched, or as TVM's own schedules want it."""
    if best is not None:
        return to_search_form(network.mod)
    is_cpu = target.kind.name == "llvm"
    return change_layout(network.mod, CHANNELS_FIRST) if is_cpu else network.mod


@contextmanager
def compile_context(best: CountingBest | None, **config: Any) -> Iterator[None]:
    """Compile with the best records, or without any; `config` is the pass context's."""
    settings = {"relay.backend.use_auto_scheduler": best is not None, **config}
    with best or nullcontext(), tvm.transform.PassContext(opt_level=3, config=settings):
        yield
