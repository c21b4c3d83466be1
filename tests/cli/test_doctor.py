"""The report of a machine where all is well, and of one where nothing is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tvm_cdmpp
from tvm_cdmpp.cli.main import main

EXPECTED = {
    "Python", "TVM", "LLVM in TVM", "C++ compiler", "CUDA", "GPU", "CPU", "CPU features",
    "CPU cores", "torch", "xgboost", "optuna", "self-test",
}  # fmt: skip


def test_working_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["works"] is True
    assert {check["name"] for check in report["checks"]} == EXPECTED
    assert all(check["found"] for check in report["checks"])
    assert "3 measured" in report["checks"][-1]["found"]


def test_machine_with_nothing_says_what_to_install(tmp_path: Path) -> None:
    # -S hides the installed packages; PATH hides the compiler.
    env = {
        "PYTHONPATH": str(Path(tvm_cdmpp.__file__).parents[1]),
        "HOME": str(tmp_path),
        "PATH": str(tmp_path),
    }
    run = subprocess.run(
        [sys.executable, "-S", "-m", "tvm_cdmpp", "doctor", "--json"],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert run.returncode == 1, run.stderr
    report = json.loads(run.stdout)
    assert report["works"] is False
    failed = {check["name"]: check for check in report["checks"] if check["status"] == "fail"}
    assert set(failed) == {"TVM", "C++ compiler", "torch", "self-test"}
    assert 'pip install -e ".[tvm]"' in failed["TVM"]["advice"]
    assert "apt install g++" in failed["C++ compiler"]["advice"]
    assert failed["torch"]["advice"] == "`pip install torch`"
    assert failed["self-test"]["found"] == "not run"
    (xgboost,) = (check for check in report["checks"] if check["name"] == "xgboost")
    assert xgboost["status"] == "note"
    assert "only the baselines need it" in xgboost["advice"]


@pytest.mark.parametrize("missing", ["xgboost", "optuna"])
def test_extras_are_not_needed(
    missing: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tvm_cdmpp.cli import doctor

    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr(doctor, "_CHECKS", (doctor._check_packages,))
    assert main(["doctor", "--json"]) == 0
    statuses = {c["name"]: c["status"] for c in json.loads(capsys.readouterr().out)["checks"]}
    assert statuses.pop(missing) == "note"
    assert set(statuses.values()) == {"ok"}


def test_a_missing_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from tvm_cdmpp.cli import doctor

    monkeypatch.setattr(shutil, "which", lambda name: None)
    (check,) = doctor._check_gpu()
    assert check.status == "note"
    assert "`--target cuda` needs one" in check.advice


def test_table_shows_advice_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tvm_cdmpp.cli import doctor

    check = doctor.Check("TVM", "fail", "none", "pip install tvm-cdmpp[tvm]")
    monkeypatch.setattr(doctor, "_CHECKS", (lambda: [check],))
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "pip install tvm-cdmpp[tvm]" in shown
    assert "Repair what failed above first." in shown
    assert os.linesep in shown
