"""The tables of `benchmarks.accuracy`: how well models predict on the official splits."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.markdown import origin, over_seeds, table_head, table_row

_FIGURES = {
    "MAPE": ("mape", "%"),
    "by task": ("mape_by_task", "%"),
    "median APE": ("median_ape", "%"),
    "level known": ("within_task", "%"),
    "within 10 %": ("within_10_percent", ""),
    "top-1": ("top1", ""),
    "top-5": ("top5", ""),
    "top-1 by time": ("top1_weighted", ""),
    "top-5 by time": ("top5_weighted", ""),
    "pairs": ("pairwise_accuracy", ""),
    "Kendall's tau": ("tau", ""),
    "covered": ("coverage90", ""),
}
_LEGEND = (
    "MAPE: over programs, with its standard deviation over seeds and its 90 % interval over tasks; "
    "then the mean over "
    "tasks, the median, the mean if the level of each task were known, and the share of programs "
    "with at most 10 %. Top-k: mean over tasks, then the ratio of sums of latencies, in which long "
    "tasks count more. Pairs: share in the right order, ties half. Covered: measured latencies "
    "within the model's 90 % interval."
)


def accuracy_sections(folder: Path) -> list[str]:
    """Return a section per split; none where nothing was measured."""
    parts = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    by_split: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for part in parts:
        settings = part["settings"]
        models = by_split.setdefault(settings["split"], {})
        models.setdefault(settings["model"], []).append(part)
    return ["\n".join(_split(split, models)) for split, models in by_split.items()]


def _split(split: str, models: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    first = next(iter(models.values()))[0]
    seeds = max(map(len, models.values()))
    figures, settings = first["all"], first["settings"]
    limit = settings["test_per_task"]
    drawn = "" if limit is None else f", at most {limit} of each"
    yield (
        f"**Error on the split `{split}`** ([data](results/accuracy)). "
        f"{figures['programs']:,} programs of {figures['tasks']:,} tasks{drawn}, on "
        f"{len(first['devices'])} devices; training on at most {settings['per_task']} "
        f"programs of a task, {over_seeds(seeds, 'mean', 'mean')}; `cdmpp-evaluation` are the "
        f"weights of the package and `cdmpp-weights` their like for this split, trained on at most "
        f"1,000; to `cdmpp-own-vectors`, the former, no device counts as another. {_LEGEND}"
    )
    yield ""
    yield from table_head("model", *_FIGURES)
    for name, runs in models.items():
        yield table_row(name, *_cells([run["all"] for run in runs]))
    yield ""
    yield (
        "MAPE by device. The noise floor is the error of a perfect predictor against single "
        "measurements; a lower bound unless it is from measurements in several logs:"
    )
    yield ""
    yield from table_head("device", "programs", "noise floor", *models)
    for device in first["devices"]:
        found = {name: [run["devices"][device] for run in runs] for name, runs in models.items()}
        cells = (_mean(runs, "mape", "%") for runs in found.values())
        figures = first["devices"][device]
        yield table_row(device, f"{figures['programs']:,}", _floor(figures), *cells)
    yield ""
    yield "Size:"
    yield ""
    yield from table_head("model", "parameters", "bytes")
    for name, runs in models.items():
        yield table_row(name, *(f"{runs[0][what]:,}" for what in ("parameters", "bytes")))
    yield ""
    yield from _origins(models)


def _cells(runs: list[dict[str, Any]]) -> Iterator[str]:
    for figure, unit in _FIGURES.values():
        cell = _mean(runs, figure, unit)
        if figure == "mape":
            low, high = (
                statistics.fmean(run["intervals"]["mape"][end] for run in runs) for end in (0, 1)
            )
            cell += f"{_over_seeds(runs)} ({low:.3g} to {high:.3g})"
        yield cell


def _over_seeds(runs: list[dict[str, Any]]) -> str:
    """Tell by how much the MAPE of seeds differs, as a standard deviation."""
    if len(runs) == 1:
        return ""
    return f" ± {statistics.stdev(run['mape'] for run in runs):.1f}"


def _mean(runs: list[dict[str, Any]], figure: str, unit: str) -> str:
    values = [run[figure] for run in runs]
    if None in values:
        return "-"
    mean = statistics.fmean(values)
    return f"{mean:.1f} %" if unit else f"{mean:.3f}"


def _floor(figures: dict[str, Any]) -> str:
    floor = figures.get("noise_floor", {"mape": None})
    return "-" if floor["mape"] is None else f"{floor['mape']:.1f} % ({floor['basis']})"


def _origins(models: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Say where the parts come from; parts of one place differ in their models alone."""
    seen: dict[str, list[str]] = {}
    for name, runs in models.items():
        for run in runs:
            seen.setdefault(origin(run).replace(f"--models {name} ", "--models ... "), []).append(
                name
            )
    for where, names in seen.items():
        yield f"{', '.join(dict.fromkeys(names))}: {where}"
        yield ""
