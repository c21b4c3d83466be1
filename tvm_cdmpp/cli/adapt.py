"""`tvm-cdmpp adapt`: onboards a device: measures what tells most, and writes weights for it.

Progress goes to stderr, the curve to stdout. Exit codes: 0 done, 2 a clear error, 130 interrupted:
the weights of what was measured are written all the same. The same command goes on.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli import show
from tvm_cdmpp.cli.adapt_bench import live, names_of_networks, read_beside, recorded
from tvm_cdmpp.cli.finetune import load_trained
from tvm_cdmpp.cli.inputs import add_input_forms, add_target
from tvm_cdmpp.cli.interrupt import EXIT_INTERRUPTED, stop_on_interrupt
from tvm_cdmpp.cli.outputs import (
    WORKLOADS,
    check_is_log,
    check_outputs,
    files_of_log,
    files_of_networks,
    make_folder_of,
)
from tvm_cdmpp.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from tvm_cdmpp.devices import DeviceSpec, Levels
    from tvm_cdmpp.models import TrainedPredictor
    from tvm_cdmpp.train import Bench, CurvePoint, Learner, Onboarding, OnboardSettings

_BATCH = 64
_BESIDE_CALIBRATION = 0.5
"""See `Learner.searched_share`."""
_FAR = 2.0
"""Times the median error: a mean error beyond is that of a few programs."""


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "adapt",
        help="measure a few programs of a device and write weights for it",
        description="Onboard a device: choose which programs to measure, measure them in batches, "
        "train the weights on after each, and stop when that no longer helps: when two batches in "
        "a row bring the error on programs that were kept back down by less than 2 %, and all "
        "chosen tasks of --networks have a record. Run again, it goes on from its records.",
    )
    parser.add_argument(
        "--device", required=True, metavar="NAME",
        help="a known device, or this machine as `device detect` calls it; with --from-store, as "
        "the store calls it",
    )  # fmt: skip
    parser.add_argument(
        "--budget", type=int, required=True, metavar="N",
        help="records at most, those that are there included",
    )  # fmt: skip
    parser.add_argument(
        "--networks", default="", metavar="A,B",
        help="names or model files whose programs are measured; with --from-store, names there "
        "(default: all of the device)",
    )  # fmt: skip
    parser.add_argument(
        "--from-store", type=Path, metavar="STORE",
        help="take what was measured from this record store, instead of measuring",
    )  # fmt: skip
    parser.add_argument("--rpc", metavar="HOST:PORT", help="measure on the devices of a tracker")
    parser.add_argument("--key", metavar="K", help="which devices of the tracker")
    add_target(parser)
    add_input_forms(parser)
    parser.add_argument(
        "--input-batch", type=int, metavar="N", dest="batch",
        help="size of the batch: of named networks, and of the open first axes of model files",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=int, metavar="N", dest="programs_per_batch",
        help=f"programs measured before training goes on (default: {_BATCH}, or the budget)",
    )  # fmt: skip
    parser.add_argument(
        "--weights", default="shipped", metavar="W",
        help="where to start: shipped, evaluation or a file (default: shipped)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="weights (default: NAME.safetensors)"
    )
    parser.add_argument(
        "--records", type=Path, metavar="LOG",
        help="Ansor log to write or continue (default: NAME.json)",
    )  # fmt: skip
    parser.add_argument(
        "--sources", type=Path, metavar="STORE",
        help="record store of other devices to train on beside, so that nothing is forgotten "
        "(default: weights are kept near the start instead)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-noisy", action="store_true",
        help="keep and mark batches of a noisy machine, instead of stopping",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Measure and learn, then write the weights."""
    return adapt(args)


