"""Comparisons: turns, equal trials, re-measured winners, resuming, what the JSON holds."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_tasks import TARGET, matmul, read_log, shrink_search
from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession
from tvm_cdmpp.report.comparison_plot import plot_comparison
from tvm_cdmpp.search.comparison import CompareSettings, Point, SearchResult
from tvm_cdmpp.search.contest import compare_models, remeasure
from tvm_cdmpp.search.reports import RoundReport, TimeSplit

tvm = load_tvm()
TASKS = [matmul(16, 16, 16), matmul(32, 32, 32)]
SETTINGS = CompareSettings(
    models=("random", "xgb-warm"),
    seeds=1,
    trials=4,
    round_size=1,
    measure=MeasureOptions(repeat=2),
)


@pytest.fixture(scope="module")
def session() -> Iterator[MeasureSession]:
    with MeasureSession() as session:
        yield session


class _FirstIsSlow(MeasureOptions):
    """Runs all, and then says that what came first after a build took 1 s, the others 1 ms."""

    def runner(self, *, on_cpu: bool) -> Any:
        real = super().runner(on_cpu=on_cpu)

        class Runner:
            def run(self, *arguments: Any, **options: Any) -> list[Any]:
                results = real.run(*arguments, **options)
                assert all(int(result.error_no) == 0 for result in results)
                costs = [1.0] + [1e-3] * (len(results) - 1)
                return [tvm.auto_scheduler.MeasureResult([cost], 0, "", 1, 0) for cost in costs]

        return Runner()


def test_what_runs_first_after_a_build_decides_nothing(
    tmp_path: Path, session: MeasureSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_search(monkeypatch)
    monkeypatch.setattr("tvm_cdmpp.search.contest._FINAL_PASSES", 3)
    compare_models(
        "two matmuls", TASKS, [1, 2], dataclasses.replace(SETTINGS, models=("random",), trials=2),
        folder=tmp_path, session=session, command="test",
    )  # fmt: skip
    found = remeasure([tmp_path / "random-seed0.json"] * 3, TASKS, _FirstIsSlow(repeat=1))
    assert found == [[1e-3] * len(TASKS)] * 3


def test_compare_and_resume(
    tmp_path: Path, session: MeasureSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_search(monkeypatch)
    monkeypatch.setattr("tvm_cdmpp.search.contest._FINAL_PASSES", 2)
    turns: list[str] = []

    def on_round(model: str, seed: int, report: RoundReport) -> None:
        turns.append(model)
        assert seed == 0

    def run() -> str:
        comparison = compare_models(
            "two matmuls", TASKS, [1, 2], SETTINGS,
            folder=tmp_path, session=session, command="test", on_round=on_round,
        )  # fmt: skip
        plot_comparison(comparison, tmp_path / "plot.png")
        return comparison.to_json()

    first = json.loads(run())
    assert turns == ["random", "xgb-warm", "xgb-warm", "random"] * 2
    assert first["complete"]
    assert first["target"] == str(TARGET)
    assert first["weights"] == [1, 2]
    assert {"date", "command", "commit", "machine", "settings", "network", "tasks"} <= set(first)
    for search in first["searches"]:
        assert [point["trials"] for point in search["points"]] == [1, 2, 3, 4]
        assert [p["network_latency_s"] is None for p in search["points"]] == [True] + [False] * 3
        assert search["points"][-1]["elapsed_s"] == pytest.approx(sum(search["split"].values()))
        a, b = search["remeasured_task_latencies_s"]
        assert search["remeasured_latency_s"] == pytest.approx(a + 2 * b)
        assert len(read_log(tmp_path / f"{search['model']}-seed0.json")) == 4
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")

    # Nothing is searched again; winners are timed anew.
    second = json.loads(run())
    assert len(turns) == 8
    assert [s["points"] for s in second["searches"]] == [s["points"] for s in first["searches"]]

    # Another comparison must not go on in this folder.
    with pytest.raises(RecordError, match=r"belongs to another comparison: its .*tasks"):
        compare_models("one", TASKS[:1], [1], SETTINGS, folder=tmp_path, session=session)
    (tmp_path / "random-seed0.history.json").unlink()
    with pytest.raises(RecordError, match="has no history"):
        compare_models("two matmuls", TASKS, [1, 2], SETTINGS, folder=tmp_path, session=session)


def test_too_few_trials(tmp_path: Path, session: MeasureSession) -> None:
    settings = CompareSettings(models=("random",), trials=1, round_size=4)
    with pytest.raises(ConfigError, match=r"1 trials are too few .* 2 tasks"):
        compare_models("two matmuls", TASKS, [1, 2], settings, folder=tmp_path, session=session)


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


@pytest.mark.parametrize("models", [(), ("xgb", "xgb"), ("xgb", "nonsense")])
def test_models_are_checked(models: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="expected some of cdmpp"):
        CompareSettings(models=models)


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"trials": 0}, {"round_size": 0}])
def test_budgets_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must be at least 1, got 0"):
        CompareSettings(models=("random",), **wrong)  # type: ignore[arg-type]
