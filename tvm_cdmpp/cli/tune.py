"""`tvm-cdmpp tune`: search good programs for a network, and show what they gain.

Progress goes to stderr, the result to stdout. Exit code 0 when all trials were done, 130 after
Ctrl-C: the search then ends with what was found, which is evaluated and exported all the same.
Exit code 1 when the network could not be timed or exported, or the devices were lost; what was
found is shown all the same.
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli import show
from tvm_cdmpp.cli.calibrate import LEAST_TIME_S, LEAST_TRIALS, calibrate_first
from tvm_cdmpp.cli.data_collect import device_to_measure, parse_remote
from tvm_cdmpp.cli.inputs import (
    add_inputs,
    add_target,
    add_timeouts,
    check_gpu_is_here,
    input_options,
    measure_options,
    parse_tasks,
)
from tvm_cdmpp.cli.interrupt import EXIT_INTERRUPTED, stop_on_interrupt
from tvm_cdmpp.cli.messages import divert_native_messages, messages_file
from tvm_cdmpp.cli.outputs import check_outputs, files_of_networks
from tvm_cdmpp.cli.tune_result import Delivery, print_delivery, print_tasks, result_of
from tvm_cdmpp.errors import ConfigError, MeasureError

if TYPE_CHECKING:
    from rich.console import Console

    from tvm_cdmpp.devices import DeviceSpec
    from tvm_cdmpp.measure import MeasureSession, RemoteDevices
    from tvm_cdmpp.networks import Deployed, Network
    from tvm_cdmpp.search import AheadSearch, NetworkTuner, TuneSettings

_EXIT_INCOMPLETE = 1
_DECIDES = {
    "trees": "trees that learned from it decide",
    "analytic": "the analytic estimate decides",
    "adapted": "the trees and the analytic estimate weigh most",
    "prior": "the trees and the analytic estimate weigh most",
}

_WEIGHTS = {"cdmpp": "shipped", "cdmpp-evaluation": "evaluation", "cdmpp-untrained": "none"}
"""What the CDMPP models start from."""


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "tune",
        help="search good programs for a network",
        description="Search good programs for a network and show what they gain. Running the same "
        "command again continues the search. What the log's workload keys mean, which `data "
        "import` needs, goes to workloads.jsonl next to it.",
    )
    parser.add_argument(
        "network", metavar="NETWORK", help="a name (resnet-18, bert-tiny, ...) or a model file"
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=1000,
        metavar="N",
        help="programs to measure, those in the log included; 0 takes the best predicted ones "
        "(default: 1000)",
    )
    parser.add_argument(
        "--search",
        metavar="KIND",
        help="how candidates are found: sketch, by TVM, or evolve, many times faster (default: "
        "evolve for a CPU and a cdmpp model with weights, else sketch)",
    )
    parser.add_argument(
        "--model",
        default="cdmpp",
        metavar="KIND",
        help="cost model: cdmpp, xgb, xgb-warm, xgb-adaptive or random (default: cdmpp)",
    )
    parser.add_argument(
        "--weights",
        metavar="W",
        help="what the model cdmpp starts from: shipped, evaluation, none or a file of `tvm-cdmpp "
        "train` (default: shipped)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="N",
        help="time for the search, calibration included; no round starts that would not fit. "
        "Compiling the network, and timing it in the end, come on top (default: no limit)",
    )
    parser.add_argument(
        "--tasks",
        metavar="M|A,B,...",
        help="only the M tasks with the most work, or those with these numbers, or with these "
        "words in their names (default: all)",
    )
    add_target(parser)
    parser.add_argument(
        "--rpc", metavar="HOST:PORT", help="run programs on the devices of this TVM RPC tracker"
    )
    parser.add_argument("--key", metavar="K", help="which devices of the tracker")
    parser.add_argument(
        "--device", metavar="NAME", help="the known device that programs run on (default: this one)"
    )
    parser.add_argument(
        "--no-calibrate",
        action="store_true",
        help="do not measure small programs first (`device calibrate`) on a device where this was "
        f"not done yet; searches of less than {LEAST_TRIALS} trials or "
        f"{LEAST_TIME_S / 60:.0f} minutes never do",
    )
    parser.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="Ansor log to write or continue (default: NETWORK.CPU.json here)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--export",
        type=Path,
        metavar="LIB.so",
        help="write the tuned network as a library; the untuned one if tuning made it slower",
    )
    add_timeouts(parser)
    add_inputs(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Tune, evaluate, report."""
    # TVM takes seconds to load; a wrong command line must not.
    inputs, remote = input_options(args), parse_remote(args.rpc, args.key, args.target)
    if remote is None:
        check_gpu_is_here(args.target)
    _check_export(args)
    from tvm_cdmpp.measure import MeasureSession
    from tvm_cdmpp.networks import extract_tasks, load_network
    from tvm_cdmpp.search import AheadSearch, NetworkTuner

    # All that can be wrong is found before the search.
    settings = _settings(args, remote)
    console = show.stderr_console()
    target = _usable_target(args.target, remote, console)
    device = device_to_measure(args.device, target, remote)
    _make_model(args, device)
    network = load_network(args.network, **inputs)
    tasks, weights = extract_tasks(network, target)
    settings = replace(
        settings,
        tasks=parse_tasks(args.tasks, tasks, weights),
        search=_take_search(args, target),
    )
    log = args.log or default_log(network.name, target)
    log, kind = (log, NetworkTuner) if args.trials else (predicted_log(log), AheadSearch)
    with MeasureSession() as session:
        if not args.no_calibrate and args.trials:
            device, settings = calibrate_first(
                _weights(args), target, device, settings, session, console
            )
        _tell_unknown(console, _weights(args), device, target)
        tuner: Any = kind(
            tasks, weights, _make_model(args, device), settings, log=log, session=session
        )
        if args.trials:
            _show_start(console, tuner, settings.trials, log, len(tasks))
        untuned = None if remote else _compile(console, network, target)
        delivery, search = Delivery(), _search if args.trials else _choose_ahead
        search(console, tuner, settings.trials, log, session, delivery)
        interrupted = session.stopping
    if any(task.latency_s is not None for task in tuner.results()):
        delivery.make(console, (network, target), untuned, log, args)
    else:
        console.print("no program was measured yet, so there is no network to time or to export")
    if args.json:
        result = result_of(network.name, target, tuner, delivery, log, args)
        result |= {"weights": _weights(args), "interrupted": interrupted}
        print(json.dumps(result, indent=1))
    else:
        print_tasks(tuner)
        print_delivery(tuner, delivery, log, args.export)
    return EXIT_INTERRUPTED if interrupted else _EXIT_INCOMPLETE if delivery.problems else 0


