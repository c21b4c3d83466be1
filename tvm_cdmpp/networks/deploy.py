"""Compile a network with or without a log, time it, export it.

Without a log a CPU network is compiled the way stock TVM does best: channels-first convolutions
and TOPI's own schedules. With one it is compiled exactly as it was searched: channels-last, each
task with its best record, weights laid out as that program wants them. Tasks without a record fall
back to a TOPI schedule and are counted.
"""

import functools
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tvm_cdmpp.bridge.compiler import check_compiler
from tvm_cdmpp.bridge.logs import check_log
from tvm_cdmpp.bridge.quiet import quiet_tvm, reason_of
from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.errors import (
    ConfigError,
    MeasureError,
    NetworkError,
    RecordError,
)
from tvm_cdmpp.networks.network import CHANNELS_FIRST, Network, change_layout, to_search_form
from tvm_cdmpp.networks.outputs import Array, compare_outputs, random_inputs

tvm = load_tvm()
relay = tvm.relay
_ApplyHistoryBest: Any = tvm.auto_scheduler.ApplyHistoryBest

Target: TypeAlias = Any

_MIN_REPEAT_MS = 100
_SAMPLES_PER_ROUND = 3
_TIMING_BUDGET_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """How long a network takes."""

    median_s: float
    mean_s: float
    std_s: float
    samples_s: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """What tuning gained."""

    untuned_latency_s: float
    tuned_latency_s: float
    spread: float
    """Larger relative standard deviation of the two latencies, over rounds."""
    speedup: float
    """Untuned over tuned latency."""
    max_relative_difference: float
    outputs_agree: bool
    num_tasks_without_record: int
    """Tasks that run with a fallback schedule, for want of a record."""


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

    def benchmark(self, *, repeats: int = 5, seed: int = 0) -> Latency:
        """Time the network on random inputs.

        Parameters
        ----------
        repeats
            Number of samples, each the mean over at least 100 ms; a run to warm up comes first.
        seed
            Seed of the inputs.
        """
        self._set_inputs(random_inputs(self.network, seed=seed))
        result = self._executor.benchmark(
            self._device, repeat=repeats, number=1, min_repeat_ms=_MIN_REPEAT_MS
        )
        return Latency(
            median_s=float(result.median),
            mean_s=float(result.mean),
            std_s=float(result.std),
            samples_s=tuple(float(sample) for sample in result.results),
        )

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
            The path does not end in `.so`, or its folder does not exist.
        MissingDependencyError
            There is no C++ compiler to link with.
        MeasureError
            Linking or writing failed.
        """
        check_export_path(path)
        try:
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
                built = Path(folder) / path.name
                self.factory.export_library(str(built))
                built.replace(path)
        except (OSError, RuntimeError) as error:
            raise MeasureError(
                f"Could not export the library to {path}: {reason_of(error)}."
            ) from error

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
    best = None if log is None else _load_best(log, target)
    try:
        with quiet_tvm():
            if best is not None:
                mod = to_search_form(network.mod)
                with best, _pass_context(use_auto_scheduler=True):
                    factory = relay.build(mod, target=target, params=network.params)
            else:
                is_cpu = target.kind.name == "llvm"
                mod = change_layout(network.mod, CHANNELS_FIRST) if is_cpu else network.mod
                with _pass_context(use_auto_scheduler=False):
                    factory = relay.build(mod, target=target, params=network.params)
    except tvm.TVMError as error:
        raise NetworkError(
            f"TVM cannot compile {network.name} for {target}: {reason_of(error)}."
        ) from error
    return Deployed(
        network=network,
        target=target,
        factory=factory,
        num_tasks_without_record=0 if best is None else len(best.missing),
    )


def evaluate_gain(
    network: Network, target: Target, log: Path, *, rounds: int = 5, seed: int = 0
) -> Gain:
    """Compile with and without a log, time both in turns, compare their outputs.

    Parameters
    ----------
    network, target, log
        As in `deploy`.
    rounds
        How often each is timed, untuned and tuned alternating, so that a change of the machine's
        speed meets both. Slow networks get fewer, to be done in about a minute.
    seed
        Seed of the inputs.

    Raises
    ------
    RecordError, NetworkError, MeasureError
        As in `deploy` and `Deployed.run`.
    """
    if rounds < 1:
        raise ConfigError(f"rounds must be at least 1; got {rounds}.")
    tuned, untuned = deploy(network, target, log), deploy(network, target)
    inputs = random_inputs(network, seed=seed)
    start_s = time.perf_counter()
    comparison = compare_outputs(untuned.run(inputs), tuned.run(inputs))
    once_s = time.perf_counter() - start_s
    # Without a record, a heavy task may take a minute: then one round must do.
    affordable = int(_TIMING_BUDGET_S / (once_s * (1 + _SAMPLES_PER_ROUND)))
    pairs = [
        (
            untuned.benchmark(repeats=_SAMPLES_PER_ROUND, seed=seed),
            tuned.benchmark(repeats=_SAMPLES_PER_ROUND, seed=seed),
        )
        for _ in range(max(1, min(rounds, affordable)))
    ]
    samples = [[latency.median_s for latency in column] for column in zip(*pairs, strict=True)]
    untuned_s, tuned_s = (statistics.median(column) for column in samples)
    return Gain(
        untuned_latency_s=untuned_s,
        tuned_latency_s=tuned_s,
        spread=max(statistics.pstdev(column) / statistics.fmean(column) for column in samples),
        speedup=untuned_s / tuned_s,
        max_relative_difference=comparison.max_relative_difference,
        outputs_agree=comparison.agree,
        num_tasks_without_record=tuned.num_tasks_without_record,
    )


def check_export_path(path: Path) -> None:
    """Check, before hours of search, that a library could be exported to a path.

    Raises
    ------
    ConfigError, MissingDependencyError
        As `Deployed.export`.
    """
    if path.suffix != ".so":
        raise ConfigError(f"The exported library's name must end in .so; got {path}.")
    if not path.parent.is_dir():
        raise ConfigError(f"The folder {path.parent} to export to does not exist; create it.")
    check_compiler()


# ---------------------------------------------------------------- details


class _CountingBest(_ApplyHistoryBest):
    """Stock `ApplyHistoryBest` that remembers the tasks it had no record of."""

    def __init__(self, log: str) -> None:
        super().__init__(log)
        self.missing: set[str] = set()

    def query(
        self, target: Target, workload_key: str, has_complex_op: bool, dag: Any, func_name: str
    ) -> Any:
        state = super().query(target, workload_key, has_complex_op, dag, func_name)
        if state is None and has_complex_op:
            self.missing.add(str(workload_key))
        return state


def _load_best(log: Path, target: Target) -> _CountingBest:
    if not log.is_file():
        raise RecordError(f"There is no log {log} to take the schedules from.")
    corrupt = check_log(log, (), target).corrupt
    if corrupt:
        raise RecordError(
            f"Cannot use line {corrupt[0].number} of the log {log}: {corrupt[0].reason}. Remove "
            f"that line ({len(corrupt)} in all are like it), or tune once more with this log, "
            "which sets such lines aside."
        )
    return _CountingBest(str(log))


def _pass_context(*, use_auto_scheduler: bool) -> Any:
    config = {"relay.backend.use_auto_scheduler": use_auto_scheduler}
    return tvm.transform.PassContext(opt_level=3, config=config)