def adapt(
    args: argparse.Namespace, on_point: "Callable[[CurvePoint], None]" = lambda _: None
) -> int:
    """Do as `run`; `on_point` is called after each batch, before the next is chosen."""
    args.out = args.out or Path(f"{args.device}.safetensors")
    args.records = args.records or Path(f"{args.device}.json")
    _check_files(args)
    from tvm_cdmpp.devices import calibration_file, read_calibrations
    from tvm_cdmpp.train import Onboarding, OnboardSettings, keep_point, read_points

    # All that can be wrong is found before anything takes time.
    # Live, networks are to be predicted: by the program that a search keeps of a few.
    live_only = {"fastest_share": 1 / OnboardSettings.programs_per_task, "whole_plan": True}
    of_networks: dict[str, Any] = {} if args.from_store else live_only
    batch = args.programs_per_batch
    batch = max(1, min(_BATCH, args.budget)) if batch is None else batch
    settings = OnboardSettings(budget=args.budget, batch=batch, **of_networks)
    predictor, calibrations = load_trained(args.weights), read_calibrations(calibration_file())
    opened = recorded(args) if args.from_store else live(args, settings)
    with opened as bench:
        learner = _learner(args, bench, predictor)
        curve_file = args.records.with_name(f"{args.records.name}.curve.jsonl")
        if not len(bench.measured):
            curve_file.unlink(missing_ok=True)  # of records that are gone
        learning = _settings_of(args, settings) | {"from": predictor.origin}
        work = Onboarding(bench, learner, settings, read_points(curve_file, learning))
        console = show.stderr_console()
        device = bench.candidates.devices[0]
        note = _tell_seen(console, predictor, device, args.from_store)
        with (
            stop_on_interrupt(work),
            show.show_progress(console, "records", args.budget, 0) as show_step,
        ):
            done, known_points = 0, len(work.curve)
            for point in work.steps():
                if len(work.curve) > known_points:
                    keep_point(curve_file, point, learning)
                show_step(describe_point(point), point.records - done, "")
                done = point.records
                on_point(point)
        if work.stopping and not work.curve:
            return EXIT_INTERRUPTED  # nothing was measured
        # Before the session ends, which holds the log.
        calibration = device.calibration and calibrations.get(device.name)
        levels, known = calibration and calibration.of(predictor.origin), None
        if calibration and levels:
            wake_s = calibration.mean_wake_s(bench.wake_s)
            known = (device, replace(levels, wake_s=wake_s))
        has_own = bool((bench.candidates.own & ~bench.open).any())
        learned = _write(args, work, predictor, settings, device.name, known, has_own)
    _print(args, work, learned, note)
    return EXIT_INTERRUPTED if work.stopping else 0


def _tell_seen(
    console: "Console", start: "TrainedPredictor", device: "DeviceSpec", store: Path | None
) -> str | None:
    """Say, before anything is learned, what errors are not those of unseen programs."""
    from tvm_cdmpp.data import RecordStore
    from tvm_cdmpp.train import remark_on_seen

    store_hash = None if store is None else RecordStore.open(store).content_hash
    note = remark_on_seen(start, device, store_hash)
    if note is not None:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    return note


def _learner(args: argparse.Namespace, bench: "Bench", start: "TrainedPredictor") -> "Learner":
    from tvm_cdmpp.train import Learner

    learner = Learner(start=start, sources=read_beside(args, bench, start))
    if args.from_store:
        return learner
    device = bench.candidates.devices[0]
    calibrated = device.calibration and device.calibration.of(start.origin)
    share = _BESIDE_CALIBRATION if calibrated else 1.0
    return replace(learner, relative_weight=0.0, searched_share=share)  # networks are sums


def _check_files(args: argparse.Namespace) -> None:
    """Refuse what cannot be written or must not, before anything is measured."""
    records: Path = args.records
    if records.name == WORKLOADS:
        raise ConfigError(f"--records must not be called {WORKLOADS}, which goes next to it")
    stores = [store for store in (args.from_store, args.sources) if store is not None]
    names = () if args.from_store else names_of_networks(args)
    taken = [
        *((f"in the record store {store}", store) for store in stores),
        *files_of_networks(names, "a file of --networks"),
        ("that of --weights", Path(args.weights)),
    ]
    check_outputs([("--records", records)], taken)
    check_outputs([("--out", args.out)], [*taken, *files_of_log(records, "that of --records")])
    check_is_log("--records", records)
    for option, path in (("--out", args.out), ("--records", records)):
        make_folder_of(option, path)
        try:  # permissions do not tell of all folders, such as /proc
            with tempfile.NamedTemporaryFile(dir=path.absolute().parent):
                pass
        except OSError as error:
            raise ConfigError(
                f"{option}: {path} cannot be written: {error.strerror}. Choose another file."
            ) from error


def _settings_of(args: argparse.Namespace, settings: "OnboardSettings") -> dict[str, Any]:
    return {**asdict(settings), "sources": args.sources is not None}


