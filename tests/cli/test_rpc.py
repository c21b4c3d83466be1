"""A tracker and a server on this machine, as a user starts them, and what is measured on them."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import tvm_cdmpp
from tests.tiny_tasks import matmul, shrink_search
from tvm_cdmpp import measure
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.errors import MeasureError
from tvm_cdmpp.search.reports import TuneSettings
from tvm_cdmpp.search.tuner import NetworkTuner

ROOT = Path(tvm_cdmpp.__file__).parents[1]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command; it says when it is ready. Ctrl-C ends it and all its children."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tvm_cdmpp", "rpc", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().endswith("Ctrl-C ends it\n")
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in said


def test_programs_are_measured_on_a_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the command would wait for quiet, half a minute at a time.
    unhurried = partial(measure.CalibrationConfig, bound=1000.0, pause_s=0.0)
    monkeypatch.setattr(measure, "CalibrationConfig", unhurried)
    monkeypatch.setattr("tvm_cdmpp.measure.bench._PASSES", 1)
    port, log = free_port(), tmp_path / "log.json"
    where = ["--host", "127.0.0.1", "--port"]
    collect = [
        "data", "collect", "mlp", "--log", str(log), "--programs", "1", "--rpc",
        f"127.0.0.1:{port}", "--key", "loop", "--target", "llvm -num-cores=1", "--device",
        "xeon-silver-4210", "--keep-noisy",
    ]  # fmt: skip
    tune = [
        "tune", "mlp", "--log", str(tmp_path / "tuned.json"), "--trials", "1", "--tasks", "1",
        "--rpc", f"127.0.0.1:{port}", "--key", "loop", "--target",
        "llvm -num-cores=1 -model=xeon-silver-4210", "--json",
    ]  # fmt: skip
    adapted = tmp_path / "adapted.json"
    adapt = [
        "adapt", "--networks", "mlp", "--budget", "4", "--batch", "2", "--records", str(adapted),
        "--rpc", f"127.0.0.1:{port}", "--key", "loop", "--target", "llvm -num-cores=1", "--device",
        "xeon-silver-4210", "--out", str(tmp_path / "weights"),
    ]  # fmt: skip
    with running("tracker", *where, str(port)):
        tracker = f"127.0.0.1:{port}"
        assert main(collect) == 2
        assert f"tvm-cdmpp rpc server --tracker {tracker} --key loop" in capsys.readouterr().err
        with running("server", "--tracker", tracker, "--key", "loop", *where, str(free_port())):
            assert main(collect) == 0
            assert "programs ran twice" in capsys.readouterr().out
            assert main(adapt) == 0
            capsys.readouterr()
            assert main(tune) == 0
            said = capsys.readouterr()
            assert "programs ran twice" in said.err
            result = json.loads(said.out.partition("{")[2].join(("{", "")))
        assert main(["rpc", "tracker", *where, str(port)]) == 2
        assert f"cannot listen at 127.0.0.1:{port}" in capsys.readouterr().err
    assert (result["trials"], result["gain"], result["problems"]) == (1, None, [])
    assert [task["tuned"] for task in result["tasks"]].count(True) == 1
    for each in (log, adapted):
        records = [json.loads(line) for line in each.read_text().splitlines()]
        assert records
        assert all(record["r"][1] == 0 for record in records)
    assert main(["rpc", "server", "--tracker", tracker, "--key", "loop", *where, "1"]) == 2
    assert f"tvm-cdmpp rpc tracker --port {port}" in capsys.readouterr().err


def wait_for(remote: measure.RemoteDevices) -> None:
    """Wait until the tracker knows of a server: one that listens has yet to tell it."""
    end = time.monotonic() + 30.0
    while True:
        try:
            remote.count()
        except MeasureError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


def test_a_search_ends_well_when_its_server_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_search(monkeypatch)
    port, log = free_port(), tmp_path / "log.json"
    where = ["--host", "127.0.0.1", "--port"]
    remote = measure.RemoteDevices(host="127.0.0.1", port=port, key="loop")
    settings = TuneSettings(
        trials=12,
        round_size=3,
        measure=measure.MeasureOptions(repeat=1, run_timeout_s=2, remote=remote),
    )
    tasks = [matmul(16, 16, 16), matmul(32, 32, 32)]
    reports = []
    with running("tracker", *where, str(port)), measure.MeasureSession() as session:
        server = running(
            "server", "--tracker", f"127.0.0.1:{port}", "--key", "loop", *where, str(free_port())
        )
        with server:
            wait_for(remote)
            search = NetworkTuner(tasks, [1, 1], "random", settings, log=log, session=session)
            rounds = search.rounds()
            reports.append(next(rounds))
        with pytest.raises(MeasureError, match="the devices were lost: 3 of the last 3 programs"):
            reports += rounds
    # What could not run says nothing of the programs.
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [record["r"][1] for record in records] == [0] * 3
    assert search.trials == 3 == reports[-1].trials
    assert search.results()[0].latency_s is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["server", "--tracker", "nowhere", "--key", "k"], "--tracker takes HOST:PORT"),
        (["server", "--tracker", "h:99999", "--key", "k"], "--tracker takes HOST:PORT"),
        (["tracker", "--port", "99999"], "cannot listen at 0.0.0.0:99999"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rpc", *arguments]) == 2
    assert message in capsys.readouterr().err
