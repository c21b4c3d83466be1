"""The page of plots about the errors of a predictor; see `errors`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from benchmarks.errors import Compared

# Okabe and Ito's colours, which people with any colour vision can tell apart.
_BLUE, _SKY, _ORANGE, _RED, _GREY = "#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#999999"
_DEVICES = 6
_OPERATORS = 10
_DRAWN = 4000
"""Points of a scatter plot, drawn at random; more would be one blot."""


def plot_errors(compared: Compared, path: Path) -> None:
    """Write the page: predicted against measured, and the error by all that may explain it.

    Parameters
    ----------
    compared
        Predictions and measurements.
    path
        The PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 14), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(4, 3).ravel()
    names, counts = np.unique(compared.devices, return_counts=True)
    devices = names[np.argsort(-counts)][:_DEVICES].tolist()
    for place, device in enumerate(devices):
        _scatter(axes[place], compared, device)
    main = compared.devices == devices[0]
    _by_operator(axes[6], compared, main, devices[0])
    latency = np.log10(1e6 * compared.measured_s[main])
    edges = np.linspace(latency.min(), latency.max() + 1e-9, 15)
    _curve(axes[7], compared, main, latency, edges, "measured latency, log10 of microseconds")
    leaves = compared.rows.asts.leaf_counts[main].astype(float)
    _curve(axes[8], compared, main, leaves, np.unique([*leaves, leaves.max() + 1]), "leaves")
    slow = np.log2(compared.over_best[main])
    _curve(
        axes[9], compared, main, slow, np.arange(0, 8.1, 0.5), "log2(latency / best of the task)"
    )
    _level_and_order(axes[10], compared, main)
    error = np.sort(compared.error[main])
    axes[11].plot(100 * error, np.linspace(0, 100, len(error)), color=_BLUE)
    axes[11].set(xscale="log", xlim=(0.3, 500), xlabel="error (%)", ylabel="share of programs (%)")
    axes[11].set_title(f"{devices[0]}: errors up to", fontsize=10)
    axes[11].grid(alpha=0.3)
    figure.savefig(path, format="png", dpi=70)


def _scatter(axes: Any, compared: Compared, device: str) -> None:
    some = np.flatnonzero(compared.devices == device)
    drawn = np.random.default_rng(0).permutation(some)[:_DRAWN]
    measured, predicted = compared.measured_s[drawn], compared.predicted_s[drawn]
    axes.loglog(1e6 * measured, 1e6 * predicted, ".", color=_BLUE, markersize=2, alpha=0.4)
    ends = np.array([measured.min(), measured.max()]) * 1e6
    axes.plot(ends, ends, color=_RED, linewidth=1)
    mape = 100 * compared.error[some].mean()
    axes.set_title(f"{device}: {len(some):,} programs, MAPE {mape:.0f} %", fontsize=10)
    axes.set(xlabel="measured (us)", ylabel="predicted (us)")


def _by_operator(axes: Any, compared: Compared, main: Any, device: str) -> None:
    names, counts = np.unique(compared.operators[main], return_counts=True)
    names = names[np.argsort(-counts)][:_OPERATORS][::-1].tolist()
    errors = [100 * compared.error[main & (compared.operators == name)] for name in names]
    axes.boxplot(
        errors, orientation="horizontal", tick_labels=names, whis=(5, 95), showfliers=False
    )
    axes.set_title(f"{device}: error by operator (%), whiskers 5 % to 95 %", fontsize=10)
    axes.tick_params(labelsize=8)


def _curve(axes: Any, compared: Compared, main: Any, values: Any, edges: Any, label: str) -> None:
    """Draw the mean and the median error, and the bias, against something."""
    error, off = compared.error[main], compared.log_error[main]
    place = np.digitize(values, edges) - 1
    at = [n for n in range(len(edges) - 1) if np.count_nonzero(place == n) >= 20]
    middle = [(edges[n] + edges[n + 1]) / 2 if label != "leaves" else edges[n] for n in at]
    axes.plot(middle, [100 * error[place == n].mean() for n in at], "o-", color=_BLUE, label="mean")
    medians = [100 * np.median(error[place == n]) for n in at]
    axes.plot(middle, medians, "o-", color=_ORANGE, label="median")
    bias = [100 * np.expm1(np.median(off[place == n])) for n in at]
    axes.plot(middle, bias, "--", color=_GREY, label="median of predicted / measured - 1")
    axes.set(xlabel=label, ylabel="error (%)")
    axes.legend(fontsize=8, frameon=False)
    axes.grid(alpha=0.3)


def _level_and_order(axes: Any, compared: Compared, main: Any) -> None:
    """Draw a point per task: error of its level, and of the order within it."""
    level, order = [], []
    for programs in compared.groups():
        if main[programs[0]] and len(programs) >= 20:
            left = compared.log_error[programs] - compared.level[programs]
            level.append(100 * np.expm1(compared.level[programs[0]]))
            order.append(100 * np.abs(np.expm1(left)).mean())
    axes.plot(level, order, ".", color=_BLUE)
    axes.axvline(0, color=_GREY, linewidth=1)
    axes.set(xlabel="level of the task off by (%)", ylabel="error when the level is known (%)")
    axes.set_title("level against order, a point per task", fontsize=10)
