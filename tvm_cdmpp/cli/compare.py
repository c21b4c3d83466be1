"""`tvm-cdmpp compare`: the same search with several cost models; tables, JSON and a plot."""

import argparse
import itertools
import shlex
import statistics
from collections.abc import Callable, Iterable
from dataclasses import replace
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
from tvm_cdmpp.cli.messages import divert_native_messages
from tvm_cdmpp.errors import CDMPPError, ConfigError
from tvm_cdmpp.files import write_atomically

if TYPE_CHECKING:
    from tvm_cdmpp.networks import Network
    from tvm_cdmpp.search import SearchComparison, SearchResult, TurnReport

# Up to half of the trials are first rounds: before that there may be no latency of the network.
_FRACTIONS = (0.5, 0.75, 1.0)


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "compare",
        help="run the same search with several cost models",
        description="Run the same search with several cost models, in turns, and time the winners "
        "together. Running the same command again continues where it was; with more models, seeds "
        "or trials (and the same rounds), what was done is kept.",
    )
    parser.add_argument(
        "network", metavar="NETWORK", help="a name (resnet-18, bert-tiny, ...) or a model file"
    )
    parser.add_argument(
        "--models",
        default="cdmpp,xgb-warm",
        metavar="A,B,...",
        help="of cdmpp, cdmpp-evaluation, cdmpp-untrained, xgb, xgb-warm, xgb-adaptive, random; "
        "cdmpp ones also as cdmpp:evolve, with that search (default: cdmpp,xgb-warm)",
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
    add_timeouts(parser)
    add_inputs(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Compare, report, plot."""
    # TVM takes seconds to load; a wrong command line must not.
    inputs = input_options(args)
    check_gpu_is_here(args.target)
    from tvm_cdmpp.bridge import check_target_runs_here, parse_target, task_name
    from tvm_cdmpp.measure import MeasureSession
    from tvm_cdmpp.networks import check_compiles, extract_tasks, load_network
    from tvm_cdmpp.report import plot_comparison
    from tvm_cdmpp.search import CompareSettings, check_covers, heaviest_tasks, run_contest

    settings = CompareSettings(
        models=tuple(filter(None, args.models.split(","))),
        seeds=args.seeds,
        trials=args.trials,
        round_size=args.round,
        measure=measure_options(args),
    )
    if args.tasks is not None and args.tasks < 1:
        raise ConfigError(f"--tasks must be at least 1, got {args.tasks}")
    console = show.stderr_console()
    target = parse_target(args.target)
    check_target_runs_here(target)
    network = load_network(args.network, **inputs)
    check_compiles(network, target)
    all_tasks, all_weights = extract_tasks(network, target)
    chosen = heaviest_tasks(all_tasks, all_weights, args.tasks or len(all_tasks))
    tasks, weights = [all_tasks[i] for i in chosen], [all_weights[i] for i in chosen]
    folder = args.out or Path(f"compare-{network.name}")
    file = folder / "comparison.json"
    check_covers(file, settings, [task_name(task) for task in tasks], str(target))
    all_trials = settings.trials * settings.seeds * len(settings.models)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        divert_native_messages(folder / "tvm.txt", console.print),
        MeasureSession() as session,
        stop_on_interrupt(session),
        show.show_progress(console, "trials", all_trials, 0) as show_step,
    ):
        comparison = run_contest(
            network.name,
            tasks,
            weights,
            settings,
            folder=folder,
            session=session,
            command=_command(args),
            on_round=_show_turns(show_step),
        )
    if comparison.complete:
        if len(tasks) == len(all_tasks):
            try:
                untuned_s = _untuned_latency_s(network, target)
                comparison = replace(comparison, untuned_latency_s=untuned_s)
            except CDMPPError as error:  # no reason to lose what was measured
                console.print(f"no latency of the untuned network: {error}", markup=False)
        write_atomically(file, comparison.to_json().encode())
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


def _show_turns(show_step: "Callable[[str, int, str], None]") -> "Callable[[TurnReport], None]":
    """Show a line per round and the time left for all searches together."""
    shown = 0

    def show_turn(turn: "TurnReport") -> None:
        nonlocal shown
        line = show.describe_round(turn.round, turn.eta_s)
        left = f"about {show.minutes(turn.eta_s)} left"
        show_step(f"{turn.model} seed {turn.seed}  {line}", turn.trials - shown, left)
        shown = turn.trials

    return show_turn


def _untuned_latency_s(network: "Network", target: Any) -> float:
    """Time the network as TVM compiles it without a log."""
    from tvm_cdmpp.measure import measure_latency
    from tvm_cdmpp.networks import deploy

    return measure_latency(deploy(network, target)).latency_s


def _command(args: argparse.Namespace) -> str:
    """Write the command that repeats the comparison, wherever this one was started from."""
    names = ("models", "trials", "seeds", "tasks", "round", "target")
    given = [(f"--{name}", str(getattr(args, name))) for name in names if getattr(args, name)]
    given += [("--input-shape", text) for text in args.input_shape]
    return shlex.join(["tvm-cdmpp", "compare", args.network, *itertools.chain(*given)])


def _print_tables(comparison: "SearchComparison") -> None:
    console, settings = show.stdout_console(), comparison.settings
    stages = [round(fraction * settings.trials) for fraction in _FRACTIONS]
    of = comparison.of_model
    rows = [
        [
            model,
            *(_latency([s.latency_at(n) for s in of(model)]) for n in stages),
            _latency(
                [s.remeasured_latency_s for s in of(model)],
                [latency_s for s in of(model) for latency_s in s.remeasured_passes_s],
            ),
            show.minutes(statistics.median(s.split.total_s for s in of(model))),
        ]
        for model in settings.models
    ]
    if comparison.untuned_latency_s is not None:
        untuned = show.latency(comparison.untuned_latency_s)
        rows.append(["whole network, untuned", *("" for _ in stages), untuned, ""])
    show.print_table(
        console,
        f"{comparison.network}: latency{_over_seeds(settings.seeds)} (smallest to largest)",
        ("model", *(f"{trials} trials" for trials in stages), "winners, re-measured", "time"),
        rows,
    )
    if comparison.untuned_latency_s is not None:
        console.print("a whole network runs with warm caches, a task alone with cold ones")
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
        ("model", "threads", *parts, "failed programs", "failed passes of winners"),
        [
            [
                model,
                str(comparison.threads[model]),
                *(_share(of(model), f"{part}_s") for part in parts),
                str(sum(sum(s.failures.values()) for s in of(model))),
                str(sum(s.failed_passes for s in of(model))),
            ]
            for model in settings.models
        ],
    )


def _over_seeds(seeds: int) -> str:
    return {1: "", 2: ", mean of 2 seeds"}.get(seeds, f", median of {seeds} seeds")


def _latency(latencies_s: list[float | None], samples_s: Iterable[float] = ()) -> str:
    """Write the middle of several seeds' latencies, and the range of all that is known."""
    known = [latency_s for latency_s in latencies_s if latency_s is not None]
    if not known:
        return show.latency(None)
    middle_s = statistics.median(known)
    text = show.latency(middle_s)
    everything = [*known, *samples_s]
    if len(everything) > 1:
        text += f" ({show.latency_range(min(everything), max(everything), middle_s)})"
    return text + (f", {len(known)} of {len(latencies_s)}" if len(known) < len(latencies_s) else "")


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
