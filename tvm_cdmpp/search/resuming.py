"""What a search knows, saved next to its log, so that it goes on as if it had not stopped.

`LOG.state.safetensors` is written after every round. It names the lines of the log that it knows of
and their hash: a log that was cut or changed since is learned from anew. Lines that came later, as
when a round is killed half-way, are learned from on top.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tvm_cdmpp.errors import CheckpointError, RecordError
from tvm_cdmpp.models import Content, read_checkpoint, write_checkpoint


@runtime_checkable
class Resumable(Protocol):
    """A cost model whose state can be saved."""

    def content(self) -> Content:
        """Return what a checkpoint holds of it."""

    def restore(self, content: Content, path: Path) -> None:
        """Continue from what a checkpoint holds; the path is for messages."""


@dataclass(frozen=True)
class SavedState:
    """A state that fits the log."""

    path: Path
    content: Content
    num_lines: int
    """Lines of the log, from its beginning, that it knows of."""
    is_whole: bool
    """Whether these are all."""


def state_path(log: Path) -> Path:
    """Name the state of a search after its log."""
    return log.with_name(f"{log.name}.state.safetensors")


def write_state(log: Path, identity: Mapping[str, Any], parts: Mapping[str, Content]) -> None:
    """Save the state of a search that has written all of a log.

    Parameters
    ----------
    log
        The log.
    identity
        What must be the same in the search that goes on; JSON values.
    parts
        The state.

    Raises
    ------
    RecordError
        The file cannot be written; an older one is then unchanged.
    """
    known = log.read_bytes()
    about = {**_description(known), "identity": dict(identity)}
    path = state_path(log)
    try:
        write_checkpoint(path, Content.under(log=Content(about, {}), **parts))
    except OSError as error:
        raise RecordError(
            f"the state of the search could not be written to {path}: {error.strerror}. The log "
            "holds all records; free some space, and run again."
        ) from error


def read_state(log: Path, identity: Mapping[str, Any]) -> SavedState | None:
    """Read the state of the search that wrote a log; None where none was saved.

    Raises
    ------
    CheckpointError
        It cannot be read, does not fit the log, or is of a search that was set up differently.
    """
    path = state_path(log)
    if not path.exists():
        return None
    content = read_checkpoint(path)
    try:
        about = content.part("log").settings
        num_bytes, num_lines = int(about["bytes"]), int(about["lines"])
        different = [k for k in identity if about["identity"].get(k) != identity[k]]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"'{path}' is no state of a search; missing: {error}.") from error
    if different:
        raise CheckpointError(f"'{path}' is of a search with another {' and '.join(different)}.")
    found = log.read_bytes()
    if _description(found[:num_bytes])["sha256"] != about["sha256"]:
        raise CheckpointError(f"'{path}' is not of this log: the log was cut or changed since.")
    return SavedState(path, content, num_lines, is_whole=len(found) == num_bytes)


def _description(known: bytes) -> dict[str, Any]:
    return {
        "bytes": len(known),
        "lines": known.count(b"\n"),
        "sha256": hashlib.sha256(known).hexdigest(),
    }
