"""The tables of `benchmarks.device_choice` and `benchmarks.onboarding`."""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.markdown import origin, table_head, table_row
from benchmarks.provenance import read_results

_ESTIMATES = ("predicted", "estimate", "peak")
_LEAST_SHOWN = 20
"""Workloads of a pair of devices that has rows of its own."""
_PARTS = {"operators": "operators", "held_out": "of these, not trained on", "networks": "networks"}


def choice_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield whether the right one of two devices is chosen."""
    settings = result["settings"]
    yield (
        f"**Choosing one of two devices** ([data](results/{file.name})). Weights "
        f"`{settings['weights']}`; the fastest of at most {settings['per_task']} recorded programs "
        "of each workload that both devices have, networks as sums of these. Share of right "
        "orders, of those that differ by more than 5 %; and by how much what was chosen is slower "
        "than the better one, mean over all. Next to the prediction: the analytic estimate of the "
        "same programs, and the device with the higher peak. Pairs that share at least "
        f"{_LEAST_SHOWN} workloads have rows of their own."
    )
    yield ""
    names = ("predicted", "analytic estimate", "peak FLOP/s")
    yield from table_head("devices", "", "compared", "differ", *names)
    for name, found in (("all pairs", result["overall"]), *_pairs(result)):
        for part, title in _PARTS.items():
            if found[part]["compared"]:
                yield table_row(
                    name if part == "operators" else "",
                    title,
                    f"{found[part]['compared']:,}",
                    f"{found[part]['differ']:,}",
                    *(_cell(found[part][estimate]) for estimate in _ESTIMATES),
                )
    yield ""
    yield origin(result)


def _pairs(result: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in result["pairs"]:
        if row["operators"]["compared"] >= _LEAST_SHOWN:
            yield " / ".join(row["devices"]), row


def _cell(found: dict[str, float | None]) -> str:
    right, regret = found["right"], found["regret"]
    share = "-" if right is None else f"{right:.0%}"
    return f"{share}, +{regret:.0%}"


def onboarding_section(folder: Path) -> Iterator[str]:
    """Yield the error on tasks of new devices that were not measured, by what was.

    Raises
    ------
    ValueError
        The files of the folder are of different settings.
    """
    devices = read_results(folder)
    if not devices:
        return
    settings = devices[0]["settings"]
    yield (
        f"**Onboarding a device that the weights have not seen, split `{settings['split']}`** "
        f"([data](results/{folder.name})). "
        "Half of a device's tasks may be measured; mean absolute percentage error on the other "
        "half, every task weighing the same / the median one of all programs there, and how many "
        f"programs were measured. Mean over {settings['seeds']} seeds; at most "
        f"{settings['per_task']} programs of a task."
    )
    yield ""
    names = (device["device"] for device in devices)
    yield from table_head("budget", "measured and learned", *names, "mean")
    steps = dict.fromkeys((r["budget"], r["strategy"]) for it in devices for r in it["runs"])
    for budget, strategy in sorted(steps, key=lambda step: step[0]):
        cells, errors = [], []
        for device in devices:
            own = [r for r in device["runs"] if (r["budget"], r["strategy"]) == (budget, strategy)]
            if not own:
                cells.append("-")
                continue
            scores = [run["scores"]["never"] for run in own]
            error, median = (
                100 * statistics.fmean(score[name] for score in scores)
                for name in ("mape_by_task", "median_ape")
            )
            programs = statistics.fmean(run["measured_programs"] for run in own)
            errors.append(error)
            cells.append(f"{error:.1f} / {median:.1f} % ({programs:.0f})")
        mean = f"{statistics.fmean(errors):.1f} %" if len(errors) == len(devices) else "-"
        yield table_row(f"{budget:,}", strategy, *cells, mean)
    yield ""
    yield origin(devices[0])
    runs = [run for device in devices for run in device["runs"]]
    for commit in sorted({run["commit"] for run in runs if "commit" in run}):
        later = dict.fromkeys(r["strategy"] for r in runs if r.get("commit") == commit)
        if commit != devices[0]["commit"]:
            yield f"Of commit {commit}: {', '.join(later)}."
