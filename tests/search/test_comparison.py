"""What a comparison is given and yields: checks, curves, JSON, and what a new one may replace."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.measure.session import MeasureOptions, RemoteDevices
from tvm_cdmpp.search.comparison import (
    CompareSettings,
    Point,
    SearchComparison,
    SearchResult,
    check_covers,
)
from tvm_cdmpp.search.reports import TimeSplit

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def test_curve() -> None:
    latencies = [None, 3.0, 2.0, 2.0]
    points = [
        Point(trials=10 * n, elapsed_s=float(n), network_latency_s=latency_s)
        for n, latency_s in enumerate(latencies, start=1)
    ]
    search = SearchResult(
        model="random", seed=0, points=tuple(points), split=TimeSplit(), failures={}
    )
    assert [search.latency_at(n) for n in (5, 10, 25, 40)] == [None, None, 3.0, 2.0]
    assert search.best_latency_s == 2.0
    assert search.first_reaching(2.5) == points[2]
    assert search.first_reaching(1.0) is None


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ((), "expected some of cdmpp, .*; got nothing"),
        (("xgb", "xgb"), "expected some of cdmpp"),
        (("cdmpp", "cdmpp:sketch"), "each once"),
        (("xgb", "nonsense"), "unknown cost model 'nonsense'; expected one of cdmpp"),
        (("cdmpp:climb",), "unknown search 'climb' in 'cdmpp:climb'; expected one of sketch"),
        (("xgb:evolve",), "needs a cdmpp model"),
    ],
)
def test_models_are_checked(models: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CompareSettings(models=models)


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"trials": 0}, {"round_size": 0}])
def test_budgets_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must be at least 1, got 0"):
        CompareSettings(models=("random",), **wrong)  # type: ignore[arg-type]


def comparison(**changes: Any) -> SearchComparison:
    settings = CompareSettings(models=("cdmpp", "random"), trials=8, seeds=2)
    searches = tuple(
        SearchResult(
            model=model,
            seed=seed,
            points=(Point(trials=8, elapsed_s=2.5, network_latency_s=1e-3),),
            split=TimeSplit(search_s=2.5),
            failures={"build timeout": 1},
            remeasured_latency_s=1e-3,
            remeasured_task_latencies_s=(1e-3, None),
            remeasured_passes_s=(1e-3,),
            failed_passes=1,
        )
        for model in settings.models
        for seed in range(settings.seeds)
    )
    made = SearchComparison(
        network="two", target="llvm", tasks=("a", "b"), weights=(1, 2), settings=settings,
        searches=searches, complete=True, date="2026-01-01", command="test", commit=None,
        machine={"cpu": "x"}, threads={"cdmpp": 1, "random": 1}, untuned_latency_s=2e-3,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize("remote", [None, RemoteDevices(host="localhost", port=9190, key="pi")])
def test_json_round_trip(remote: RemoteDevices | None) -> None:
    settings = dataclasses.replace(comparison().settings, measure=MeasureOptions(remote=remote))
    original = comparison(settings=settings)
    assert SearchComparison.from_json(original.to_json()) == original


def test_published_results_can_be_read() -> None:
    text = (RESULTS / "resnet-18-untrained.json").read_text(encoding="utf-8")
    assert SearchComparison.from_json(text).network == "resnet-18"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": {}}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(RecordError, match="expected the JSON of a comparison"):
        SearchComparison.from_json(text)


@pytest.mark.parametrize(
    "changes", [{}, {"models": ("random", "xgb", "cdmpp")}, {"trials": 9}, {"seeds": 3}]
)
def test_more_may_replace_less(tmp_path: Path, changes: dict[str, Any]) -> None:
    file, old = tmp_path / "comparison.json", comparison()
    settings = dataclasses.replace(old.settings, **changes)
    check_covers(file, settings, old.tasks, old.target)
    file.write_text(old.to_json())
    check_covers(file, settings, old.tasks, old.target)


@pytest.mark.parametrize(
    ("changes", "tasks", "target"),
    [
        ({"models": ("cdmpp", "xgb")}, ("a", "b"), "llvm"),
        ({"trials": 7}, ("a", "b"), "llvm"),
        ({"seeds": 1}, ("a", "b"), "llvm"),
        ({}, ("a",), "llvm"),
        ({}, ("a", "b"), "cuda"),
    ],
)
def test_less_or_other_may_not(
    tmp_path: Path, changes: dict[str, Any], tasks: tuple[str, ...], target: str
) -> None:
    file, old = tmp_path / "comparison.json", comparison()
    file.write_text(old.to_json())
    settings = dataclasses.replace(old.settings, **changes)
    with pytest.raises(RecordError, match=r"cdmpp, random on 2 tasks of two .* would be lost"):
        check_covers(file, settings, tasks, target)


def test_what_cannot_be_read_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "comparison.json"
    file.write_text("{")
    with pytest.raises(RecordError, match="would be replaced, but cannot be read"):
        check_covers(file, comparison().settings, ("a", "b"), "llvm")
