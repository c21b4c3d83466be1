"""The tables of `benchmarks.adaptation`: error by programs measured on devices not seen before."""

import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.markdown import origin, table_head, table_row
from benchmarks.provenance import read_results


def adaptation_section(folder: Path) -> Iterator[str]:
    """Yield the lines of the section, from the files of a folder; none where there are none.

    Raises
    ------
    ValueError
        The files are of different settings.
    """
    devices = read_results(folder)
    if not devices:
        return
    programs = (f"{it['device']} {it['programs']:,}" for it in devices)
    yield (
        f"**Devices that the weights have not seen, by programs measured there** "
        f"([data](results/{folder.name})). Programs: {', '.join(programs)}; half of the tasks may "
        f"be measured, and scored are the programs that were not. Mean over "
        f"{devices[0]['settings']['seeds']} seeds."
    )
    yield ""
    runs = [{"device": it["device"], **run} for it in devices for run in it["runs"]]
    yield from _tables(runs)
    yield ""
    yield origin(devices[0])


def target_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield what measured programs of unseen networks bring on a known device."""
    runs, seeds = result["runs"], 1 + max(run["seed"] for run in result["runs"])
    yield (
        f"**Networks that the weights have not seen, by programs of them measured on "
        f"{result['device']}** ([data](results/{file.name})). {result['programs']:,} programs of "
        f"{result['tasks']} tasks of the test part of `networks`, the `evaluation` weights; scored "
        f"are the programs that were not measured: mean / median absolute percentage error, and "
        f"Kendall's tau within a task. Mean over {seeds} seeds (standard deviation of the first). "
        "Perfect levels are medians over all programs of a task, which nobody has measured."
    )
    yield ""
    found: dict[tuple[int, str, str], list[dict[str, float]]] = {}
    for run in runs:
        key = run["budget"], run["adaptation"], run["method"]
        found.setdefault(key, []).append(run["scores"])
    yield from table_head("measured", "adaptation", "programs chosen", "error", "tau")
    for (budget, adaptation, method), scores in found.items():
        mean, median = (
            [100 * score[metric] for score in scores] for metric in ("mape", "median_ape")
        )
        spread = f" ({statistics.stdev(mean):.1f})" if len(mean) > 1 else ""
        error = f"{statistics.fmean(mean):.1f}{spread} / {statistics.fmean(median):.1f} %"
        tau = statistics.fmean(score["kendall_tau"] for score in scores)
        yield table_row(f"{budget:,}", adaptation, method, error, f"{tau:.3f}")
    yield ""
    yield origin(result)


def _tables(runs: list[dict[str, Any]]) -> Iterator[str]:
    """Lay all runs out: means over devices, then each device."""
    yield (
        "Mean absolute percentage error, every task weighing the same, mean over devices: of tasks "
        "that were never measured / of all programs that were not."
    )
    yield ""
    cells = _cells_by_budget(
        runs, ("adaptation", "method"), ("never", "mape_by_task"), ("all", "mape_by_task")
    )
    yield from _table_by_budget(("adaptation", "programs chosen"), cells)
    yield ""
    yield "By device, programs chosen at random: mean / median absolute percentage error of all."
    yield ""
    at_random = [run for run in runs if run["method"] == "random"]
    names = ("device", "adaptation")
    cells = _cells_by_budget(at_random, names, ("all", "mape"), ("all", "median_ape"))
    yield from _table_by_budget(names, cells)
    forgotten: dict[int, list[float]] = {}
    for run in at_random:
        if run["sources_median_ape"] is not None:
            forgotten.setdefault(run["budget"], []).append(run["sources_median_ape"])
    if forgotten:
        errors = ", ".join(
            f"{100 * statistics.fmean(found):.1f} % with {budget:,}"
            for budget, found in sorted(forgotten.items())
        )
        yield ""
        yield (
            f"What fine-tuning forgets: the median error on the validation part of the sources, by "
            f"programs measured on the target: {errors}."
        )


def _cells_by_budget(
    runs: Iterable[dict[str, Any]], names: tuple[str, str], *figures: tuple[str, str]
) -> dict[tuple[str, str], dict[int, str]]:
    """Return the means of figures, by two names and by budget; a figure is of a part."""
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for run in runs:
        found.setdefault((run[names[0]], run[names[1]], run["budget"]), []).append(run["scores"])
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for (first, second, budget), scores in sorted(found.items()):
        means = (
            statistics.fmean(it[part][metric] for it in scores if it[part])
            for part, metric in figures
        )
        cell = " / ".join(f"{100 * mean:.0f}" for mean in means) + " %"
        cells.setdefault((first, second), {})[budget] = cell
    return cells


def _table_by_budget(
    names: tuple[str, str], cells: dict[tuple[str, str], dict[int, str]]
) -> Iterator[str]:
    budgets = sorted({budget for of_budget in cells.values() for budget in of_budget})
    yield from table_head(*names, *(f"{budget:,}" for budget in budgets))
    for (first, second), of_budget in cells.items():
        yield table_row(first, second, *(of_budget.get(budget, "") for budget in budgets))
