"""`tvm-cdmpp adapt`: onboards a device: measures what tells most, and writes weights for it.

Progress goes to stderr, the curve to stdout. Exit codes: 0 done, 2 a clear error, 130 interrupted:
the weights of what was measured are written all the same. The same command goes on.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli import show
from tvm_cdmpp.cli.data_collect import device_to_measure, parse_remote
from tvm_cdmpp.cli.finetune import load_trained
from tvm_cdmpp.cli.inputs import add_input_forms, add_target, check_gpu_is_here, inputs_of
from tvm_cdmpp.cli.interrupt import EXIT_INTERRUPTED, stop_on_interrupt
from tvm_cdmpp.cli.messages import divert_native_messages, messages_file
from tvm_cdmpp.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from tvm_cdmpp.devices import DeviceSpec, Levels
    from tvm_cdmpp.measure import OwnFunction, RemoteDevices
    from tvm_cdmpp.models import TrainedPredictor
    from tvm_cdmpp.networks import Network
    from tvm_cdmpp.train import Bench, CurvePoint, Onboarding, OnboardSettings

_CANDIDATES_PER_RECORD = 4
_MOST_CANDIDATES_PER_TASK = 128
_LEAST_POPULATION = 64
"""Of the evolution that candidates of a task are taken from."""


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "adapt",
        help="measure a few programs of a device and write weights for it",
        description="Onboard a device: choose which programs to measure, measure them in batches, "
        "train the weights on after each, and stop when that no longer helps: when two batches in "
        "a row bring the error on programs that were kept back down by less than 2 %, and all "
        "tasks of --networks have a record. Run again, "
        "it goes on from its records.",
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
        "--batch", type=int, default=64, metavar="N", dest="programs_per_batch",
        help="programs measured before training goes on (default: 64)",
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
    for option in (args.out, args.records):
        if option.is_dir():
            raise ConfigError(f"--out and --records must be files; {option} is a folder")
    from tvm_cdmpp.devices import calibration_file, read_calibrations
    from tvm_cdmpp.train import Learner, Onboarding, OnboardSettings

    # All that can be wrong is found before anything takes time.
    # Networks to be predicted are given, so each of their tasks counts; those of a store stand for
    # others.
    per_task = {} if args.from_store else {"programs_per_task": 1}
    settings = OnboardSettings(budget=args.budget, batch=args.programs_per_batch, **per_task)
    predictor, calibrations = load_trained(args.weights), read_calibrations(calibration_file())
    opened = _recorded(args) if args.from_store else _live(args, settings)
    with opened as bench:
        learner = Learner(start=predictor, sources=_sources(args, bench, predictor))
        work = Onboarding(bench, learner, settings)
        console = show.stderr_console()
        with (
            stop_on_interrupt(work),
            show.show_progress(console, "records", args.budget, 0) as show_step,
        ):
            done = 0
            for point in work.steps():
                show_step(describe_point(point), point.records - done, "")
                done = point.records
                on_point(point)
        if work.stopping and not work.curve:
            return EXIT_INTERRUPTED  # nothing was measured
        # Before the session ends, which holds the log.
        device = bench.candidates.devices[0]
        calibration = device.calibration and calibrations.get(device.name)
        levels = calibration.of(predictor.origin) if calibration else None
        known = None if levels is None else (device, levels)
        has_own = bool((bench.own & ~bench.open).any())
        _write(args, work, predictor, settings, known, has_own)
    _print(args, work)
    return EXIT_INTERRUPTED if work.stopping else 0


@contextmanager
def _recorded(args: argparse.Namespace) -> "Iterator[Bench]":
    """Open a bench that looks up what was measured."""
    if args.rpc or args.key:
        raise ConfigError("--from-store measures nothing, so --rpc and --key have no meaning there")
    if args.input_shape or args.input_dtype or args.batch:
        raise ConfigError(
            "--input-shape, --input-dtype and --input-batch are for model files whose programs are "
            "measured; with --from-store, recorded ones are taken"
        )
    from tvm_cdmpp.data import RecordStore
    from tvm_cdmpp.files import locked
    from tvm_cdmpp.train import RecordedBench, load_features, read_candidates

    store = RecordStore.open(args.from_store)
    with show.show_bar("features", len(store)) as on_rows:
        features = load_features(store, on_rows)
    found, rows = read_candidates(store, features, args.device, _networks(args))
    candidates = found.uncalibrated()  # those were measured on another day, if not elsewhere
    args.records.parent.mkdir(parents=True, exist_ok=True)
    lock = args.records.with_name(f".{args.records.name}.lock")
    with locked(lock, f"a search that writes {args.records}"):
        yield RecordedBench(store, candidates, rows, args.records)


@contextmanager
def _live(args: argparse.Namespace, settings: "OnboardSettings") -> "Iterator[Bench]":
    """Open a bench that builds and runs programs, here or on remote devices."""
    networks = _networks(args)
    if not networks:
        raise ConfigError(
            "--networks must name what to measure programs of, as in resnet-18,model.onnx; got "
            "none. With --from-store, recorded programs are taken instead."
        )
    remote = parse_remote(args.rpc, args.key, args.target)
    if remote is None:
        check_gpu_is_here(args.target)
    options_of = inputs_of(args, networks)
    from tvm_cdmpp.bridge import parse_target
    from tvm_cdmpp.measure import (
        BenchConfig,
        CalibrationConfig,
        LiveBench,
        MeasureOptions,
        MeasureSession,
        SampleMix,
        distinct_tasks,
    )
    from tvm_cdmpp.networks import check_libraries, extract_tasks, load_network
    from tvm_cdmpp.search import CDMPPModel
    from tvm_cdmpp.workloads import write_workloads

    target = parse_target(args.target)
    if remote is None:
        check_libraries(target)
    device = _device(args.device, target, remote)
    model = CDMPPModel(device=device, weights=args.weights)
    if remote is not None:
        remote.count()
    console = show.stderr_console()
    console.print(f"target: {target}", soft_wrap=True, markup=False)
    loaded = [load_network(name, **options_of(name)) for name in networks]
    tasks = distinct_tasks([task for each in loaded for task in extract_tasks(each, target)[0]])
    functions = _own_functions(loaded, target, tasks[0])
    wanted = -(-_CANDIDATES_PER_RECORD * settings.budget // len(tasks))
    per_task = min(wanted, _MOST_CANDIDATES_PER_TASK)
    attempts = 1 if args.keep_noisy else CalibrationConfig().attempts
    config = BenchConfig(
        per_task=per_task,
        # Mostly what a search would keep, as networks run that.
        mix=SampleMix(random=0.1, evolved=0.1, population=max(_LEAST_POPULATION, 4 * per_task)),
        calibration=CalibrationConfig(keep_noisy=args.keep_noisy, attempts=attempts),
        measure=MeasureOptions(remote=remote),
    )
    with MeasureSession() as session:
        session.hold(args.records)
        with show.show_bar("candidates of tasks", len(tasks)) as on_task:
            bench = LiveBench(
                tasks, device, model, config, functions, log=args.records, on_task=on_task
            )
        write_workloads(args.records, tasks)
        for line in _describe_start(bench, len(tasks)):
            console.print(line, soft_wrap=True, markup=False)
        with divert_native_messages(messages_file(args.records), console.print):
            yield bench


def _own_functions(networks: "list[Network]", target: Any, task: Any) -> "list[OwnFunction]":
    """Return the functions of networks with TVM's own schedules."""
    from tvm_cdmpp.devices import Hardware
    from tvm_cdmpp.measure import own_functions

    cores, functions = Hardware.of(task.hardware_params).cores, []
    with show.show_bar("functions of networks", len(networks)) as on_network:
        for number, network in enumerate(networks, start=1):
            functions += own_functions(network, target, cores)
            on_network(number)
    return functions


