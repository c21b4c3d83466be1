"""The plot of a comparison: latency against trials, and against seconds."""

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tvm_cdmpp.search import SearchComparison, SearchResult

# Okabe and Ito's colours, which people with any colour vision can tell apart.
_COLOURS = {
    "cdmpp": "#D55E00",
    "xgb": "#0072B2",
    "xgb-warm": "#56B4E9",
    "xgb-adaptive": "#009E73",
    "random": "#999999",
}
_FURTHER = ("#D55E00", "#CC79A7", "#E69F00", "#F0E442", "#882255", "#117733")
"""Of models without a colour of their own, as long as they are free."""
_UNTUNED: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1}
_WAITING: dict[str, Any] = {
    "color": "black",
    "lw": 4,
    "alpha": 0.3,
    "label": "until every task has a program",
}

_Curve = list[tuple[float, float]]


def plot_comparison(comparison: "SearchComparison", path: Path) -> None:
    """Write a PNG: seeds as thin lines, their median (mean of two) as a thick one.

    A network has a latency when each of its tasks has a program; how long that took is shown as a
    bar at the foot.

    Parameters
    ----------
    comparison
        What to plot.
    path
        The file; replaced in one step if it exists.
    """
    # No pyplot: it would choose a display and keep figures alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = draw_comparison(comparison)
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def draw_comparison(comparison: "SearchComparison") -> "Figure":
    """Return the figure that `plot_comparison` writes."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    by_trials, by_time = figure.subplots(1, 2, sharey=True)
    models = comparison.settings.models
    colours = _colours_of(models)
    for number, model in enumerate(models):
        searches = comparison.of_model(model)
        for axes, x in ((by_trials, "trials"), (by_time, "elapsed_s")):
            _draw(axes, searches, x, colours[model])
            _draw_wait(axes, searches, x, colours[model], number)
    handles = [Line2D([], [], color=colours[model], lw=2, label=model) for model in models]
    if comparison.untuned_latency_s is not None:
        for axes in (by_trials, by_time):
            axes.axhline(1e3 * comparison.untuned_latency_s, **_UNTUNED)
        handles.append(Line2D([], [], label="whole network, untuned", **_UNTUNED))
    by_trials.set(xlabel="programs measured", ylabel="latency, sum over tasks (ms)", yscale="log")
    by_time.set(xlabel="search time (s)")
    for axes in (by_trials, by_time):
        axes.margins(y=0.05 + 0.04 * len(models))  # room for the bars
        axes.grid(visible=True, alpha=0.25)
        axes.set_xlim(left=0)
    _set_ticks(by_trials)
    handles.append(Line2D([], [], **_WAITING))
    # Below the panels, where it covers no curve.
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    number = len(comparison.tasks)
    figure.suptitle(
        f"{comparison.network}, {number} tasks, {comparison.machine['cpu']}", fontsize=10
    )
    return figure


def _set_ticks(axes: Any) -> None:
    """Count in whole programs; label latencies with few plain numbers, whatever range they have."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    low, high = axes.get_ylim()
    if high < 10 * low:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    else:
        subs = (1, 2, 5) if high < 1e3 * low else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")


def _draw(axes: Any, searches: "Sequence[SearchResult]", x: str, colour: str | None) -> None:
    curves = [curve for search in searches if (curve := _curve(search, x))]
    style = {"color": colour, "drawstyle": "steps-post", "marker": ".", "ms": 4}
    if len(curves) > 1:
        for curve in curves:
            axes.plot(*zip(*curve, strict=True), lw=0.7, alpha=0.5, **style)
    if curves:
        axes.plot(*zip(*_median_curve(curves), strict=True), lw=2, **style)


def _draw_wait(
    axes: Any, searches: "Sequence[SearchResult]", x: str, colour: str | None, number: int
) -> None:
    """Draw at the foot how long a model's searches took until every task had a program."""
    begins = [curve[0][0] for search in searches if (curve := _curve(search, x))]
    if begins:
        height = 0.02 + 0.03 * number
        axes.plot(
            [0, statistics.median(begins)], [height] * 2, transform=axes.get_xaxis_transform(),
            color=colour, lw=4, alpha=0.5, solid_capstyle="butt",
        )  # fmt: skip


def _colours_of(models: Sequence[str]) -> dict[str, str]:
    """Return a colour for each model, the same for a model in every plot where it can be."""
    own = {model: _COLOURS[model] for model in models if model in _COLOURS}
    free = itertools.cycle([colour for colour in _FURTHER if colour not in own.values()])
    return {model: own.get(model) or next(free) for model in models}


def _curve(search: "SearchResult", x: str) -> _Curve:
    """Return places and latencies in milliseconds; nothing if a task never had a program."""
    return [
        (getattr(point, x), 1e3 * point.network_latency_s)
        for point in search.points
        if point.network_latency_s is not None
    ]


def _median_curve(curves: list[_Curve]) -> _Curve:
    """Take the median over curves at every place where one changes and all have begun."""
    begin = max(curve[0][0] for curve in curves)
    end = min(curve[-1][0] for curve in curves)
    places = sorted({x for curve in curves for x, _ in curve if begin <= x <= end})
    return [
        (place, statistics.median([y for x, y in curve if x <= place][-1] for curve in curves))
        for place in places
    ]
