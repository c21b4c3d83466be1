"""`tvm-cdmpp device calibrate`: measure some small programs once, for all later predictions.

Progress goes to stderr, the result to stdout. A calibration is kept at the very end, whole or not
at all: one that was interrupted or failed leaves the one before. Exit code 130 after Ctrl-C.
"""

import argparse
import json
import math
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli import show
from tvm_cdmpp.cli.data_collect import device_to_measure, parse_remote
from tvm_cdmpp.cli.inputs import add_target, add_timeouts, check_gpu_is_here, measure_options
from tvm_cdmpp.cli.interrupt import EXIT_INTERRUPTED, stop_on_interrupt
from tvm_cdmpp.errors import CDMPPError, CheckpointError

if TYPE_CHECKING:
    from rich.console import Console

    from tvm_cdmpp.devices import DeviceCalibration, DeviceSpec, Levels
    from tvm_cdmpp.measure import FirstMinuteConfig, MeasureOptions, MeasureSession
    from tvm_cdmpp.search import TuneSettings

LEAST_TRIALS, LEAST_TIME_S = 600, 480.0
"""Searches that are shorter do not begin with a calibration, which takes as long as some hundred
trials, two and a half minutes on two cores: at most a third of the time."""
_BUSY = (
    "warning: the machine was busy meanwhile, by a fixed program measured in between; run "
    "`tvm-cdmpp device calibrate` again when it is quiet"
)


