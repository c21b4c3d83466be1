"""The plot of a comparison: latency against trials, and against seconds."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.files import replacing

if TYPE_CHECKING:
    from tvm_cdmpp.search.comparison import SearchComparison, SearchResult

# Okabe and Ito's colours, which people with any colour vision can tell apart.
_COLOURS = {
    "cdmpp": "#D55E00",
    "xgb": "#0072B2",
    "xgb-warm": "#56B4E9",
    "xgb-adaptive": "#009E73",
    "random": "#999999",
}


def plot_comparison(comparison: "SearchComparison", path: Path) -> None:
    """Write a PNG: seeds as thin lines, their median as a thick one.

    Parameters
    ----------
    comparison
        What to plot.
    path
        The file; replaced in one step if it exists.
    """
    # No pyplot: it would choose a display and keep figures alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    by_trials, by_time = figure.subplots(1, 2, sharey=True)
    for model in comparison.settings.models:
        searches = comparison.of_model(model)
        _draw(by_trials, searches, "trials", label=model)
        _draw(by_time, searches, "elapsed_s", label=model)
    by_trials.set(xlabel="programs measured", ylabel="latency, sum over tasks (ms)", yscale="log")
    by_time.set(xlabel="search time (s)")
    for axes in (by_trials, by_time):
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.set_xlim(left=0)
    by_trials.yaxis.set_major_formatter("{x:g}")
    by_trials.yaxis.set_minor_formatter("{x:g}")
    by_trials.legend(frameon=False)
    number = len(comparison.tasks)
    figure.suptitle(
        f"{comparison.network}, {number} tasks, {comparison.machine['cpu']}", fontsize=10
    )
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _draw(axes: Any, searches: "Sequence[SearchResult]", x: str, *, label: str) -> None:
    curves = [
        [
            (getattr(point, x), 1e3 * point.network_latency_s)
            for point in search.points
            if point.network_latency_s is not None
        ]
        for search in searches
    ]
    curves = [curve for curve in curves if curve]  # one is empty if a task has no program at all
    style = {"color": _COLOURS.get(label), "drawstyle": "steps-post", "marker": ".", "ms": 4}
    single = len(curves) == 1
    for curve in curves:
        axes.plot(*zip(*curve, strict=True), lw=2 if single else 0.7, alpha=1 if single else 0.5,
                  label=label if single else None, **style)  # fmt: skip
    if len(curves) > 1:
        axes.plot(*_median_curve(curves), lw=2, label=label, **style)


def _median_curve(curves: list[list[tuple[float, float]]]) -> tuple[list[float], list[float]]:
    """Take the median over curves at every place where one changes and all have begun."""
    begin = max(curve[0][0] for curve in curves)
    end = min(curve[-1][0] for curve in curves)
    places = sorted({x for curve in curves for x, _ in curve if begin <= x <= end})
    medians = [
        statistics.median([y for x, y in curve if x <= place][-1] for curve in curves)
        for place in places
    ]
    return places, medians
