"""The table of `benchmarks.recorded_networks`."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.markdown import origin, table_head, table_row


def recorded_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield how far off the sums of recorded networks are."""
    yield (
        f"**Networks of recorded logs, all tasks measured** ([data](results/{file.name})). The "
        "fastest recorded program of each task, each task once: sums as predicted by the weights "
        f"`{result['settings']['weights']}`, which were not trained on these tasks, and as "
        "rooflines, relative to the measured sum. A device is known where the weights were trained "
        "on other networks' programs of it."
    )
    yield ""
    titles = ("log", "device", "tasks", "measured", "predicted", "in the 90 % interval", "roofline")
    yield from table_head(*titles)
    for is_known in (True, False):
        rows = [row for row in result["rows"] if row["known"] is is_known]
        for row in sorted(rows, key=lambda row: str(row["device"])):
            yield table_row(
                row["network"],
                row["device"],
                f"{row['tasks']}"
                + f" of {row['tasks'] + row['tasks_without_program']}"
                * bool(row["tasks_without_program"]),
                f"{1e3 * row['measured_s']:.4g} ms",
                f"{100 * _error(row, 'predicted'):+.0f} %",
                "yes" if _is_held(row) else "no",
                f"{100 * _error(row, 'roofline'):+.0f} %",
            )
        if rows:
            yield table_row(
                f"mean error, {'known' if is_known else 'unknown'} devices", "", "", "",
                f"{_mean_error(rows, 'predicted'):.0f} %",
                f"{sum(map(_is_held, rows))} of {len(rows)}",
                f"{_mean_error(rows, 'roofline'):.0f} %",
            )  # fmt: skip
    yield ""
    yield origin(result)


def _error(row: dict[str, Any], estimate: str) -> float:
    return float(row[f"{estimate}_s"] / row["measured_s"] - 1)


def _mean_error(rows: Sequence[dict[str, Any]], estimate: str) -> float:
    return 100 * statistics.fmean(abs(_error(row, estimate)) for row in rows)


def _is_held(row: dict[str, Any]) -> bool:
    low, high = row["interval_s"]
    return bool(low <= row["measured_s"] <= high)