def _device(name: str, target: Any, remote: "RemoteDevices | None") -> "DeviceSpec":
    """Return the device of a name: a known one, or this machine as `device detect` calls it."""
    from tvm_cdmpp.bridge import check_target_runs_here, device_of
    from tvm_cdmpp.devices import find_device

    if remote is None:
        check_target_runs_here(target)
        here = device_of(target)
        if here.name == name:
            return here
    find_device(name)
    device = device_to_measure(name, target, remote)
    assert device is not None  # it was named
    return device


def _describe_start(bench: Any, num_tasks: int) -> list[str]:
    report = bench.log_report
    state = f"continues with its {report.num_valid} records" if report.num_valid else "is new"
    num_own = int(bench.own.sum())
    lines = [
        f"{num_tasks} tasks, {len(bench.candidates) - num_own} candidates, {num_own} functions "
        f"with TVM's own schedules; the log {report.path} {state}",
        *show.describe_log(report),
    ]
    if bench.unusable:
        lines.append(f"{bench.unusable} programs could not be described and are left out")
    return lines


def _networks(args: argparse.Namespace) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in args.networks.split(","))))


def _sources(args: argparse.Namespace, bench: "Bench", predictor: "TrainedPredictor") -> Any:
    """Return rows of other devices to train on beside; None without a store of them."""
    if args.sources is None:
        return None
    from tvm_cdmpp.data import RecordStore
    from tvm_cdmpp.train import load_features, read_sources

    store = RecordStore.open(args.sources)
    with show.show_bar("features of the sources", len(store)) as on_rows:
        features = load_features(store, on_rows)
    kind = "cpu" if bench.candidates.devices[0].kind == "cpu" else "gpu"
    split = predictor.about.get("split")
    return read_sources(store, features, kind=kind, without=args.device, split=split)