def add_parser(actions: Any) -> None:
    """Register the sub-command."""
    parser = actions.add_parser(
        "calibrate",
        help="measure small programs once, for all later predictions for a device",
        description="Measure some small programs of several operators, about three minutes, and "
        "keep how much longer they take than predicted, those such as a search finds and those "
        "with TVM's own schedules. All later predictions for the device use it.",
    )
    parser.add_argument(
        "--device", metavar="NAME", help="the known device to measure (default: this machine's)"
    )
    add_target(parser)
    parser.add_argument(
        "--programs", type=int, default=160, metavar="N", help="how many at most (default: 160)"
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights of yours, such as those of `adapt`, to keep levels of beside those of the "
        "package's",
    )
    parser.add_argument(
        "--rpc", metavar="HOST:PORT", help="measure a device of this TVM RPC tracker"
    )
    parser.add_argument("--key", metavar="K", help="which device of the tracker")
    add_timeouts(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--forget", action="store_true", help="forget what is kept of the device, measure nothing"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Measure, keep, tell."""
    remote = parse_remote(args.rpc, args.key, args.target)
    if remote is None:
        check_gpu_is_here(args.target)
    from tvm_cdmpp.bridge import device_of, parse_target
    from tvm_cdmpp.devices import (
        calibration_file,
        find_device,
        keep_calibration,
        without_calibrations,
    )
    from tvm_cdmpp.measure import FirstMinuteConfig, MeasureSession

    config, options = FirstMinuteConfig(programs=args.programs), measure_options(args, remote)
    target = parse_target(args.target)
    if args.forget:
        with without_calibrations():  # a damaged one can be forgotten
            device = find_device(args.device) if args.device else device_of(target)
        was_kept = keep_calibration(device.name, None, calibration_file())
        print(f"{'forgot' if was_kept else 'nothing was kept of'} {device.name}")
        return 0
    with without_calibrations():  # a damaged one is replaced
        device = device_to_measure(args.device, target, remote) or device_of(target)
    console = show.stderr_console()
    with MeasureSession() as session, stop_on_interrupt(session):
        begin = time.perf_counter()
        calibration = measure_and_keep(
            console, device, target, session, options, config, weights=args.weights
        )
        seconds = time.perf_counter() - begin
    if calibration is None:
        console.print("stopped; nothing was kept")
        return EXIT_INTERRUPTED
    if args.json:
        content = {"device": device.name, "target": str(target), "seconds": seconds}
        print(json.dumps({**content, **calibration.to_json()}, indent=1))
        return 0
    _print(calibration, device.name)
    print(f"kept in {calibration_file()}, after {show.minutes(seconds)}")
    return 0


def measure_and_keep(
    console: "Console",
    device: "DeviceSpec",
    target: Any,
    session: "MeasureSession",
    options: "MeasureOptions",
    config: "FirstMinuteConfig | None" = None,
    *,
    weights: str | None = None,
) -> "DeviceCalibration | None":
    """Calibrate a device with the package's weights, and keep the result.

    Parameters
    ----------
    console
        Where progress is shown, and what disturbed it.
    device, target, session, options, config
        As `calibrate_device` takes them.
    weights
        File of further ones.

    Returns
    -------
    calibration
        None when the session was stopped; then the one before is still kept.

    Raises
    ------
    MeasureError, ConfigError, RecordError, CheckpointError
        It could not be measured or kept, or the weights are none that were trained ahead.
    """
    from tvm_cdmpp.bridge import hardware_params
    from tvm_cdmpp.devices import Hardware, calibration_file, keep_calibration, read_calibrations
    from tvm_cdmpp.measure import SMALL_PROGRAMS, FirstMinuteConfig, calibrate_device
    from tvm_cdmpp.models import WEIGHTS, TrainedPredictor, load_weights
    from tvm_cdmpp.replay import WarmEstimates
    from tvm_cdmpp.search import find_commit

    file, config = calibration_file(), config or FirstMinuteConfig()
    read_calibrations(file)  # a damaged one is found before the minute
    loaded = {name: load_weights(name) for name in (*WEIGHTS, *([weights] if weights else ()))}
    predictors = [p for p in loaded.values() if isinstance(p, TrainedPredictor)]
    if len(predictors) < len(loaded):
        raise CheckpointError(
            f"'{weights}' holds a model that learns in a search alone and has no levels; expected "
            "weights of `train`, `finetune` or `adapt`."
        )
    console.print(
        f"measuring at most {config.programs} small programs on {device.name}",
        soft_wrap=True,
        markup=False,
    )
    measured = 0
    try:
        with show.show_stages(console) as show_stage:

            def on_stage(what: str, done: int, number: int) -> None:
                nonlocal measured
                if what == SMALL_PROGRAMS:
                    measured = done
                show_stage(what, done, number)

            on_stage("choosing programs", 0, 1)

            found = calibrate_device(
                device, target, predictors, session, options, config,
                on_stage=on_stage,
                estimator=WarmEstimates(device, Hardware.of(hardware_params(target))),
            )  # fmt: skip
    except Exception:  # older TVMs turn SearchStopped into a TVMError on its way through C++
        if session.stopping:
            return None
        raise
    if missing := describe_missing(config.programs, measured, len(found.programs)):
        console.print(missing, soft_wrap=True)
    found = replace(found, commit=find_commit())
    keep_calibration(device.name, found, file)
    _warn(console, found, device)
    return found


def _warn(console: "Console", found: "DeviceCalibration", device: "DeviceSpec") -> None:
    """Tell what could not be measured, and what disturbed it."""
    if not any(program.own for program in found.programs):
        console.print(
            "warning: no function with TVM's own schedule ran; such functions get the levels of "
            "programs of a search",
            soft_wrap=True,
        )
    if found.wake_s is None and device.kind == "cpu" and device.cores > 1:
        console.print(
            "warning: what waking threads takes could not be told, as a loop did not run or waited "
            "for other programs; a usual figure is predicted with",
            soft_wrap=True,
        )
    for level, what in _warm_levels(found):
        if level is None and device.kind == "cpu":
            console.print(
                f"warning: what {what} take could not be told, as too few ran without waiting; "
                "they stay as they are estimated",
                soft_wrap=True,
            )
    if found.untold:
        console.print(
            f"{len(found.untold)} functions with full caches do not count: "
            f"{'; '.join(found.untold)}",
            soft_wrap=True,
            markup=False,
        )
    if found.disturbed:
        console.print(_BUSY, soft_wrap=True)


def calibrate_first(
    weights: str | None,
    target: Any,
    device: "DeviceSpec | None",
    settings: "TuneSettings",
    session: "MeasureSession",
    console: "Console",
) -> "tuple[DeviceSpec | None, TuneSettings]":
    """Calibrate a device before a search, where that pays and was not done yet.

    Parameters
    ----------
    weights
        What the search starts from; levels are measured for the package's weights only.
    target, device
        What programs are built for, and where they run; None where the target tells it.
    settings, session, console
        Of the search.

    Returns
    -------
    device
        With what was measured; None where the target tells it.
    settings
        With the time that is left.
    """
    from tvm_cdmpp.bridge import device_of
    from tvm_cdmpp.models import WEIGHTS, TrainedPredictor, load_weights

    too_short = settings.trials < LEAST_TRIALS or settings.time_s < LEAST_TIME_S
    if too_short or weights not in WEIGHTS:
        return device, settings
    known, predictor = device or device_of(target), load_weights(weights)
    if not isinstance(predictor, TrainedPredictor) or _is_known(known, predictor.origin):
        return device, settings
    begin, found = time.perf_counter(), None
    try:
        with stop_on_interrupt(session):
            found = measure_and_keep(console, known, target, session, settings.measure)
    except (CDMPPError, OSError) as error:  # the search will do without
        console.print(f"not calibrated: {error}", soft_wrap=True, markup=False)
    spent_s = time.perf_counter() - begin
    if found is not None:
        device = device and replace(device, calibration=found)
        console.print(
            f"{known.name}: {describe_levels(found.levels[0])}; measured once, in "
            f"{show.minutes(spent_s)}, and kept for later searches",
            soft_wrap=True,
            markup=False,
        )
    return device, replace(settings, time_s=max(1.0, settings.time_s - spent_s))


def _is_known(device: "DeviceSpec", origin: str) -> bool:
    return device.calibration is not None and device.calibration.of(origin) is not None


def describe_levels(levels: "Levels") -> str:
    """Say in words how measured and predicted latencies go together."""
    searched = f"programs such as a search finds take {math.exp(levels.level):.2f} times"
    if levels.own_level is None:
        return f"{searched} what is predicted"
    own = f"those with TVM's own schedules {math.exp(levels.own_level):.2f} times"
    return f"{searched} what is predicted, {own}"


def describe_missing(asked: int, measured: int, ran: int) -> str:
    """Say why fewer programs ran than were asked for; empty where all did.

    Parameters
    ----------
    asked
        How many there should have been.
    measured
        How many there were.
    ran
        How many of these ran.
    """
    fewer = f"{asked - measured} not to be had, as some operators have too few that differ"
    failed = f"{measured - ran} not built, or failed"
    reasons = [*([fewer] if measured < asked else []), *([failed] if ran < measured else [])]
    return f"{ran} of {asked} small programs ran: {'; '.join(reasons)}" if reasons else ""


def describe_calibration(calibration: "DeviceCalibration") -> str:
    """Say in a line what is kept of a device."""
    return (
        f"calibrated on {calibration.date[:10]} with {len(calibration.programs)} programs: "
        f"{describe_levels(calibration.levels[0])}"
        + (", on a busy machine" if calibration.disturbed else "")
    )


def _print(calibration: "DeviceCalibration", name: str) -> None:
    console, levels = show.stdout_console(), calibration.levels[0]
    counts = Counter((program.own, program.operator) for program in calibration.programs)
    rows = [
        [operator, schedules, str(counts[own, operator]), f"{math.exp(level):.2f}"]
        for own, schedules, found in (
            (False, "as a search finds", levels.operators),
            (True, "TVM's own", levels.own_operators),
        )
        for operator, level in sorted(found.items())
    ]
    show.print_table(
        console,
        f"{name}: {len(calibration.programs)} programs",
        ("operator", "schedules", "programs", "measured / predicted"),
        rows,
    )
    console.print(f"in all: {describe_levels(levels)}", soft_wrap=True)
    if calibration.wake_s is not None:
        console.print(f"waking the threads of a loop takes {show.latency(calibration.wake_s)}")
    for level, what in _warm_levels(calibration):
        if level is not None:
            factor = f"{math.exp(level):.2f} times"
            console.print(f"{what} take {factor} what is estimated", soft_wrap=True)
    if calibration.disturbed:
        console.print(_BUSY, soft_wrap=True)


def _warm_levels(calibration: "DeviceCalibration") -> "tuple[tuple[float | None, str], ...]":
    """Return what was measured with full caches, and of what functions."""
    return (
        (calibration.plain_level, "functions that Ansor does not tune, such as copies,"),
        (calibration.library_level, "those of them that call the C library, such as erf,"),
        (calibration.kept_level, "products whose weights stay in the caches"),
    )
