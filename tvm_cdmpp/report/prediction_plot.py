"""Plots of predicted networks: the timeline of one, and several devices side by side."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tvm_cdmpp.files import replacing
from tvm_cdmpp.report.units import latency, latency_unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.text import Text

    from tvm_cdmpp.replay import NetworkPrediction

# Okabe and Ito's colours, which people with any colour vision can tell apart.
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000",
)  # fmt: skip
_REST, _REST_COLOUR = "the rest", "#999999"
"""The classes that no colour is left for; `other` is a class of its own."""
_START, _START_COLOUR = "start-up", "#DDDDDD"
_DARK = ("#0072B2", "#000000")
"""Of them, those on which text is white."""
_LABELLED_SHARE = 0.015
"""Of the latency, from which a bar is wide enough for a line of text on its side."""
_SHORTEST_LABEL = 4
_DPI = 130
_LEGEND_COLUMNS = 5


def plot_timeline(prediction: "NetworkPrediction", path: Path) -> None:
    """Write a PNG: a row per queue, a bar per operator, coloured by class.

    Parameters
    ----------
    prediction
        What to draw.
    path
        The file; replaced in one step if it exists.
    """
    _write(draw_timeline(prediction), path)


def plot_devices(predictions: Sequence["NetworkPrediction"], path: Path) -> None:
    """Write a PNG: a bar per prediction, divided by class of operator, with its 90 % interval.

    Start-ups, which are no operator's, have a part of their own.

    Parameters
    ----------
    predictions
        Of one network, on several devices or with several batches.
    path
        The file; replaced in one step if it exists.
    """
    _write(draw_devices(predictions), path)


def draw_timeline(prediction: "NetworkPrediction") -> "Figure":
    """Return the figure that `plot_timeline` writes."""
    from matplotlib.figure import Figure

    timeline = prediction.timeline
    unit, per_second = latency_unit(timeline.latency_s)
    queues = list(dict.fromkeys(event.queue for event in timeline.events))
    classes = dict(zip((task.function for task in prediction.tasks), prediction.tasks, strict=True))
    colours = _colours(prediction.shares)
    figure = Figure(figsize=(12, 1.3 + 1.3 * len(queues)), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    labels: list[tuple[Text, Rectangle]] = []
    for event in timeline.events:
        task = classes[timeline.graph.operators[event.operator].function]
        begin, width = per_second * event.start_s, per_second * (event.end_s - event.start_s)
        row = queues.index(event.queue)
        colour = colours.get(task.operator_class, _REST_COLOUR)
        (bar,) = axes.barh(
            row, width, left=begin, height=0.8, color=colour, edgecolor="white", lw=0.4
        )
        share = width / (per_second * timeline.latency_s)
        if share > _LABELLED_SHARE:
            label = axes.text(
                begin + width / 2, row, task.name, ha="center", va="center", fontsize=6,
                rotation=90 if share < 0.15 else 0, clip_on=True,
                color="white" if colour in _DARK else "black",
            )  # fmt: skip
            labels.append((label, bar))
    axes.set_yticks(range(len(queues)), queues)
    axes.set(xlabel=unit, xlim=(0, per_second * timeline.latency_s))
    _add_legend(figure, colours)
    figure.suptitle(_printable(_title(prediction)), fontsize=10)
    figure.draw_without_rendering()  # lays out, for good: what fits depends on it
    figure.set_layout_engine("none")
    for label, bar in labels:
        _fit(label, bar)
    return figure


def draw_devices(predictions: Sequence["NetworkPrediction"]) -> "Figure":
    """Return the figure that `plot_devices` writes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.4 + 0.5 * len(predictions)), layout="constrained")
    axes = figure.subplots()
    shares = {name: share for p in predictions for name, share in p.shares.items()}
    for p in predictions:
        for name, share in p.shares.items():
            shares[name] = max(share, shares[name])
    colours = _colours(dict(sorted(shares.items(), key=lambda pair: -pair[1])))
    if any(p.start_s for p in predictions):
        colours[_START] = _START_COLOUR
    unit, per_second = latency_unit(max(p.latency_s for p in predictions))
    for row, prediction in enumerate(predictions):
        left = 0.0
        for name, part_s in _parts_s(prediction).items():
            width = per_second * part_s
            colour = colours.get(name, _REST_COLOUR)
            axes.barh(row, width, left=left, height=0.6, color=colour)
            left += width
        low, high = (per_second * bound for bound in prediction.interval_s)
        axes.plot([low, high], [row, row], color="black", lw=1, marker="|")
        axes.annotate(
            latency(prediction.latency_s), (max(left, high), row), xytext=(6, 0),
            textcoords="offset points", va="center", fontsize=9,
        )  # fmt: skip
    axes.set_yticks(range(len(predictions)), [_label(p) for p in predictions])
    axes.invert_yaxis()
    axes.margins(x=0.12)  # for the latency next to the longest
    axes.set(xlabel=f"predicted latency ({unit}), with 90 % interval", xlim=(0, None))
    axes.grid(visible=True, axis="x", alpha=0.25)
    _add_legend(figure, colours)
    title = f"{predictions[0].network}, schedules: {predictions[0].schedules}"
    figure.suptitle(_printable(title), fontsize=10)
    return figure


def _fit(label: "Text", bar: "Rectangle") -> None:
    """Cut the end off a label that is longer than its bar; remove it where little would be left."""
    name, inside = label.get_text(), bar.get_window_extent()

    def is_inside() -> bool:
        box = label.get_window_extent()
        return box.width <= inside.width and box.height <= inside.height

    kept = len(name)
    while not is_inside():
        kept -= 1
        if kept < _SHORTEST_LABEL:
            label.remove()
            return
        label.set_text(f"{name[:kept]}...")


def _parts_s(prediction: "NetworkPrediction") -> dict[str, float]:
    """Return the seconds of each class and of start-ups; side by side, they share the latency."""
    work_s = sum(task.count * task.latency_s for task in prediction.tasks)
    parts_s = {name: share * work_s for name, share in prediction.shares.items()}
    if prediction.start_s:
        parts_s[_START] = prediction.start_s
    scale = prediction.latency_s / sum(parts_s.values())  # 1 where nothing runs side by side
    return {name: scale * part_s for name, part_s in parts_s.items()}


def _colours(shares: dict[str, float]) -> dict[str, str]:
    colours = dict(zip(shares, _COLOURS, strict=False))
    return colours | {_REST: _REST_COLOUR} if len(shares) > len(colours) else colours


def _add_legend(figure: "Figure", colours: dict[str, str]) -> None:
    """Write below the axes what colours mean; more than a row of them makes the figure higher."""
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    ncols = min(len(handles), _LEGEND_COLUMNS)
    figure.set_figheight(figure.get_figheight() + 0.25 * (math.ceil(len(handles) / ncols) - 1))
    figure.legend(handles=handles, loc="outside lower center", ncols=ncols, frameon=False)


def _label(prediction: "NetworkPrediction") -> str:
    return f"{prediction.device}, batch {prediction.batch}"


def _printable(title: str) -> str:
    """Return a title that can be drawn: names of files may hold bytes that are no UTF-8."""
    return title.encode(errors="replace").decode()


def _title(prediction: "NetworkPrediction") -> str:
    return (
        f"{prediction.network} on {_label(prediction)}: "
        f"{latency(prediction.latency_s)} predicted, schedules: {prediction.schedules}"
    )


def _write(figure: "Figure", path: Path) -> None:
    # No pyplot: it would choose a display and keep figures alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)
