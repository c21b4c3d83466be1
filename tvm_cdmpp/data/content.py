"""Files named by what they hold, and hashes of them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from tvm_cdmpp.files import replacing

_BLOCK_BYTES = 1 << 20


def write_named_by_content(
    folder: Path, scratch: Path, stem: str, suffix: str, write: Callable[[Path], None]
) -> tuple[str, str]:
    """Write a file whose name ends in a part of its hash, so that it never changes once it exists.

    Parameters
    ----------
    folder, scratch
        Where, and where it is written first: a folder of the same file system.
    stem, suffix
        What the name begins and ends with.
    write
        Writes to the path it is given.

    Returns
    -------
    name, sha256
        The file's name, and the hash of its bytes.
    """
    with replacing(scratch / f"{stem}{suffix}") as temporary:
        write(temporary)
        sha256 = hash_file(temporary)
    name = f"{stem}-{sha256[:16]}{suffix}"
    (scratch / f"{stem}{suffix}").replace(folder / name)
    return name, sha256


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def hash_text(*parts: str) -> str:
    """Return the SHA-256 of some texts, in hexadecimal; where one ends matters."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(b"%d:" % len(encoded) + encoded)
    return digest.hexdigest()
