"""The tables of `benchmarks.adaptation`: error by programs measured on devices not seen before."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.markdown import origin, table_head, table_row


def adaptation_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the section of a result file."""
    devices = (f"{name} {device['programs']:,}" for name, device in result["devices"].items())
    yield (
        f"**Devices that the weights have not seen, by programs measured there** "
        f"([data](results/{file.name})). Programs: {', '.join(devices)}; half of the tasks may be "
        f"measured, and scored are the programs that were not. Mean over "
        f"{result['settings']['seeds']} seeds."
    )
    yield ""
    yield from adaptation_tables(result)
    yield ""
    yield origin(result)


def adaptation_tables(result: dict[str, Any]) -> Iterator[str]:
    """Lay the result of `benchmarks.adaptation` out: means over devices, then each device."""
    summary = result["summary"]
    yield (
        "Mean absolute percentage error, every task weighing the same, mean over devices: of tasks "
        "that were never measured / of all programs that were not."
    )
    yield ""
    over_all = [row for row in summary if row["device"] == "all devices"]
    names = ("adaptation", "method")
    cells = _cells_by_budget(over_all, names, ("never_mape_by_task", "all_mape_by_task"))
    yield from _table_by_budget(("adaptation", "programs chosen"), cells)
    yield ""
    yield "By device, programs chosen at random: mean / median absolute percentage error of all."
    yield ""
    by_device = [
        row for row in summary if row["device"] != "all devices" and row["method"] == "random"
    ]
    names = ("device", "adaptation")
    cells = _cells_by_budget(by_device, names, ("all_mape", "all_median_ape"))
    yield from _table_by_budget(names, dict(sorted(cells.items())))
    kept = [row for row in over_all if "sources_median_ape" in row and row["method"] == "random"]
    if kept:
        errors = ", ".join(
            f"{100 * row['sources_median_ape']['mean']:.1f} % with {row['budget']:,}"
            for row in sorted(kept, key=lambda row: int(row["budget"]))
        )
        yield ""
        yield (
            f"What fine-tuning forgets: the median error on the validation part of the sources, by "
            f"programs measured on the target: {errors}."
        )


def _cells_by_budget(
    rows: Iterable[dict[str, Any]], names: tuple[str, str], metrics: tuple[str, str]
) -> dict[tuple[str, str], dict[int, str]]:
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for row in rows:
        means = (100 * row[metric]["mean"] for metric in metrics)
        cell = " / ".join(f"{mean:.0f}" for mean in means) + " %"
        cells.setdefault((row[names[0]], row[names[1]]), {})[row["budget"]] = cell
    return cells


def _table_by_budget(
    names: tuple[str, str], cells: dict[tuple[str, str], dict[int, str]]
) -> Iterator[str]:
    budgets = sorted({budget for of_budget in cells.values() for budget in of_budget})
    yield from table_head(*names, *(f"{budget:,}" for budget in budgets))
    for (first, second), of_budget in cells.items():
        yield table_row(first, second, *(of_budget.get(budget, "") for budget in budgets))
