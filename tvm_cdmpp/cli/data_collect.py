"""`tvm-cdmpp data collect`: measure programs of networks, here or on remote devices.

Progress goes to stderr, the table of tasks to stdout. Exit code 0 when each task has its programs
or no more of them, 130 after Ctrl-C: all finished batches are then in the log.
"""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli import show
from tvm_cdmpp.cli.inputs import (
    add_inputs,
    add_target,
    add_timeouts,
    check_gpu_is_here,
    inputs_of,
    measure_options,
)
from tvm_cdmpp.cli.interrupt import EXIT_INTERRUPTED, stop_on_interrupt
from tvm_cdmpp.cli.messages import divert_native_messages, messages_file
from tvm_cdmpp.errors import ConfigError, UnknownDeviceError

if TYPE_CHECKING:
    from rich.console import Console

    from tvm_cdmpp.devices import DeviceSpec
    from tvm_cdmpp.measure import BatchReport, Collector, RemoteDevices, SecondRuns


def add_parser(commands: Any) -> None:
    """Register the sub-command."""
    parser = commands.add_parser(
        "collect",
        help="measure programs of networks into an Ansor log",
        description="Measure programs of each task of the networks into an Ansor log: 40% random "
        "ones, 30% that evolution with the predictor keeps, and 30% the best of that. Running "
        "the same command again goes on. A fixed program, measured after every batch, tells "
        "whether the machine is quiet: if it takes over 10% longer than its best, the batch is "
        "measured again after a pause, and the run stops if that does not help. Its latencies go "
        "to FILE.calibration.jsonl, and the tasks' DAGs, which `data import` needs, to "
        "workloads.jsonl next to it.",
    )
    parser.add_argument(
        "networks", nargs="+", metavar="NETWORK", help="a name (resnet-18, ...) or a model file"
    )
    parser.add_argument(
        "--log", type=Path, required=True, metavar="FILE", help="Ansor log to write or continue"
    )
    parser.add_argument(
        "--programs",
        type=int,
        default=64,
        metavar="N",
        help="programs of each task, those in the log included (default: 64)",
    )
    parser.add_argument(
        "--predictor",
        type=Path,
        metavar="FILE",
        help="saved predictor for the evolution (default: the shipped weights)",
    )
    add_target(parser)
    add_inputs(parser)
    parser.add_argument(
        "--rpc", metavar="HOST:PORT", help="run on the devices of this TVM RPC tracker"
    )
    parser.add_argument("--key", metavar="K", help="which devices of the tracker")
    parser.add_argument(
        "--device", metavar="NAME", help="the known device that programs run on (default: this one)"
    )
    add_timeouts(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    parser.add_argument(
        "--keep-noisy",
        action="store_true",
        help="keep and mark batches of a noisy machine, instead of stopping",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Find the tasks, measure, and tell what there is of each."""
    remote = parse_remote(args.rpc, args.key, args.target)
    if remote is None:
        check_gpu_is_here(args.target)
    from tvm_cdmpp.bridge import parse_target
    from tvm_cdmpp.measure import (
        CalibrationConfig,
        CollectConfig,
        Collector,
        MeasureSession,
        distinct_tasks,
    )
    from tvm_cdmpp.networks import check_libraries, extract_tasks, load_network
    from tvm_cdmpp.search import CDMPPModel
    from tvm_cdmpp.workloads import write_workloads

    # All that can be wrong is found before a network is compiled.
    config = CollectConfig(
        programs=args.programs,
        seed=args.seed,
        calibration=CalibrationConfig(keep_noisy=args.keep_noisy),
        measure=measure_options(args, remote),
    )
    target = parse_target(args.target)
    if remote is None:
        check_libraries(target)
    inputs = inputs_of(args, args.networks)
    device = device_to_measure(args.device, target, remote)
    model = CDMPPModel(device=device, seed=args.seed)
    if args.predictor is not None:
        model.load(str(args.predictor))
    if remote is not None:
        remote.count()
    console = show.stderr_console()
    console.print(f"target: {target}", soft_wrap=True, markup=False)
    tasks = distinct_tasks(
        [
            task
            for name in args.networks
            for task in extract_tasks(load_network(name, **inputs(name)), target)[0]
        ]
    )
    with MeasureSession() as session:
        session.hold(args.log)
        collector = Collector(tasks, model, config, log=args.log)
        write_workloads(args.log, tasks)
        _show_start(console, collector, len(tasks))
        with (
            divert_native_messages(messages_file(args.log), console.print),
            stop_on_interrupt(collector),
            show.show_progress(console, "programs", collector.wanted, collector.done) as show_step,
        ):
            for report in collector.batches():
                eta = f"about {show.minutes(report.eta_s)} left"
                show_step(describe_batch(report), report.measured, eta)
    _print_result(collector, session.second_runs, args.log)
    return EXIT_INTERRUPTED if collector.stopping else 0


def parse_remote(address: str | None, key: str | None, target: str) -> "RemoteDevices | None":
    """Read `--rpc` and `--key`; None when programs run on this machine.

    Raises
    ------
    ConfigError
        One of them is missing, the address is none, or the target is not given.
    """
    if address is None and key is None:
        return None
    if address is None or key is None:
        raise ConfigError("--rpc and --key belong together: a tracker, and which of its devices")
    match = re.fullmatch(r"(.+):(\d{1,5})", address)
    if match is None or not 0 < int(match[2]) < 1 << 16:
        raise ConfigError(f"--rpc takes HOST:PORT, as in 192.168.0.7:9190; got {address!r}")
    if target == "native":
        raise ConfigError("with --rpc, give the --target of the remote devices, too")
    from tvm_cdmpp.measure import RemoteDevices

    return RemoteDevices(host=match[1], port=int(match[2]), key=key)


def device_to_measure(
    name: str | None, target: Any, remote: "RemoteDevices | None"
) -> "DeviceSpec | None":
    """Return the device that `--device` names; None where the target tells it.

    Raises
    ------
    ConfigError
        Nothing tells what the remote devices are, or the target is not this machine's, or of
        another kind of device, or the device's vectors are not those of this machine's programs.
    UnknownDeviceError
        There is no device of this name.
    """
    from tvm_cdmpp.bridge import check_target_runs_here, device_of, why_unfit
    from tvm_cdmpp.devices import find_device

    if remote is None:
        check_target_runs_here(target)
    if name is not None:
        device = find_device(name)
        if why := why_unfit(device, target):
            raise ConfigError(
                f"{why}. Give its --target (cuda for a GPU of NVIDIA's, llvm for a CPU), with "
                "--rpc HOST:PORT and --key K where it is not in this machine; or name this "
                "machine's device, as `tvm-cdmpp device detect` calls it."
            )
        if remote is None and device.kind == "cpu":
            _check_vectors(device, target, device_of(target))
        return device_of(target, model=device.name)
    if remote is not None:
        try:
            find_device(str(target.attrs.get("model", "")))
        except UnknownDeviceError as error:
            raise ConfigError(
                "with --rpc, say what the remote devices are: --device NAME, or -model=NAME in the "
                "target; `tvm-cdmpp device show` lists the known ones"
            ) from error
    return None


def _check_vectors(device: "DeviceSpec", target: Any, here: "DeviceSpec") -> None:
    """Refuse to measure this machine under the name of a CPU that cannot be it; doubt others."""
    if device.simd_bytes != here.simd_bytes:
        raise ConfigError(
            f"'{device.name}' has vectors of {device.simd_bytes:g} bytes, and this machine runs "
            f"programs for {target} with {here.simd_bytes:g}: it is another CPU, and nothing would "
            "be measured on it. Give --rpc HOST:PORT and --key K to measure it from here, or name "
            "this machine's device, as `tvm-cdmpp device detect` calls it."
        )
    if device.cores != here.cores:
        show.stderr_console().print(
            f"note: '{device.name}' has {device.cores:g} cores, and programs for {target} use "
            f"{here.cores:g} here: what is measured is kept as that device's all the same",
            soft_wrap=True,
            markup=False,
        )


def describe_batch(report: "BatchReport") -> str:
    """Put a batch into one line."""
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(report.kinds.items()))
    failures = ", ".join(f"{number} {kind}" for kind, number in report.failures.items())
    return (
        f"{report.done}/{report.wanted}  task {report.task} {show.shorten(report.name)}  {kinds}  "
        f"calibration {show.latency(report.calibration_s)} (best +{report.excess:.1%})  "
        f"ETA {show.minutes(report.eta_s)}"
        + (f"  measured {report.attempts} times" if report.attempts > 1 else "")
        + ("  NOISY" if report.noisy else "")
        + (f"  failed: {failures}" if failures else "")
    )


def _show_start(console: "Console", collector: "Collector", num_tasks: int) -> None:
    report = collector.log_report
    state = f"continues with its {report.num_valid} records" if report.num_valid else "is new"
    lines = [f"{num_tasks} tasks; the log {report.path} {state}"]
    lines += show.describe_log(report)
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _print_result(collector: "Collector", second_runs: "SecondRuns", log: Path) -> None:
    console = show.stdout_console()
    show.print_table(
        console,
        "tasks",
        ("task", "programs", "failed", "best", "worst"),
        [
            [
                f"{index} {show.shorten(task.name)}",
                f"{task.programs}{' (all)' if task.exhausted else ''}",
                str(task.failed),
                show.latency(task.best_latency_s),
                show.latency(task.worst_latency_s),
            ]
            for index, task in enumerate(collector.results())
        ],
    )
    if second_runs.total:
        console.print(f"{second_runs}", soft_wrap=True)
    if collector.num_noisy:
        console.print(
            f"{collector.num_noisy} batches of this run are noisy by its best calibration; "
            "the file of calibrations tells which lines of the log they are"
        )
    console.print(f"log: {log}; {collector.done} programs", soft_wrap=True, markup=False)
