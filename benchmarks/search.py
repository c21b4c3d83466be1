"""Searches of single tasks of held-out networks, live on this machine, side by side.

    python -m benchmarks.search --store STORE

Each task is a search of its own for each arm (`benchmarks.search_arms`) and seed. Arms of a task
and seed take turns, round by round, so that a machine that slows down slows all of them; the time
of a search is that of its own rounds, weights and trees are read before. All tasks are searched
with one seed before the next. At the end the best programs of a task are timed together. What the
summary says of it, and how, is in `benchmarks.search_summary`.

Everything is kept below `--folder` after every batch, so a run that was killed goes on; Ctrl-C lets
the batch in flight end. Results and plots are written after every task, of the searches asked for
that are over; more tasks, arms or seeds may be asked for later, together with those before. Run it
on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.provenance import RESULTS, provenance, write_json
from benchmarks.recorded_trees import grow_recorded_trees
from benchmarks.search_arms import PRETRAINED_ARMS, Arm, known_arms
from benchmarks.search_plots import plot_search
from benchmarks.search_runs import SearchRun, Settings, take_turns, timed_winners
from benchmarks.search_summary import summarise, winners_summary
from benchmarks.search_tasks import SEARCH_TASKS, NamedTask, load_tasks
from tvm_cdmpp.data import RecordStore
from tvm_cdmpp.errors import CDMPPError
from tvm_cdmpp.measure import MeasureSession

FOLDER = Path("search-runs")


def compare(
    tasks: Sequence[NamedTask],
    arms: dict[str, Arm],
    seeds: int,
    settings: Settings,
    *,
    folder: Path,
    out: Path,
    session: MeasureSession,
    winners: bool = True,
) -> dict[str, Any]:
    """Search what is missing, and return the results of all that is over.

    Parameters
    ----------
    tasks, arms, seeds
        What to compare.
    settings
        What the searches share.
    folder
        Where they are kept.
    out
        The file of results, written after every task; a PNG goes next to it.
    session
        An entered session; after its `stop` the comparison ends early.
    winners
        Whether the best programs are timed together in the end.
    """
    runs = {
        (named.name, seed): [
            SearchRun(named, name, arm, seed, settings=settings, folder=folder)
            for name, arm in arms.items()
        ]
        for seed in range(seeds)
        for named in tasks
    }
    result = _result(tasks, arms, seeds, settings)
    every = [run for of_task in runs.values() for run in of_task]
    for of_task in runs.values():
        take_turns(of_task, session)
        if session.stopping:
            break
        _publish(result, every, {}, out)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for named in tasks if winners else ():
        if session.stopping:
            break
        own = [run for run in every if run.named is named]
        print(f"timing the best programs of {named.name}", flush=True)
        try:
            found[named.name] = timed_winners(named, own, folder, settings.measure)
        except CDMPPError as error:
            print(f"{named.name}: {error}", flush=True)
    _publish(result, every, found, out)
    return result


def _result(
    tasks: Sequence[NamedTask], arms: dict[str, Arm], seeds: int, settings: Settings
) -> dict[str, Any]:
    return {
        **provenance("numpy", "torch", "xgboost"),
        "settings": {**asdict(settings), "seeds": seeds, "arms": list(arms)},
        "tasks": [
            {
                "name": named.name,
                "network": named.network,
                "task": named.description,
                "workload": str(named.task.workload_key),
                "flops": float(named.task.compute_dag.flop_ct),
                "target": str(named.task.target),
            }
            for named in tasks
        ],
    }


def _publish(
    result: dict[str, Any],
    runs: Sequence[SearchRun],
    winners: dict[str, dict[str, dict[str, Any]]],
    out: Path,
) -> None:
    """Write the results of the searches that are over, and draw them."""
    over = [run for run in runs if run.is_over]
    curves = [run.curve() for run in over]
    result["missing"] = len(runs) - len(over)
    result["summary"] = summarise(curves)
    result["winners"] = winners_summary(winners, result["summary"]["reference"])
    result["searches"] = [
        {
            "task": curve.task,
            "arm": curve.arm,
            "seed": curve.seed,
            "trials": len(curve.latencies_s),
            "failed": sum(latency_s == float("inf") for latency_s in curve.latencies_s),
            "error": run.error,
            "split_s": curve.split_s,
            "steps": curve.steps,
            "winner": winners.get(curve.task, {}).get(f"{curve.arm}-{curve.seed}"),
        }
        for run, curve in zip(over, curves, strict=True)
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, result)
    if curves:
        plot_search(curves, out.with_suffix(".png"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=list(SEARCH_TASKS), help="names; all of them")
    parser.add_argument("--arms", nargs="+", help="names; all that the trials and the store allow")
    parser.add_argument("--seeds", type=int, default=3, help="searches of each task and arm")
    parser.add_argument("--trials", type=int, default=64, help="programs of each search")
    parser.add_argument("--round", type=int, default=16, help="programs of a round; xgb has 64")
    parser.add_argument("--store", type=Path, help="record store, for the arms that learn from it")
    parser.add_argument("--recorded", type=int, default=30, help="programs of a task to learn from")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where searches are kept")
    parser.add_argument("--out", type=Path, default=RESULTS / "search.json")
    parser.add_argument("--no-winners", action="store_true", help="time no winners in the end")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    session = MeasureSession()
    signal.signal(signal.SIGINT, lambda *_: session.stop())
    try:
        trees = None
        if args.store and not PRETRAINED_ARMS.isdisjoint(args.arms or PRETRAINED_ARMS):
            args.folder.mkdir(parents=True, exist_ok=True)
            trees = grow_recorded_trees(RecordStore.open(args.store), args.folder, args.recorded)
        arms = dict(known_arms(args.trials, trees))
        unknown = sorted(set(args.arms or []) - set(arms))
        if unknown:
            parser.error(
                f"unknown arms {', '.join(unknown)}; with these trials, "
                f"{'with' if trees else 'without'} a store, there are {', '.join(arms)}"
            )
        arms = {name: arms[name] for name in args.arms or arms}
        settings = Settings(
            trials=args.trials,
            round_size=args.round,
            recorded_per_task=args.recorded if trees else None,
        )
        tasks = load_tasks(args.tasks)
        with session:
            result = compare(
                tasks,
                arms,
                args.seeds,
                settings,
                folder=args.folder,
                out=args.out,
                session=session,
                winners=not args.no_winners,
            )
    except CDMPPError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{args.out}: {len(result['searches'])} searches, {result['missing']} missing")
    return 130 if session.stopping else 0


if __name__ == "__main__":
    sys.exit(main())