def describe_point(point: "CurvePoint") -> str:
    """Put a point of the curve into one line."""
    failed = f", {point.failed} failed" if point.failed else ""
    of_error = [] if point.low is None else [_range(point)]
    if point.mape and point.median and point.mape > _FAR * point.median:
        of_error.append(f"median {_percent(point.median)}")
    remark = f"({'; '.join(of_error)}) " if of_error else ""
    return (
        f"{point.records} records{failed}  {point.tasks} tasks  error {_percent(point.mape)} "
        f"{remark}on {point.kept_back} kept back, {_percent(point.start_mape)} at first"
    )


def _write(
    args: argparse.Namespace,
    work: "Onboarding",
    start: "TrainedPredictor",
    settings: "OnboardSettings",
    device_name: str,
    known: "tuple[DeviceSpec, Levels] | None",
    has_own: bool,
) -> str:
    """Write the weights and what they are; return what they learned, in words.

    They name the device as the registry does, whatever a store calls it. They learned on top of
    its levels, if any are known; these are kept for them.
    """
    from tvm_cdmpp.ast import SCHEMA_VERSION

    found, how = work.result()
    found.about = {
        "schema_version": SCHEMA_VERSION,
        "device": device_name,
        "records": work.curve[-1].records,
        "split": start.about.get("split"),
        "seed": settings.seed,
        "command": " ".join(["tvm-cdmpp", *sys.argv[1:]]),
        "settings": _settings_of(args, settings),
        "counted": work.num_counted,
        "curve": [asdict(point) for point in work.curve],
        "ended": work.ended,
        "learned": how,
        "calibrated": known is not None,
        "from": dict(start.about),
    }
    if known is not None:
        from tvm_cdmpp.devices import calibration_file, keep_levels

        device, levels = known
        levels = replace(levels, weights=found.origin)
        if not has_own:  # they learned nothing of these
            levels = replace(levels, own_level=None, own_operators={})
        keep_levels(device.name, levels, calibration_file())
    try:
        found.save(args.out)
    except OSError as error:
        raise ConfigError(
            f"--out: {args.out} cannot be written: {error.strerror}. The records are kept in "
            f"{args.records}; the same command with another --out goes on from them."
        ) from error
    return how


def _print(args: argparse.Namespace, work: "Onboarding", learned: str, note: str | None) -> None:
    last = work.curve[-1]
    if args.json:
        values = {
            "device": args.device,
            "weights": str(args.out),
            "records": str(args.records),
            "ended": work.ended,
            "learned": learned,
            "counted": work.num_counted,
            "is_better": last.is_better,
            "note": note,
            "curve": [asdict(point) for point in work.curve],
        }
        json.dump(values, sys.stdout, indent=1)
        print()
        return
    console: Console = show.stdout_console()
    header = (
        "records",
        "failed",
        "tasks",
        "kept back",
        "error",
        "90 %",
        "median",
        "at first",
        "gain",
    )
    rows = [
        [
            str(point.records),
            str(point.failed),
            str(point.tasks),
            str(point.kept_back),
            _percent(point.mape),
            _range(point),
            _percent(point.median),
            _percent(point.start_mape),
            "-" if point.gain is None else f"{point.gain:+.0%}",
        ]
        for point in work.curve
    ]
    show.print_table(console, f"{args.device}, programs kept back", header, rows)
    lines = [
        "gain: by how much the last batch brought the error down, the mean of "
        "|ln(predicted / measured)| on the same programs; below 0, it went up",
        f"ended: {work.ended}",
        f"learned: {learned}; from {describe_counted(work.num_counted, last)}",
        f"records: {args.records}",
        f"weights: {args.out}",
    ]
    notes = [f"note: {note}"] if note else []
    for line in (*lines, *notes, *describe_loss(last, args.weights)):
        console.print(line, soft_wrap=True, markup=False)


def describe_counted(num_counted: int, point: "CurvePoint") -> str:
    """Say how many of the records taught something, and why not all did."""
    why = ["the fastest of each task"] if num_counted < point.records - point.failed else []
    why += [f"{point.failed} failed"] if point.failed else []
    remark = f" ({'; '.join(why)})" if why else ""
    return f"{num_counted} of {point.records} records{remark}"


def describe_loss(point: "CurvePoint", weights: str) -> list[str]:
    """Say in a line that learning did not help, where it did not."""
    if point.is_better is not False:
        return []
    return [
        f"not better: on programs that were kept back the error is {_percent(point.mape)}, that of "
        f"the weights '{weights}' {_percent(point.start_mape)}. Keep those, or measure more."
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}%"


def _range(point: "CurvePoint") -> str:
    return "-" if point.low is None else f"{_percent(point.low)} to {_percent(point.high)}"
