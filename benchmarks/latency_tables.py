"""Tables of how networks are timed and priced."""

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.markdown import origin, table_head, table_row

_ESTIMATES = {
    "replayed": "replayed",
    "alone": "operators again and again, added up",
    "from_alone": "operators again and again, replayed",
    "predicted": "predicted",
    "calibrated": "after `device calibrate`",
    "adapted": "after 200 records",
    "rooflines": "sum of rooflines",
    "flops": "FLOPs over a matrix product's rate",
    "scaled": "scaled from another device",
}
_MACHINES = {"avx512": "EPYC of the fourth generation", "epyc5": "EPYC of the fifth generation"}
"""By the end of the name of the result file; without one, of the third."""
CURVE = ("records", "kept_back", "mape", "low", "high", "median", "start_mape")
"""What is kept of a point of the curve of `adapt`; errors in percent."""
_REQUIRED = {
    "replayed": "5 %, 10 %", "from_alone": "5 %, 10 %", "calibrated": "20 %", "adapted": "10 %",
}  # fmt: skip
"""At most this mean error, and at most that on any network."""


def latency_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield how far whole networks are off."""
    rows = result["rows"]
    networks = len({row["network"] for row in rows})
    batches = " and ".join(str(batch) for batch in sorted({row["batch"] for row in rows}))
    where = _MACHINES.get(file.stem.rpartition("-")[2], "EPYC of the third generation")
    yield (
        f"**Latencies of {networks} whole networks, batch {batches}, {where}, "
        f"{result['date'][:10]}** ([data](results/{file.name})). Relative to what the "
        "compiled network takes: the replayer with each operator's own measured latency, by TVM's "
        "profiler inside of the network (of one below 100 us: by how much longer it takes with the "
        "operator), and run again and again by itself; the prediction, with nothing measured, with "
        "`device calibrate` and with 200 records of this machine; and simpler estimates."
    )
    yield ""
    yield from summary(result["rows"])
    yield ""
    if result.get("curves"):
        yield (
            "While `adapt` measured, error on the tasks and functions that were kept back, and "
            "that of the weights it started from:"
        )
        yield ""
        yield from learning_curves(result["curves"])
        yield ""
    yield origin(result)


def learning_curves(curves: Mapping[str, Sequence[dict[str, Any]]]) -> Iterator[str]:
    """Yield a line for each batch of records, by the size of the networks' batch."""
    titles = (
        "batch",
        "records",
        "kept back",
        "mean error",
        "90 % interval",
        "median",
        "started at",
    )
    yield from table_head(*titles)
    for batch, points in curves.items():
        for point in points:
            figures = (point[name] for name in ("mape", "low", "high", "median", "start_mape"))
            mean, low, high, median, start = (f"{figure:.0f}" for figure in figures)
            yield table_row(
                batch,
                str(point["records"]),
                str(point["kept_back"]),
                f"{mean} %",
                f"{low} to {high} %",
                f"{median} %",
                f"{start} %",
            )


def full_caches_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield what functions take with full caches, by kind."""
    yield (
        f"**What full caches save** ([data](results/{file.name})). Functions by TVM's own "
        "schedules with full caches, as a share of what they take with everything but the first "
        "input flushed, as programs are measured; and the share that the replayer expects. "
        "What waking threads takes is subtracted from both; functions that take less than twice "
        f"that are left out. Medians of {result['settings']['passes']} passes; means are geometric."
    )
    yield ""
    yield from table_head(
        "kind",
        "functions",
        "share, mean",
        "smallest to largest",
        "expected, mean",
        "off by, mean of each",
    )
    for kind in dict.fromkeys(row["kind"] for row in result["rows"]):
        of_kind = [row for row in result["rows"] if row["kind"] == kind]
        rows = [row for row in of_kind if row["full_s"] >= 2 * row["wake_s"]]
        if not rows:
            yield table_row(kind, f"0 of {len(of_kind)}", *4 * ["-"])
            continue
        shares = [row["share"] for row in rows]
        off = (abs(math.log(row["expected"] / row["share"])) for row in rows)
        yield table_row(
            kind,
            f"{len(rows)} of {len(of_kind)}",
            f"{statistics.geometric_mean(shares):.2f}",
            f"{min(shares):.2f} to {max(shares):.2f}",
            f"{statistics.geometric_mean(row['expected'] for row in rows):.2f}",
            f"{100 * math.expm1(statistics.mean(off)):.0f} %",
        )
    yield ""
    yield origin(result)


def worker_cores_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield how often a program is timed while its threads share a core."""
    yield (
        f"**Timing off the cores of TVM's worker threads** ([data](results/{file.name})). Means of "
        f"ten runs of a product of {result['settings']['size']}-square matrices, right after "
        "others were built on all cores, by how much they are above the median of all."
    )
    yield ""
    yield from table_head("timed", "programs", "median", "above by 30 %", "by 60 %", "largest")
    median_s = statistics.median(itertools.chain(*result["seconds"].values()))
    for way, seconds in result["seconds"].items():
        above = [sum(s > factor * median_s for s in seconds) for factor in (1.3, 1.6)]
        yield table_row(
            way,
            str(len(seconds)),
            f"{1e6 * statistics.median(seconds):.0f} us",
            *(f"{number} ({number / len(seconds):.1%})" for number in above),
            f"{max(seconds) / median_s:.1f} x",
        )
    yield ""
    yield origin(result)


