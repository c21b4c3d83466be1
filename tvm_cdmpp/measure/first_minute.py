"""A device's first minute: small programs, measured once and compared with a model.

Most are programs that TVM sampled of small operators of many kinds (`workloads.samples`), always
the same ones for a target, of each operator some of the quarter that the model says is the
fastest. What the fastest third of each operator takes, by what the model says, gives the device's
level and those of its operators: a model's favourites are partly its mistakes, and a search keeps
fast ones. The very fastest is fast by chance as well, and would say too little.

The others are functions of layers (`networks.layers`) with TVM's own schedules, which networks run
that were not tuned. The model has learned from no such programs, so they have levels of their own.

A machine that others use is slow for seconds at a time. So programs of all operators are measured
in one random order: among those of a search the slow ones do not count. Functions with TVM's own
schedules all count, and are measured three times; the middle one counts, as in `adapt`. So is what
waking the threads of a CPU takes (`waking`), once in between every few programs.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import pairwise
from typing import Any

import numpy as np

from tvm_cdmpp.bridge import latency_s, load_tvm
from tvm_cdmpp.devices import DeviceCalibration, DeviceSpec, Levels, MeasuredProgram
from tvm_cdmpp.errors import MeasureError
from tvm_cdmpp.measure.calibration import CalibrationConfig, matmul_timer
from tvm_cdmpp.measure.outcomes import Failures
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession
from tvm_cdmpp.measure.small_programs import (
    FirstMinuteConfig,
    Sample,
    choose_programs,
)
from tvm_cdmpp.measure.untuned import build_all
from tvm_cdmpp.measure.waking import Wakes
from tvm_cdmpp.measure.warm import OnStage, WarmEstimator, WarmLevels, warm_levels
from tvm_cdmpp.models import TrainedPredictor
from tvm_cdmpp.train import LevelCorrection, LevelVariances

tvm = load_tvm()

SMALL_PROGRAMS = "small programs"
"""What the first stage measures."""
_FASTEST = 1 / 3
"""Of the programs of an operator, those that count."""
_VARIANCES = LevelVariances(operator=0.3)
"""Of programs of a search (on two cores of an EPYC of the third generation: .3 between operators,
from .8 times what is predicted for matrix products to 6 times for sums)."""
_OWN_VARIANCES = LevelVariances(operator=0.3, task=0.05, noise=0.05)
"""Of TVM's own schedules: there .4 between operators, .1 within them."""
_OWN_RUNS = 3
"""Of a function with a schedule of TVM's own."""
_TOGETHER = 16
"""Programs that are measured between two checks of the machine."""
_WAKES_EVERY = 4
"""Batches from one measurement of waking threads to the next."""
_LEAST_VALID = 0.5
"""Share of the programs that must run; of fewer, nothing is said."""


