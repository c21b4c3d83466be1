"""Contests: turns, equal trials, re-measured winners, going on, what the JSON holds."""

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_tasks import TARGET, auto_scheduler, matmul, read_log, shrink_search
from tvm_cdmpp.devices.host import read_host_cpu
from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.files import locked
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession
from tvm_cdmpp.report.comparison_plot import plot_comparison
from tvm_cdmpp.search.comparison import CompareSettings, SearchComparison, TurnReport
from tvm_cdmpp.search.contest import run_contest

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


def test_compare_and_resume(
    tmp_path: Path, session: MeasureSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_search(monkeypatch)
    monkeypatch.setattr("tvm_cdmpp.search.winners.PASSES", 2)
    turns: list[str] = []

    def on_round(report: TurnReport) -> None:
        turns.append(report.model)
        assert report.seed == 0
        assert report.trials == len(turns) % 8 or 8
        assert report.trials_in_all == 8
        assert (report.eta_s > 0) == (report.trials < 8)

    def run() -> str:
        comparison = run_contest(
            "two matmuls", TASKS, [1, 2], SETTINGS,
            folder=tmp_path, session=session, command="test", on_round=on_round,
        )  # fmt: skip
        plot_comparison(comparison, tmp_path / "plot.png")
        text: str = comparison.to_json()
        assert SearchComparison.from_json(text) == comparison
        return text

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
        assert len(search["remeasured_passes_s"]) == 2
        assert search["failed_passes"] == 0
        assert len(read_log(tmp_path / f"{search['model']}-seed0.json")) == 4
    assert first["threads"] == {"random": 1, "xgb-warm": read_host_cpu().physical_cores}
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")

    # Nothing is searched again; winners are timed anew.
    second = json.loads(run())
    assert len(turns) == 8
    assert [s["points"] for s in second["searches"]] == [s["points"] for s in first["searches"]]

    # Another comparison must not go on in this folder.
    with pytest.raises(RecordError, match=r"belongs to another comparison: its .*tasks"):
        run_contest("one", TASKS[:1], [1], SETTINGS, folder=tmp_path, session=session)
    (tmp_path / "random-seed0.history.json").unlink()
    with pytest.raises(RecordError, match="has no history"):
        run_contest("two matmuls", TASKS, [1, 2], SETTINGS, folder=tmp_path, session=session)


def test_with_one_more_model_the_others_are_kept(
    tmp_path: Path, session: MeasureSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_search(monkeypatch)
    monkeypatch.setattr("tvm_cdmpp.search.winners.PASSES", 1)
    turns: list[str] = []
    settings = dataclasses.replace(SETTINGS, models=("random",), trials=2)
    run = partial(
        run_contest, "two matmuls", TASKS, [1, 2], folder=tmp_path, session=session,
        on_round=lambda report: turns.append(report.model),
    )  # fmt: skip
    (first,) = run(settings).searches
    again, other = run(dataclasses.replace(settings, models=("random", "cdmpp:evolve"))).searches
    assert again.points == first.points
    assert len(other.points) == 2
    assert turns == ["random"] * 2 + ["cdmpp:evolve"] * 2
    lines = (tmp_path / "cdmpp-evolve-seed0.json").read_text().splitlines()
    programs = {json.dumps(json.loads(line)["i"]) for line in lines}
    assert len(programs) == 2  # one may have been measured again


def test_a_round_has_the_size_that_the_trials_allow(
    tmp_path: Path, session: MeasureSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_search(monkeypatch)
    monkeypatch.setattr("tvm_cdmpp.search.winners.PASSES", 1)
    settings = dataclasses.replace(SETTINGS, models=("random",), round_size=64)
    comparison = run_contest(
        "two matmuls", TASKS, [1, 2], settings, folder=tmp_path, session=session
    )
    assert comparison.settings.round_size == 2
    assert [point.trials for point in comparison.searches[0].points] == [2, 4]
    # More trials would make other rounds, unless one asks for the same; fewer lose points.
    for trials, round_size, message in (
        (40, 64, r"its round_size differ \(it had --round 2\)"),
        (3, 1, "its round_size differ"),
        (8, 2, None),
        (6, 2, "has 8 trials already, more than the 6 asked for"),
    ):
        changed = dataclasses.replace(settings, trials=trials, round_size=round_size)
        expected: AbstractContextManager[object] = (
            pytest.raises(RecordError, match=message) if message else nullcontext()
        )
        with expected:
            run_contest("two matmuls", TASKS, [1, 2], changed, folder=tmp_path, session=session)
    patient = dataclasses.replace(settings.measure, build_timeout_s=60)
    changed = dataclasses.replace(settings, trials=8, round_size=2, measure=patient)
    with pytest.raises(RecordError, match=r"measure differ \(it had --build-timeout 15 --run-t"):
        run_contest("two matmuls", TASKS, [1, 2], changed, folder=tmp_path, session=session)


class BatchesOfTwo(MeasureOptions):
    """One build at a time, whatever the machine has; TVM's batches are twice that."""

    def builder(self) -> Any:
        return auto_scheduler.LocalBuilder(timeout=self.build_timeout_s, n_parallel=1)


IN_BATCHES = CompareSettings(
    models=("random",), trials=16, round_size=4, measure=BatchesOfTwo(repeat=1)
)
KILLED_SEARCH = """
import os, signal, sys
from pathlib import Path
import pytest
from tests.search.test_contest import IN_BATCHES, TASKS
from tests.tiny_tasks import shrink_search
from tvm_cdmpp.measure.session import MeasureSession
from tvm_cdmpp.search import contest, tuner

class Killed(tuner.Recorder):
    def callback(self, policy, inputs, results):
        super().callback(policy, inputs, results)
        if len(Path(self._log).read_text().splitlines()) >= 6:
            os.kill(os.getpid(), signal.SIGKILL)

tuner.Recorder = Killed
shrink_search(pytest.MonkeyPatch())
with MeasureSession() as session:
    contest.run_contest(
        "two matmuls", TASKS, [1, 2], IN_BATCHES, folder=Path(sys.argv[1]), session=session
    )
"""


def test_a_kill_inside_a_round_keeps_its_programs_and_their_time(
    tmp_path: Path, session: MeasureSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_search(monkeypatch)
    monkeypatch.setattr("tvm_cdmpp.search.winners.PASSES", 1)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_SEARCH, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    measured = len(read_log(tmp_path / "random-seed0.json"))
    assert measured % 4 == 2  # in the midst of a round
    history = json.loads((tmp_path / "random-seed0.history.json").read_text())
    whole_rounds = history["points"][-1]
    assert whole_rounds["trials"] == measured - 2
    known_s = sum(history["split"].values())
    assert known_s > whole_rounds["elapsed_s"]

    (search,) = run_contest(
        "two matmuls", TASKS, [1, 2], IN_BATCHES, folder=tmp_path, session=session
    ).searches
    at_the_kill = search.points[measured // 4]
    assert at_the_kill.trials == measured
    assert at_the_kill.elapsed_s == pytest.approx(known_s)
    assert search.points[-1].trials == 16
    assert search.points[-1].elapsed_s == pytest.approx(search.split.total_s)


def test_failures_are_those_in_the_log(
    tmp_path: Path, session: MeasureSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of a round that a kill cut short."""
    shrink_search(monkeypatch)
    monkeypatch.setattr("tvm_cdmpp.search.winners.PASSES", 1)
    settings = dataclasses.replace(SETTINGS, models=("random",))
    run = partial(run_contest, "two matmuls", TASKS, [1, 2], folder=tmp_path, session=session)
    run(settings)
    log = tmp_path / "random-seed0.json"
    records = log.read_text().splitlines()
    failed = json.loads(records[-1])
    failed["r"][0], failed["r"][1] = [1e10], 6
    log.write_text("\n".join([*records[:-1], json.dumps(failed)]) + "\n")
    assert run(settings).searches[0].failures == {"build timeout": 1}


def test_a_log_that_lost_records_is_not_continued(
    tmp_path: Path, session: MeasureSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_search(monkeypatch)
    monkeypatch.setattr("tvm_cdmpp.search.winners.PASSES", 1)
    settings = dataclasses.replace(SETTINGS, models=("random",))
    run = partial(run_contest, "two matmuls", TASKS, [1, 2], folder=tmp_path, session=session)
    run(settings)
    (tmp_path / "random-seed0.json").unlink()
    with pytest.raises(RecordError, match=r"has 0 records, but its history knows 4"):
        run(dataclasses.replace(settings, trials=6))


def test_one_contest_per_folder(tmp_path: Path, session: MeasureSession) -> None:
    with (
        locked(tmp_path / "comparison.lock", "a test"),
        pytest.raises(RecordError, match=r"a comparison in .* is going on already"),
    ):
        run_contest("two matmuls", TASKS, [1, 2], SETTINGS, folder=tmp_path, session=session)


def test_too_few_trials(tmp_path: Path, session: MeasureSession) -> None:
    settings = CompareSettings(models=("random",), trials=1, round_size=4)
    with pytest.raises(ConfigError, match=r"1 trials are too few .* 2 tasks"):
        run_contest("two matmuls", TASKS, [1, 2], settings, folder=tmp_path, session=session)
