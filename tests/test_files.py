"""Writing files whole or not at all; `tests/models/test_checkpoint.py` fills a disk."""

from pathlib import Path

import pytest

from tvm_cdmpp.files import write_atomically


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
