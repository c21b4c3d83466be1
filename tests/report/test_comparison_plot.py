"""The plot of a comparison: readable at any range, with all that is known on it."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tvm_cdmpp.report.comparison_plot import _colours_of, draw_comparison, plot_comparison
from tvm_cdmpp.search.comparison import CompareSettings, Point, SearchComparison, SearchResult
from tvm_cdmpp.search.reports import TimeSplit

MODELS = ("cdmpp", "xgb-warm", "random")


def comparison(
    curve_ms: list[float | None], *, seeds: int = 2, untuned_latency_s: float | None = None
) -> SearchComparison:
    """Three models' searches; each model is slower than the one before by a tenth."""
    searches = tuple(
        SearchResult(
            model=model,
            seed=seed,
            points=tuple(
                Point(
                    trials=4 * n,
                    elapsed_s=(1 + number + 0.1 * seed) * n,
                    network_latency_s=ms and ms * (1 + 0.1 * number + 0.03 * seed) / 1e3,
                )
                for n, ms in enumerate(curve_ms, start=1)
            ),
            split=TimeSplit(),
            failures={},
        )
        for number, model in enumerate(MODELS)
        for seed in range(seeds)
    )
    return SearchComparison(
        network="two", target="llvm", tasks=("a", "b"), weights=(1, 2),
        settings=CompareSettings(models=MODELS, seeds=seeds), searches=searches, complete=True,
        date="", command="", commit=None, machine={"cpu": "x"}, untuned_latency_s=untuned_latency_s,
    )  # fmt: skip


def drawn(*arguments: Any, **options: Any) -> Any:
    figure = draw_comparison(comparison(*arguments, **options))
    FigureCanvasAgg(figure)
    figure.canvas.draw()
    return figure


def tick_boxes(axes: Any) -> list[Any]:
    low, high = axes.get_ylim()
    ticks = [*axes.yaxis.get_major_ticks(), *axes.yaxis.get_minor_ticks()]
    return [
        tick.label1.get_window_extent()
        for tick in ticks
        if low <= tick.get_loc() <= high and tick.label1.get_text()
    ]


@pytest.mark.parametrize("factor", [1.0001, 1.02, 1.5, 9, 30, 150, 3e3, 1e6, 1e9])
def test_labels_do_not_overlap(factor: float) -> None:
    figure = drawn([None, 2.0 * factor, 2.0 * factor**0.5, 2.0])
    boxes = tick_boxes(figure.axes[0])
    assert 2 <= len(boxes) <= 12
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_the_legend_covers_no_curve() -> None:
    figure = drawn([5.0, 2.0])
    (legend,) = figure.legends
    assert not any(legend.get_window_extent().overlaps(a.get_window_extent()) for a in figure.axes)
    assert not any(axes.get_legend() for axes in figure.axes)
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == [*MODELS, "until every task has a program"]


def test_the_time_without_a_latency_is_shown_and_lies_below_the_curves() -> None:
    by_trials, by_time = drawn([None, None, 5.0, 2.0]).axes
    for axes, ends in ((by_trials, [12, 12, 12]), (by_time, [3.15, 6.15, 9.15])):
        bars = [line for line in axes.lines if line.get_transform() == axes.get_xaxis_transform()]
        assert [bar.get_xdata()[1] for bar in bars] == pytest.approx(ends)
        lowest = min(
            axes.transAxes.inverted().transform(line.get_transform().transform(point))[1]
            for line in axes.lines
            if line not in bars
            for point in line.get_xydata()
        )
        assert all(bar.get_ydata()[0] + 0.02 < lowest for bar in bars)


def test_models_have_colours_of_their_own() -> None:
    models = ("cdmpp", "cdmpp:evolve", "cdmpp-evaluation:evolve", "xgb", "xgb-warm", "random")
    colours = _colours_of(models)
    assert tuple(colours) == models
    assert len(set(colours.values())) == len(models)
    assert _colours_of(models[1:])["xgb-warm"] == colours["xgb-warm"]


def test_the_untuned_network_is_a_line() -> None:
    figure = drawn([5.0, 2.0], untuned_latency_s=8e-3)
    for axes in figure.axes:
        (line,) = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert list(line.get_ydata()) == [8.0, 8.0]
    assert "whole network, untuned" in [t.get_text() for t in figure.legends[0].get_texts()]


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_one_thick_curve_per_model(seeds: int) -> None:
    axes = drawn([None, 5.0, 2.0], seeds=seeds).axes[0]
    curves = [line for line in axes.lines if line.get_transform() != axes.get_xaxis_transform()]
    assert len([line for line in curves if line.get_linewidth() == 2]) == 3
    assert len(curves) == (3 if seeds == 1 else 3 + 3 * seeds)


@pytest.mark.parametrize("curve", [[None, None], [3.0]])
def test_little_to_draw(tmp_path: Path, curve: list[float | None]) -> None:
    plot_comparison(comparison(curve), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
