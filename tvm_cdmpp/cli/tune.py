"""`tvm-cdmpp tune`: search good programs for a network, and show what they gain.

Progress goes to stderr, the result to stdout. Exit code 0 when all trials were done, 130 after
Ctrl-C: the search then ends with what was found, which is evaluated and exported all the same.
Exit code 1 when the network could not be timed or exported; what was found is shown all the same.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli import show
from tvm_cdmpp.cli.inputs import (
    add_inputs,
    add_target,
    add_timeouts,
    check_gpu_is_here,
    input_options,
    measure_options,
)
from tvm_cdmpp.cli.interrupt import EXIT_INTERRUPTED, stop_on_interrupt
from tvm_cdmpp.cli.messages import divert_native_messages, messages_file
from tvm_cdmpp.errors import CDMPPError

if TYPE_CHECKING:
    from rich.console import Console

    from tvm_cdmpp.measure import Gain, MeasureSession
    from tvm_cdmpp.networks import Deployed
    from tvm_cdmpp.search import AheadSearch, NetworkTuner

_EXIT_INCOMPLETE = 1
_DECIDES = {
    "trees": "trees that learned from it decide",
    "analytic": "the analytic estimate decides",
    "adapted": "the trees and the analytic estimate weigh most",
    "prior": "the trees and the analytic estimate weigh most",
}


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
        default="sketch",
        metavar="KIND",
        help="how candidates are found: sketch, by TVM, or evolve, many times faster (default: "
        "sketch)",
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
    inputs = input_options(args)
    check_gpu_is_here(args.target)
    from tvm_cdmpp.measure import MeasureSession
    from tvm_cdmpp.networks import check_export_path, deploy, extract_tasks, load_network
    from tvm_cdmpp.search import (
        AheadSearch,
        NetworkTuner,
        TuneSettings,
        check_cost_model,
        check_search,
    )

    # All that can be wrong is found before the search.
    check_cost_model(args.model)
    check_search(args.model, args.search if args.trials else "evolve")
    settings = TuneSettings(
        trials=args.trials or 1,  # 0 is no search
        seed=args.seed,
        search=args.search,
        measure=measure_options(args),
    )
    if args.export is not None:
        check_export_path(args.export)
    console = show.stderr_console()
    target = _usable_target(args.target, console)
    network = load_network(args.network, **inputs)
    tasks, weights = extract_tasks(network, target)
    log = args.log or default_log(network.name, target)
    log, kind = (log, NetworkTuner) if args.trials else (predicted_log(log), AheadSearch)
    with MeasureSession() as session:
        tuner: Any = kind(tasks, weights, args.model, settings, log=log, session=session)
        if args.trials:
            _show_start(console, tuner, settings.trials, log, len(tasks))
        console.print("compiling the network without the log")
        untuned = deploy(network, target)
        if args.trials:
            _search(console, tuner, settings.trials, log, session)
        else:
            _choose_ahead(console, tuner, log, session)
        interrupted = session.stopping
    if not args.json:
        _print_tasks(tuner)
    delivery = _Delivery()
    if any(task.latency_s is not None for task in tuner.results()):
        delivery.make(console, untuned, log, args)
    else:
        console.print("no program was measured yet, so there is no network to time or to export")
    if args.json:
        _print_json(_result(untuned, tuner, delivery, log, args) | {"interrupted": interrupted})
    else:
        _print_delivery(tuner, delivery, log, args.export)
    if interrupted:
        return EXIT_INTERRUPTED
    return _EXIT_INCOMPLETE if delivery.problems else 0


def _print_json(result: dict[str, Any]) -> None:
    json.dump(result, sys.stdout, indent=1)
    print()


def _usable_target(text: str, console: "Console") -> Any:
    """Read a target, and find out now whether its programs could run here."""
    from tvm_cdmpp.bridge import check_target_runs_here, parse_target
    from tvm_cdmpp.networks import check_libraries

    target = parse_target(text)
    check_target_runs_here(target)
    console.print(f"target: {target}", soft_wrap=True, markup=False)
    check_libraries(target)
    return target


class _Delivery:
    """What becomes of the log: a network that is timed and exported, as far as that works.

    Attributes
    ----------
    gain
        None where the network could not be timed.
    exported
        Which compilation was exported, "tuned" or "untuned"; None without any.
    problems
        What did not work, and why.
    """

    def __init__(self) -> None:
        self.gain: Gain | None = None
        self.exported: str | None = None
        self.problems: list[str] = []

    def make(
        self, console: "Console", untuned: "Deployed", log: Path, args: argparse.Namespace
    ) -> None:
        """Compile the network with the log; time it against the untuned one; export the faster."""
        from tvm_cdmpp.measure import measure_gain
        from tvm_cdmpp.networks import deploy

        console.print("compiling the network with the log, and timing both")
        try:
            tuned = deploy(untuned.network, untuned.target, log)
        except CDMPPError as error:
            self.problems.append(str(error))
            return
        try:
            self.gain = measure_gain(untuned, tuned, seed=args.seed)
        except (CDMPPError, OSError) as error:
            self.problems.append(f"the network could not be timed: {error}")
        if args.export is None:
            return
        slower = self.gain is not None and self.gain.verdict == "slower"
        try:
            (untuned if slower else tuned).export(args.export)
            self.exported = "untuned" if slower else "tuned"
        except (CDMPPError, OSError) as error:
            self.problems.append(str(error))


def _result(
    untuned: "Deployed",
    tuner: "NetworkTuner | AheadSearch",
    delivery: _Delivery,
    log: Path,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "network": untuned.network.name,
        "target": str(untuned.target),
        "model": args.model,
        "search": args.search,
        "seed": args.seed,
        "log": str(log),
        "trials": tuner.trials,
        "trials_saved_s": tuner.saved_s,
        "overruled": [asdict(found) for found in tuner.overruled],
        "sum_of_task_latencies_s": tuner.network_latency_s,
        "time": asdict(tuner.elapsed),
        "tasks": [asdict(task) for task in tuner.results()],
        "gain": delivery.gain and asdict(delivery.gain),
        "export": delivery.exported and str(args.export),
        "exported": delivery.exported,
        "problems": delivery.problems,
    }


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
    if tuner.left_out:
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
    if tuner.saved_s:
        console.print(
            f"stopped after {tuner.trials} of {trials} trials, which saves about "
            f"{show.minutes(tuner.saved_s)}: no task is expected to gain 1 % by another round",
            soft_wrap=True,
        )


def _choose_ahead(
    console: "Console", search: "AheadSearch", log: Path, session: "MeasureSession"
) -> None:
    with (
        divert_native_messages(messages_file(log), console.print),
        stop_on_interrupt(session),
    ):
        console.print(f"what is predicted best goes to {log}", soft_wrap=True, markup=False)
        for task in search.run():
            console.print(
                f"{show.shorten(task.name)}  predicted {show.milliseconds(task.latency_s)}",
                soft_wrap=True,
                markup=False,
            )


def _print_tasks(tuner: "NetworkTuner | AheadSearch") -> None:
    console = show.stdout_console()
    show.print_table(
        console,
        "tasks" if tuner.trials else "tasks (predicted)",
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


def _print_delivery(
    tuner: "NetworkTuner | AheadSearch", delivery: _Delivery, log: Path, export: Path | None
) -> None:
    console = show.stdout_console()
    if delivery.gain is not None:
        measured_s = tuner.network_latency_s if tuner.trials else None
        _print_gain(console, delivery.gain, measured_s)
    if delivery.exported is not None:
        which = "" if delivery.exported == "tuned" else " (the untuned network, which is faster)"
        console.print(f"library: {export}{which}", soft_wrap=True, markup=False)
    console.print(f"log: {log}; {tuner.trials} trials", soft_wrap=True, markup=False)
    for problem in delivery.problems:
        show.stderr_console().print(f"tvm-cdmpp: {problem}", soft_wrap=True, markup=False)


def _print_gain(console: "Console", gain: "Gain", sum_of_tasks_s: float | None) -> None:
    show.print_table(
        console,
        f"network (medians of {gain.rounds} rounds in turns)",
        ("", "latency", "range", "speed-up"),
        [
            [
                name,
                show.milliseconds(timing.latency_s),
                f"{1e3 * timing.low_s:.4g} to {1e3 * timing.high_s:.4g} ms",
                f"{gain.untuned.latency_s / timing.latency_s:.2f}",
            ]
            for name, timing in (("without the log", gain.untuned), ("with the log", gain.tuned))
        ],
    )
    for line in _describe_gain(gain, sum_of_tasks_s):
        console.print(line, soft_wrap=True, markup=False)


def _describe_gain(gain: "Gain", sum_of_tasks_s: float | None) -> list[str]:
    """Say how far the figures can be trusted, and what they do not say."""
    lines = []
    if gain.verdict == "no significant difference":
        overlap = (
            gain.tuned.high_s >= gain.untuned.low_s and gain.untuned.high_s >= gain.tuned.low_s
        )
        why = "the ranges overlap" if overlap else "too few rounds were quiet to tell"
        lines.append(f"no significant difference: {why}")
    elif gain.verdict == "slower":
        lines.append("warning: the tuned network is slower than the untuned one; give more trials")
    if not gain.quiet:
        lines.append(
            f"warning: the machine was busy in {gain.noisy_rounds} rounds, by a fixed program "
            "measured in between; run the same command again when it is quiet"
        )
    elif gain.noisy_rounds:
        lines.append(f"left out: {gain.noisy_rounds} rounds in which the machine was busy")
    agree = "agree" if gain.outputs_agree else "DIFFER"
    lines.append(
        f"outputs of the tuned network and of {gain.reference} {agree} "
        f"(largest relative difference {gain.max_relative_difference:.1e})"
    )
    if sum_of_tasks_s is not None:
        lines.append(
            f"the tasks' latencies add up to {show.milliseconds(sum_of_tasks_s)}, the network "
            f"takes {show.milliseconds(gain.tuned.latency_s)}: a task's is the best of many "
            "measurements, by itself and with empty caches, and the sum leaves out what is no "
            "task, such as changes of layout"
        )
    if gain.num_tasks_without_record:
        lines.append(
            f"{gain.num_tasks_without_record} tasks have no valid record yet and run TVM's "
            "slow fallback code; run the command again, with more trials if these are done"
        )
    return lines