def rows_first_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield what a multiply-add takes, by the length of a row of the right matrix."""
    yield (
        "**Products as PyTorch writes them, by TVM's own schedule** "
        f"([data](results/{file.name})). Cycles of one core per multiply-add, by the largest power "
        "of two in the bytes of a row of the right matrix, at most 4096; and measured over "
        "predicted, by the weights as of any program, and with what columns cost. Means are "
        "geometric, that of all with its standard deviation as a factor. Medians of "
        f"{result['settings']['passes']} passes."
    )
    yield ""
    yield from table_head(
        "row", "products", "cycles", "to plain predictions", "to those for columns"
    )
    settings = result["settings"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(result["rows"], key=_power_of_two):
        groups.setdefault(f"{_power_of_two(row)} bytes", []).append(row)
    for name, rows in (*groups.items(), ("all", result["rows"])):
        cycles = [
            row["measured_s"] * settings["clock_hz"] * settings["cores"] / math.prod(row["sizes"])
            for row in rows
        ]
        ratios = [
            [row["measured_s"] / row[f"{kind}_s"] for row in rows]
            for kind in ("plain", "predicted")
        ]
        yield table_row(
            name,
            str(len(rows)),
            f"{statistics.geometric_mean(cycles):.2f}",
            *(
                f"{statistics.geometric_mean(of_kind):.2f}"
                + (
                    f" (x {math.exp(statistics.pstdev(map(math.log, of_kind))):.2f})"
                    * (name == "all")
                )
                for of_kind in ratios
            ),
        )
    yield ""
    yield origin(result)


def _power_of_two(row: dict[str, Any]) -> int:
    return math.gcd(4 * int(row["sizes"][-1]), 4096)


def summary(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a line per network, then the errors of each estimate."""
    known = [e for e in _ESTIMATES if any(f"{e}_s" in row for row in rows)]
    titles = ("network", "batch", "schedules", "measured")
    yield from table_head(*titles, *(_ESTIMATES[estimate] for estimate in known))
    for row in rows:
        errors = [_error(row, estimate) for estimate in known]
        yield table_row(
            row["network"],
            str(row["batch"]),
            row["schedules"],
            f"{1e3 * row['measured_s']:.4g} ms",
            *("-" if error is None else f"{100 * error:+.1f} %" for error in errors),
        )
    batches = sorted({row["batch"] for row in rows})
    for batch in batches if len(batches) > 1 else []:
        of_batch = _errors([row for row in rows if row["batch"] == batch], known)
        means = (f"{100 * sum(errors) / len(errors):.1f} %" for errors in of_batch)
        yield table_row("mean error", str(batch), "", "", *means)
    found = _errors(rows, known)
    means = (f"{100 * sum(errors) / len(errors):.1f} %" for errors in found)
    largest = (f"{100 * max(errors):.1f} %" for errors in found)
    yield table_row("mean error", "", "", "", *means)
    yield table_row("largest error", "", "", "", *largest)
    held = [[_is_held(row, estimate) for row in rows] for estimate in known]
    if any(None not in found for found in held):
        shares = (
            "" if None in found else f"{sum(map(bool, found))} of {len(rows)}" for found in held
        )
        yield table_row("in the 90 % interval", "", "", "", *shares)
    if any(estimate in _REQUIRED for estimate in known):
        required = (_REQUIRED.get(estimate, "") for estimate in known)
        yield table_row("wanted: mean, largest", "", "", "", *required)


def _errors(rows: Sequence[dict[str, Any]], known: Sequence[str]) -> list[list[float]]:
    """Return the absolute errors of each estimate."""
    return [
        [abs(error) for row in rows if (error := _error(row, estimate)) is not None]
        for estimate in known
    ]


def _is_held(row: dict[str, Any], estimate: str) -> bool | None:
    """Tell whether the interval of an estimate holds the measurement; None where there is none."""
    low_high = row.get(f"{estimate}_interval_s")
    return None if low_high is None else bool(low_high[0] <= row["measured_s"] <= low_high[1])


def _error(row: dict[str, Any], estimate: str) -> float | None:
    """Return the relative error of an estimate; None where there is none."""
    value = row.get(f"{estimate}_s")
    return None if value is None else float(value / row["measured_s"] - 1)
