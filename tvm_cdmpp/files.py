"""Files: written whole or not at all, locked against a second writer, in the user's folders.

And what JSON of them says.
"""

import errno
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tvm_cdmpp.errors import ConfigError, RecordError

_APPLICATION = "tvm-cdmpp"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new file in the same folder to write to; it takes the place of `path` in the end.

    Its permissions are those that the user's umask gives to new files.

    Raises
    ------
    OSError
        If the file cannot be written; an existing one is then unchanged. Nor is anything replaced
        that is not a file, such as a folder, a pipe or a device.
    """
    if path.exists() and not path.is_file():
        code = errno.EISDIR if path.is_dir() else errno.EEXIST
        raise OSError(code, "Not a file that could be replaced", str(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:  # of the name that the user gave
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes) -> None:
    """Write bytes under a temporary name in the same folder, then rename.

    Raises
    ------
    OSError
        If the file cannot be written; an existing one is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Append lines to a file, after the end of a line that a killed run may have left half.

    Parameters
    ----------
    path
        The file, which need not be there.
    lines
        Each without its end.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        start = "\n" if file.read(1) not in (b"", b"\n") else ""
        file.write((start + "".join(f"{line}\n" for line in lines)).encode())


def parse_json(text: str | bytes, **hooks: Any) -> Any:
    """Read JSON that somebody else may have written.

    Parameters
    ----------
    text
        What to read.
    hooks
        As of `json.loads`.

    Raises
    ------
    ValueError
        It is no JSON, or nested so deeply that Python's reader does not follow.
    """
    try:
        return json.loads(text, **hooks)
    except RecursionError:
        raise json.JSONDecodeError("it is nested too deeply", "", 0) from None


@contextmanager
def locked(lock: Path, use: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Keep other processes, and other users of the same lock in this one, out.

    The file stays when the lock is given back: one that is removed while somebody waits for it
    would let two in.

    Parameters
    ----------
    lock
        The file to lock, made if it is not there; its folder must exist.
    use
        What is going on while it is locked, such as "an import into store".
    wait_s
        How long to wait for somebody else.

    Raises
    ------
    RecordError
        Somebody else holds it still.
    OSError
        The file cannot be made.
    """
    import filelock

    holder = filelock.FileLock(lock, is_singleton=False)
    try:
        holder.acquire(timeout=wait_s)
    except filelock.Timeout as error:
        raise RecordError(
            f"{use} is going on already (it holds {lock}); wait for it, or choose another place"
        ) from error
    try:
        yield
    finally:
        holder.release()


def config_folder() -> Path:
    """Return where this user's settings are kept; the folder need not exist.

    Raises
    ------
    ConfigError
        This user has no home folder.
    """
    return _user_folder("user_config_path")


def cache_folder() -> Path:
    """Return where what can be made again is kept; the folder need not exist.

    Raises
    ------
    ConfigError
        This user has no home folder.
    """
    return _user_folder("user_cache_path")


def _user_folder(kind: str) -> Path:
    # Imported where it is needed: `doctor` reports on machines where it is missing.
    import platformdirs

    try:
        return Path(getattr(platformdirs, kind)(_APPLICATION))
    except RuntimeError as error:
        raise ConfigError(f"There is no home folder: {error}. Set HOME to a folder.") from error
