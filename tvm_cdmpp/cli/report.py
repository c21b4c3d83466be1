"""`tvm-cdmpp report`: a search as one HTML page."""

import argparse
from pathlib import Path
from typing import Any

from tvm_cdmpp.cli import show
from tvm_cdmpp.cli.logs import read_log
from tvm_cdmpp.cli.messages import drop_native_messages
from tvm_cdmpp.cli.outputs import check_outputs, files_of_log
from tvm_cdmpp.report import counted


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "report",
        help="write a page about a search",
        description="Write one HTML page about the search that wrote a log: progress, time per "
        "task, predicted against measured, failures, what limits each task, and where more trials "
        "would pay. It needs no other file and no network.",
    )
    parser.add_argument("log", type=Path, metavar="LOG", help="an Ansor log, plain or packed")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE.html",
        help="the page (default: report.html in the current folder)",
    )
    parser.add_argument(
        "--device", metavar="D", help="where it was measured (default: what its target names)"
    )
    parser.add_argument(
        "--weights", default="shipped", metavar="W", help="shipped, evaluation or a file"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Read the log, review it, write the page."""
    taken = [*files_of_log(args.log, "the log"), ("that of --weights", Path(args.weights))]
    check_outputs([("--out", args.out)], taken)
    from tvm_cdmpp.devices import find_device
    from tvm_cdmpp.models import load_weights
    from tvm_cdmpp.report import write_search_page
    from tvm_cdmpp.search import review_search

    device = None if args.device is None else find_device(args.device)
    predictor = load_weights(args.weights)
    with drop_native_messages():
        review = review_search(read_log(args.log, device), predictor, args.weights)
    write_search_page(review, args.out)
    tasks = counted(len(review.tasks), "task")
    programs = counted(sum(task.trials for task in review.tasks), "program")
    show.stdout_console().print(
        f"{tasks}, {programs}: {args.out}",
        soft_wrap=True,
        markup=False,
    )
    if review.problems:
        first = min(review.problems)
        show.stderr_console().print(
            f"{counted(len(review.problems), 'line')} could not be used; line {first}: "
            f"{review.problems[first]}",
            soft_wrap=True,
            markup=False,
        )
    return 0
