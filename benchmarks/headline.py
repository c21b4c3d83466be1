"""The README's block of results: the comparison with XGBoost, and a picture of searches."""

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.markdown import hardware, table_head, table_row

BEGIN, END = "<!-- headline -->", "<!-- /headline -->"

_RESULTS = Path(__file__).parent / "results"
_NETWORKS = ("resnet-50", "bert-base")
_SEARCH, _OURS = "search", "cdmpp"
_BUDGETS = ("7", "64")
_TREES = "trees"
_ERRORS = {
    "networks that were not trained on, a CPU of 24 threads": (
        "networks", "cdmpp-evaluation", ["x86-24t"],
    ),
    "networks that were not trained on, an A100": (
        "networks", "cdmpp-evaluation", ["nvidia-a100"],
    ),
    "devices that were not trained on, nothing measured there, mean of two CPUs and two GPUs": (
        "devices", "cdmpp-weights", ["x86-8t", "cortex-a72", "nvidia-rtx3080", "amd-mi50"],
    ),
}  # fmt: skip
"""Split, weights and devices."""
_LATENCIES = "network-latency-batch-1-epyc5"
_SIMPLE = {
    "rooflines": "rooflines",
    "flops": "FLOPs at a matrix product's rate",
    "scaled": "another CPU's measurements, scaled as Habitat does",
}
"""Estimates that need no predictor."""


