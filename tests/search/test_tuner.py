"""Whole searches, really measured, of very small operators."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny_tasks import (
    TARGET,
    auto_scheduler,
    invent,
    matmul,
    read_log,
    shrink_search,
)
from tvm_cdmpp.bridge.logs import append_records, check_log
from tvm_cdmpp.data.workload_book import WorkloadBook
from tvm_cdmpp.errors import ConfigError, MeasureError, MissingDependencyError, RecordError
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession
from tvm_cdmpp.search.budget import largest_round, search_params
from tvm_cdmpp.search.reports import TuneSettings
from tvm_cdmpp.search.tuner import NetworkTuner

TASKS = [matmul(16, 16, 16), matmul(32, 32, 32)]
FAST = MeasureOptions(repeat=2)


@pytest.fixture(scope="module")
def session() -> Iterator[MeasureSession]:
    with MeasureSession() as session:
        yield session


@pytest.fixture(autouse=True)
def small_search(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_search(monkeypatch)


def tuner(
    log: Path,
    session: MeasureSession,
    model: str = "random",
    *,
    trials: int = 6,
    round_size: int = 3,
) -> NetworkTuner:
    settings = TuneSettings(trials=trials, round_size=round_size, measure=FAST)
    return NetworkTuner(TASKS, [1, 2], model, settings, log=log, session=session)


def test_choosing_a_task_counts_as_time_of_the_search(
    tmp_path: Path, session: MeasureSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policies may learn for it."""
    search = tuner(tmp_path / "log.json", session)
    choose = search._scheduler.next_task

    def slow() -> int | None:
        time.sleep(0.3)
        return choose()

    monkeypatch.setattr(search._scheduler, "next_task", slow)
    reports = list(search.rounds())
    assert all(report.split.search_s > 0.3 for report in reports)
    assert search.elapsed.total_s == pytest.approx(sum(r.split.total_s for r in reports))


def test_search_and_resume(tmp_path: Path, session: MeasureSession) -> None:
    log = tmp_path / "log.json"
    outside = np.random.get_state()[1].tolist()  # type: ignore[index] # noqa: NPY002
    # Half of the trials are for second rounds.
    first = tuner(log, session, trials=12)
    reports = list(first.rounds())
    assert [report.task for report in reports[:2]] == [0, 1]
    assert [report.trials for report in reports] == [3, 6, 9, 12]
    assert reports[0].network_latency_s is None
    results = first.results()
    assert reports[-1].network_latency_s == pytest.approx(
        sum(r.weight * (r.latency_s or np.nan) for r in results)
    )
    split = reports[0].split
    assert min(split.search_s, split.predict_s, split.build_s, split.run_s) > 0
    assert split.total_s == pytest.approx(reports[0].elapsed_s)
    assert np.random.get_state()[1].tolist() == outside  # type: ignore[index] # noqa: NPY002

    # The next run goes on, with another model, and measures nothing twice.
    second = tuner(log, session, "xgb-warm", trials=16)
    assert second.trials == 12
    # TVM writes latencies with six digits.
    assert second.network_latency_s == pytest.approx(first.network_latency_s, rel=1e-5)
    # It learned from the log: its scores are no longer random, which no two calls share.
    known = [(m, r) for m, r in read_log(log) if m.task.workload_key == TASKS[1].workload_key]
    states = [m.state for m, _ in known]
    scores = second._model.model.predict(TASKS[1], states)
    assert list(scores) == list(second._model.model.predict(TASKS[1], states))
    assert len(set(scores)) > 1
    last = list(second.rounds())
    assert [report.measured for report in last] == [3, 1]
    assert last[-1].eta_s == 0
    programs = [str(measured.state.transform_steps) for measured, _ in read_log(log)]
    assert len(programs) == 16
    keys = [measured.serialize()[0] for measured, _ in read_log(log)]
    assert len(set(map(str, keys))) == 16
    assert check_log(log, TASKS, TARGET).num_failed == 0
    with auto_scheduler.ApplyHistoryBest(str(log)) as best:
        assert best.query(TARGET, TASKS[1].workload_key, True, None, None) is not None

    # And a third one has nothing left to do.
    assert list(tuner(log, session, trials=16).rounds()) == []


@pytest.mark.parametrize(
    ("trials", "tasks", "expected"),
    [(1, 1, 1), (64, 24, 2), (96, 24, 2), (24, 24, 1), (144, 24, 3), (1000, 24, 20), (7, 2, 2)],
)
def test_few_trials_make_small_rounds(trials: int, tasks: int, expected: int) -> None:
    assert largest_round(trials, tasks) == expected