def describe_point(point: "CurvePoint") -> str:
    """Put a point of the curve into one line."""
    failed = f", {point.failed} failed" if point.failed else ""
    return (
        f"{point.records} records{failed}  {point.tasks} tasks  error {_percent(point.mape)} "
        f"({_range(point)}) on {point.kept_back} kept back, {_percent(point.start_mape)} at first"
    )


def _write(
    args: argparse.Namespace,
    work: "Onboarding",
    start: "TrainedPredictor",
    settings: "OnboardSettings",
    known: "tuple[DeviceSpec, Levels] | None",
    has_own: bool,
) -> None:
    """Write the weights, and what they are.

    They learned on top of the levels of the device, if any are known; these are kept for them.
    """
    from tvm_cdmpp.ast import SCHEMA_VERSION

    found = work.result()
    found.about = {
        "schema_version": SCHEMA_VERSION,
        "device": args.device,
        "records": work.curve[-1].records,
        "split": start.about.get("split"),
        "seed": settings.seed,
        "command": " ".join(["tvm-cdmpp", *sys.argv[1:]]),
        "settings": {**asdict(settings), "sources": args.sources is not None},
        "curve": [asdict(point) for point in work.curve],
        "ended": work.ended,
        "from": dict(start.about),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if known is not None:
        from tvm_cdmpp.devices import calibration_file, keep_levels

        device, levels = known
        levels = replace(levels, weights=found.origin)
        if not has_own:  # they learned nothing of these
            levels = replace(levels, own_level=None, own_operators={})
        keep_levels(device.name, levels, calibration_file())
    found.save(args.out)


def _print(args: argparse.Namespace, work: "Onboarding") -> None:
    if args.json:
        values = {
            "device": args.device,
            "weights": str(args.out),
            "records": str(args.records),
            "ended": work.ended,
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
        "gained",
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
            "-" if point.gain is None else f"{point.gain:.0%}",
        ]
        for point in work.curve
    ]
    show.print_table(console, f"{args.device}, programs kept back", header, rows)
    lines = [f"ended: {work.ended}", f"records: {args.records}", f"weights: {args.out}"]
    for line in (*lines, *describe_loss(work.curve[-1], args.weights)):
        console.print(line, soft_wrap=True, markup=False)


def describe_loss(point: "CurvePoint", weights: str) -> list[str]:
    """Say in a line that learning did not help, where it did not."""
    if point.mape is None or point.start_mape is None or point.mape < point.start_mape:
        return []
    return [
        f"not better: on programs that were kept back the error is {_percent(point.mape)}, that of "
        f"the weights '{weights}' {_percent(point.start_mape)}. Keep those, or measure more."
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}%"


def _range(point: "CurvePoint") -> str:
    return f"{_percent(point.low)} to {_percent(point.high)}"
