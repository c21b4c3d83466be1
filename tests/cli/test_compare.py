"""`compare` through the command line: a whole run, what a second one may do, wrong arguments."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tvm_cdmpp.cli.main import main

ROOT = Path(__file__).parents[2]
ARGUMENTS = ("compare", "mlp", "--trials", "4")


def test_compare_from_end_to_end_and_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "tvm_cdmpp", *ARGUMENTS]
    first = subprocess.run(
        [*command, "--models", "cdmpp,random", "--out", str(folder), "--build-timeout", "60"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    result = json.loads((folder / "comparison.json").read_text())
    assert result["complete"]
    assert result["settings"]["round_size"] == 1  # not the 64 that were asked for
    assert result["settings"]["measure"]["build_timeout_s"] == 60
    assert result["untuned_latency_s"] > 0
    assert set(result["threads"]) == {"cdmpp", "random"}
    for search in result["searches"]:
        assert [point["trials"] for point in search["points"]] == [1, 2, 3, 4]
        assert search["remeasured_latency_s"] > 0
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    rounds = [line for line in first.stderr.splitlines() if " seed 0 " in line]
    assert len(rounds) == 8
    assert rounds[-1].endswith("ETA 0 s")
    assert "whole network, untuned" in first.stdout
    assert "4 trials" in first.stdout
    assert "median" not in first.stdout  # of one seed
    assert "…" not in first.stdout

    # Another model instead of one of these would lose its result.
    written = (folder / "comparison.json").read_bytes()
    assert main([*ARGUMENTS, "--models", "cdmpp,xgb-warm", "--out", str(folder)]) == 2
    assert "holds another comparison: cdmpp, random" in capsys.readouterr().err
    assert (folder / "comparison.json").read_bytes() == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "trials must be at least 1"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--round", "0"], "round_size must be at least 1"),
        (["--tasks", "0"], "--tasks must be at least 1"),
        (["--models", "cdmpp,gbm"], "unknown cost model 'gbm'; expected one of cdmpp"),
        (["--input-shape", "data"], "NAME:SIZE"),
        (["--build-timeout", "0"], "--build-timeout must be at least 1 second"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "mlp", *arguments]) == 2
    assert message in capsys.readouterr().err
