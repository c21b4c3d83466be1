"""`tvm-cdmpp autotune`: searches for the setting that `train` is best at.

Progress goes to stderr, the table of trials to stdout. Exit codes: 0 done, 2 a clear error, 130
interrupted; the same command goes on afterwards.
"""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli.inputs import SPLITS

if TYPE_CHECKING:
    from tvm_cdmpp.train import AutotuneSettings, Progress

_SHOWN = 10
"""Trials in the table."""


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "autotune",
        help="search for the best setting to train with",
        description="Try settings of the network and of its training (Optuna: TPE, with trials "
        "ended that fall behind) by the error on the validation part of a record store. What was "
        "found goes to summary.json in the folder, which `train --config` takes. The same command "
        "goes on after an interruption; with more trials it adds to the study.",
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="the record store")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where the study is kept"
    )
    parser.add_argument(
        "--trials", type=int, default=40, metavar="N", help="settings to try in all (default: 40)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        metavar="M",
        help="begin no further trial after so many minutes",
    )
    parser.add_argument(
        "--split",
        default="networks",
        metavar="NAME",
        help=f"official split whose test part is left out: {SPLITS}; `none` for all records "
        "(default: networks)",
    )
    parser.add_argument(
        "--kinds", default="cpu,gpu", help="kinds of devices to train for (default: cpu,gpu)"
    )
    parser.add_argument(
        "--steps", type=int, default=1500, help="training steps of each network (default: 1500)"
    )
    parser.add_argument(
        "--per-task", type=int, default=200, metavar="N",
        help="programs of a task at most (default: 200)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of draws and training (default: 0)")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Search, and show what was tried."""
    from tvm_cdmpp.cli.show import show_progress, stderr_console
    from tvm_cdmpp.data import RecordStore
    from tvm_cdmpp.train import autotune

    store, settings = RecordStore.open(args.store), _settings(args)
    begun: set[tuple[int, str]] = set()
    with show_progress(stderr_console(), "trials", args.trials, 0) as show_step:

        def on_progress(number: int, progress: "Progress") -> None:
            if (number, progress.kind) not in begun:
                begun.add((number, progress.kind))
                show_step(f"trial {number}  {progress.kind}", 0, "")

        def on_trial(trial: dict[str, Any]) -> None:
            show_step(f"trial {trial['trial']}  {_outcome(trial)}", 1, "")

        summary = autotune(
            store, args.out, settings, trials=args.trials, minutes=args.minutes,
            on_progress=on_progress, on_trial=on_trial,
        )  # fmt: skip
    _print_table(summary)
    print(f"wrote {args.out / 'summary.json'}, which `tvm-cdmpp train --config` takes")
    return 0


def _settings(args: argparse.Namespace) -> "AutotuneSettings":
    from dataclasses import replace

    from tvm_cdmpp.train import TRIAL_CONFIG, AutotuneSettings, PretrainSettings

    base = PretrainSettings(
        split=None if args.split == "none" else args.split,
        seed=args.seed,
        most_per_task=args.per_task,
        config=replace(TRIAL_CONFIG, steps=args.steps),
    )
    return AutotuneSettings(kinds=tuple(args.kinds.split(",")), base=base)


def _outcome(trial: dict[str, Any]) -> str:
    errors = ", ".join(f"{kind} {100 * error:.2f} %" for kind, error in trial["errors"].items())
    ended = "" if trial["state"] == "complete" else "  ended: it fell behind"
    return f"validation median error {errors}  {trial['seconds']:.0f} s{ended}"


def _print_table(summary: dict[str, Any]) -> None:
    from tvm_cdmpp.cli.show import print_table, stdout_console

    complete = [trial for trial in summary["trials"] if trial["error"] is not None]
    complete.sort(key=lambda trial: float(trial["error"]))
    kinds = list(summary["best"]["errors"])
    names = list(summary["space"])
    shown = complete[:_SHOWN]
    rows = [
        ["error", *(f"{100 * trial['error']:.2f} %" for trial in shown)],
        *([kind, *(f"{100 * trial['errors'][kind]:.2f} %" for trial in shown)] for kind in kinds),
        *([name, *(_value(trial["setting"][name]) for trial in shown)] for name in names),
    ]
    title = f"{len(complete)} of {len(summary['trials'])} trials came to their end; the best first"
    print_table(stdout_console(), title, ["trial", *(str(t["trial"]) for t in shown)], rows)


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