def test_small_rounds_breed_fewer_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the sizes of these tests
    name = "evolutionary_search_population"
    sizes = [search_params(size)[name] for size in (1, 2, 12, 16, 64)]
    assert sizes == [256, 256, 1536, 2048, 2048]
    assert search_params(64) == auto_scheduler.SketchPolicy.DEFAULT_PARAMS


def test_few_trials_go_to_the_heaviest_task(tmp_path: Path, session: MeasureSession) -> None:
    search = tuner(tmp_path / "log.json", session, trials=1)
    assert search.left_out == (0,)
    assert [(r.task, r.measured) for r in search.rounds()] == [(1, 1)]
    assert [r.tuned for r in search.results()] == [False, True]


def test_all_programs_failing_is_an_error_with_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine whose compiler is broken: what was built cannot be linked.
    (tmp_path / "g++").symlink_to(shutil.which("false") or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with MeasureSession() as fresh:
        search = tuner(tmp_path / "log.json", fresh)
        with pytest.raises(MeasureError, match=r"none of 6 programs .* x build failed.*example"):
            list(search.rounds())
    assert check_log(tmp_path / "log.json", TASKS, TARGET).num_failed == 6
    # They count as trials, so the message says how to start afresh.
    with MeasureSession() as fresh, pytest.raises(MeasureError, match=r"another log than .*log"):
        list(tuner(tmp_path / "log.json", fresh).rounds())


@pytest.mark.parametrize("compiler", [None, "/nonexistent/g++"])
def test_no_compiler_is_known_before_the_search(
    monkeypatch: pytest.MonkeyPatch, compiler: str | None
) -> None:
    monkeypatch.setattr("tvm.contrib.cc.get_cc", lambda: compiler)
    with pytest.raises(MissingDependencyError, match=r"apt install g\+\+"), MeasureSession():
        pass


def test_build_timeout_is_counted(tmp_path: Path, session: MeasureSession) -> None:
    options = MeasureOptions(build_timeout_s=0, repeat=2)
    settings = TuneSettings(trials=1, round_size=1, measure=options)
    search = NetworkTuner(
        TASKS, [1, 1], "random", settings, log=tmp_path / "log.json", session=session
    )
    rounds = search.rounds()
    assert next(rounds).failures == {"build timeout": 1}
    with pytest.raises(MeasureError, match="1 x build timeout"):
        next(rounds)


def test_full_disk_stops_the_search(tmp_path: Path, session: MeasureSession) -> None:
    search = tuner(tmp_path / "log.json", session)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    rounds = search.rounds()
    next(rounds)
    before = (tmp_path / "log.json").read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises(RecordError, match="could not be written"):
            next(rounds)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "log.json").read_bytes() == before


def test_full_build_folder_is_no_failure_of_programs(
    tmp_path: Path, session: MeasureSession
) -> None:
    log = tmp_path / "log.json"
    recorder = tuner(log, session)._recorder
    inputs, results = invent(TASKS[0], [1e-3, 0, 0])
    message = "OSError: [Errno 28] No space left on device: '/tmp/tmp1/lib.o'"
    results[2] = auto_scheduler.MeasureResult([1e10], 2, message, 0.1, 1.0)
    with pytest.raises(MeasureError, match=r"disk is full: 1 programs .*TMPDIR"):
        recorder.callback(None, inputs, results)
    assert recorder.measured == 2
    report = check_log(log, TASKS, TARGET)
    assert (report.num_valid, report.num_failed) == (2, 1)


def test_stop_keeps_the_batch_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.json"
    with MeasureSession() as session:
        search = tuner(log, session, trials=200, round_size=100)
        callback = search._recorder.callback

        def stop_after_batch(policy: object, inputs: object, results: object) -> None:
            callback(policy, inputs, results)
            session.stop()

        monkeypatch.setattr(search._recorder, "callback", stop_after_batch)
        (report,) = search.rounds()
    assert 0 < report.measured < 100
    assert check_log(log, TASKS, TARGET).num_valid == report.trials == report.measured


