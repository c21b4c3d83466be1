"""`tvm-cdmpp explain`: why a measured program is predicted to take as long as it does."""

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli import legend, show
from tvm_cdmpp.cli.logs import check_line, read_log
from tvm_cdmpp.cli.messages import drop_native_messages
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.report import counted, ranges

if TYPE_CHECKING:
    from rich.console import Console

    from tvm_cdmpp.models import Attribution
    from tvm_cdmpp.search import Explanation, MeasuredLog, MeasuredTask

_MOST_FIELDS = 6
_LEAST_SHOWN = 0.01
"""Of ln latency: what moves a prediction by less than 1 % is not shown."""
_MOST_TASKS = 10
"""Of a log, in a message."""
_LOOP_WIDTH = 110
"""Of the drawing of loops, whose bounds may be long; both ends of a longer line are shown."""
_MOST_RANGES = 8
_ESTIMATE = "analytic estimate"
"""Group that is not shown next to average leaves: there it says how large the program is, no more.
"""
_MISSED = 1.5
"""Factor by which a measured ratio of two programs is another than the predicted one."""


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "explain",
        help="explain why a program of a log is predicted to take as long as it does",
        description="Take the prediction for a program of a log apart: by store statement, by what "
        "bounds it, by what the predictor looked at; and compare it with another one.",
    )
    parser.add_argument(
        "record",
        metavar="LOG[:LINE]",
        help="an Ansor log; its line, from 1, or else the best program of a task",
    )
    parser.add_argument(
        "--task", type=int, metavar="N", help="task of the log, from 0 (default: the slowest)"
    )
    parser.add_argument(
        "--against", type=int, metavar="K", help="line of another program of the same task"
    )
    parser.add_argument(
        "--device", metavar="D", help="where it was measured (default: what its target names)"
    )
    parser.add_argument(
        "--weights", default="shipped", metavar="W", help="shipped, evaluation or a file"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Read the log, choose a program, explain it."""
    path, line = _parse_record(args.record)
    if line is not None and args.task is not None:
        raise ConfigError("Give a line or --task: a line says which task it is of.")
    if args.task is not None and args.task < 0:
        raise ConfigError(f"--task must be at least 0; got {args.task}")
    check_line(path, line, "line")
    check_line(path, args.against, "--against")
    from tvm_cdmpp.bridge import remark_on_calibration
    from tvm_cdmpp.devices import find_device
    from tvm_cdmpp.models import load_weights
    from tvm_cdmpp.search import Measured, explain_program

    device = None if args.device is None else find_device(args.device)
    with drop_native_messages():
        log = read_log(path, device)
        task, place = _choose(log, args.task) if line is None else log.of_line(line)
        other = None if args.against is None else _other(log, task, args.against)
        explanation = explain_program(
            load_weights(args.weights),
            task.machine,
            task.extractor,
            task.task,
            task.states[place],
            against=None if other is None else task.states[other],
            measured=Measured(task.asts, task.latencies_s),
        )
    remark = remark_on_calibration(task.machine.device)
    if args.json:
        values = asdict(explanation) | {
            "task": task.name,
            "line": int(task.lines[place]),
            "task_lines": task.lines.tolist(),
            "measured_s": _finite(task.latencies_s[place]),
            "other_measured_s": None if other is None else _finite(task.latencies_s[other]),
            "unusable_lines": len(log.problems),
            "remarks": [] if remark is None else [remark],
        }
        for neighbour in values["neighbours"]:
            neighbour["line"] = int(task.lines[neighbour.pop("row")])
            neighbour["latency_s"] = _finite(neighbour["latency_s"])
        json.dump(values, sys.stdout, indent=1)
        print()
    else:
        _print(show.stdout_console(), log, task, place, explanation, other, remark)
    return 0


def _parse_record(text: str) -> tuple[Path, int | None]:
    match = re.fullmatch(r"(.+):(\d+)", text)
    if match and not Path(text).exists():
        return Path(match[1]), int(match[2])
    return Path(text), None


def _choose(log: "MeasuredLog", number: int | None) -> tuple["MeasuredTask", int]:
    """Return a task and its best program; by default of the task whose best is the slowest."""
    if number is not None and not 0 <= number < len(log.tasks):
        named = [f"{n} {show.shorten(t.name)}" for n, t in enumerate(log.tasks[:_MOST_TASKS])]
        more = ["..."] if len(log.tasks) > _MOST_TASKS else []
        raise ConfigError(
            f"--task must be 0 to {len(log.tasks) - 1}, a task of {log.path}; got {number}. They "
            f"are {'; '.join([*named, *more])}"
        )
    ran = [task for task in log.tasks if task.best is not None]
    if number is None and ran:
        task = max(ran, key=lambda t: float(t.latencies_s[t.best]))
    else:
        task = log.tasks[number or 0]
    # Without any program that ran, the first one that failed.
    return task, 0 if task.best is None else task.best


def _other(log: "MeasuredLog", task: "MeasuredTask", line: int) -> int:
    found, place = log.of_line(line)
    if found is not task:
        raise ConfigError(
            f"--against must be a line of the same task, {task.name}, which has the lines "
            f"{ranges(task.lines, _MOST_RANGES)}; line {line} is of {found.name}"
        )
    return place


def _shorten_loops(drawing: str) -> str:
    """Cut the middle out of long lines; a loop begins with its name, a store ends with a share."""
    half = (_LOOP_WIDTH - 5) // 2
    return "\n".join(
        line if len(line) <= _LOOP_WIDTH else f"{line[:half]} ... {line[-half:]}"
        for line in drawing.splitlines()
    )


def _finite(latency_s: float) -> float | None:
    return float(latency_s) if latency_s < float("inf") else None


def _print(
    console: "Console",
    log: "MeasuredLog",
    task: "MeasuredTask",
    place: int,
    explanation: "Explanation",
    other: int | None,
    remark: str | None,
) -> None:
    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False)

    measured_s = _finite(task.latencies_s[place])
    say(f"{task.name} on {explanation.device}, line {task.lines[place]} of {log.path}")
    say(f"the task has the lines {ranges(task.lines, _MOST_RANGES)}")
    if log.problems:
        first = min(log.problems)
        unusable = counted(len(log.problems), "line")
        say(f"{unusable} cannot be used; line {first}: {log.problems[first]}")
    low, high = explanation.interval_s or (explanation.latency_s, explanation.latency_s)
    found = f"measured {show.latency(measured_s)}"
    if measured_s is None:
        runs = explanation.runs_probability
        found = f"failed; by prediction it runs with a probability of {runs:.2f}"
    say(
        f"predicted {show.latency(explanation.latency_s)} (90 %: "
        f"{show.latency_range(low, high, explanation.latency_s)}), {found}"
    )
    if measured_s is not None and not low <= measured_s <= high:
        say(
            f"measured, it takes {measured_s / explanation.latency_s:.3g} times what is predicted, "
            "outside of the 90 % interval: the prediction is wrong here, or the machine was busy, "
            "so what follows explains the prediction only"
        )
    if explanation.calibration_factor != 1:
        say(
            f"that is {explanation.calibration_factor:.2f} times what the weights say alone, as "
            f"`device calibrate` measured on {explanation.device}"
        )
    if remark is not None:
        say(remark)
    _print_roofline(console, task, explanation, measured_s)
    rows = [
        [
            f"{leaf.name} (initial value)" if leaf.is_init else leaf.name,
            show.latency(leaf.latency_s),
            f"{100 * leaf.share:.1f}%",
            leaf.bound,
        ]
        for leaf in explanation.leaves
    ]
    share = explanation.start_s / explanation.latency_s
    start = show.latency(explanation.start_s)
    rows.append(["(start-up)", start, f"{100 * share:.1f}%", "start-up"])
    show.print_table(console, "stores", ("buffer", "latency", "share", "held down by"), rows)
    say("\n" + _shorten_loops(explanation.loops))
    average = explanation.attribution
    groups = {name: value for name, value in average.groups.items() if name != _ESTIMATE}
    _print_groups(console, "relative to average leaves", _largest(groups))
    _print_fields(console, average)
    if other is not None:
        _print_other(console, task, place, explanation, other)
    rows = [
        [
            f"line {task.lines[neighbour.row]}",
            show.latency(_finite(neighbour.latency_s)),
            f"{neighbour.distance:.3g}",
        ]
        for neighbour in explanation.neighbours
    ]
    show.print_table(console, "nearest measured", ("program", "measured", "distance"), rows)


def _print_roofline(
    console: "Console", task: "MeasuredTask", explanation: "Explanation", measured_s: float | None
) -> None:
    from tvm_cdmpp.search import roofline_basis, why_below_roofline

    roofline_s, bound = explanation.roofline_s, explanation.roofline_bound
    said = f"the prediction is {explanation.latency_s / roofline_s:.3g} times as long"
    if measured_s is not None:
        said += f", the measured latency {measured_s / roofline_s:.3g} times"
    basis = roofline_basis(task.machine.device)[bound]
    console.print(
        f"roofline {show.latency(roofline_s)} by {bound} ({basis}): {said}",
        soft_wrap=True,
        markup=False,
    )
    below = [explanation.latency_s] if measured_s is None else [explanation.latency_s, measured_s]
    if min(below) < roofline_s:
        console.print(
            f"below the roofline: {why_below_roofline(bound)}", soft_wrap=True, markup=False
        )


def _print_other(
    console: "Console", task: "MeasuredTask", place: int, explanation: "Explanation", other: int
) -> None:
    measured = show.latency(_finite(task.latencies_s[other]))
    line = task.lines[other]
    said = [f"\nline {line}: predicted {show.latency(explanation.other_s)}, measured {measured}"]
    assert explanation.other_s is not None
    predicted = explanation.other_s / explanation.latency_s
    found = float(task.latencies_s[other]) / float(task.latencies_s[place])
    if 0 < found < math.inf and abs(math.log(found / predicted)) > math.log(_MISSED):
        said.append(
            f"measured, it takes {found:.3g} times as long as line {task.lines[place]}, predicted "
            f"{predicted:.3g} times: the model misses some of what makes the difference, so what "
            "follows explains the prediction only"
        )
    for text in said:
        console.print(text, soft_wrap=True, markup=False)
    if explanation.against is not None:
        shown = _largest(explanation.against.groups)
        total = math.log(explanation.latency_s / explanation.other_s)
        from_to = f"{show.latency(explanation.other_s)} to {show.latency(explanation.latency_s)}"
        rest = {
            "(others)": (
                total - sum(shown.values()),
                "all other groups, and the error of the integral",
            ),
            "(total)": (total, f"from {from_to}; factors multiply"),
        }
        title = f"line {task.lines[place]} relative to line {line}"
        _print_groups(console, title, shown, rest)
        _print_fields(console, explanation.against)
    else:
        console.print("they have other stores, so their inputs cannot be compared one by one")


def _print_groups(
    console: "Console",
    title: str,
    groups: Mapping[str, float],
    rest: Mapping[str, tuple[float, str]] = MappingProxyType({}),
) -> None:
    """Print what groups add to ln latency; rest are rows below, with what they are."""
    values = {name: (value, legend.meaning_of_group(name)) for name, value in groups.items()}
    rows = [
        [name, show.percent_of_log(value), meaning]
        for name, (value, meaning) in {**values, **rest}.items()
    ]
    show.print_table(console, title, ("group", "latency", "is"), rows, words=(2,))


def _print_fields(console: "Console", found: "Attribution") -> None:
    rows = [
        [name, show.percent_of_log(value), legend.meaning_of_field(name)]
        for name, value in _largest(found.fields).items()
    ]
    header = ("field", "latency", "is")
    show.print_table(console, "of that, fields", header, rows, words=(2,))


def _largest(values: Mapping[str, float]) -> dict[str, float]:
    shown = [(name, value) for name, value in values.items() if abs(value) >= _LEAST_SHOWN]
    return dict(shown[:_MOST_FIELDS])
