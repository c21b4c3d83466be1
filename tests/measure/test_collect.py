"""Whole collections, really measured, of very small operators; only the calibration is invented."""

import itertools
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tiny_tasks import TARGET, auto_scheduler, matmul, read_log, shrink_search, tvm
from tvm_cdmpp.bridge.logs import check_log
from tvm_cdmpp.data.workload_book import WorkloadBook
from tvm_cdmpp.errors import ConfigError, MeasureError, RecordError
from tvm_cdmpp.measure.calibration import CalibrationConfig, read_calibration
from tvm_cdmpp.measure.collect import CollectConfig, Collector, distinct_tasks
from tvm_cdmpp.measure.quiet import calibration_file
from tvm_cdmpp.measure.sampling import SampleMix
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession, RemoteDevices
from tvm_cdmpp.search.cost_model import CDMPPModel
from tvm_cdmpp.workloads.export import write_workloads

ROOT = Path(__file__).parents[2]
TASKS = [matmul(16, 16, 16), matmul(32, 32, 32)]
MIX = SampleMix(population=32)
FAST = MeasureOptions(repeat=2)
KEY = "loopback"


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[MeasureSession]:
    with MeasureSession() as session:
        yield session


@pytest.fixture(autouse=True)
def small_search(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_search(monkeypatch)


def timer(*latencies_s: float) -> Callable[[], float]:
    """Give these calibrations, then the last one for ever."""
    values = itertools.chain(latencies_s, itertools.repeat(latencies_s[-1]))
    return lambda: next(values)


def collector(
    log: Path,
    calibrations_s: Iterable[float] = (1.0,),
    *,
    programs: int = 4,
    keep_noisy: bool = False,
    pause_s: float = 0,
    measure: MeasureOptions = FAST,
) -> Collector:
    config = CollectConfig(
        programs=programs,
        batch_size=3,
        mix=MIX,
        measure=measure,
        calibration=CalibrationConfig(
            start_measurements=1, attempts=2, pause_s=pause_s, keep_noisy=keep_noisy
        ),
    )
    model = auto_scheduler.RandomModel()
    return Collector(TASKS, model, config, log=log, measure_calibration=timer(*calibrations_s))


def check_distinct(log: Path, number: int) -> None:
    """Each program once, and each of them valid."""
    programs = {str(measured.serialize()[0]) for measured, _ in read_log(log)}
    report = check_log(log, TASKS, TARGET)
    assert len(programs) == report.num_valid == number
    assert (report.num_failed, report.corrupt) == (0, ())


def test_collection_and_resume(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    first = collector(log)
    reports = list(first.batches())
    assert [(r.task, r.measured, r.done) for r in reports] == [
        (0, 3, 3),
        (1, 3, 6),
        (0, 1, 7),
        (1, 1, 8),
    ]
    assert {(r.attempts, r.noisy, r.excess) for r in reports} == {(1, False, 0)}
    assert reports[-1].wanted == 8
    assert reports[-1].eta_s == 0
    check_distinct(log, 8)

    second = collector(log, programs=6)
    assert (second.done, second.wanted) == (8, 12)
    assert [(r.task, r.measured) for r in second.batches()] == [(0, 2), (1, 2)]
    check_distinct(log, 12)
    for task, before in zip(second.results(), first.results(), strict=True):
        assert (task.programs, task.failed, task.exhausted) == (6, 0, False)
        # TVM writes latencies with six digits.
        assert 0 < (task.best_latency_s or 0) <= (before.best_latency_s or 0) * (1 + 1e-5)

    before_third = calibration_file(log).read_bytes()
    assert list(collector(log, programs=6).batches()) == []
    assert calibration_file(log).read_bytes() == before_third
    # Every line of the log has been vouched for, once.
    rows = [row for row in read_calibration(calibration_file(log)) if row.num_lines]
    lines = [n for row in rows for n in range(row.first_line, row.first_line + row.num_lines)]
    assert lines == list(range(12))


def test_noisy_batch_is_measured_again(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    # The start, a noisy batch, and its second attempt within the bound of 10%.
    reports = list(collector(log, (1, 1.2, 1.05, 1)).batches())
    assert [r.attempts for r in reports] == [2, 1, 1, 1]
    assert reports[0].excess == pytest.approx(0.05)
    assert not any(r.noisy for r in reports)
    check_distinct(log, 8)
    rows = read_calibration(calibration_file(log))
    assert [(r.noisy, r.first_line, r.num_lines) for r in rows[:4]] == [
        (False, 0, 0),
        (True, 0, 0),
        (False, 0, 3),
        (False, 3, 3),
    ]


def test_noisy_machine_is_refused_or_marked(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    batches = collector(log, (1, 1, 1.2)).batches()
    assert next(batches).measured == 3
    with pytest.raises(MeasureError, match=r"noisy: .*1200 ms, its best is 1000 ms, and 2 attempt"):
        next(batches)
    check_distinct(log, 3)

    going_on = collector(log, (1, 1.2), keep_noisy=True)
    reports = list(going_on.batches())
    assert all(r.noisy and r.attempts == 2 for r in reports)
    assert going_on.num_noisy == len(reports) == 3
    check_distinct(log, 8)
    marked = [row for row in read_calibration(calibration_file(log)) if row.noisy and row.num_lines]
    assert sum(row.num_lines for row in marked) == 5
    assert marked[0].first_line == 3


def test_machine_that_was_busy_at_first_is_noticed_later(tmp_path: Path) -> None:
    search = collector(tmp_path / "log.json", (1, 1, 0.5))
    assert not any(r.noisy for r in search.batches())
    assert search.num_noisy == 1


def test_start_needs_calibrations_that_agree(tmp_path: Path) -> None:
    config = CollectConfig(
        mix=MIX, calibration=CalibrationConfig(start_measurements=3, attempts=2, pause_s=0)
    )
    search = Collector(
        TASKS,
        auto_scheduler.RandomModel(),
        config,
        log=tmp_path / "log.json",
        measure_calibration=timer(1, 2, 2),
    )
    with pytest.raises(MeasureError, match="the machine is noisy"):
        next(search.batches())


def test_stop_ends_a_pause(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    search = collector(log, (1, 1, 2), pause_s=60)
    begin = time.monotonic()
    batches = search.batches()
    next(batches)
    signal.signal(signal.SIGALRM, lambda *_: search.stop())
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    assert list(batches) == []
    assert time.monotonic() - begin < 30
    check_distinct(log, 3)


def test_task_without_more_programs_is_done(tmp_path: Path) -> None:
    task = matmul(1, 2, 1)
    config = CollectConfig(programs=1000, batch_size=1000, mix=MIX, measure=FAST)
    # The random model would find other programs each time.
    search = Collector(
        [task],
        CDMPPModel(seed=0),
        config,
        log=tmp_path / "log.json",
        measure_calibration=timer(1),
    )
    # Not measured here: that nothing is drawn twice is what ends it.
    for sampler in search._samplers:
        while sampler.draw(1000):
            pass
    assert list(search.batches()) == []
    assert search.results()[0].exhausted
    assert search.wanted == search.done == 0


def test_all_programs_failing_is_an_error_with_reasons(tmp_path: Path) -> None:
    options = MeasureOptions(build_timeout_s=0, repeat=2)
    search = collector(tmp_path / "log.json", programs=1, measure=options)
    with pytest.raises(MeasureError, match=r"none of 2 programs .*2 x build timeout"):
        list(search.batches())


def test_full_disk_leaves_whole_records(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    batches = collector(log).batches()
    next(batches)
    before = log.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises((RecordError, MeasureError)):
            next(batches)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.read_bytes() == before


KILLED = """
    import pytest
    from pathlib import Path
    from tests.measure.test_collect import collector, shrink_search
    from tvm_cdmpp.measure.session import MeasureSession

    shrink_search(pytest.MonkeyPatch())
    with MeasureSession():
        for report in collector(Path({log!r}), programs=60).batches():
            print(report.done, flush=True)
"""


def test_killed_run_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED).format(log=str(log))],
        cwd=ROOT,  # where child processes find the workload
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["3\n", "6\n"]
        process.kill()
    kept = log.read_bytes()
    done = check_log(log, TASKS, TARGET).num_valid
    assert done >= 6
    log.write_bytes(kept + kept[:50])  # as if killed while it wrote
    search = collector(log, programs=-(-done // 2) + 1)
    assert search.done == done
    assert len(search.log_report.corrupt) == 1
    list(search.batches())
    assert log.read_bytes().startswith(kept)
    check_distinct(log, search.wanted)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def rpc_devices(number: int) -> Iterator[RemoteDevices]:
    """Start a tracker and servers on this machine."""
    try:
        port = free_port()
    except OSError as error:
        pytest.skip(f"no sockets: {error}")
    remote = RemoteDevices(host="127.0.0.1", port=port, key=KEY)
    processes: list[subprocess.Popen[bytes]] = []

    def start(what: str, port: int, *arguments: str) -> None:
        where = ["--host=127.0.0.1", f"--port={port}"]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "tvm_cdmpp", "rpc", what, *where, *arguments],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Groups of their own: a server leaves children behind when it alone is killed.
                start_new_session=True,
            )
        )

    try:
        start("tracker", port)
        # A server that finds no tracker waits for long.
        wait_until(lambda: answers(port))
        for _ in range(number):
            tracker = f"--tracker=127.0.0.1:{port}"
            start("server", free_port(), tracker, f"--key={KEY}")
        wait_until(lambda: count_or_zero(remote) == number)
        yield remote
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the RPC processes did not start"
        time.sleep(0.2)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def count_or_zero(remote: RemoteDevices) -> int:
    try:
        return remote.count()
    except MeasureError:
        return 0


def test_remote_devices(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.json"
    with rpc_devices(2) as remote:
        options = MeasureOptions(repeat=2, remote=remote)
        config = CollectConfig(
            programs=3,
            batch_size=3,
            mix=MIX,
            measure=options,
            # The calibration is TVM's own here; two servers on one machine disturb each other.
            calibration=CalibrationConfig(bound=1000, start_measurements=1, pause_s=0),
        )
        search = Collector(TASKS, auto_scheduler.RandomModel(), config, log=log)
        reports = list(search.batches())
        assert [(r.task, r.measured, r.failures) for r in reports] == [(0, 3, {}), (1, 3, {})]
        assert all(1e-6 < r.calibration_s < 1 for r in reports)
        check_distinct(log, 6)
        nobody = RemoteDevices(host=remote.host, port=remote.port, key="other")
        with pytest.raises(MeasureError, match=r"no server for the key 'other'; it has loopback"):
            nobody.count()
    with pytest.raises(MeasureError, match="does not answer"):
        remote.count()
    assert capfd.readouterr().out == ""


def test_distinct_tasks() -> None:
    again = matmul(16, 16, 16)
    assert distinct_tasks([*TASKS, again]) == TASKS
    assert tvm.ir.structural_equal(again.target, TASKS[0].target)


@pytest.mark.parametrize("wrong", [{"programs": 0}, {"batch_size": 0}, {"seed": -1}])
def test_config_is_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CollectConfig(**wrong)  # type: ignore[arg-type]


def test_workloads_of_a_log_are_next_to_it(tmp_path: Path) -> None:
    file = tmp_path / "workloads.jsonl"
    for name in ("one.json", "two.json", "one.json"):
        write_workloads(tmp_path / name, TASKS)
    assert len(file.read_text().splitlines()) == 4
    book = WorkloadBook.read([file])
    for task in TASKS:
        found = book.find(task.workload_key, "two.json")
        assert found is not None
        dag = auto_scheduler.ComputeDAG(list(tvm.ir.load_json(found.dag)))
        assert dag.workload_key() == task.compute_dag.workload_key()
        assert book.find(task.workload_key, "other.json") is None


def test_workloads_of_logs_that_start_together(tmp_path: Path) -> None:
    names = [f"{number}.json" for number in range(8)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: write_workloads(tmp_path / name, TASKS), names))
    book = WorkloadBook.read([tmp_path / "workloads.jsonl"])
    assert all(book.find(task.workload_key, name) for task in TASKS for name in names)
