"""What `data collect` reads from its command line, and how it refuses what it cannot use."""

from pathlib import Path

import pytest

from tvm_cdmpp.cli.data_collect import describe_batch, parse_remote
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.measure.reports import BatchReport
from tvm_cdmpp.measure.session import RemoteDevices


def test_remote() -> None:
    assert parse_remote(None, None, "native") is None
    expected = RemoteDevices(host="::1", port=9190, key="t4")
    assert parse_remote("::1:9190", "t4", "cuda") == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--programs", "0"], "programs must be at least 1"),
        (["--seed", "-1"], "seed must not be negative"),
        (["--rpc", "host:9190"], "--rpc and --key belong together"),
        (["--key", "t4"], "--rpc and --key belong together"),
        (["--rpc", "host:99999", "--key", "t4"], "HOST:PORT"),
        (["--rpc", "host", "--key", "t4"], "HOST:PORT"),
        (["--rpc", "host:9190", "--key", "t4"], "--target"),
        (["--rpc", "127.0.0.1:1", "--key", "t4", "--target", "llvm"], "does not answer"),
        (["--predictor", "/nonexistent/model"], "/nonexistent/model"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.json"
    assert main(["data", "collect", "mlp", "--log", str(log), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not log.exists()


def test_line_of_a_batch_says_what_is_wrong() -> None:
    report = BatchReport(
        task=1,
        name="dense",
        kinds={"random": 2, "best": 1},
        failures={"run timeout": 1},
        attempts=3,
        noisy=True,
        calibration_s=1.2e-3,
        excess=0.2,
        done=19,
        wanted=32,
        elapsed_s=10.0,
        eta_s=20.0,
    )
    line = describe_batch(report)
    assert line.startswith(
        "19/32  task 1 dense  1 best, 2 random  calibration 1.2 ms (best +20.0%)"
    )
    for part in ("measured 3 times", "NOISY", "failed: 1 run timeout", "ETA 20 s"):
        assert part in line
