"""The plot of several predictions: its bars are made of what the tables list."""

from dataclasses import replace
from typing import Any

import pytest

from tvm_cdmpp.replay import (
    FunctionPrediction,
    NetworkPrediction,
    Operator,
    OperatorGraph,
    Timeline,
    replay,
)
from tvm_cdmpp.report.prediction_plot import draw_devices, draw_timeline


def prediction(device: str, *, start_s: float, latency_s: float) -> NetworkPrediction:
    """Two convolutions of 2 ms each and a softmax of 1 ms."""

    def function(class_: str, count: int, each_s: float) -> FunctionPrediction:
        return FunctionPrediction(
            name=class_, function=class_, shapes="1x8", operator_class=class_, count=count,
            latency_s=each_s, interval_s=(each_s, each_s), share=count * each_s / 5e-3,
            bound="memory", basis="predicted", flops=0.0,
        )  # fmt: skip

    return NetworkPrediction(
        network="n", device=device, batch=1, schedules="TVM's own", latency_s=latency_s,
        interval_s=(latency_s, latency_s), start_s=start_s,
        tasks=(function("softmax", 1, 1e-3), function("conv2d", 2, 2e-3)), peak_bytes=0.0,
        num_tasks_without_record=0, remarks=(), timeline=Timeline(OperatorGraph((), 0.0), (), 0.0),
    )  # fmt: skip


def bars_ms(*predictions: NetworkPrediction) -> tuple[list[float], list[str]]:
    """Return the widths of the bars, and what the legend has."""
    figure: Any = draw_devices(predictions)
    (axes,) = figure.axes
    widths = [bar.get_width() for bar in axes.patches if bar.get_width()]
    return widths, [text.get_text() for text in figure.legends[0].get_texts()]


def test_start_ups_have_a_part_of_their_own() -> None:
    cpu = prediction("cpu", start_s=0.0, latency_s=5e-3)
    widths, legend = bars_ms(cpu, prediction("gpu", start_s=3e-3, latency_s=8e-3))
    assert widths == pytest.approx([4, 1, 4, 1, 3])
    assert legend == ["conv2d", "softmax", "start-up"]
    assert bars_ms(cpu)[1] == ["conv2d", "softmax"]


def test_the_legend_names_every_colour_and_fits_however_many_classes() -> None:
    names = [f"depthwise conv{n}d" for n in range(11)]
    few = prediction("t4", start_s=1e-3, latency_s=6e-3)
    tasks = tuple(
        replace(few.tasks[0], function=name, operator_class=name, share=1 / len(names))
        for name in names
    )
    graph = OperatorGraph(tuple(Operator(name, name, ()) for name in names), 0.0)
    many = replace(few, tasks=tasks, timeline=replay(graph, dict.fromkeys(names, 1e-3)))
    figures: list[tuple[Any, list[str]]] = [
        (draw_devices([many]), ["the rest", "start-up"]),
        (draw_timeline(many), ["the rest"]),
    ]
    for figure, last in figures:
        ((axes,), (legend,)) = figure.axes, figure.legends
        assert [text.get_text() for text in legend.get_texts()] == [*names[:8], *last]
        named = {patch.get_facecolor() for patch in legend.get_patches()}
        assert named == {bar.get_facecolor() for bar in axes.patches}
        figure.draw_without_rendering()
        box = legend.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_every_bar_has_its_latency_beside_it() -> None:
    figure: Any = draw_devices(
        [
            prediction("slow", start_s=0.0, latency_s=5.0),
            replace(prediction("fast", start_s=0.0, latency_s=5e-6), interval_s=(2e-6, 9e-6)),
        ]
    )
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["5 s", "5 us"]
    assert all(text.get_window_extent().x1 < axes.bbox.x1 for text in axes.texts)


def test_labels_of_a_timeline_lie_within_their_bars() -> None:
    each_s = {"conv2d_" + "add_relu_" * 8: 4e-4, "a" * 400: 4e-3, "pool": 1e-3, "tiny": 1e-9}
    few = prediction("t4", start_s=0.0, latency_s=sum(each_s.values()))
    tasks = tuple(replace(few.tasks[0], name=name, function=name) for name in each_s)
    graph = OperatorGraph(tuple(Operator(name, name, ()) for name in each_s), 0.0)
    figure: Any = draw_timeline(replace(few, tasks=tasks, timeline=replay(graph, each_s)))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    first, second, third = axes.texts
    assert first.get_text().startswith("conv2d_add") and first.get_text().endswith("...")
    assert second.get_text().startswith("aaaa") and second.get_text().endswith("a...")
    assert third.get_text() == "pool"
    for text, bar in zip(axes.texts, axes.patches, strict=False):
        inside, box = bar.get_window_extent(), text.get_window_extent()
        assert inside.x0 <= box.x0 + 1 and box.x1 - 1 <= inside.x1
        assert inside.y0 <= box.y0 + 1 and box.y1 - 1 <= inside.y1


def test_what_runs_side_by_side_shares_the_latency() -> None:
    widths, _ = bars_ms(prediction("gpu", start_s=3e-3, latency_s=4e-3))
    assert widths == pytest.approx([2, 0.5, 1.5])
