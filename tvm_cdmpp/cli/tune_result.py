"""What `tvm-cdmpp tune` makes of its log, and how it shows that.

A network that is timed and exported; tasks, what the network gained, and what to think of it.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli import show
from tvm_cdmpp.errors import CDMPPError

if TYPE_CHECKING:
    from rich.console import Console

    from tvm_cdmpp.measure import Gain, Timing
    from tvm_cdmpp.networks import Deployed, Network
    from tvm_cdmpp.search import AheadSearch, NetworkTuner

_WIDE = 0.25
"""Of a latency: where the range of its median is wider, next to nothing can be told."""


class Delivery:
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
        self,
        console: "Console",
        compiled: "tuple[Network, Any]",
        untuned: "Deployed | None",
        log: Path,
        args: argparse.Namespace,
    ) -> None:
        """Compile a network for a target with the log; time it, if it was without; export it.

        Of the two the faster one is exported.
        """
        if untuned is None and args.export is None:
            console.print("the network is not timed: it is for other devices than this machine's")
            return
        from tvm_cdmpp.measure import measure_gain
        from tvm_cdmpp.networks import deploy

        timing = "" if untuned is None else ", and timing both"
        console.print(f"compiling the network with the log{timing}")
        try:
            tuned = deploy(*compiled, log)
        except CDMPPError as error:
            self.problems.append(str(error))
            return
        try:
            if untuned is not None:
                self.gain = measure_gain(untuned, tuned, seed=args.seed)
        except (CDMPPError, OSError) as error:
            self.problems.append(f"the network could not be timed: {error}")
        if args.export is None:
            return
        slower = self.gain is not None and self.gain.verdict == "slower"
        best = untuned if untuned is not None and slower else tuned
        try:
            best.export(args.export)
            self.exported = "tuned" if best is tuned else "untuned"
        except (CDMPPError, OSError) as error:
            self.problems.append(str(error))


def result_of(
    network: str,
    target: Any,
    tuner: "NetworkTuner | AheadSearch",
    delivery: Delivery,
    log: Path,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "network": network,
        "target": str(target),
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


def print_tasks(tuner: "NetworkTuner | AheadSearch") -> None:
    """Print what was found for each task."""
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
                show.latency(task.latency_s),
                f"{task.flops / 1e9 / task.latency_s:.1f}"
                if task.latency_s and task.flops > 0
                else "-",
            ]
            for index, task in enumerate(tuner.results())
        ],
    )


def print_delivery(
    tuner: "NetworkTuner | AheadSearch", delivery: Delivery, log: Path, export: Path | None
) -> None:
    """Print what the network gained, and where everything is."""
    console = show.stdout_console()
    if delivery.gain is not None:
        measured_s = tuner.network_latency_s if tuner.trials else None
        num_left_out = sum(not task.tuned for task in tuner.results())
        _print_gain(console, delivery.gain, measured_s, num_left_out)
    if delivery.exported is not None:
        which = "" if delivery.exported == "tuned" else " (the untuned network, which is faster)"
        console.print(f"library: {export}{which}", soft_wrap=True, markup=False)
    console.print(f"log: {log}; {tuner.trials} trials", soft_wrap=True, markup=False)
    for problem in delivery.problems:
        show.stderr_console().print(f"tvm-cdmpp: {problem}", soft_wrap=True, markup=False)


def _print_gain(
    console: "Console", gain: "Gain", sum_of_tasks_s: float | None, num_left_out: int
) -> None:
    show.print_table(
        console,
        f"network (medians of {gain.rounds} rounds in turns)",
        ("", "latency", "range", "speed-up"),
        [
            [
                name,
                show.latency(timing.latency_s),
                show.latency_range(timing.low_s, timing.high_s, timing.latency_s),
                f"{gain.untuned.latency_s / timing.latency_s:.2f}",
            ]
            for name, timing in (("without the log", gain.untuned), ("with the log", gain.tuned))
        ],
    )
    for line in describe_gain(gain, sum_of_tasks_s, num_left_out):
        console.print(line, soft_wrap=True, markup=False)


def describe_gain(gain: "Gain", sum_of_tasks_s: float | None, num_left_out: int) -> list[str]:
    """Say how far the figures can be trusted, and what they do not say.

    Parameters
    ----------
    gain
        What was measured.
    sum_of_tasks_s
        Sum of the tuned tasks' latencies; None where it is not known.
    num_left_out
        Tasks that were not tuned, and are not in the sum.
    """
    lines = []
    overlap = gain.tuned.high_s >= gain.untuned.low_s and gain.untuned.high_s >= gain.tuned.low_s
    if gain.verdict == "faster":
        lines.append(f"significantly faster, {gain.speedup:.2f} times: the ranges do not overlap")
    elif gain.verdict == "no significant difference":
        why = "the ranges overlap" if overlap else "too few rounds were quiet to tell"
        widest = max(_width(gain.untuned), _width(gain.tuned))
        if overlap and widest > _WIDE:
            why += (
                f", the wider one is {widest:.0%} of its latency wide, so that little can be told"
            )
            if gain.quiet:  # else what follows says so
                why += "; run the same command again when the machine is quiet"
        lines.append(f"no significant difference: {why}")
    elif gain.verdict == "slower":
        lines.append(
            "warning: the tuned network is significantly slower than the untuned one; give more "
            "trials"
        )
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
        others = f"the {num_left_out} tasks that were not tuned, and " if num_left_out else ""
        lines.append(
            f"the tasks' latencies add up to {show.latency(sum_of_tasks_s)}, the network "
            f"takes {show.latency(gain.tuned.latency_s)}: a task's is the best of many "
            f"measurements, and the sum leaves out {others}what is no task, such as changes of "
            "layout; with the caches that measurements empty full, a task may also take less"
        )
    if gain.num_tasks_without_record:
        lines.append(
            f"{gain.num_tasks_without_record} tasks have no valid record yet and run TVM's "
            "slow fallback code; run the command again, with more trials if these are done"
        )
    return lines


def _width(timing: "Timing") -> float:
    """Return how wide the range of a median is, as a share of it."""
    return (timing.high_s - timing.low_s) / timing.latency_s
