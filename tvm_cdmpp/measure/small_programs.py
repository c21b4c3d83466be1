"""Which small programs a device's first minute measures, and what models say of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvm_cdmpp.bridge import load_tvm, task_dag, task_name
from tvm_cdmpp.devices import DeviceSpec, Hardware
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.extract import describe_programs
from tvm_cdmpp.measure.calibration import calibration_program
from tvm_cdmpp.measure.candidates import likely_fast
from tvm_cdmpp.models import TrainedPredictor
from tvm_cdmpp.networks import LAYERS, OwnFunction, network_of_layers, own_functions
from tvm_cdmpp.train import operator_of_dag
from tvm_cdmpp.workloads import sample_tasks

auto_scheduler = load_tvm().auto_scheduler

_FIRST_OWN = 1000
"""Number of the first task of those with TVM's own schedules."""
_OWN_SHARE = 0.25
"""Of the programs with TVM's own schedules, as far as there are so many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstMinuteConfig:
    """What is measured."""

    programs: int = 160
    """Programs of all operators together, a quarter of them with TVM's own schedules. Of a few of
    each the fastest are a chance find: with 30 a machine that runs convolutions twice as fast as
    predicted seemed right, from 120 on not."""
    seed: int = 0
    """Of the sampling; one seed gives one choice."""

    def __post_init__(self) -> None:
        """Reject what says nothing."""
        if not 8 <= self.programs <= 1000:
            raise ConfigError(f"--programs must be 8 to 1000, got {self.programs}")


@dataclass(frozen=True, slots=True)
class Sample:
    """A program to measure, what it is of, and what models say of it."""

    operator: str
    task: int
    name: str
    measured: Any
    """TVM's `MeasureInput`; that of another program for a function with a schedule of TVM's own."""
    log_s: Mapping[str, float]
    """Natural logarithm of predicted seconds, by the origin of the weights."""
    own: OwnFunction | None = None
    """The function with a schedule of TVM's own; None for a program such as a search finds."""


def choose_programs(
    device: DeviceSpec,
    target: Any,
    predictors: Sequence[TrainedPredictor],
    config: FirstMinuteConfig,
) -> list[Sample]:
    """Return the programs to measure, operator by operator, the fastest by prediction first.

    Those with TVM's own schedules come last.

    The parameters are those of `calibrate_device`.
    """
    device = replace(device, calibration=None)
    tasks = sample_tasks(target)
    own = own_samples(max(1, round(_OWN_SHARE * config.programs)), device, target, predictors)
    left = max(1, config.programs - len(own))
    shares = np.diff(np.linspace(0, left, len(tasks) + 1).round().astype(int))
    chosen = []
    for number, (task, share) in enumerate(zip(tasks, shares.tolist(), strict=True)):
        found = likely_fast(task, device, predictors, share, config.seed + number)
        if not (share and found.states):
            continue
        operator, name = operator_of_dag(task_dag(task)), task_name(task)
        last = len(found.states) - 1
        for place in np.unique(np.linspace(0, last, share).round().astype(int)).tolist():
            measured = auto_scheduler.MeasureInput(task, found.states[place])
            said = {origin: float(values[place]) for origin, values in found.log_s.items()}
            chosen.append(Sample(operator, number, name, measured, said))
    return chosen + own


def own_samples(
    number: int,
    device: DeviceSpec,
    target: Any,
    predictors: Sequence[TrainedPredictor],
) -> list[Sample]:
    """Return functions of at most so many layers with TVM's own schedules."""
    device, stand_in = replace(device, calibration=None), calibration_program(target)
    hardware = Hardware.of(stand_in.task.hardware_params)
    layers = network_of_layers(LAYERS[:number])
    functions = own_functions(layers, target, hardware.cores)
    if not functions:
        return []
    batches = [describe_programs([function.leaves], hardware) for function in functions]
    return [
        Sample(
            operator=function.operator,
            task=_FIRST_OWN + place,
            name=f"{function.name}, TVM's own schedule",
            measured=stand_in,  # TVM's runner asks for its target only
            log_s={
                p.origin: math.log(p.predict(batch, function.on(device)).latency_s[0])
                for p in predictors
            },
            own=function,
        )
        for place, (function, batch) in enumerate(zip(functions, batches, strict=True))
    ]
