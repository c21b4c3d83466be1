"""`tvm-cdmpp tune`, as it is typed."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_tasks import matmul, tvm
from tvm_cdmpp.cli.inputs import parse_tasks
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.cli.tune import default_log
from tvm_cdmpp.cli.tune_result import describe_gain
from tvm_cdmpp.errors import MeasureError
from tvm_cdmpp.measure.gain import Gain, Timing
from tvm_cdmpp.networks.deployment import Deployed
from tvm_cdmpp.networks.isolated import NetworkProcess

ROOT = Path(__file__).parents[2]


def test_default_log_names_network_and_cpu() -> None:
    assert default_log("mlp", tvm.target.Target("llvm -mcpu=znver2")) == Path("mlp.znver2.json")
    assert default_log("mlp", tvm.target.Target("cuda")) == Path("mlp.cuda.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "-1"], "--trials must be at least 0, got -1"),
        (["--search", "climb"], "unknown search 'climb'"),
        (["--search", "evolve", "--model", "xgb"], "needs a cdmpp model"),
        (["--trials", "0", "--model", "xgb"], "needs a cdmpp model"),
        (["--export", "library.dll"], ".so"),
        (["--log", "a.so", "--export", "./a.so"], "--export must be a file of its own"),
        (["--input-shape", "data"], "NAME:SIZE"),
        (["--model", "gbm"], "unknown cost model 'gbm'"),
        (["--weights", "none", "--model", "xgb"], "--weights are those of the model cdmpp"),
        (["--weights", "nowhere"], "No weights 'nowhere'"),
        (["--minutes", "0"], "must be above 0 s"),
        (["--tasks", "0"], "--tasks must be at least 1, got 0"),
        (["--tasks", "99,"], "--tasks: '99' is none of the"),
        (["--key", "k"], "--rpc and --key belong together"),
        (["--device", "t5"], "got 't5'"),
        (["--build-timeout", "0"], "--build-timeout must be at least 1 second, got 0"),
        (["--run-timeout", "-1"], "--run-timeout must be at least 1 second, got -1"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "mlp", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_tasks_by_number_and_by_name() -> None:
    tasks = [matmul(16, 16, 16), matmul(64, 64, 64), matmul(32, 32, 32)]
    weights = [1, 1, 1]
    assert parse_tasks(None, tasks, weights) is None
    assert parse_tasks("2", tasks, weights) == (1, 2)
    assert parse_tasks("2,", tasks, weights) == (2,)
    assert parse_tasks("0, 64x64", tasks, weights) == (0, 1)
    assert parse_tasks("matmul", tasks, weights) == (0, 1, 2)


_SHORT = (
    "import sys; from functools import partial; from tvm_cdmpp.measure import gain;"
    "few = gain.GainConfig(rounds=3, most_rounds=3, budget_s=0);"
    "gain.measure_gain = partial(gain.measure_gain, config=few);"
    "from tvm_cdmpp.cli.main import main; sys.exit(main(sys.argv[1:]))"
)
"""The command, but for networks that are not timed for a minute where other tests run beside."""


def command(*arguments: str, short: bool = False) -> "subprocess.CompletedProcess[str]":
    program = ["-c", _SHORT] if short else ["-m", "tvm_cdmpp"]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a whole run of the command leaves and says."""
    folder = tmp_path_factory.mktemp("tuned")
    # Both folders are new.
    log, library = folder / "logs" / "mlp.json", folder / "libraries" / "mlp.so"
    run = command(
        "tune", "mlp", "--trials", "4", "--log", str(log), "--export", str(library), short=True
    )
    assert run.returncode == 0, run.stderr
    (folder / "out.txt").write_text(run.stdout)
    (folder / "err.txt").write_text(run.stderr)
    return folder


def test_tune_from_end_to_end(tuned: Path) -> None:
    out, progress = (tuned / "out.txt").read_text(), (tuned / "err.txt").read_text()
    assert "4/4  task" in progress
    assert progress.count("compiling the network") == 2  # once each, the export included
    assert "batch_matmul 1x1x784,1x128x784 float32" in out
    assert re.search(r"medians of \d+ rounds", out)
    assert re.search(r"with the log +[\d.]+ [um]s +[\d.]+ to [\d.]+ [um]s +[\d.]+\n", out)
    assert "outputs of the tuned network and of " in out
    assert "the tasks' latencies add up to" in out
    assert f"library: {tuned}/libraries/mlp.so" in out
    module = tvm.runtime.load_module(str(tuned / "libraries" / "mlp.so"))
    executor = tvm.contrib.graph_executor.GraphModule(module["default"](tvm.cpu()))
    executor.run(data=np.zeros((1, 1, 28, 28), np.float32))
    assert executor.get_output(0).numpy().sum() == pytest.approx(1)
    names = {path.name for path in (tuned / "logs").iterdir()} - {"mlp.json.tvm.txt"}
    written = {"mlp.json", "mlp.json.state.safetensors", "workloads.jsonl"}
    assert names == written | {".mlp.json.lock", ".workloads.jsonl.lock"}


def test_import_knows_what_tune_wrote(tuned: Path, tmp_path: Path) -> None:
    log, out = str(tuned / "logs" / "mlp.json"), str(tmp_path / "store")
    run = command("data", "import", log, "--out", out, "--device", "x86-8t", "--json")
    assert run.returncode == 0, run.stderr
    bins = json.loads(run.stdout)["bins"]
    bins.pop("duplicate", None)  # of programs that ran twice, as the machine's pace had changed
    assert bins == {"kept": 4}