def calibrate_device(
    device: DeviceSpec,
    target: Any,
    predictors: Sequence[TrainedPredictor],
    session: MeasureSession,
    options: MeasureOptions,
    config: FirstMinuteConfig | None = None,
    *,
    on_stage: OnStage = lambda what, done, number: None,
    estimator: WarmEstimator | None = None,
) -> DeviceCalibration:
    """Measure a device.

    Parameters
    ----------
    device
        What predictions are for; a calibration that it has is left out of account.
    target
        What programs are built for.
    predictors
        Trained ahead; the programs are chosen by the first, and each gets its levels.
    session
        An entered session; after its `stop`, `SearchStopped` comes out of this.
    options
        How programs are measured, and where.
    config
        Which programs.
    on_stage
        Called with what is being measured, `SMALL_PROGRAMS` at first, how many of it are done, and
        how many there are.
    estimator
        Of functions with full caches, which are measured as well then; see `warm`.

    Raises
    ------
    MeasureError
        Too few programs could be built and run, or the remote devices cannot be reached.
    """
    config = config or FirstMinuteConfig()
    samples = choose_programs(device, target, predictors, config)
    builder = options.builder()
    on_cpu = str(target.kind.name) == "llvm"
    runner = options.runner(on_cpu=on_cpu)
    copies = 1 if options.remote is None else options.remote.count()
    check = matmul_timer(builder, runner, target, num_devices=copies)
    check()  # the first program of a process is slower
    checks_s, failures = [check()], Failures()
    wakes = Wakes(options, target, device.cores)
    timed: list[tuple[int, float, int]] = []
    """Place of the sample, measured seconds, and which check came after it."""
    seen = set[int]()
    on_stage(SMALL_PROGRAMS, 0, len(samples))
    for number, places in enumerate(_batches(samples, config.seed)):
        session.check()
        if number % _WAKES_EVERY == 0:
            wakes.take()
        batch = [samples[place] for place in places]
        inputs = [sample.measured for sample in batch]
        built = build_all(inputs, [sample.own for sample in batch], builder, target)
        results = runner.run(inputs, built, verbose=0)
        for place, result in zip(places, results, strict=True):
            if not failures.count(result):
                timed.append((place, latency_s(result), len(checks_s)))
        checks_s.append(check())
        seen.update(places)
        on_stage(SMALL_PROGRAMS, len(seen), len(samples))
    warm = WarmLevels(None, None, None)
    if estimator and on_cpu:
        warm = warm_levels(options, target, wakes, estimator, _checked(on_stage, session))
    # On one of several devices a program ran beside a check that was as slow as the slowest.
    slower = [1.0] * len(checks_s) if copies > 1 else disturbances(checks_s)
    runs_s = defaultdict[int, list[tuple[float, float]]](list)
    """What each would have taken on a machine that was not busy, and what it took."""
    for place, seconds, after in timed:
        runs_s[place].append((seconds / slower[after], seconds))
    usual_s = {place: sorted(found)[(len(found) - 1) // 2] for place, found in runs_s.items()}
    if len(usual_s) < _LEAST_VALID * len(samples):
        kinds = ", ".join(f"{number} x {kind}" for kind, number in failures.counts.most_common())
        raise MeasureError(
            f"only {len(usual_s)} of {len(samples)} small programs ran on {device.name} ({kinds}); "
            f"for example: {failures.example or 'no message'}. Nothing was kept; run `tvm-cdmpp "
            "doctor`, or look at the messages of the RPC server."
        )
    found = [(samples[place], seconds) for place, (seconds, _) in sorted(usual_s.items())]
    limit_s = (1 + CalibrationConfig().bound) * min(checks_s)
    return DeviceCalibration(
        levels=tuple(levels_of(found, predictor.origin) for predictor in predictors),
        programs=tuple(
            MeasuredProgram(
                operator=sample.operator,
                task=sample.name,
                measured_s=usual_s[place][1],
                log_ratio=math.log(usual_s[place][0]) - sample.log_s[predictors[0].origin],
                own=sample.own is not None,
            )
            for place, sample in enumerate(samples)
            if place in usual_s
        ),
        wake_s=wakes.mean_s,
        plain_level=warm.plain,
        library_level=warm.library,
        kept_level=warm.kept,
        untold=warm.untold,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        tvm=str(tvm.__version__),
        # One slow program in eleven happens on any machine.
        disturbed=sum(check_s > limit_s for check_s in checks_s) > 1,
    )


def _checked(on_stage: OnStage, session: MeasureSession) -> OnStage:
    """Let a session that was stopped end each stage."""

    def checked(what: str, done: int, number: int) -> None:
        session.check()
        on_stage(what, done, number)

    return checked


def disturbances(checks_s: Sequence[float]) -> list[float]:
    """Return by what factor a machine was slower than usual before each check of it.

    Parameters
    ----------
    checks_s
        Seconds of a fixed program, measured in between others.

    Returns
    -------
    factors
        At least 1. Both the check before and that after must have been slower than a quick one, the
        first quartile, so that one disturbed check does not decide; the first has none before it.
    """
    usual_s = float(np.quantile(checks_s, 0.25))
    return [1.0, *(max(1.0, min(pair) / usual_s) for pair in pairwise(checks_s))]


def levels_of(found: Sequence[tuple[Sample, float]], origin: str) -> Levels:
    """Return the levels of one set of weights: robust, and drawn towards no difference.

    Parameters
    ----------
    found
        Samples and their measured seconds.
    origin
        Of the weights.
    """
    searched, own = defaultdict[int, list[tuple[Sample, float]]](list), []
    for sample, measured_s in sorted(found, key=lambda pair: pair[1]):
        if sample.own is None:
            searched[sample.task].append((sample, measured_s))
        else:
            own.append((sample, measured_s))
    fastest = [
        pair
        for of_task in searched.values()
        for pair in of_task[: math.ceil(_FASTEST * len(of_task))]
    ]
    fitted = _fitted(fastest, origin, _VARIANCES)
    of_own = _fitted(own, origin, _OWN_VARIANCES)
    return Levels(
        weights=origin,
        level=fitted.device,
        operators=dict(fitted.operators),
        own_level=of_own.device if own else None,
        own_operators=dict(of_own.operators),
    )


def _fitted(
    found: Sequence[tuple[Sample, float]], origin: str, variances: LevelVariances
) -> LevelCorrection:
    """Estimate the levels of some samples, given with their measured seconds."""
    ratios = [math.log(measured_s) - sample.log_s[origin] for sample, measured_s in found]
    operators = [sample.operator for sample, _ in found]
    tasks = [sample.task for sample, _ in found]
    return LevelCorrection.fit(
        np.array(ratios, np.float64), np.array(operators, str), np.array(tasks, np.int64), variances
    )


def _batches(samples: Sequence[Sample], seed: int) -> list[list[int]]:
    """Return places of samples in a random order, with as many runs as each has."""
    places = [n for n, sample in enumerate(samples) for _ in range(_OWN_RUNS if sample.own else 1)]
    shuffled = np.random.default_rng(seed).permutation(places).tolist()
    return [shuffled[first : first + _TOGETHER] for first in range(0, len(places), _TOGETHER)]
