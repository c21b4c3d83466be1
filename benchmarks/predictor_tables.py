"""Tables of what the predictor's errors are made of, and of what is said about its predictions."""

import json
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.markdown import origin, table_head, table_row
from benchmarks.predictor_ablation import CHANGES

_LEAST_PROGRAMS = 500
_ABLATION_DEVICE = "x86-24t"
_PARTS = {
    "as predicted": "predicted",
    "level of each task known": "level_known",
    "order known": "order_known",
    "true latencies known": "latencies_known",
}
_SAID = (
    "said by", "measured", "left out", "called good that are good", "of all, good", "sign as said",
)  # fmt: skip
_WHO_SAYS = (
    "Edits that change the latency by less than 5 % are left out, and those said to save as much "
    "are called good: by the prediction; by the explanation, which is the group with the largest "
    "attribution; or by any group, drawn at random. Shares with 90 % intervals over tasks."
)


def errors_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield what errors are made of, by device and class, and why the worst are what they are."""
    settings = result["settings"]
    yield (
        f"**What errors are made of** ([data](results/{file.name}), "
        f"[plots](results/{file.stem}.png)). Weights `{settings['weights']}`, test part of the "
        f"split `{settings['split']}`, at most {settings['per_task']} programs of a task; devices "
        f"with at least {_LEAST_PROGRAMS} programs. What would be left if the level of each task, "
        "or the order within it, were known; and what a predictor that knows every true latency "
        "would have against single measurements, where their noise is known."
    )
    yield ""
    yield from table_head("device", "", "MAPE", "median", "top-1", "top-5", "Kendall's tau")
    for device in result["devices"]:
        if device["predicted"]["programs"] < _LEAST_PROGRAMS:
            continue
        for what, name in _PARTS.items():
            found = device[name]
            if found is not None:
                yield table_row(
                    device["device"] if name == "predicted" else "",
                    what,
                    f"{found['mape']:.1f} %",
                    f"{found['median_ape']:.1f} %",
                    *(f"{found[figure]:.3f}" for figure in ("top1", "top5", "tau")),
                )
    yield ""
    yield "By device and class of operator; the bias is the mean of ln(predicted / measured):"
    yield ""
    yield from table_head("", "programs", "MAPE", "median", "of the level", "bias")
    for row in result["operators"]:
        if row["programs"] >= _LEAST_PROGRAMS:
            yield table_row(
                row["class"],
                f"{row['programs']:,}",
                *(f"{row[figure]:.0f} %" for figure in ("mape", "median_ape", "level_ape")),
                f"{row['bias']:+.2f}",
            )
    reasons = Counter(program["reason"] for program in result["worst"])
    counted = "; ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
    yield ""
    yield (
        f"Reasons of the {len(result['worst'])} worst programs of different tasks, on devices that "
        f"were trained on: {counted}."
    )
    yield ""
    yield origin(result)


def study_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield what a study of settings found."""
    trials, base = result["trials"], result["settings"]["base"]
    whole = sorted((t for t in trials if t["error"] is not None), key=lambda t: t["error"])
    yield (
        f"**A study of settings** ([data](results/{file.name})). {len(trials)} settings, each "
        f"trained for {base['config']['steps']:,} steps of {base['config']['groups_per_batch']} "
        f"tasks, {len(trials) - len(whole)} of them ended as they fell behind; least median error "
        "on the validation part. Setting 0 is the default. Those that were trained to the end:"
    )
    yield ""
    kinds = result["settings"]["kinds"]
    yield from table_head("setting", *kinds, "mean", "what it is")
    for trial in whole:
        told = (
            f"{name.partition('.')[2]} {value:.2g}" if isinstance(value, float) else
            f"{name.partition('.')[2]} {value}"
            for name, value in trial["setting"].items()
        )  # fmt: skip
        yield table_row(
            str(trial["trial"]),
            *(f"{100 * trial['errors'][kind]:.1f} %" for kind in kinds),
            f"{100 * trial['error']:.1f} %",
            ", ".join(told),
        )
    yield ""
    yield origin(result)


def faithfulness_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield whether explanations hold."""
    change, more = result["change_of_ln_latency"], result["changed_more_than"]
    yield (
        f"**Whether explanations hold** ([data](results/{file.name})). {result['programs']} "
        f"recorded programs of held-out networks. Without the {result['fields_removed']} fields "
        f"that are said to matter most, ln latency as predicted changes by {change['said']:.2f} in "
        f"the median, without as many others that are not as in the average leaf by "
        f"{change['random']:.2f}, without those farthest from it by {change['farthest']:.2f}; by "
        f"more than these for {_share(more['random'])} and {_share(more['farthest'])} of the "
        "programs. Then pairs of programs that are most alike, one being an edit of the other. "
        f"{_WHO_SAYS}"
    )
    yield ""
    yield from table_head("edit", *_SAID)
    for kind in ("unrolling", "any"):
        yield from _said_rows([kind], result["edits"][kind])
    yield ""
    yield origin(result)


def edits_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield whether edits that are called good are good when measured."""
    yield (
        f"**Edits that are called good, measured** ([data](results/{file.name})). Of "
        f"{result['tasks']} tasks the program with the median latency in a small log, with another "
        f"unroll limit or tile. {_WHO_SAYS}"
    )
    yield ""
    yield from table_head("weights", "edit", *_SAID)
    for weights, kinds in result["weights"].items():
        for kind, found in kinds.items():
            # Older results are of the prediction alone.
            yield from _said_rows(
                [weights, kind], found if "prediction" in found else {"prediction": found}
            )
    yield ""
    yield origin(result)


