"""Which small programs a device's first minute measures, and what models say of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvm_cdmpp.bridge import load_tvm, task_dag, task_name
from tvm_cdmpp.devices import DeviceSpec, Hardware
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.extract import (
    LayoutRewrite,
    StepExtractor,
    analyse,
    describe_programs,
    dump_records,
)
from tvm_cdmpp.measure.calibration import calibration_program
from tvm_cdmpp.models import TrainedPredictor
from tvm_cdmpp.networks import LAYERS, OwnFunction, network_of_layers, own_functions
from tvm_cdmpp.train import operator_of_dag
from tvm_cdmpp.workloads import sample_tasks

auto_scheduler = load_tvm().auto_scheduler

_SAMPLED = 96
"""Programs of an operator to choose from."""
_SLOWEST = 0.25
"""Quantile of what is predicted up to which programs are taken: searches measure fast ones. What is
predicted to be fast is partly a mistake; what was measured to be fast, partly by chance. Logs have
both, and so have the fastest of these."""
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
        with _numpy_unchanged():
            candidates = _sampled(task, config.seed + number)
        hardware = Hardware.of(task.hardware_params)
        extractor = StepExtractor(
            analyse(task.compute_dag), hardware, LayoutRewrite(int(task.layout_rewrite_option))
        )
        batch, errors = extractor.extract(dump_records(task, candidates))
        usable = [place for place in range(len(candidates)) if place not in errors]
        if not usable or not share:
            continue
        batch = batch.take(np.array(usable))
        log_s = {p.origin: np.log(p.predict(batch, device).latency_s) for p in predictors}
        order = np.argsort(log_s[predictors[0].origin], kind="stable")
        last = max(min(share, len(order)), round(_SLOWEST * len(order))) - 1
        operator, name = operator_of_dag(task_dag(task)), task_name(task)
        for place in order[np.unique(np.linspace(0, last, share).round().astype(int))].tolist():
            measured = auto_scheduler.MeasureInput(task, candidates[usable[place]])
            said = {origin: float(values[place]) for origin, values in log_s.items()}
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


def _sampled(task: Any, seed: int) -> list[Any]:
    """Let TVM sample programs of a task, which differ."""
    policy = auto_scheduler.SketchPolicy(
        task,
        params={
            **auto_scheduler.SketchPolicy.DEFAULT_PARAMS,
            "evolutionary_search_population": _SAMPLED,
            "sample_init_min_population": _SAMPLED // 2,
        },
        seed=1 + seed,  # TVM reads 0 as "no seed"
        verbose=0,
    )
    states = policy.sample_initial_population()
    return list({str(state): state for state in states}.values())


@contextmanager
def _numpy_unchanged() -> Iterator[None]:
    """Keep what TVM's sampling draws from NumPy's global generator from searches."""
    before = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(0)  # noqa: NPY002
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
