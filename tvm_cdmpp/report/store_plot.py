"""The page of plots about a record store."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_cdmpp.data import LATENCY_EDGES_LOG10_S
from tvm_cdmpp.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any colour vision can tell apart.
_BLUE, _SKY, _ORANGE, _RED, _GREY = "#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#999999"
_BASES = {
    "between logs": (_BLUE, "pairs between logs"),
    "within a log": (_SKY, "pairs within a log: at least"),
    "repeats": (_ORANGE, "repeats: at least"),
}
_PARTS = {"train": _BLUE, "validation": _SKY, "test": _RED, "left_out": _GREY}
_MOST_ROWS = 14
_LEAST_ROWS = 5
"""Rows that there is room for at least: one bar must not fill a plot."""
_LEAST_LEAVES = 8
_MANY = 1000
"""Programs from which on their numbers are drawn on a logarithmic axis."""


def plot_overview(overview: dict[str, Any], path: Path) -> None:
    """Write one page about what `describe_store` returns, as a PNG.

    Parameters
    ----------
    overview
        What to plot, with `leaves` of `count_leaves`.
    path
        The file; replaced in one step if it exists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        draw_overview(overview).savefig(temporary, format="png", dpi=100)


def draw_overview(overview: dict[str, Any]) -> "Figure":
    """Return the page."""
    # No pyplot: it would choose a display and keep figures alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 11), layout="constrained")
    FigureCanvasAgg(figure)
    axes: dict[str, Any] = figure.subplot_mosaic(
        [
            ["records", "failed", "latency", "noise"],
            ["operators", "networks", "leaves", "splits"],
        ],
        width_ratios=[1, 0.8, 1.4, 1],
        height_ratios=[1.35, 1],
    )
    devices = sorted(overview["devices"], key=lambda row: row["records"])
    names = [row["device"] for row in devices]
    records = [row["records"] for row in devices]
    _bars(axes["records"], names, records, "programs per device")
    shares = [100 * row["failed"] / row["records"] for row in devices]
    _bars(axes["failed"], names, shares, "programs that failed (%)", counts=False)
    _latencies(axes["latency"], devices)
    _noise(axes["noise"], devices)
    for name in ("failed", "latency"):
        axes[name].set_yticklabels([])
    for what in ("operators", "networks"):
        rows = overview[what][:_MOST_ROWS][::-1]
        labels = [row[what[:-1]] for row in rows]
        _bars(axes[what], labels, [r["records"] for r in rows], f"programs by {what[:-1]}")
    _leaves(axes["leaves"], overview["leaves"])
    _splits(axes["splits"], overview["splits"])
    figure.suptitle(
        f"{overview['records']:,} programs, {overview['tasks']:,} tasks, "
        f"{overview['workloads']:,} workloads, {len(devices)} devices"
    )
    return figure