def _said_rows(cells: Sequence[str], found: Mapping[str, Any]) -> Iterator[str]:
    for by, told in found.items():
        shares = (_share(told[name]) for name in ("said_good_are_good", "good", "as_measured"))
        counts = (f"{told[name]:,}" for name in ("edits", "too_alike"))
        yield table_row(*cells, by.replace("_", " "), *counts, *shares)


def _share(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    low, high = found["interval"]
    cases = found["cases"] if "cases" in found else found["edits"]  # so in older results
    return f"{found['share']:.0%} of {cases:,} ({low:.0%} to {high:.0%})"


def intervals_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield what the intervals of whole networks rest on."""
    yield (
        f"**Errors of the fastest programs of a task, together** ([data](results/{file.name})), "
        "which the intervals of `predict` rest on, of devices that the weights know and of others: "
        "the share of tasks within the 90 % interval; the factor on the predictor's own spread, or "
        "the standard deviation of ln latency to join it with, that makes it 90 %; and what "
        "devices are off by as a whole, the root mean square of ln."
    )
    yield ""
    yield from table_head("devices", "tasks", "within", "factor", "or level", "off as a whole")
    for kind, found in result["kinds"].items():
        off = found["root_mean_square"]
        yield table_row(
            kind,
            str(found["tasks"]),
            f"{found['held']:.0%}",
            f"{found['factor']:.2f}",
            f"{found['level']:.2f}",
            "-" if off is None else f"{off:.2f}",
        )
    yield ""
    correlation = result["correlation"]
    yield (
        "Correlation of the errors of two tasks on a device: "
        f"{correlation['mean_over_devices']:.2f} as the mean over devices, "
        f"{correlation['pooled']:.2f} over all pairs."
    )
    yield ""
    yield origin(result)


def ablation_section(folder: Path) -> Iterator[str]:
    """Yield what each part of the predictor is worth, from the files of a folder."""
    parts = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    by_change: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        by_change.setdefault(part["change"], []).append(part)
    changes = [name for name in CHANGES if name in by_change]
    first = by_change[changes[0]][0]
    device = _ABLATION_DEVICE
    yield (
        f"**What each part of the predictor is worth** ([data](results/{folder.name})). Split "
        f"`{first['settings']['split']}`, {first['steps']:,} steps on at most "
        f"{first['settings']['per_task']} programs of a task, mean over the seeds that a change "
        f"was trained with: compare those of the same seeds. Test part on {device}, then the mean "
        "over its devices of the median error of each."
    )
    yield ""
    yield from table_head(
        "change",
        "seeds",
        "MAPE",
        "median",
        "level known",
        "top-1",
        "top-5",
        "tau",
        "all devices: median",
    )
    rows = [(name, by_change[name]) for name in changes]
    if len(by_change[changes[0]]) > 1:
        # Next to the mean, each seed of what all others are compared with.
        rows[:1] += [(changes[0], [run]) for run in by_change[changes[0]]]
    for name, runs in rows:
        found = [run["devices"][device] for run in runs]
        medians = [
            statistics.fmean(each["median_ape"] for each in run["devices"].values()) for run in runs
        ]
        yield table_row(
            name,
            ", ".join(str(run["settings"]["seed"]) for run in runs),
            *(f"{_mean(found, n):.1f} %" for n in ("mape", "median_ape", "within_task")),
            *(f"{_mean(found, n):.3f}" for n in ("top1", "top5", "tau")),
            f"{statistics.fmean(medians):.1f} %",
        )
    yield ""
    yield origin(first)


def speed_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield how fast models learn and predict."""
    turns = sorted({len(of_model) for of_model in result.get("turns", {}).values()})
    rounds = " or ".join(map(str, turns))  # older results do not tell
    spread = f" Medians of {rounds} rounds, with the least and the largest." if rounds else ""
    gpu = result["machine"].get("gpu")
    where = (
        f"a second: learning on an {gpu}, predicting on one core" if gpu else "a second on one core"
    )
    yield (
        f"**Programs a second, {where}** ([data](results/{file.name})). Learned from, each as "
        "often as the optimiser saw it, and predicted; then how many times as many `cdmpp` learns "
        f"from.{spread} `-paper` are published settings, without it a model is in a tuned one."
    )
    yield ""
    rates = result["rates"]
    ours = next((rate["trained_per_s"] for rate in rates if rate["model"] == "cdmpp"), None)
    yield from table_head("model", "learned from", "predicted", "cdmpp learns from")
    for rate in rates:
        ratio = f"{ours / rate['trained_per_s']:.2g} times as many" if ours else "-"
        yield table_row(
            rate["model"],
            *(_with_range(rate, figure) for figure in ("trained_per_s", "predicted_per_s")),
            "" if rate["model"] == "cdmpp" else ratio,
        )
    yield ""
    yield origin(result)


def _with_range(rate: dict[str, Any], figure: str) -> str:
    known = f"{rate[figure]:,.0f}"
    ends = rate.get(f"{figure}_range")
    return known if ends is None else f"{known} ({ends[0]:,.0f} to {ends[1]:,.0f})"


def _mean(runs: list[dict[str, Any]], figure: str) -> float:
    return statistics.fmean(run[figure] for run in runs)
