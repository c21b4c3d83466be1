"""The best predicted programs: built, written with their predictions, never measured."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny_tasks import auto_scheduler, matmul, read_log, shrink_search
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.measure import MeasureOptions, MeasureSession
from tvm_cdmpp.search.ahead import AheadSearch
from tvm_cdmpp.search.reports import TuneSettings

TASKS = [matmul(16, 16, 16), matmul(32, 32, 32)]
SETTINGS = TuneSettings(measure=MeasureOptions(repeat=2))


@pytest.fixture(scope="module")
def session() -> Iterator[MeasureSession]:
    with MeasureSession() as session:
        yield session


@pytest.fixture(autouse=True)
def small_search(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_search(monkeypatch)


def test_a_program_for_every_task(tmp_path: Path, session: MeasureSession) -> None:
    log = tmp_path / "predicted.json"
    search = AheadSearch(TASKS, [1, 2], "cdmpp", SETTINGS, log=log, session=session)
    assert search.network_latency_s is None
    found = list(search.run())
    assert session.run_s == 0.0
    assert search.elapsed.build_s > 0
    latencies_s = [task.latency_s or 0.0 for task in found]
    assert min(latencies_s) > 0
    assert search.network_latency_s == pytest.approx(latencies_s[0] + 2 * latencies_s[1])
    records = read_log(log)
    assert [measured.task.workload_key for measured, _ in records] == [
        task.workload_key for task in TASKS
    ]
    assert [float(result.costs[0].value) for _, result in records] == pytest.approx(
        latencies_s, rel=1e-5
    )
    assert log.read_bytes().startswith(b"# Predicted")
    best = auto_scheduler.ApplyHistoryBest(str(log))  # TVM can apply it
    assert best.query(TASKS[0].target, TASKS[0].workload_key, True, None, "") is not None


def test_other_models_cannot(tmp_path: Path, session: MeasureSession) -> None:
    with pytest.raises(ConfigError, match="needs a cdmpp model"):
        AheadSearch(TASKS, [1, 2], "xgb", SETTINGS, log=tmp_path / "x.json", session=session)