def test_stop_while_a_task_is_chosen_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where policies learn for that, the model looks whether to stop."""
    with MeasureSession() as session:
        search = tuner(tmp_path / "log.json", session)
        choose = search._scheduler.next_task

        def stopped() -> int | None:
            if search.trials:
                session.stop()
                session.check()
            return choose()

        monkeypatch.setattr(search._scheduler, "next_task", stopped)
        (report,) = search.rounds()
    assert 0 < report.trials == search.trials <= 3
    assert search.saved_s == 0.0


def test_time_of_finding_that_nothing_is_left_counts(
    tmp_path: Path, session: MeasureSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = tuner(tmp_path / "log.json", session)

    def nothing() -> None:
        time.sleep(0.1)

    monkeypatch.setattr(search._scheduler, "next_task", nothing)
    assert not list(search.rounds())
    assert search.elapsed.search_s > 0.1


def test_session_leaves_tvm_as_it_was() -> None:
    measure = auto_scheduler.measure
    stock = measure.PopenPoolExecutor, measure.PopenWorker
    with MeasureSession():
        assert stock != (measure.PopenPoolExecutor, measure.PopenWorker)
    assert stock == (measure.PopenPoolExecutor, measure.PopenWorker)
    program, _ = invent(matmul(8, 8, 8), [1e-3])
    (built,) = auto_scheduler.LocalBuilder().build(program, verbose=0)
    assert built.error_no == 0


def test_a_log_has_one_writer(tmp_path: Path, session: MeasureSession) -> None:
    log = tmp_path / "new folder" / "log.json"
    tuner(log, session)
    with MeasureSession() as other:
        with pytest.raises(RecordError, match=r"search that writes .*log\.json is going on"):
            tuner(log, other)
        tuner(tmp_path / "another.json", other)
    tuner(log, session)  # the same session may go on with it
    with MeasureSession() as other:  # and what a session held is free after it
        tuner(tmp_path / "another.json", other)


def test_a_log_says_what_its_workloads_are(tmp_path: Path, session: MeasureSession) -> None:
    log = tmp_path / "log.json"
    tuner(log, session)
    book = WorkloadBook.read([tmp_path / "workloads.jsonl"])
    for task in TASKS:
        assert book.find(task.workload_key, log.name) is not None


def program(measured: Any, result: Any) -> str:
    """Return what tells measured programs apart: workload, steps, and whether it ran."""
    line = auto_scheduler.measure_record.dump_record_to_string(measured, result)
    record = json.loads(line)
    return json.dumps([record["i"][0][0], record["i"][1][1], record["r"][1]])


class Recorded(auto_scheduler.cost_model.cost_model.PythonBasedModel):
    """Scores at random, and remembers what it is to learn from."""

    def __init__(self) -> None:
        super().__init__()
        self.learned: list[str] = []

    def predict(self, task: Any, states: Any) -> list[float]:
        return list(np.random.rand(len(states)))  # noqa: NPY002

    def update(self, inputs: Any, results: Any) -> None:
        self.learned += map(program, inputs, results)


def test_a_killed_search_ends_like_one_that_was_not(
    tmp_path: Path, session: MeasureSession
) -> None:
    whole_log, log = tmp_path / "whole.json", tmp_path / "killed.json"
    whole = tuner(whole_log, session, trials=16)
    reports = list(whole.rounds())

    process = start(log)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    assert lines == ["round 4 {}\n", "round 8 {}\n"]
    process.kill()
    process.communicate(timeout=60)
    with log.open("a") as torn:
        torn.write('{"i": [["[\\"tiny')  # as a kill while it is written may leave it
    done = check_log(log, TASKS, TARGET).num_valid
    assert 8 <= done < 16

    model = Recorded()
    settings = TuneSettings(trials=16, round_size=3, measure=FAST)
    second = NetworkTuner(TASKS, [1, 2], model, settings, log=log, session=session)
    assert len(model.learned) == second.trials == done
    assert sum(report.measured for report in second.rounds()) == 16 - done
    for search, file in ((whole, whole_log), (second, log)):
        assert search.trials == check_log(file, TASKS, TARGET).num_valid == 16
        assert search.network_latency_s is not None
        assert all(result.trials >= 3 for result in search.results())
    assert reports[-1].trials == 16
    # The model has learned from each record of the log, before and after the kill, once.
    in_log = [program(measured, result) for measured, result in read_log(log)]
    assert sorted(model.learned) == sorted(in_log)
    assert len(set(in_log)) == 16


def test_log_of_another_network_is_refused(tmp_path: Path, session: MeasureSession) -> None:
    log = tmp_path / "log.json"
    append_records(log, *invent(matmul(8, 8, 8), [1e-3]))
    with pytest.raises(RecordError, match="none of which is in this network"):
        tuner(log, session)


@pytest.mark.parametrize("wrong", [{"trials": 0}, {"round_size": 0}, {"seed": -1}])
def test_settings_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TuneSettings(**wrong)  # type: ignore[arg-type]


RUN = """
    import pytest
    from pathlib import Path
    from tests.tiny_tasks import matmul, shrink_search
    from tvm_cdmpp.cli.interrupt import stop_on_interrupt
    from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession
    from tvm_cdmpp.search.reports import TuneSettings
    from tvm_cdmpp.search.tuner import NetworkTuner

    shrink_search(pytest.MonkeyPatch())
    with MeasureSession() as session:
        settings = TuneSettings(trials=1000, round_size=4, measure=MeasureOptions(repeat=2))
        tuner = NetworkTuner(
            [matmul(16, 16, 16), matmul(32, 32, 32)], [1, 2], "random", settings,
            log=Path({log!r}), session=session,
        )
        with stop_on_interrupt(session):
            for report in tuner.rounds():
                print("round", report.trials, report.failures, flush=True)
    print("ended well")
