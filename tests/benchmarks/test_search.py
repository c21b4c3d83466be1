"""Searches side by side: what their summary says, and that a run goes on where it was."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.droplet import MeasuredDescent
from benchmarks.recorded_trees import PretrainedXGB, grow_recorded_trees
from benchmarks.search import compare
from benchmarks.search_arms import known_arms
from benchmarks.search_runs import SearchRun, Settings
from benchmarks.search_summary import Curve, geometric_mean, summarise, winners_summary
from benchmarks.search_tables import search_section
from benchmarks.search_tasks import NamedTask
from tests.data.logs import book, import_all, log_file, records, write_log
from tests.tiny_tasks import auto_scheduler, invent, matmul, read_log, shrink_search
from tvm_cdmpp.bridge.logs import append_records
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession

INF = math.inf


def curve(arm: str, latencies: list[float], *, task: str = "t", pace_s: float = 1.0) -> Curve:
    """A search that measures two programs at a time."""
    count = len(latencies)
    batches = [(min(n + 2, count), pace_s * min(n + 2, count)) for n in range(0, count, 2)]
    split = {"search_s": 0.0, "predict_s": 0.1, "update_s": 0.1, "build_s": 0.6, "run_s": 0.2}
    return Curve(
        task=task,
        arm=arm,
        seed=0,
        latencies_s=tuple(latencies),
        batches=tuple(batches),
        split_s={part: share * pace_s * count for part, share in split.items()},
    )


def test_a_curve() -> None:
    found = curve("random", [INF, 4, 5, 2, 2])
    assert [found.latency_at(n) for n in (0, 1, 2, 3, 4, 99)] == [INF, INF, 4, 4, 2, 2]
    assert [found.latency_after(s) for s in (1.9, 2, 4, 99)] == [INF, 4, 2, 2]
    # Equal is as good; seconds are those of the batch's end.
    assert found.first_reaching(4) == (2, 2.0)
    assert found.first_reaching(3) == found.first_reaching(2) == (4, 4.0)
    assert found.first_reaching(1.9) is None
    assert [tuple(step.values()) for step in found.steps] == [(2, 2.0, 4), (4, 4.0, 2)]


def test_ratios_are_to_the_best_xgboost_arm() -> None:
    latencies = {"cdmpp": [2.0, 2, 2, 1], "xgb-warm": [4.0, 4, 4, 2], "xgb": [8.0, 8, 8, 8]}
    curves = [
        curve(arm, found, task=task, pace_s=3.0 if arm == "xgb-warm" else 1.0)
        for task in "ab"
        for arm, found in latencies.items()
    ]
    summary = summarise(curves, budgets=(1, 4, 64))
    assert (summary["reference"], summary["reference_trials"]) == ("xgb-warm", 4)
    ours = summary["arms"]["cdmpp"]
    assert list(ours["latency"]) == ["1", "4"]
    assert ours["latency"]["1"]["mean"] == pytest.approx(0.5)
    assert ours["latency_to_goal"]["1"]["mean"] == pytest.approx(1.0)
    # The goal, 2, was reached with the first batch of two, in 2 s, against 4 programs in 12 s.
    assert ours["sooner"]["seconds"]["mean"] == pytest.approx(6.0)
    assert ours["sooner"]["trials"]["mean"] == pytest.approx(4.0)
    assert (ours["sooner"]["never"], ours["sooner"]["goals"]) == (0, 2)
    assert ours["split"]["build"] == pytest.approx(0.6)
    assert ours["split"]["seconds"] == pytest.approx(4.0)
    assert summary["arms"]["xgb-warm"]["sooner"]["seconds"]["mean"] == 1.0


def test_who_never_gets_there_is_counted_and_is_not_sooner() -> None:
    curves = [
        curve("xgb-warm", [4, 2, 2, 2], pace_s=2.0),
        curve("gave up", [3], pace_s=1.0),
        curve("too slow", [3, 3, 3, 3], pace_s=16.0),
    ]
    arms = summarise(curves)["arms"]
    for arm, seconds, trials in (("gave up", 1.0, 1.0), ("too slow", 4 / 64, 2 / 4)):
        sooner = arms[arm]["sooner"]
        assert (sooner["never"], sooner["goals"]) == (1, 1)
        assert sooner["seconds"]["mean"] == pytest.approx(seconds)
        assert sooner["trials"]["mean"] == pytest.approx(trials)


def test_searches_without_a_program_are_counted() -> None:
    curves = [
        curve("xgb-warm", [INF, INF, 2, 2]),
        curve("cdmpp", [1, 1, 1, 1]),
        curve("xgb-warm", [2, 2, 2, 2], task="u"),
        curve("cdmpp", [INF, 1, 1, 1], task="u"),
    ]
    found = summarise(curves, budgets=(1, 4))["arms"]["cdmpp"]["latency"]
    first = found["1"]
    assert (first["without_program"], first["reference_without_program"]) == (1, 1)
    assert (first["mean"], first["tasks"]) == (None, 0)
    assert (found["4"]["mean"], found["4"]["tasks"]) == (pytest.approx(0.5), 2)


def test_without_xgboost_there_is_only_the_time() -> None:
    summary = summarise([curve("cdmpp", [1, 1])])
    assert summary["reference"] is None
    assert list(summary["arms"]["cdmpp"]) == ["split"]


def test_a_task_weighs_as_much_as_any_and_the_interval_is_of_tasks() -> None:
    assert geometric_mean({"a": [2.0] * 9, "b": [8.0]})["mean"] == pytest.approx(4.0)
    alike = geometric_mean({str(n): [3.0] for n in range(5)})
    assert alike["low"] == alike["high"] == pytest.approx(3.0)
    generator = np.random.default_rng(1)
    widths = []
    for tasks in (8, 128):
        of_tasks = {str(n): [float(np.exp(generator.normal()))] for n in range(tasks)}
        found = geometric_mean(of_tasks)
        assert found["low"] < found["mean"] < found["high"]
        widths.append(math.log(found["high"] / found["low"]))
    assert widths[1] < 0.5 * widths[0]


def test_winners_are_compared_seed_by_seed() -> None:
    timed = {"cdmpp-0": 1.0, "xgb-warm-0": 2.0, "cdmpp-1": 3.0, "xgb-warm-1": 3.0, "random-1": 6.0}
    winners = {"t": {name: {"latency_s": value} for name, value in timed.items()}}
    found = winners_summary(winners, "xgb-warm")
    assert found["cdmpp"]["mean"] == pytest.approx(math.sqrt(0.5))
    assert found["random"]["mean"] == pytest.approx(2.0)
    assert winners_summary(winners, None) == {}


@pytest.fixture(scope="module")
def session() -> Iterator[MeasureSession]:
    with MeasureSession() as session:
        yield session


def test_searches_from_end_to_end(
    tmp_path: Path, session: MeasureSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_search(monkeypatch)
    monkeypatch.setattr("tvm_cdmpp.search.winners.PASSES", 1)
    task = NamedTask("tiny", "none", "matmul", matmul(16, 16, 16))
    settings = Settings(trials=4, round_size=2, measure=MeasureOptions(repeat=2))
    known = known_arms(12, None)
    assert "droplet-10" in known
    assert "droplet-100" not in known

    def run(*names: str, **changed: Any) -> dict[str, Any]:
        return compare(
            [task], {name: known[name] for name in names}, 1, changed.get("settings", settings),
            folder=tmp_path, out=tmp_path / "search.json", session=session,
        )  # fmt: skip

    first = run("cdmpp")
    result = run("cdmpp", "xgb-warm")
    assert result == json.loads((tmp_path / "search.json").read_text())
    assert (tmp_path / "search.png").stat().st_size > 10_000
    assert result["missing"] == 0
    assert result["summary"]["reference"] == "xgb-warm"
    for found in result["searches"]:
        kept = json.loads((tmp_path / "tiny" / f"{found['arm']}-0.json").read_text())
        assert kept["is_over"]
        first_batch, last_batch = kept["batches"]
        assert first_batch["trials"] == 2
        assert last_batch["trials"] in range(4, found["trials"] + 1)
        assert kept["split_s"]["build_s"] > 0
        records = read_log(tmp_path / "tiny" / f"{found['arm']}-0.log.json")
        # A program that was slow beyond belief, as on a busy machine, is measured again.
        assert len(records) == found["trials"] in range(4, 7)
        for batch in kept["batches"]:
            steps = [step for step in found["steps"] if step["trials"] <= batch["trials"]]
            assert steps[-1]["latency_s"] == batch["latency_s"]
        assert found["winner"]["latency_s"] > 0
    assert [found["steps"] for found in first["searches"]] == [
        found["steps"] for found in result["searches"][:1]
    ]
    assert first["winners"] == {}
    assert "xgb-warm" in "\n".join(search_section(tmp_path / "search.json", result))
    with pytest.raises(RecordError, match="another comparison"):
        run("cdmpp", settings=Settings(trials=5, round_size=2))


def test_a_killed_search_goes_on(
    tmp_path: Path, session: MeasureSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_search(monkeypatch)
    task = NamedTask("tiny", "none", "matmul", matmul(16, 16, 16))
    settings = Settings(trials=4, round_size=1, measure=MeasureOptions(repeat=2))
    arm = known_arms(4, None)["random"]

    def search() -> SearchRun:
        return SearchRun(task, "random", arm, 0, settings=settings, folder=tmp_path)

    rounds = search().rounds(session)
    next(rounds)
    del rounds
    before = search().curve()
    assert len(before.latencies_s) == 1
    again = search()
    assert [words.split(": ")[1].split(",")[0] for words in again.rounds(session)] == [
        f"{n}/4 trials" for n in (2, 3, 4)
    ]
    after = search()
    assert after.is_over
    assert after.curve() == again.curve()
    assert after.curve().latencies_s[:1] == before.latencies_s
    assert after.curve().batches[0] == before.batches[0]
    assert after.curve().seconds > before.seconds
    assert list(after.rounds(session)) == []


def test_the_descent_measures_what_is_nearest_and_moves_to_what_is_better(
    tmp_path: Path, session: MeasureSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, log = matmul(16, 16, 16), tmp_path / "log.json"
    append_records(log, *invent(task, [3e-3, 2e-3, 0.0]))
    number = 0

    def measure(_: Any, policy: Any, inputs: list[Any]) -> list[Any]:
        nonlocal number
        results = []
        for _ in inputs:
            number += 1
            results.append(auto_scheduler.MeasureResult([1e-3 / number], 0, "", 0.1, 1.0))
        append_records(log, inputs, results)
        return results

    monkeypatch.setattr("benchmarks.droplet.BatchMeasurer.measure", measure)
    descent = MeasuredDescent(
        task, log, session, MeasureOptions(), trials=14, batch=4, seed=0, on_batch=lambda _: None
    )
    begun = descent._best[1]
    assert descent._best[0] == 2e-3
    assert [descent._count for _ in descent.rounds()] == [7, 11, 14]
    assert descent._best[0] == 1e-3 / 11
    assert begun is not None
    lines = log.read_text().splitlines()
    assert len({json.dumps(json.loads(line)["i"]) for line in lines}) == 14
    assert descent.elapsed.total_s > 0


def test_trees_of_recorded_programs_go_on_in_a_search(tmp_path: Path) -> None:
    logs = [
        log_file(write_log(tmp_path / "a.json", records(12)), "x86-24t", network="alexnet"),
        log_file(write_log(tmp_path / "b.json", records(9, 80)), "x86-24t", network="vgg_16"),
        log_file(write_log(tmp_path / "c.json", records(7, 96)), "x86-24t", network="resnet_50"),
    ]
    import_all(tmp_path / "store", *logs, known=book(37, 80, 96))
    store = RecordStore.open(tmp_path / "store")
    trees = grow_recorded_trees(store, tmp_path, 8)
    assert grow_recorded_trees(store, tmp_path, 8) == trees
    task = matmul(32, 32, 32)
    inputs, results = invent(task, [1e-3 * (n + 1) for n in range(12)])
    states = [measured.state for measured in inputs]
    models = [PretrainedXGB(trees, seed=1, frozen=frozen) for frozen in (True, False)]
    before = [np.array(model.predict(task, states)) for model in models]
    np.testing.assert_array_equal(before[0], before[1])
    for model in models:
        model.update(inputs[:6], results[:6])
        model.update(inputs[6:], results[6:])
    frozen, learned = (np.array(model.predict(task, states)) for model in models)
    np.testing.assert_array_equal(frozen, before[0])
    assert np.corrcoef(learned, 1 / np.arange(1, 13))[0, 1] > 0.95
    arms = known_arms(16, trees)
    assert {"xgb-frozen", "xgb-pretrained"} <= set(arms)
