"""The folder of a record store: what in it is the store's, and what is left to others."""

import re
import shutil
from collections.abc import Container
from pathlib import Path

from tvm_cdmpp.data.content import hash_file
from tvm_cdmpp.data.schema import MANIFEST
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.errors import RecordError

SCRATCH = ".import"
"""Folder for the half-done work of an import."""
LOCK = ".lock"
"""Held by an import; outside of what imports remove."""
FEATURES = "features"
"""Folder of what `tvm_cdmpp.train.features` extracts."""
_TABLE = re.compile(r"(records|tasks|workloads)-([0-9a-f]{16})\.parquet")


def check_folder(out: Path) -> None:
    """Refuse a folder that is no store, nor may become one.

    Raises
    ------
    RecordError
        It is a file, a folder with other files, or a store that cannot be read.
    """
    if out.exists() and not out.is_dir():
        raise RecordError(f"{out} is a file; give the folder of a record store, or a new folder")
    if not out.is_dir():
        return
    if (out / MANIFEST).exists():
        RecordStore.open(out)
        return
    own = (SCRATCH, LOCK, FEATURES)
    foreign = sorted(
        path.name
        for path in out.iterdir()
        if path.name not in own and not _TABLE.fullmatch(path.name)
    )
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise RecordError(
            f"{out} is no record store and holds other files ({', '.join(foreign[:3])}{more}); "
            "give a new folder, an empty one, or a store"
        )


def remove_replaced(out: Path, used: Container[str]) -> None:
    """Remove tables that no store uses any more, and those of imports that did not end.

    A file is removed only if it is what its name says, by the hash in it.
    """
    for path in out.iterdir():
        named = _TABLE.fullmatch(path.name)
        if named and path.name not in used and hash_file(path)[:16] == named[2]:
            path.unlink()


def sweep_scratch(scratch: Path, stems: Container[str]) -> None:
    """Remove what imports that did not end have left, but for what this one goes on with.

    Parameters
    ----------
    scratch
        The folder for half-done work.
    stems
        Of the files to keep: `STEM.json` and `STEM-NUMBER.parquet`.
    """
    for path in scratch.iterdir():
        stem, _, number = path.stem.partition("-")
        kept = stem in stems and (number.isdecimal() or path.suffix == ".json")
        if path.is_dir():
            shutil.rmtree(path)
        elif not kept:
            path.unlink()