def _compile(console: "Console", network: "Network", target: Any) -> "Deployed":
    from tvm_cdmpp.networks import deploy

    console.print("compiling the network without the log")
    return deploy(network, target)


def _check_export(args: argparse.Namespace) -> None:
    taken = files_of_networks([args.network], "the network's file")
    taken += [] if args.log is None else [("that of --log", args.log)]
    check_outputs([("--export", args.export)], taken)


def _settings(args: argparse.Namespace, remote: "RemoteDevices | None") -> "TuneSettings":
    """Read the options of the search, and check those that only matter after it."""
    from tvm_cdmpp.networks import check_export_path
    from tvm_cdmpp.search import TuneSettings, check_cost_model, check_search

    if args.trials < 0:
        raise ConfigError(f"--trials must be at least 0, got {args.trials}")
    check_cost_model(args.model)
    check_search(args.model, (args.search or "sketch") if args.trials else "evolve")
    if args.weights is not None and args.model != "cdmpp":
        raise ConfigError(f"--weights are those of the model cdmpp; got --model {args.model}")
    if args.export is not None:
        check_export_path(args.export)
    return TuneSettings(
        trials=args.trials or 1,  # 0 is no search
        seed=args.seed,
        search=args.search or "sketch",
        measure=measure_options(args, remote),
        time_s=math.inf if args.minutes is None else 60.0 * args.minutes,
    )


def _take_search(args: argparse.Namespace, target: Any) -> str:
    """Return the search asked for; without one, take that which is sooner where it was measured."""
    if args.search is None:
        has_weights = _weights(args) not in (None, "none")
        args.search = "evolve" if has_weights and target.kind.name == "llvm" else "sketch"
    return str(args.search)


def _weights(args: argparse.Namespace) -> str | None:
    """Return what the cost model starts from; None for one that is not the CDMPP predictor."""
    return args.weights or _WEIGHTS.get(args.model)


def _make_model(args: argparse.Namespace, device: "DeviceSpec | None") -> Any:
    """Return the cost model, or the kind of one that is not the CDMPP predictor."""
    weights = _weights(args)
    if weights is None:
        return args.model
    from tvm_cdmpp.search import CDMPPModel, num_threads

    weights = None if weights == "none" else weights
    threads = num_threads("cdmpp-untrained" if weights is None else "cdmpp")
    return CDMPPModel(args.seed, device=device, weights=weights, num_threads=threads)


