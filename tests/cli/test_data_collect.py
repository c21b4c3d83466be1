"""What `data collect` reads from its command line, and how it refuses what it cannot use."""

from dataclasses import replace
from pathlib import Path

import pytest

from tvm_cdmpp.bridge.target import device_of, parse_target
from tvm_cdmpp.cli.data_collect import describe_batch, device_to_measure, parse_remote
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.devices.host import read_host_cpu
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.measure.reports import BatchReport
from tvm_cdmpp.measure.session import RemoteDevices


def test_remote_devices_may_go_by_this_machine_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    host = replace(read_host_cpu(), name="ACME Chip 9")
    monkeypatch.setattr("tvm_cdmpp.devices.detect.read_host_cpu", lambda: host)
    remote = RemoteDevices(host="h", port=1, key="k")
    named = device_to_measure("acme-chip-9", parse_target("llvm -num-cores=2"), remote)
    assert named is not None and named.name == "acme-chip-9"
    target = parse_target("llvm -num-cores=2 -model=acme-chip-9")
    assert device_to_measure(None, target, remote) is None
    with pytest.raises(ConfigError, match="say what the remote devices are"):
        device_to_measure(None, parse_target("llvm -num-cores=2 -model=acme-chip-8"), remote)


def test_another_cpu_is_not_measured_on_this_one(tmp_path: Path) -> None:
    target = parse_target("native")
    here = device_of(target).simd_bytes
    other = "graviton2" if here > 16 else "epyc-7452"
    with pytest.raises(ConfigError, match=rf"'{other}' has vectors of .* with {here:g}: it is ano"):
        device_to_measure(other, target, None)
    remote = RemoteDevices(host="h", port=1, key="k")
    assert device_to_measure(other, target, remote) is not None


def test_a_cpu_of_other_cores_is_doubted(capsys: pytest.CaptureFixture[str]) -> None:
    target = parse_target("native")
    alike = {32: "epyc-7452", 64: "epyc-9654", 16: "graviton2"}[int(device_of(target).simd_bytes)]
    assert device_to_measure(alike, target, None) is not None
    assert f"note: '{alike}' has " in capsys.readouterr().err


def test_remote() -> None:
    assert parse_remote(None, None, "native") is None
    expected = RemoteDevices(host="::1", port=9190, key="t4")
    assert parse_remote("::1:9190", "t4", "cuda") == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--programs", "0"], "programs must be at least 1"),
        (["--seed", "-1"], "seed must be a whole number"),
        (["--rpc", "host:9190"], "--rpc and --key belong together"),
        (["--key", "t4"], "--rpc and --key belong together"),
        (["--rpc", "host:99999", "--key", "t4"], "HOST:PORT"),
        (["--rpc", "host", "--key", "t4"], "HOST:PORT"),
        (["--rpc", "host:9190", "--key", "t4"], "--target"),
        (["--rpc", "127.0.0.1:1", "--key", "t4", "--target", "llvm"], "say what the remote dev"),
        (
            ["--rpc", "127.0.0.1:1", "--key", "a", "--target", "llvm", "--device", "graviton2"],
            "does not answer",
        ),
        (
            ["--rpc", "127.0.0.1:1", "--key", "t4", "--target", "cuda -model=t4"],
            "does not answer",
        ),
        (["--device", "quux"], "got 'quux'"),
        (["--device", "t4"], "'t4' is a gpu"),
        (["--target", "llvm -mtriple=aarch64-linux-gnu"], "cannot run on this machine"),
        (["--target", "opencl"], "cannot run on this machine"),
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


def test_a_gpu_is_looked_for_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tvm_cdmpp.devices.read_cuda_gpus", tuple)
    # Before anything else is said to be wrong, as all of that needs TVM.
    command = ["data", "collect", "mlp", "--log", str(tmp_path / "log.json"), "--programs", "0"]
    assert main([*command, "--target", "cuda"]) == 2
    assert "there is no CUDA GPU" in capsys.readouterr().err
    assert main([*command, "--target", "cuda", "--rpc", "127.0.0.1:1", "--key", "t4"]) == 2
    assert "programs must be at least 1" in capsys.readouterr().err


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
