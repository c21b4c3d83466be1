"""Writing files whole or not at all; `tests/models/test_checkpoint.py` fills a disk."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.files import (
    cache_folder,
    config_folder,
    locked,
    parse_json,
    replacing,
    write_atomically,
)


def test_json_of_any_depth_is_read_or_refused() -> None:
    assert parse_json('{"a": [1, null]}') == {"a": [1, None]}
    for text in ("[" * 100_000, b'{"a":' * 100_000, "{"):
        with pytest.raises(json.JSONDecodeError):
            parse_json(text)


def test_makes_the_folder_and_replaces_the_file(tmp_path: Path) -> None:
    file = tmp_path / "new" / "m"
    write_atomically(file, b"old")
    write_atomically(file, b"data")
    assert file.read_bytes() == b"data"
    assert list(file.parent.iterdir()) == [file]


def test_a_failing_rename_leaves_the_old_files(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(OSError, match="m"):
        write_atomically(tmp_path / "m", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_new_files_get_what_the_umask_leaves(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "m", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "m").stat().st_mode & 0o777 == mode


def test_a_lock_keeps_others_out(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    code = (
        "from pathlib import Path\n"
        "from tvm_cdmpp.files import locked\n"
        f"with locked(Path({str(lock)!r}), 'a test'):\n"
        "    print('held', flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RecordError, match="a test is going on"), locked(lock, "a test"):
            pass
        other.communicate("\n")
    with (
        locked(lock, "a test"),
        pytest.raises(RecordError, match="a test is going on"),
        locked(lock, "a test"),
    ):
        pass


@pytest.mark.parametrize(
    ("find", "variable"), [(config_folder, "XDG_CONFIG_HOME"), (cache_folder, "XDG_CACHE_HOME")]
)
def test_the_users_folders_are_where_the_user_wants_them(
    find: Callable[[], Path], variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    assert find() == tmp_path / "tvm-cdmpp"


def test_no_home_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(ConfigError, match="Set HOME"):
        config_folder()


def test_only_files_are_replaced(tmp_path: Path) -> None:
    folder, pipe = tmp_path / "folder", tmp_path / "pipe"
    folder.mkdir()
    os.mkfifo(pipe)
    for path in (folder, pipe):
        with pytest.raises(OSError, match=f"Not a file that could be replaced: '{path}'"):
            write_atomically(path, b"new")
    assert folder.is_dir()
    assert pipe.is_fifo()
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "pipe"}


def test_errors_name_the_file_that_was_given(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match=f"'{tmp_path / 'none' / 'file'}'"),
        replacing(tmp_path / "none" / "file"),
    ):
        pass