def _bars(
    axes: Any, names: list[str], values: list[float], title: str, *, counts: bool = True
) -> None:
    """Draw counts, or else percentages."""
    most = max(values, default=0)
    log = counts and most >= _MANY
    bars = axes.barh(names, values, color=_BLUE, height=0.7, log=log)
    text = "{:,}" if counts else "{:.1f}"
    axes.bar_label(bars, [text.format(value) for value in values], padding=3, fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    _leave_rows(axes, len(names))
    # Room for the numbers: on a logarithmic axis a margin is a factor.
    axes.set_xlim(*((1, most * 60) if log else (0, 1.3 * max(most, 1))))
    if not log:
        axes.locator_params(axis="x", nbins=4, integer=counts)


def _leave_rows(axes: Any, count: int) -> None:
    """Set the vertical axis for so many rows, from the top."""
    axes.set_ylim(count - max(count, _LEAST_ROWS) - 0.5, count - 0.5)


def _say(axes: Any, text: str) -> None:
    """Say what there is nothing to draw of."""
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def _latencies(axes: Any, devices: list[dict[str, Any]]) -> None:
    axes.set_title("latency (ms): histogram per device, median in red", fontsize=10)
    counts = np.array([row["histogram"] for row in devices], float)
    if not counts.any():
        _say(axes, "no program ran")
        return
    shares = counts / np.maximum(counts.max(axis=1, keepdims=True), 1)
    axes.pcolormesh(
        10.0 ** np.array(LATENCY_EDGES_LOG10_S) * 1e3,
        np.arange(len(devices) + 1) - 0.5,
        np.where(shares > 0, shares, np.nan),
        cmap="Blues",
        vmin=-0.15,
    )
    medians = [row["latency_s"]["p50"] for row in devices]
    known = [n for n, median in enumerate(medians) if median is not None]
    axes.plot([1e3 * medians[n] for n in known], known, "|", color=_RED, ms=10, mew=2)
    axes.set_xscale("log")
    axes.set_xticks([1e-3, 1e-2, 0.1, 1, 10, 100, 1000, 1e4])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(devices)))
    axes.tick_params(labelsize=8)
    _leave_rows(axes, len(devices))
    filled = np.flatnonzero(counts.any(axis=0))
    first, last = LATENCY_EDGES_LOG10_S[filled[0]], LATENCY_EDGES_LOG10_S[filled[-1] + 1]
    # Half a decade to each side.
    axes.set_xlim(10 ** (first + 3 - 0.5), 10 ** (last + 3 + 0.5))


def _noise(axes: Any, devices: list[dict[str, Any]]) -> None:
    places = range(len(devices))
    known = np.zeros(len(devices), bool)

    def draw(percent: list[float], **style: Any) -> None:
        axes.plot(percent, places, ls="", **style)
        known[~np.isnan(percent)] = True

    noises = [row["noise"] for row in devices]
    for basis, (colour, label) in _BASES.items():
        floors = [100 * n["floor_mape"] if n["basis"] == basis else np.nan for n in noises]
        draw(floors, marker="o", ms=7, color=colour, label=label)
    if any(row["alike"] for row in devices):
        at_most = [100 * (row["alike"]["floor_mape"] or np.nan) for row in devices]
        label = "equal features, within a run: at most"
        draw(at_most, marker="D", ms=6, mfc="none", color=_RED, label=label)
    for place in np.flatnonzero(~known):
        axes.text(0.03, place, "not known", fontsize=8, va="center",
                  transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set_title("noise floor of the MAPE (%)", fontsize=10)
    if not known.any():
        axes.set_xticks([])
    else:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, high / 10) / 2, 2 * high)
    axes.set_yticks(places, [row["device"] for row in devices])
    _leave_rows(axes, len(devices))
    axes.grid(color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper center",
                bbox_to_anchor=(0.35, -0.04), columnspacing=1, handlelength=1)  # fmt: skip


def _leaves(axes: Any, leaves: dict[str, Any]) -> None:
    counts = leaves["counts"]
    total = max(1, leaves["programs"])
    axes.bar(list(counts), [100 * count / total for count in counts.values()], color=_BLUE)
    axes.set_xlim(0.4, max([*counts, _LEAST_LEAVES]) + 0.6)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("leaves of a program", fontsize=9)
    kind = "a sample of " if leaves["sampled"] else ""
    axes.set_title(f"share of {kind}{leaves['programs']:,} programs (%)", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _splits(axes: Any, splits: list[dict[str, Any]]) -> None:
    axes.set_title("programs in the official splits", fontsize=10)
    made = [row for row in splits if "error" not in row][::-1]
    if not made:
        _say(axes, "none can be made of this store")
        return
    names = [row["name"].replace("-", "\n", 1) for row in made]
    left = np.zeros(len(made))
    for part, colour in _PARTS.items():
        sizes = np.array([row[part] for row in made], float)
        axes.barh(names, sizes, left=left, color=colour, height=0.6, label=part.replace("_", " "))
        left += sizes
    _leave_rows(axes, len(made))
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1e6:g} M" if x >= 1e5 else f"{x:,.0f}")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.4, -0.06),
                columnspacing=1, handlelength=1)  # fmt: skip
