"""How errors become messages and exit codes."""

import argparse
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tvm_cdmpp
from tvm_cdmpp import __version__
from tvm_cdmpp.cli import main as cli
from tvm_cdmpp.errors import NetworkError


def command(run: Callable[[argparse.Namespace], int]) -> SimpleNamespace:
    def add_parser(subparsers: Any) -> None:
        subparsers.add_parser("try").set_defaults(func=run)

    return SimpleNamespace(add_parser=add_parser)


def raises(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (NetworkError("unknown network 'x'"), 2, "tvm-cdmpp: unknown network 'x'\n"),
        (KeyboardInterrupt(), 130, "tvm-cdmpp: interrupted\n"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "log.json"),
            2,
            "tvm-cdmpp: [Errno 28] No space left on device: 'log.json'; "
            "free some space and run the same command again\n",
        ),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "log.json"),
            2,
            "tvm-cdmpp: [Errno 13] Permission denied: 'log.json'\n",
        ),
    ],
)
def test_expected_errors_are_one_message(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "_COMMANDS", (command(raises(error)),))
    assert cli.main(["try"]) == code
    assert capsys.readouterr() == ("", message)


def test_mistakes_in_the_code_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_COMMANDS", (command(raises(ZeroDivisionError())),))
    with pytest.raises(ZeroDivisionError):
        cli.main(["try"])


@pytest.mark.parametrize("error", [AttributeError("decode"), NetworkError("cannot compile")])
def test_an_interrupt_that_became_another_error_is_one(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: argparse.Namespace) -> int:
        with suppress(KeyboardInterrupt):  # as TVM does where it calls Python
            signal.raise_signal(signal.SIGINT)
        raise error

    monkeypatch.setattr(cli, "_COMMANDS", (command(run),))
    before = signal.getsignal(signal.SIGINT)
    assert cli.main(["try"]) == 130
    assert capsys.readouterr().err == "tvm-cdmpp: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("error", "is_told"), [(KeyboardInterrupt, False), (KeyError, True)])
def test_an_interrupt_that_a_callback_lost_is_not_remarked_on(
    error: type[BaseException], is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Callback:
        def __del__(self) -> None:  # what is raised here goes where that of a callback goes
            raise error

    def run(args: argparse.Namespace) -> int:
        Callback()
        return 0

    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    monkeypatch.setattr(cli, "_COMMANDS", (command(run),))
    assert cli.main(["try"]) == 0
    assert bool(told) is is_told


def test_exit_code_is_the_command_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_COMMANDS", (command(lambda args: 1),))
    assert cli.main(["try"]) == 1


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["doctor", "--nonsense"]])
def test_wrong_command_line_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(arguments)
    assert exit_info.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "command", "said"),
    [
        (["predict", "mlp", "--device", "t4", "--batches", "1"], "predict",
         "unrecognized arguments: --batches 1 (did you mean --batch?)"),
        (["device", "show", "--files=x"], "device show",
         "unrecognized arguments: --files=x (did you mean --file?)"),
        (["doctor", "--quux"], "doctor", "unrecognized arguments: --quux\n"),
    ],
)  # fmt: skip
def test_an_option_that_a_command_lacks_is_told_by_the_command(
    arguments: list[str], command: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(arguments)
    assert exit_info.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"usage: tvm-cdmpp {command} ")
    assert said in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["--version"])
    assert exit_info.value.code == 0
    assert capsys.readouterr().out.strip() == f"tvm-cdmpp {__version__}"


@pytest.mark.parametrize("streams", ["2>&-", ">&-", ">&- 2>&- <&-", "| head -c 1", "| true"])
@pytest.mark.parametrize("line", ["device show", "device show quux", "doctor --nonsense", "--help"])
def test_closed_streams_are_no_traceback(tmp_path: Path, line: str, streams: str) -> None:
    program = f"{sys.executable} -m tvm_cdmpp {line}"
    command = f"{program} 2>{tmp_path}/err {streams}; code=${{PIPESTATUS[0]}}; echo; echo $code"
    run = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=60, env={"PYTHONPATH": str(Path(tvm_cdmpp.__file__).parents[1]), "HOME": "/"},
    )  # fmt: skip
    said = run.stdout + run.stderr + (tmp_path / "err").read_text()
    for word in ("Traceback", "Exception", "Broken pipe", "Bad file descriptor"):
        assert word not in said
    expected = 2 if "quux" in line or "nonsense" in line else 0
    assert int(run.stdout.split()[-1]) in ((expected, 1) if "|" in streams else (expected,))
    assert {path.name for path in tmp_path.iterdir()} == {"err"}