def _tell_unknown(
    console: "Console", weights: str | None, device: "DeviceSpec | None", target: Any
) -> None:
    """Say what a device counts as that the weights do not know."""
    from tvm_cdmpp.bridge import device_of
    from tvm_cdmpp.models import TrainedPredictor, load_weights

    predictor = load_weights(weights) if weights not in (None, "none") else None
    if isinstance(predictor, TrainedPredictor) and (
        remark := predictor.remark_on(device or device_of(target))
    ):
        console.print(remark, soft_wrap=True, markup=False)


def _usable_target(text: str, remote: Any, console: "Console") -> Any:
    """Read a target, and find out now whether its programs could run, as far as can be told."""
    from tvm_cdmpp.bridge import check_target_runs_here, parse_target
    from tvm_cdmpp.networks import check_libraries

    target = parse_target(text)
    if remote is None:
        check_target_runs_here(target)
        check_libraries(target)
    else:
        remote.count()
    console.print(f"target: {target}", soft_wrap=True, markup=False)
    return target


def default_log(network: str, target: Any) -> Path:
    """Name a log after the network and the target's CPU or kind, in the working folder."""
    device = str(target.attrs.get("mcpu", target.kind.name))
    return Path(f"{network}.{device}.json")


def predicted_log(log: Path) -> Path:
    """Name the log of programs that were not measured after that of those that are."""
    return log.with_name(f"{log.stem}.predicted{log.suffix}")


def _show_start(
    console: "Console", tuner: "NetworkTuner", trials: int, log: Path, num_tasks: int
) -> None:
    """Say what the search starts from, and all that a user may not expect."""
    report = tuner.log_report
    state = f"continues with its {report.num_valid} records" if report.num_valid else "is new"
    lines = [f"{num_tasks} tasks; the log {log} {state}"]
    lines += show.describe_log(report)
    if tuner.state_problem:
        lines.append(f"the model learns from the log again: {tuner.state_problem}")
    if tuner.left_out and trials < num_tasks:
        lines.append(
            f"fewer trials than tasks: only the {num_tasks - len(tuner.left_out)} with the most "
            f"work are tuned; the others will run TVM's slow fallback code. Give {num_tasks} "
            "trials or more"
        )
    if tuner.trials >= trials:
        lines.append(f"{tuner.trials} of {trials} trials done; raise --trials to search on")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _search(
    console: "Console",
    tuner: "NetworkTuner",
    trials: int,
    log: Path,
    session: "MeasureSession",
    delivery: Delivery,
) -> None:
    """Search to the end, or until the devices are lost, which is no reason to lose the rest."""
    try:
        _search_rounds(console, tuner, trials, log, session)
    except MeasureError as error:
        if all(task.latency_s is None for task in tuner.results()):
            raise
        delivery.problems.append(str(error))
    if tuner.out_of_time:
        console.print(
            f"out of time after {show.minutes(tuner.elapsed.total_s)}: {tuner.trials} of {trials} "
            "trials done; run the same command again to search on"
        )


def _search_rounds(
    console: "Console", tuner: "NetworkTuner", trials: int, log: Path, session: "MeasureSession"
) -> None:
    with (
        divert_native_messages(messages_file(log), console.print),
        stop_on_interrupt(session),
        show.show_rounds(console, trials, tuner.trials) as show_round,
    ):
        for report in tuner.rounds():
            show_round(report, "")
            for found in report.overruled:
                console.print(
                    f"{found.operator}: what was measured contradicts the model's weights; "
                    f"{_DECIDES[found.by]} now",
                    soft_wrap=True,
                )
    for said in map(str, (session.second_runs, session.pace)):
        if said:
            console.print(said, soft_wrap=True)
    if tuner.saved_s:
        console.print(
            f"stopped after {tuner.trials} of {trials} trials, which saves about "
            f"{show.minutes(tuner.saved_s)}: no task is expected to gain 1 % by another round",
            soft_wrap=True,
        )


def _choose_ahead(
    console: "Console",
    search: "AheadSearch",
    trials: int,
    log: Path,
    session: "MeasureSession",
    delivery: Delivery,
) -> None:
    """Choose without a search; nothing can be lost meanwhile."""
    with (
        divert_native_messages(messages_file(log), console.print),
        stop_on_interrupt(session),
    ):
        console.print(f"what is predicted best goes to {log}", soft_wrap=True, markup=False)
        for task in search.run():
            console.print(
                f"{show.shorten(task.name)}  predicted {show.latency(task.latency_s)}",
                soft_wrap=True,
                markup=False,
            )
