"""`tvm-cdmpp tune`: search good programs for a network, and show what they gain.

Progress goes to stderr, the result to stdout. Exit code 0 when all trials were done, 130 after
Ctrl-C: the search then ends with what was found, which is evaluated and exported all the same.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli import show
from tvm_cdmpp.cli.inputs import add_inputs, add_target, input_options
from tvm_cdmpp.cli.interrupt import EXIT_INTERRUPTED, stop_on_interrupt
from tvm_cdmpp.cli.messages import divert_native_messages, messages_file

if TYPE_CHECKING:
    from rich.console import Console

    from tvm_cdmpp.networks.deploy import Gain
    from tvm_cdmpp.search.tuner import NetworkTuner


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "tune",
        help="search good programs for a network",
        description="Search good programs for a network and show what they gain. Running the same "
        "command again continues the search.",
    )
    parser.add_argument(
        "network", metavar="NETWORK", help="a name (resnet-18, bert-tiny, ...) or a model file"
    )
    parser.add_argument(
        "--trials", type=int, default=1000, metavar="N", help="programs to measure (default: 1000)"
    )
    parser.add_argument(
        "--model",
        default="cdmpp",
        metavar="KIND",
        help="cost model: cdmpp, xgb, xgb-warm, xgb-adaptive or random (default: cdmpp)",
    )
    add_target(parser)
    parser.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="Ansor log to write or continue (default: NETWORK.CPU.json here)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--export", type=Path, metavar="LIB.so", help="write the tuned network as a library"
    )
    add_inputs(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Tune, evaluate, report."""
    # TVM takes seconds to load; a wrong command line must not.
    inputs = input_options(args)
    from tvm_cdmpp.bridge.target import check_target_runs_here, parse_target
    from tvm_cdmpp.measure.session import MeasureSession
    from tvm_cdmpp.networks import check_libraries, extract_tasks, load_network
    from tvm_cdmpp.networks.deploy import check_export_path, deploy, evaluate_gain
    from tvm_cdmpp.search.baselines import check_cost_model
    from tvm_cdmpp.search.reports import TuneSettings
    from tvm_cdmpp.search.tuner import NetworkTuner

    # All that can be wrong is found before the network is compiled.
    check_cost_model(args.model)
    settings = TuneSettings(trials=args.trials, seed=args.seed)
    if args.export is not None:
        check_export_path(args.export)
    console = show.stderr_console()
    target = parse_target(args.target)
    check_target_runs_here(target)
    console.print(f"target: {target}", soft_wrap=True, markup=False)
    check_libraries(target)
    network = load_network(args.network, **inputs)
    tasks, weights = extract_tasks(network, target)
    log = args.log or default_log(network.name, target)
    with MeasureSession() as session:
        tuner = NetworkTuner(tasks, weights, args.model, settings, log=log, session=session)
        _show_start(console, tuner, log, len(tasks))
        with (
            divert_native_messages(messages_file(log), console.print),
            stop_on_interrupt(session),
            show.show_rounds(console, settings.trials, tuner.trials) as show_round,
        ):
            for report in tuner.rounds():
                show_round(report, "")
        interrupted = session.stopping
    gain = None
    if any(task.latency_s is not None for task in tuner.results()):
        console.print("compiling the network with and without the log, and timing both")
        gain = evaluate_gain(network, target, log, seed=args.seed)
        if args.export is not None:
            deploy(network, target, log).export(args.export)
    else:
        console.print("no program was measured yet, so there is no network to time or to export")
    result = {
        "network": network.name,
        "target": str(target),
        "model": args.model,
        "seed": args.seed,
        "log": str(log),
        "trials": tuner.trials,
        "interrupted": interrupted,
        "estimated_network_latency_s": tuner.network_latency_s,
        "time": asdict(tuner.elapsed),
        "tasks": [asdict(task) for task in tuner.results()],
        "gain": None if gain is None else asdict(gain),
        "export": None if gain is None or args.export is None else str(args.export),
    }
    if args.json:
        json.dump(result, sys.stdout, indent=1)
        print()
    else:
        _print_result(tuner, gain, log, args.export)
    return EXIT_INTERRUPTED if interrupted else 0


def default_log(network: str, target: Any) -> Path:
    """Name a log after the network and the target's CPU or kind, in the working folder."""
    device = str(target.attrs.get("mcpu", target.kind.name))
    return Path(f"{network}.{device}.json")


def _show_start(console: "Console", tuner: "NetworkTuner", log: Path, num_tasks: int) -> None:
    """Say what the search starts from, and all that a user may not expect."""
    report = tuner.log_report
    state = f"continues with its {report.num_valid} records" if report.num_valid else "is new"
    lines = [f"{num_tasks} tasks; the log {log} {state}"]
    lines += show.describe_log(report)
    if tuner.left_out:
        lines.append(
            f"fewer trials than tasks: only the {num_tasks - len(tuner.left_out)} with the most "
            f"work are tuned; the others will run TVM's slow fallback code. Give {num_tasks} "
            "trials or more"
        )
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _print_result(
    tuner: "NetworkTuner", gain: "Gain | None", log: Path, export: Path | None
) -> None:
    console = show.stdout_console()
    show.print_table(
        console,
        "tasks",
        ("task", "weight", "GFLOP", "trials", "latency", "GFLOP/s"),
        [
            [
                f"{index} {show.shorten(task.name)}",
                str(task.weight),
                f"{task.flops / 1e9:.3g}" if task.flops > 0 else "-",
                str(task.trials) if task.tuned else "not tuned",
                show.milliseconds(task.latency_s),
                f"{task.flops / 1e9 / task.latency_s:.1f}"
                if task.latency_s and task.flops > 0
                else "-",
            ]
            for index, task in enumerate(tuner.results())
        ],
    )
    if gain is not None:
        show.print_table(
            console,
            "network",
            ("", "latency", "speed-up"),
            [
                ["without the log", show.milliseconds(gain.untuned_latency_s), "1.00"],
                ["with the log", show.milliseconds(gain.tuned_latency_s), f"{gain.speedup:.2f}"],
            ],
        )
        agree = "agree" if gain.outputs_agree else "DIFFER"
        console.print(
            f"spread of the timings {gain.spread:.1%}; outputs {agree} "
            f"(largest relative difference {gain.max_relative_difference:.1e})"
        )
        if gain.num_tasks_without_record:
            console.print(
                f"{gain.num_tasks_without_record} tasks have no valid record yet and run TVM's "
                "slow fallback code; run the command again, with more trials if these are done"
            )
    if export is not None and gain is not None:
        console.print(f"library: {export}", soft_wrap=True, markup=False)
    console.print(f"log: {log}; {tuner.trials} trials", soft_wrap=True, markup=False)
