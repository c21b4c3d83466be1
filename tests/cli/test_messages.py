"""What C++ code says during a search goes to a file; what Python says does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tvm_cdmpp.cli.messages import divert_native_messages


def test_only_native_messages_are_diverted(tmp_path: Path) -> None:
    file = tmp_path / "messages.txt"
    script = (
        "import logging, os, subprocess, sys\n"
        "from pathlib import Path\n"
        "from tvm_cdmpp.cli.messages import divert_native_messages\n"
        "logging.basicConfig(format='%(message)s', stream=sys.stderr)\n"
        f"with divert_native_messages(Path({str(file)!r}), print):\n"
        "    os.write(2, b'from C++\\n')\n"
        "    print('from Python', file=sys.stderr)\n"
        "    logging.warning('from a logger')\n"
        "    subprocess.run(['sh', '-c', 'echo from a child >&2'], check=True)\n"
        "os.write(2, b'afterwards\\n')\n"
        "print('and Python', file=sys.stderr)\n"
        "logging.warning('and a logger')\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stderr.splitlines() == [
        "from Python", "from a logger", "afterwards", "and Python", "and a logger",
    ]  # fmt: skip
    assert file.read_text().splitlines() == ["from C++", "from a child"]


def test_an_error_restores_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file, said = tmp_path / "messages.txt", list[str]()
    with pytest.raises(KeyError), divert_native_messages(file, said.append):
        raise KeyError
    os.write(2, b"visible\n")
    assert capfd.readouterr().err == "visible\n"
    assert not file.exists()
    assert not said


def test_messages_are_appended(tmp_path: Path) -> None:
    file, said = tmp_path / "messages.txt", list[str]()
    for text in (b"one\n", b"two\n"):
        with divert_native_messages(file, said.append):
            os.write(2, text)
    assert file.read_bytes() == b"one\ntwo\n"
    assert len(said) == 2
    assert str(file) in said[0]