def with_headline(readme: str) -> str:
    """Return the README's text with its block made anew."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return before + "\n".join([BEGIN, *_headline(), END]) + after


def _read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((_RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def _headline() -> Iterator[str]:
    """Yield the comparison with XGBoost in one table, and the picture of the searches."""
    search, throughput = _read(_SEARCH), _read("throughput")
    settings, summary = search["settings"], search["summary"]
    ours, trials = summary["arms"][_OURS], summary["reference_trials"]
    what = f"{len(search['tasks'])} tasks of networks that were not trained on"
    yield from table_head("", "this predictor", "TVM's XGBoost, or what is said", "")
    networks = [_read(name) for name in _NETWORKS]
    for network in networks:
        yield from _network(network)
    sooner = ours["sooner"]
    ratio = sooner["seconds"]
    yield table_row(
        f"{what}: time until a search is as good as XGBoost's after {trials} programs",
        f"{_seconds(search, _OURS):.0f} s",
        f"{_seconds(search, summary['reference']):.0f} s",
        f"{ratio['mean']:.1f} x ({ratio['low']:.1f} to {ratio['high']:.1f})",
    )
    for budget in _BUDGETS:
        found = ours["latency_to_goal"][budget]
        yield table_row(
            f"latency after {budget} programs of a task, to XGBoost's after {trials}",
            f"{found['mean']:.2f} ({found['low']:.2f} to {found['high']:.2f})",
            f"{summary['arms'][summary['reference']]['latency_to_goal'][budget]['mean']:.2f}",
            "",
        )
    yield table_row(
        f"programs scored per second, geometric mean over {len(throughput['tasks'])} tasks",
        *_rates(throughput),
    )
    for what, held_out in _ERRORS.items():
        yield table_row(*_error(what, *held_out))
    yield table_row(*_network_error(_read(_LATENCIES)))
    yield ""
    yield (
        "Searches start from the weights `evaluation`, which know none of these networks nor this "
        "machine; but three settings of the search were chosen on a simulation of these tasks. "
        f"XGBoost is `{summary['reference']}`, TVM's model with the shortest random start. "
        f"Seeds of each task: {settings['seeds']}; seconds are medians over searches, ratios "
        "geometric means with 95 % intervals over tasks. "
        f"Of {sooner['goals']} searches {sooner['never']} were not as good in {trials} programs; "
        "they count with XGBoost's time, or with their own if that is longer. "
        f"{search['date'][:10]}, {hardware(search)}; the two networks one seed, all three searches "
        f"in turns, {networks[0]['date'][:10]}, {hardware(networks[0])}. "
        "Errors are those of weights of the split's training part, at most 1,000 programs of a "
        "task, and of trees on our features and at most 200 programs of the same tasks. All "
        "tables, with commands and machines, are in "
        "[benchmarks/RESULTS.md](benchmarks/RESULTS.md)."
    )
    yield ""
    picture = f"benchmarks/results/{_SEARCH}.png"
    yield f"![Latency against programs measured, and against time]({picture})"


def _network(result: dict[str, Any]) -> Iterator[str]:
    """Yield what a network gains by our search and by the best one with XGBoost, of one seed."""
    ours, *others = result["searches"]
    xgboost = min(others, key=lambda search: search["points"][-1]["network_latency_s"])
    trials, network = result["settings"]["trials"], result["network"]
    latencies_ms = [1e3 * search["remeasured_latency_s"] for search in (ours, xgboost)]
    seconds = [search["points"][-1]["elapsed_s"] for search in (ours, xgboost)]
    goal_s = xgboost["points"][-1]["network_latency_s"]
    reached = (
        point["elapsed_s"]
        for point in ours["points"]
        if point["network_latency_s"] is not None and point["network_latency_s"] <= goal_s
    )
    reached_s = next(reached, seconds[0])  # one that never was stands with all of its seconds
    yield table_row(
        f"{network} after {trials} programs in all, the sum of its tasks timed together "
        f"(the whole network untuned: {1e3 * result['untuned_latency_s']:.1f} ms)",
        *(f"{latency:.1f} ms" for latency in latencies_ms),
        f"{latencies_ms[0] / latencies_ms[1] - 1:+.0%}",
    )
    yield table_row(
        f"{network}: time until a search is as good as XGBoost's after {trials} programs",
        f"{reached_s:.0f} s",
        f"{seconds[1]:.0f} s",
        f"{seconds[1] / reached_s:.1f} x",
    )


def _seconds(search: dict[str, Any], arm: str) -> float:
    """Return the median seconds until an arm's searches were as good as the reference's in the end.

    A search that never was stands with all of its seconds.
    """
    reference = search["summary"]["reference"]
    goals = {
        (each["task"], each["seed"]): each["steps"][-1]["latency_s"]
        for each in search["searches"]
        if each["arm"] == reference
    }
    taken_s: list[float] = [
        next(
            (
                step["elapsed_s"]
                for step in each["steps"]
                if step["latency_s"] <= goals[each["task"], each["seed"]]
            ),
            sum(each["split_s"].values()),
        )
        for each in search["searches"]
        if each["arm"] == arm
    ]
    return statistics.median(taken_s)


def _rates(throughput: dict[str, Any]) -> tuple[str, str, str]:
    ours, theirs = (
        1 / statistics.geometric_mean(
            task["seconds_per_state"][f"{name} total"]["median"] for task in throughput["tasks"]
        )
        for name in ("ours 1", "xgb 2")
    )  # fmt: skip
    ratio = throughput["requirements"]["geometric_mean_ratio"]["value"]
    return f"{ours:,.0f}, one thread", f"{theirs:,.0f}, two threads", f"{ratio:.0f} x"


def _error(what: str, split: str, weights: str, devices: Sequence[str]) -> tuple[str, ...]:
    """Write the errors on what was held out of the weights, and of XGBoost's trees."""
    parts = (_read(f"accuracy/{split}-{model}-0")["devices"] for model in (weights, _TREES))
    ours, theirs = (statistics.fmean(part[d]["mape"] for d in devices) for part in parts)
    return (
        f"mean error of the latency of a program, {what}",
        f"{ours:.0f} %",
        f"{theirs:.0f} %, on our features",
        f"{ours / theirs - 1:+.0%}",
    )


def _network_error(result: dict[str, Any]) -> tuple[str, ...]:
    """Write the errors of whole networks' latencies, and of the best of simple estimates."""
    rows = result["rows"]
    errors = {
        name: statistics.fmean(abs(row[f"{name}_s"] / row["measured_s"] - 1) for row in rows)
        for name in ("calibrated", *_SIMPLE)
    }
    best = min(_SIMPLE, key=errors.__getitem__)
    ours, theirs = errors["calibrated"], errors[best]
    networks = len({row["network"] for row in rows})
    batches = " and ".join(str(batch) for batch in sorted({row["batch"] for row in rows}))
    return (
        f"mean error of the latency of {networks} networks at batch {batches} on two virtual "
        "cores, nothing measured but three minutes of `device calibrate`",
        f"{100 * ours:.0f} %",
        f"{100 * theirs:.0f} %, {_SIMPLE[best]}",
        f"{ours / theirs - 1:+.0%}",
    )
