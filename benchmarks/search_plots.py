"""The plot of `benchmarks.search`: latency against trials, and against seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.search_summary import Curve

_POINTS = 200
_STYLES = {
    "cdmpp": ("#D55E00", "-"),
    "cdmpp-long": ("#D55E00", "-."),
    "cdmpp-sketch": ("#D55E00", "--"),
    "cdmpp-untrained": ("#D55E00", ":"),
    "xgb-warm": ("#0072B2", "-"),
    "xgb-adaptive": ("#0072B2", "--"),
    "xgb": ("#0072B2", ":"),
    "xgb-pretrained": ("#56B4E9", "-"),
    "xgb-frozen": ("#56B4E9", "--"),
    "droplet-10": ("#009E73", "-"),
    "droplet-100": ("#009E73", "--"),
    "random": ("#999999", "-"),
}


def plot_search(curves: Sequence[Curve], path: Path) -> None:
    """Write a PNG: for each arm the geometric mean over its searches of latency over the best.

    The best of a task is that of all arms and seeds. A curve begins where each of the arm's
    searches has a program.
    """
    # No pyplot: it would choose a display and keep figures alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    by_trials, by_time = figure.subplots(1, 2, sharey=True)
    best: dict[str, float] = {}
    for curve in curves:
        best[curve.task] = min(best.get(curve.task, math.inf), curve.latency_at(1 << 30))
    longest = max(len(curve.latencies_s) for curve in curves)
    slowest_s = max(curve.seconds for curve in curves)
    trials = np.arange(1, longest + 1)
    seconds = np.geomspace(min(1.0, slowest_s / 2), slowest_s, _POINTS)
    for arm in dict.fromkeys(curve.arm for curve in curves):
        own = [c for c in curves if c.arm == arm and math.isfinite(best[c.task])]
        if not own:
            continue
        colour, line = _STYLES.get(arm, ("black", "-"))
        style = {"color": colour, "linestyle": line, "lw": 1.8, "drawstyle": "steps-post"}
        at_trials = _mean(own, best, lambda curve: [curve.latency_at(int(n)) for n in trials])
        at_seconds = _mean(own, best, lambda curve: [curve.latency_after(s) for s in seconds])
        by_trials.plot(trials, at_trials, **style, label=arm)
        by_time.plot(seconds, at_seconds, **style)
    by_trials.set(xlabel="programs measured", ylabel="latency, best known = 1", yscale="log")
    by_time.set(xlabel="search time of a task (s)", xscale="log")
    for axes in (by_trials, by_time):
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="minor", labelsize=7)
    by_time.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside lower center", ncols=6, frameon=False)
    tasks = len(best)
    figure.suptitle(f"{tasks} tasks of held-out networks, {len(curves)} searches", fontsize=10)
    figure.savefig(path, format="png", dpi=130)


def _mean(
    curves: Sequence[Curve], best: dict[str, float], latencies: Callable[[Curve], list[float]]
) -> list[float]:
    """Return the geometric mean over searches; infinite, so not drawn, while one has no program."""
    logs = [np.log(np.array(latencies(curve)) / best[curve.task]) for curve in curves]
    means: list[float] = np.exp(np.mean(logs, axis=0)).tolist()
    return [value if math.isfinite(value) else math.nan for value in means]
