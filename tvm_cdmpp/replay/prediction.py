"""The latency of a whole network on a device that need not be here: lower, price, replay.

The spreads of operators are those of the predictor and of its level, those of their sum as in
`spreads`.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tvm_cdmpp.bridge import (
    hardware_params,
    target_for,
)
from tvm_cdmpp.devices import DeviceSpec, Hardware, find_device
from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.models import interval, load_weights
from tvm_cdmpp.networks import (
    CountingBest,
    LoweredNetwork,
    Network,
    class_of,
    find_tasks,
    load_best,
    load_network,
    lower_network,
    readable,
    shapes_of,
)
from tvm_cdmpp.replay.graph import OperatorGraph, read_graph
from tvm_cdmpp.replay.of_log import fitting_targets, no_schedule_of, remarks_on_targets, targets_of
from tvm_cdmpp.replay.pricing import Basis, Price, price_functions, with_measured
from tvm_cdmpp.replay.remarks import remarks_on
from tvm_cdmpp.replay.schedules import best_predicted
from tvm_cdmpp.replay.spreads import joint_spread
from tvm_cdmpp.replay.timeline import QueueConfig, Timeline, replay
from tvm_cdmpp.train import operator_of_dag


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionPrediction:
    """All calls of one function of a network."""

    name: str
    function: str
    """What TVM calls it."""
    shapes: str
    """Of its first two inputs, as names of tasks have them; empty for what has no program."""
    operator_class: str
    count: int
    latency_s: float
    """Of one call."""
    interval_s: tuple[float, float]
    """Holds it in 90 % of cases."""
    share: float
    """Of all calls, in the sum over all functions."""
    bound: str
    """What holds it down most by the analytic estimate: compute, a cache, memory, start-up, ..."""
    basis: Basis
    """Where the latency comes from."""
    flops: float


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkPrediction:
    """How long a network takes on a device."""

    network: str
    device: str
    batch: int
    """As it was asked for, else the first size of the first input."""
    schedules: str
    """Which schedules its tasks have, in words."""
    latency_s: float
    interval_s: tuple[float, float]
    """Holds it in 90 % of cases."""
    start_s: float
    """Start-ups of the network and of all its operators, which no function holds, added up: part of
    the latency where one operator runs at a time; where several do, theirs overlap, and the sum may
    be more than the latency."""
    tasks: tuple[FunctionPrediction, ...]
    """Functions that TVM compiles, those that Ansor does not tune among them."""
    peak_bytes: float
    """Memory of inputs, weights and results."""
    num_tasks_without_record: int
    """Tasks that have TVM's own schedule because none was given for them."""
    remarks: tuple[str, ...]
    """What a user may not expect of the figures."""
    timeline: Timeline = field(repr=False)

    @property
    def shares(self) -> dict[str, float]:
        """Share of the operators' time by class of operator, the largest first."""
        sums = defaultdict[str, float](float)
        for task in self.tasks:
            sums[task.operator_class] += task.share
        return dict(sorted(sums.items(), key=lambda pair: -pair[1]))

    @property
    def bound(self) -> str:
        """What holds most of the time down."""
        sums = defaultdict[str, float](float)
        for task in self.tasks:
            sums[task.bound] += task.share
        return max(sums, key=sums.__getitem__)

    def as_json(self) -> dict[str, Any]:
        """Return all but the timeline, as JSON values."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "timeline"}
        tasks = [asdict(task) for task in self.tasks]
        return {**values, "tasks": tasks, "shares": self.shares, "bound": self.bound}


class NetworkForecast:
    """One network, predicted for any number of devices; what they share is compiled once.

    Parameters
    ----------
    network
        A name, a file, or what `load_network` gave.
    log
        Ansor log whose best records are the schedules.
    trials
        Without a log: 0 for TVM's own schedules, else how many programs per task and generation
        the predictor looks through for the best; nothing is measured.
    weights
        Of the predictor, as `CDMPPModel` takes them.
    load_options
        As of `load_network`, for names and files.

    Raises
    ------
    ConfigError
        `trials` is negative, or given beside a log; options for a file beside a network.
    NetworkError
        As from `load_network`.
    """

    def __init__(
        self,
        network: str | Path | Network,
        *,
        log: str | Path | None = None,
        trials: int = 0,
        weights: str = "shipped",
        **load_options: Any,
    ) -> None:
        if trials < 0:
            raise ConfigError(f"trials must not be negative; got {trials}.")
        if log is not None and trials:
            raise ConfigError("Give a log or trials: a log has the schedules already.")
        if isinstance(network, Network) and load_options:
            raise ConfigError(
                f"{', '.join(load_options)}: these are for a name or a file; a network that was "
                "loaded has its own."
            )
        log = None if log is None else Path(log)
        self._log_targets = None if log is None else targets_of(log)
        self._predictor = load_weights(weights)
        if not isinstance(network, Network):
            network = load_network(str(network), **load_options)
        self._network, self._log, self._trials, self._weights = network, log, trials, weights
        self._batch = int(load_options.get("batch") or _batch_of(network))
        self._lowered: dict[str, tuple[LoweredNetwork, OperatorGraph]] = {}

    def with_weights(self, weights: str) -> NetworkForecast:
        """Return a forecast of the same network by other weights, which need not lower it again.

        Parameters
        ----------
        weights
            As of the class.
        """
        other = copy.copy(self)
        other._predictor, other._weights = load_weights(weights), weights
        if self._trials:  # the weights choose the schedules
            other._lowered = {}
        return other

    def on(
        self,
        device: DeviceSpec | str,
        queues: QueueConfig | int | None = None,
        measured_s: Mapping[str, float] | None = None,
    ) -> NetworkPrediction:
        """Predict the network on a device.

        Parameters
        ----------
        device
            A known device or its name.
        queues
            How it runs operators, or how many it runs side by side; by default one, with a start-up
            by its kind.
        measured_s
            Seconds of functions that were timed there, again and again by themselves, by the names
            that `FunctionPrediction.function` has; the others are predicted.

        Raises
        ------
        UnknownDeviceError
            The device is not known.
        ConfigError
            It is neither a device nor a name; a function that was measured is not of the network,
            or its latency is none.
        NetworkError
            TVM cannot compile the network for it, or it has no operator.
        RecordError
            The log has no record for this kind of device, or none of the network's tasks.
        """
        device = _known(device)
        if not isinstance(queues, QueueConfig):
            queues = QueueConfig.of(device.kind, 1 if queues is None else queues)
        target = self._target(device)
        lowered, graph = self._lower(target, device)
        moved = {operator.function: operator.moved_bytes for operator in graph.operators}
        parameters = hardware_params(target)
        hardware = Hardware() if parameters is None else Hardware.of(parameters)
        prices = price_functions(
            lowered.programs, moved, device, hardware, self._predictor, graph.peak_bytes,
            {name: operator_of_dag(dag) for name, dag in lowered.searched.items()},
        )  # fmt: skip
        if measured_s is not None:
            prices = with_measured(prices, measured_s, graph, lowered.programs, device)
        timeline = replay(graph, {name: p.latency_s for name, p in prices.items()}, queues)
        start_s = queues.network_start_s + len(timeline.events) * queues.operator_start_s
        return self._summary(device, lowered, timeline, prices, start_s)

    def _target(self, device: DeviceSpec) -> Any:
        if self._log_targets is None:
            return target_for(device)
        fitting = fitting_targets(self._log_targets, device)
        if not fitting:
            raise RecordError(
                f"The log {self._log} has no record for a {device.kind}, which {device.name} is; "
                f"its targets: {'; '.join(map(str, self._log_targets)) or 'none'}."
            )
        return fitting[0]

    def _lower(self, target: Any, device: DeviceSpec) -> tuple[LoweredNetwork, OperatorGraph]:
        key = f"{target} {device.name if self._trials else ''}"
        if key not in self._lowered:
            best = self._schedules(target, device)
            lowered = lower_network(self._network, target, best)
            if self._log is not None and best and best.missing and not lowered.searched:
                raise no_schedule_of(
                    self._log, best.missing, f"{self._network.name} at batch {self._batch}"
                )
            graph = read_graph(lowered.graph_json, lowered.parameters, self._network.name)
            self._lowered[key] = lowered, graph
        return self._lowered[key]

    def _schedules(self, target: Any, device: DeviceSpec) -> CountingBest | None:
        if self._log is not None:
            return load_best(self._log)
        if not self._trials:
            return None
        tasks, _ = find_tasks(self._network, target)
        return best_predicted(tasks, device, self._weights, self._trials)

    def _summary(
        self,
        device: DeviceSpec,
        lowered: LoweredNetwork,
        timeline: Timeline,
        prices: dict[str, Price],
        start_s: float,
    ) -> NetworkPrediction:
        counts = timeline.graph.counts
        work_s = sum(counts[name] * price.latency_s for name, price in prices.items())
        spread = joint_spread(
            [
                (counts[name] * price.latency_s, price.spread, price.level_spread)
                for name, price in prices.items()
            ]
        )
        tasks = tuple(
            FunctionPrediction(
                name=readable(name),
                function=name,
                shapes=shapes_of(lowered.programs.get(name)),
                operator_class=class_of(name, lowered.programs.get(name)),
                count=counts[name],
                latency_s=prices[name].latency_s,
                interval_s=interval(
                    prices[name].latency_s, prices[name].spread, prices[name].level_spread
                ),
                share=counts[name] * prices[name].latency_s / work_s,
                bound=prices[name].bound,
                basis=prices[name].basis,
                flops=prices[name].flops,
            )
            for name in counts
        )
        return NetworkPrediction(
            network=self._network.name,
            device=device.name,
            batch=self._batch,
            schedules=self._describe_schedules(),
            latency_s=timeline.latency_s,
            interval_s=interval(timeline.latency_s, spread),
            start_s=start_s,
            tasks=tasks,
            peak_bytes=timeline.graph.peak_bytes,
            num_tasks_without_record=lowered.num_tasks_without_record,
            remarks=tuple(remarks_on(prices, counts, lowered, device, self._predictor))
            + remarks_on_targets(self._log_targets or (), device),
            timeline=timeline,
        )

    def _describe_schedules(self) -> str:
        if self._log is not None:
            return f"the best of {self._log}"
        if self._trials:
            return f"the best predicted, {self._trials} programs per generation"
        return "TVM's own"


def predict(
    network: str | Path | Network, device: DeviceSpec | str, **options: Any
) -> NetworkPrediction:
    """Predict how long a network takes on a device; nothing is measured, no device needed.

    Parameters
    ----------
    network
        A name, a file, or what `load_network` gave.
    device
        A known device or its name; of several, call `NetworkForecast.on` for each.
    options
        `log`, `trials` and `weights` of `NetworkForecast`, `batch`, `input_shapes` and
        `input_dtypes` of `load_network`, `queues` and `measured_s` of `NetworkForecast.on`.

    Raises
    ------
    CDMPPError
        As from there.
    """
    device = _known(device)  # a wrong one is told before TVM compiles
    asked = {name: options.pop(name) for name in ("queues", "measured_s") if name in options}
    return NetworkForecast(network, **options).on(device, **asked)


def _known(device: DeviceSpec | str) -> DeviceSpec:
    """Return the device that is meant."""
    if isinstance(device, str) and "," not in device:
        return find_device(device)
    if not isinstance(device, DeviceSpec):
        raise ConfigError(
            f"device must be one DeviceSpec or name; got {device!r}. For several devices, call "
            "NetworkForecast(network).on(device) for each: it compiles once."
        )
    return device


def _batch_of(network: Network) -> int:
    shape, _ = next(iter(network.inputs.values()), ((1,), ""))
    return int(shape[0]) if shape else 1