def test_nothing_left_to_search_is_said(tuned: Path) -> None:
    log = tuned / "logs" / "mlp.json"
    before = log.read_bytes()
    run = command("tune", "mlp", "--trials", "4", "--log", str(log), "--json", short=True)
    assert run.returncode == 0, run.stderr
    assert "4 of 4 trials done; raise --trials to search on" in run.stderr
    result = json.loads(run.stdout)
    assert (result["trials"], result["problems"], result["export"]) == (4, [], None)
    assert "learns from the log again" not in run.stderr
    assert {found["operator"] for found in result["overruled"]} <= {"matmul", "batch_matmul"}
    assert result["gain"]["rounds"] >= 3
    assert log.read_bytes() == before


def test_a_crash_while_timing_leaves_the_result(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(self: NetworkProcess, index: int) -> float:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGILL)
        return time(self, index)

    def fail(self: Deployed, path: Path) -> None:
        if path == tmp_path / "mlp.so":
            raise MeasureError("the disk is full")
        export(self, path)

    time, export = NetworkProcess.time, Deployed.export
    monkeypatch.setattr(NetworkProcess, "time", crash)
    monkeypatch.setattr(Deployed, "export", fail)
    log = str(tuned / "logs" / "mlp.json")
    arguments = ["tune", "mlp", "--trials", "4", "--log", log, "--export"]
    assert main([*arguments, str(tmp_path / "mlp.so")]) == 1
    captured = capsys.readouterr()
    assert "batch_matmul 1x1x784" in captured.out
    assert "could not be timed: the process that ran the compiled network met" in captured.err
    assert "the disk is full" in captured.err


@pytest.mark.parametrize(
    ("verdict", "exported", "says"),
    [
        ("faster", "tuned", "significantly faster, 1.00 times: the ranges do not overlap"),
        ("slower", "untuned", "warning: the tuned network is significantly slower"),
        ("no significant difference", "tuned", "no significant difference: the ranges overlap"),
    ],
)
def test_whether_the_difference_is_significant_is_said(
    tuned: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verdict: str,
    exported: str,
    says: str,
) -> None:
    timing = Timing(latency_s=1e-3, low_s=0.9e-3, high_s=1.1e-3)
    gain = Gain(
        untuned=timing,
        tuned=timing,
        speedup=1.0,
        verdict=verdict,
        rounds=3,
        noisy_rounds=3,
        quiet=False,
        max_relative_difference=0.0,
        outputs_agree=True,
        reference="the untuned network",
        num_tasks_without_record=0,
    )
    monkeypatch.setattr("tvm_cdmpp.measure.measure_gain", lambda *args, **settings: gain)
    deployed: list[Deployed] = []
    monkeypatch.setattr(Deployed, "export", lambda self, path: deployed.append(self))
    log = str(tuned / "logs" / "mlp.json")
    arguments = ["tune", "mlp", "--trials", "4", "--log", log, "--export"]
    assert main([*arguments, str(tmp_path / "mlp.so")]) == 0
    out = capsys.readouterr().out
    assert says in out
    assert "the machine was busy in 3 rounds" in out
    assert ("the untuned network, which is faster" in out) == (exported == "untuned")
    # Only the tuned one's weights are laid out anew.
    ranks = {weight.numpy().ndim for weight in deployed[0].factory.get_params().values()}
    assert (max(ranks) > 3) == (exported == "tuned")


def test_what_the_figures_do_not_say_is_said() -> None:
    timing = Timing(latency_s=1e-3, low_s=0.8e-3, high_s=1.3e-3)
    gain = Gain(
        untuned=timing, tuned=timing, speedup=1.0, verdict="no significant difference", rounds=10,
        noisy_rounds=0, quiet=True, max_relative_difference=0.0, outputs_agree=True,
        reference="the untuned network", num_tasks_without_record=0,
    )  # fmt: skip
    verdict, _, tasks = describe_gain(gain, 0.2e-3, 4)
    assert "the ranges overlap, the wider one is 50% of its latency wide, so that" in verdict
    assert verdict.endswith("run the same command again when the machine is quiet")
    assert "the sum leaves out the 4 tasks that were not tuned, and what is no task" in tasks
    narrow = replace(timing, low_s=0.95e-3, high_s=1.05e-3)
    verdict, _, tasks = describe_gain(replace(gain, untuned=narrow, tuned=narrow), 0.2e-3, 0)
    assert verdict == "no significant difference: the ranges overlap"
    assert "the sum leaves out what is no task" in tasks


def run_in_bash(line: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", line], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )


def test_a_search_does_not_need_stderr(tmp_path: Path) -> None:
    log = tmp_path / "mlp.json"
    line = f"{sys.executable} -c '{_SHORT}' tune mlp --trials 2 --tasks 2 --log {log} --json 2>&-"
    run = run_in_bash(line)
    assert run.returncode == 0
    assert json.loads(run.stdout)["trials"] == 2
    programs = {json.dumps(json.loads(line)["i"]) for line in log.read_text().splitlines()}
    assert len(programs) == 2  # one may have been measured again


def test_nobody_need_read_the_progress() -> None:
    script = (
        "from tvm_cdmpp.cli import show; console = show.stderr_console();"
        "[console.print(str(n) * 100_000) for n in range(10)]; print('done')"
    )
    run = run_in_bash(f'{sys.executable} -c "{script}" 2> >(true)')
    assert (run.returncode, run.stdout) == (0, "done\n")
