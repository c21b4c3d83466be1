"""Tables of searches: those that ran side by side, and those replayed on recorded pools."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import Any

from benchmarks.markdown import origin, table_head, table_row


def search_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield a section on live searches, or on replayed ones."""
    yield from (_replay if "devices" in result else _live)(file, result)


def _live(file: Path, result: dict[str, Any]) -> Iterator[str]:
    settings, summary = result["settings"], result["summary"]
    yield (
        f"**Searches of {len(result['tasks'])} tasks of held-out networks, {settings['trials']} "
        f"trials, {settings['seeds']} seeds** ([data](results/{file.name}), "
        f"[plot](results/{file.stem}.png)). Geometric means over tasks (95 % intervals). Latencies "
        f"are relative to those of `{summary['reference']}`, the best XGBoost arm, after as many "
        f"trials; sooner is how many times sooner its latency after {summary['reference_trials']} "
        "trials was reached, or less than that where a search never got there."
    )
    yield ""
    budgets = list(next(iter(summary["arms"].values()))["latency"])
    yield from table_head(
        "search",
        *(f"latency after {budget}" for budget in budgets),
        "winners, timed together",
        "sooner, in seconds",
        "in trials",
        "never",
        "seconds",
        "of it predicting and learning",
    )
    for arm, found in summary["arms"].items():
        sooner, split = found["sooner"], found["split"]
        yield table_row(
            arm,
            *(_interval(found["latency"][budget]) for budget in budgets),
            _interval(result["winners"].get(arm)),
            *(_interval(sooner[unit]) for unit in ("seconds", "trials")),
            f"{sooner['never']} of {sooner['goals']}",
            f"{split['seconds']:.0f}",
            f"{split['predict'] + split['update']:.0%}",
        )
    if result["missing"]:
        yield ""
        yield f"{result['missing']} searches are not over yet and in no figure."
    yield ""
    yield origin(result)


def _replay(file: Path, result: dict[str, Any]) -> Iterator[str]:
    settings, numbers = result["settings"], ("1", "10", "64")
    yield (
        f"**Regret on recorded pools of held-out networks** ([data](results/{file.name})). "
        f"1 - latency of the best of at most {settings['pool']:,} measured programs of a task / "
        f"that of the best among {', '.join(numbers)} picks, in batches of {settings['batch']}; "
        f"mean over tasks and {settings['seeds']} pools of each, in percent (95 % interval after "
        "10)."
    )
    yield ""
    arms = list(next(iter(result["devices"].values()))["arms"])
    yield from table_head("device", "tasks", "trained on", *arms)
    for device, found in result["devices"].items():
        yield table_row(
            device,
            str(found["tasks"]),
            f"{found['trained_tasks']} tasks" if found["trained_tasks"] else "no",
            *(_regrets(found["arms"][arm], numbers) for arm in arms),
        )
    yield ""
    yield origin(result)


def evolution_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield a section on how fast evolution without TVM is, and on what it finds."""
    summary = result["summary"]
    rate = summary["scored_per_second"]
    yield (
        f"**Evolution without TVM, on one core** ([data](results/{file.name})). Children that are "
        "bred per second of CPU time, and those of them that are new, described and scored by the "
        "network; what TVM's evolution asks the same network per second; and the latency that the "
        "network predicts for TVM's best program, in as many seconds from the same start, over "
        f"that for ours: {summary['geometric_mean_ratio']:.2f} in the geometric mean, "
        f"{summary['smallest_ratio']:.2f} at least. Scored per second: {rate['median']:,.0f} in "
        f"the median, {rate['least']:,.0f} at least; wanted: "
        f"{summary['required_per_second']:,}. A task of few programs has hardly any new ones."
    )
    yield ""
    yield from table_head("task", "bred", "scored", "TVM asks", "predicted latency, TVM's / ours")
    for task, rows in groupby(result["rows"], key=lambda row: str(row["task"])):
        seeds = list(rows)
        ours, theirs = ([row[arm] for row in seeds] for arm in ("evolution", "tvm"))
        ratios = [b["best_ms"] / a["best_ms"] for a, b in zip(ours, theirs, strict=True)]
        yield table_row(
            task,
            f"{fmean(row['bred_per_second'] for row in ours):,.0f}",
            f"{fmean(row['scored_per_second'] for row in ours):,.0f}",
            f"{fmean(row['asked_per_second'] for row in theirs):,.0f}",
            f"{geometric_mean(ratios):.2f}",
        )
    yield ""
    yield origin(result)


def guard_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield a section on searches whose weights were spoiled on purpose."""
    settings, rounds = result["settings"], range(1, result["settings"]["rounds"] + 1)
    yield (
        f"**Weights that are wrong, with the guard and without** ([data](results/{file.name})). "
        f"Regret on recorded pools of {settings['pool']:,} programs, {settings['picks']} picks a "
        f"round, {settings['part']} part of the split `{settings['split']}`: latency of the best "
        "pick over that of the pool's best, less 1; mean over "
        f"{result['summary'][0]['tasks']} tasks."
    )
    yield ""
    yield from table_head("weights", "who chooses", *(f"after round {n}" for n in rounds))
    for row in result["summary"]:
        yield table_row(row["prior"], row["arm"], *(f"{100 * it:.1f} %" for it in row["regret"]))
    yield ""
    yield origin(result)


def _interval(figures: dict[str, Any] | None) -> str:
    if figures is None or figures["mean"] is None:
        return "-"
    return f"{figures['mean']:.2f} ({figures['low']:.2f} to {figures['high']:.2f})"


def _regrets(figures: dict[str, dict[str, float]], numbers: tuple[str, ...]) -> str:
    if not figures:
        return "-"
    middle = figures["10"]
    means = " / ".join(f"{100 * figures[number]['mean']:.0f}" for number in numbers)
    return f"{means} ({100 * middle['low']:.0f} to {100 * middle['high']:.0f})"