"""


def start(log: Path) -> "subprocess.Popen[str]":
    """Start a search of the same tasks that would take for ever."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(RUN).format(log=str(log))],
        cwd=Path(__file__).parents[2],  # where child processes find the workload
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_interrupt_ends_well(tmp_path: Path) -> None:
    process = start(tmp_path / "log.json")
    assert process.stdout is not None
    assert process.stdout.readline() == "round 4 {}\n"
    # To the whole group, child processes included, as a terminal does.
    subprocess.run(["kill", "-s", signal.SIGINT.name[3:], "--", f"-{process.pid}"], check=True)
    rest, messages = process.communicate(timeout=60)
    assert rest.endswith("ended well\n"), messages
    assert "Ctrl-C again" in messages
    report = check_log(tmp_path / "log.json", TASKS, TARGET)
    assert report.num_valid >= 4
    assert (report.num_failed, report.corrupt) == (0, ())


def test_evolution_searches_and_resumes(tmp_path: Path, session: MeasureSession) -> None:
    log = tmp_path / "log.json"

    def evolving(trials: int) -> NetworkTuner:
        settings = TuneSettings(trials=trials, round_size=2, search="evolve", measure=FAST)
        return NetworkTuner(TASKS, [1, 2], "cdmpp", settings, log=log, session=session)

    first = evolving(6)
    reports = list(first.rounds())
    assert [report.task for report in reports[:2]] == [0, 1]
    assert [report.trials for report in reports] == [2, 4, 6]
    split = first.elapsed
    assert min(split.search_s, split.predict_s, split.update_s, split.build_s, split.run_s) > 0
    first._recorder.again(*([each] for each in read_log(log)[0]))
    second = evolving(10)
    assert second.trials == 6
    list(second.rounds())
    states = [
        str(task.compute_dag.infer_bound_from_state(measured.state))
        for measured, _ in read_log(log)
        for task in TASKS
        if task.workload_key == measured.task.workload_key
    ]
    assert len(set(states)) == 10  # some may have been measured again


def test_evolution_needs_a_model_that_scores_without_tvm(
    tmp_path: Path, session: MeasureSession
) -> None:
    settings = TuneSettings(search="evolve")
    with pytest.raises(ConfigError, match="needs a cdmpp model"):
        NetworkTuner(TASKS, [1, 2], "xgb", settings, log=tmp_path / "l.json", session=session)


def test_a_budget_in_time(tmp_path: Path, session: MeasureSession) -> None:
    settings = TuneSettings(trials=50, round_size=1, time_s=1.0, measure=FAST)
    search = NetworkTuner(
        TASKS, [1, 2], "random", settings, log=tmp_path / "l.json", session=session
    )
    splits = [report.split.total_s for report in search.rounds()]
    assert search.out_of_time
    assert 1 <= search.trials < 50
    assert sum(splits) + max(splits) >= 1.0
    # The round before the last was still expected to fit.
    assert sum(splits[:-1]) + max(splits[:-1], default=0.0) < 1.0
    with pytest.raises(ConfigError, match="must be above 0 s"):
        TuneSettings(time_s=0.0)


def test_only_some_tasks(tmp_path: Path, session: MeasureSession) -> None:
    settings = TuneSettings(trials=2, round_size=1, tasks=(0,), measure=FAST)
    search = NetworkTuner(
        TASKS, [1, 2], "random", settings, log=tmp_path / "l.json", session=session
    )
    assert search.left_out == (1,)
    list(search.rounds())
    assert [(result.trials, result.tuned) for result in search.results()] == [(2, True), (0, False)]


def test_time_that_an_early_end_saves(
    tmp_path: Path, session: MeasureSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = tuner(tmp_path / "log.json", session, trials=6, round_size=1)
    chosen = iter([0, 1, None])
    monkeypatch.setattr(search._scheduler, "next_task", lambda: next(chosen))
    for _ in search.rounds():
        assert search.saved_s == 0.0
    assert search.trials == 2
    assert search.saved_s == pytest.approx(2 * search.elapsed.total_s)
