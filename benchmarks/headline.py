"""The README's block of results: the comparison with XGBoost, and the picture of a search."""

import json
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.markdown import hardware, over_seeds, table_head, table_row

BEGIN, END = "<!-- headline -->", "<!-- /headline -->"

_RESULTS = Path(__file__).parent / "results"
_SEARCH = "resnet-18-untrained"
_OURS, _BASELINE = "cdmpp", "xgb-warm"
_WEIGHTS, _TREES = "cdmpp-evaluation", "trees"
_DEVICES = {"x86-24t": "a CPU of 24 threads", "nvidia-a100": "an A100"}


def with_headline(readme: str) -> str:
    """Return the README's text with its block made anew."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return before + "\n".join([BEGIN, *_headline(), END]) + after


def _read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((_RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def _headline() -> Iterator[str]:
    """Yield the comparison with XGBoost in one table, and the picture of a search."""
    search, throughput = _read(_SEARCH), _read("throughput")
    trials, seeds = search["settings"]["trials"], search["settings"]["seeds"]
    yield from table_head("", "this predictor", "TVM's XGBoost", "")
    yield table_row(
        f"{search['network']}, {len(search['tasks'])} heaviest tasks: latency after {trials} "
        "programs in all",
        *_in_two(
            [
                _middle(s["remeasured_latency_s"] for s in _of(search, m))
                for m in (_OURS, _BASELINE)
            ],
            1e3,
            "ms",
        ),
    )
    yield table_row(
        "time until the search is as good as XGBoost's at its end",
        *_in_two([_middle(_times_to_match(search, model)) for model in (_OURS, _BASELINE)], 1, "s"),
    )
    yield table_row(
        f"programs scored per second, geometric mean over {len(throughput['tasks'])} tasks",
        *_rates(throughput),
    )
    for device, what in _DEVICES.items():
        yield table_row(*_error(device, what))
    picture = f"benchmarks/results/{_SEARCH}.png"
    yield ""
    yield (
        "The predictor starts untrained in the search; XGBoost is "
        f"`{_BASELINE}`, TVM's model with the shortest random start. "
        f"{over_seeds(seeds, 'Mean', 'Median')}, winners timed together. "
        f"{search['date'][:10]}, {hardware(search)}. Errors are those of the weights `evaluation`, "
        "trained on at most 1,000 programs of a task, and of trees on our features and at most 200 "
        "programs of the same tasks. All tables, with commands and machines, are "
        "in [benchmarks/RESULTS.md](benchmarks/RESULTS.md)."
    )
    yield ""
    yield f"![Latency against programs measured, and against time]({picture})"


def _of(comparison: dict[str, Any], model: str) -> list[dict[str, Any]]:
    # Ours may be one of several that differ in their weights.
    return [search for search in comparison["searches"] if search["model"].startswith(model)]


def _times_to_match(comparison: dict[str, Any], model: str) -> Iterator[float | None]:
    """Yield, per seed, when a search was as fast as the baseline's is at its end; None if never."""
    for search, other in zip(_of(comparison, model), _of(comparison, _BASELINE), strict=True):
        goal_s = other["points"][-1]["network_latency_s"]
        reached = (
            point["elapsed_s"]
            for point in search["points"]
            if goal_s is not None and (point["network_latency_s"] or goal_s + 1) <= goal_s
        )
        yield next(reached, None)


def _rates(throughput: dict[str, Any]) -> tuple[str, str, str]:
    ours, theirs = (
        1 / statistics.geometric_mean(
            task["seconds_per_state"][f"{name} total"]["median"] for task in throughput["tasks"]
        )
        for name in ("ours 1", "xgb 2")
    )  # fmt: skip
    ratio = throughput["requirements"]["geometric_mean_ratio"]["value"]
    return f"{ours:,.0f}, one thread", f"{theirs:,.0f}, two threads", f"{ratio:.0f} x"


def _error(device: str, what: str) -> tuple[str, ...]:
    """Write the errors on held-out networks of the weights, and of XGBoost's trees."""
    parts = (_read(f"accuracy/networks-{model}-0") for model in (_WEIGHTS, _TREES))
    ours, theirs = (part["devices"][device]["mape"] for part in parts)
    return (
        f"mean error of the latency on networks that were not trained on, {what}",
        f"{ours:.0f} %",
        f"{theirs:.0f} %, on our features",
        f"{ours / theirs - 1:+.0%}",
    )


def _in_two(values: list[float | None], scale: float, unit: str) -> tuple[str, str, str]:
    """Write our figure, the baseline's, and by how much ours is smaller."""
    cells = ["-" if value is None else f"{value * scale:.3g} {unit}" for value in values]
    ours, theirs = values
    if ours is None or theirs is None:
        return cells[0], cells[1], ""
    factor = theirs / ours
    return cells[0], cells[1], f"{factor:.1f} x" if factor >= 2 else f"{ours / theirs - 1:+.0%}"


def _middle(values: Iterable[float | None]) -> float | None:
    """Return the median, the mean of two; None unless all are known."""
    known = list(values)
    return None if None in known else statistics.median(v for v in known if v is not None)
