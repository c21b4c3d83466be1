"""`tvm-cdmpp compare`: the same search with several cost models; tables, JSON and a plot."""

import argparse
import itertools
import shlex
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli import show
from tvm_cdmpp.cli.inputs import add_input_shape, add_target, parse_input_shapes
from tvm_cdmpp.cli.interrupt import EXIT_INTERRUPTED, stop_on_interrupt
from tvm_cdmpp.cli.messages import divert_native_messages
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.files import write_atomically

if TYPE_CHECKING:
    from tvm_cdmpp.search.comparison import SearchComparison, SearchResult

_FRACTIONS = (0.25, 0.5, 1.0)


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "compare",
        help="run the same search with several cost models",
        description="Run the same search with several cost models, in turns, and time the winners "
        "together. Running the same command again continues where it was.",
    )
    parser.add_argument(
        "network", metavar="NETWORK", help="a name (resnet-18, bert-tiny, ...) or a model file"
    )
    parser.add_argument(
        "--models",
        default="cdmpp,xgb-warm",
        metavar="A,B,...",
        help="of cdmpp, xgb, xgb-warm, xgb-adaptive, random (default: cdmpp,xgb-warm)",
    )
    parser.add_argument(
        "--trials", type=int, default=1000, metavar="N", help="programs per search (default: 1000)"
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="K", help="searches per model (default: 1)"
    )
    parser.add_argument(
        "--tasks", type=int, metavar="M", help="only the M tasks with the most work (default: all)"
    )
    parser.add_argument(
        "--round", type=int, default=64, metavar="R", help="programs per round (default: 64)"
    )
    add_target(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for logs, comparison.json and comparison.png (default: compare-NETWORK)",
    )
    add_input_shape(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Compare, report, plot."""
    # TVM takes seconds to load; a wrong command line must not.
    shapes = parse_input_shapes(args.input_shape)
    from tvm_cdmpp.bridge.target import check_target_runs_here, parse_target
    from tvm_cdmpp.measure.session import MeasureSession
    from tvm_cdmpp.networks.network import extract_tasks, load_network
    from tvm_cdmpp.report.comparison_plot import plot_comparison
    from tvm_cdmpp.search.comparison import CompareSettings
    from tvm_cdmpp.search.contest import compare_models
    from tvm_cdmpp.search.tuner import heaviest_tasks

    settings = CompareSettings(
        models=tuple(filter(None, args.models.split(","))),
        seeds=args.seeds,
        trials=args.trials,
        round_size=args.round,
    )
    if args.tasks is not None and args.tasks < 1:
        raise ConfigError(f"--tasks must be at least 1, got {args.tasks}")
    console = show.stderr_console()
    target = parse_target(args.target)
    check_target_runs_here(target)
    network = load_network(args.network, input_shapes=shapes)
    tasks, weights = extract_tasks(network, target)
    if args.tasks is not None:
        chosen = heaviest_tasks(tasks, weights, args.tasks)
        tasks, weights = [tasks[i] for i in chosen], [weights[i] for i in chosen]
    folder = args.out or Path(f"compare-{network.name}")
    all_trials = settings.trials * settings.seeds * len(settings.models)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        divert_native_messages(folder / "tvm.txt", console.print),
        MeasureSession() as session,
        stop_on_interrupt(session),
        show.show_rounds(console, all_trials) as show_round,
    ):
        comparison = compare_models(
            network.name,
            tasks,
            weights,
            settings,
            folder=folder,
            session=session,
            command=_command(args),
            on_round=lambda model, seed, report: show_round(report, f"{model} seed {seed}  "),
        )
    if comparison.complete:
        write_atomically(folder / "comparison.json", comparison.to_json().encode())
        plot_comparison(comparison, folder / "comparison.png")
    _print_tables(comparison)
    print(
        f"\n{folder}: "
        + (
            "logs, comparison.json, comparison.png"
            if comparison.complete
            else "stopped; run the same command again to go on"
        )
    )
    return 0 if comparison.complete else EXIT_INTERRUPTED


def _command(args: argparse.Namespace) -> str:
    """Write the command that repeats the comparison, wherever this one was started from."""
    names = ("models", "trials", "seeds", "tasks", "round", "target")
    given = [(f"--{name}", str(getattr(args, name))) for name in names if getattr(args, name)]
    given += [("--input-shape", text) for text in args.input_shape]
    return shlex.join(["tvm-cdmpp", "compare", args.network, *itertools.chain(*given)])


def _print_tables(comparison: "SearchComparison") -> None:
    console, settings = show.stdout_console(), comparison.settings
    stages = [round(fraction * settings.trials) for fraction in _FRACTIONS]
    show.print_table(
        console,
        f"{comparison.network}: latency, median over {settings.seeds} seeds",
        ("model", *(f"{trials} trials" for trials in stages), "re-measured", "time"),
        [
            [
                model,
                *(_median_ms(s.latency_at(n) for s in comparison.of_model(model)) for n in stages),
                _median_ms(s.remeasured_latency_s for s in comparison.of_model(model)),
                show.minutes(
                    statistics.median(s.split.total_s for s in comparison.of_model(model))
                ),
            ]
            for model in settings.models
        ],
    )
    show.print_table(
        console,
        "to reach another's best latency",
        ("model", *(f"{other}'s" for other in settings.models)),
        [
            [model, *(_reach(comparison, model, other) for other in settings.models)]
            for model in settings.models
        ],
    )
    parts = ("search", "predict", "update", "build", "run")
    show.print_table(
        console,
        "where the time went, all seeds together",
        ("model", *parts, "failed programs"),
        [
            [
                model,
                *(_share(comparison.of_model(model), f"{part}_s") for part in parts),
                str(sum(sum(s.failures.values()) for s in comparison.of_model(model))),
            ]
            for model in settings.models
        ],
    )


def _median_ms(latencies_s: Iterable[float | None]) -> str:
    known = [latency_s for latency_s in latencies_s if latency_s is not None]
    return show.milliseconds(statistics.median(known) if known else None)


def _reach(comparison: "SearchComparison", model: str, other: str) -> str:
    """Say after how many trials and how much time a model's searches reach another's best."""
    pairs = list(zip(comparison.of_model(model), comparison.of_model(other), strict=True))
    points = [a.first_reaching(b.best_latency_s) for a, b in pairs if b.best_latency_s is not None]
    reached = [point for point in points if point is not None]
    if not reached:
        return "never"
    trials = statistics.median(point.trials for point in reached)
    time_s = statistics.median(point.elapsed_s for point in reached)
    often = f" ({len(reached)} of {len(pairs)})" if len(reached) < len(pairs) else ""
    return f"{trials:.0f} trials, {show.minutes(time_s)}{often}"


def _share(searches: "list[SearchResult]", part: str) -> str:
    total_s = sum(search.split.total_s for search in searches)
    return f"{sum(getattr(search.split, part) for search in searches) / max(total_s, 1e-9):.0%}"
