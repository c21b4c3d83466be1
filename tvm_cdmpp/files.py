"""Writing files so that a reader sees the old content or the new one, never a part."""

import contextlib
import tempfile
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write bytes under a temporary name in the same folder, then rename.

    Raises
    ------
    OSError
        If the file cannot be written; an existing one is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        temporary = Path(file.name)
        try:
            file.write(data)
            file.flush()
        except OSError:
            temporary.unlink()
            raise
    try:
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
