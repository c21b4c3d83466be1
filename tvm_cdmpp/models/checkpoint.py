"""Saved models: one safetensors file whose header holds the settings as JSON, and a hash of all.

One file, written under a temporary name and renamed, so that a reader sees the old checkpoint or
the new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tvm_cdmpp.ast import SCHEMA_VERSION
from tvm_cdmpp.errors import CheckpointError
from tvm_cdmpp.files import parse_json, write_atomically

_FORMAT = 3
_HEADER = "tvm_cdmpp"
LARGEST_WEIGHT = 1e4
"""Of networks; those of the package's weights are below 30. However many are as large, all that
comes of them are numbers in single precision."""


@dataclass(frozen=True)
class Content:
    """What a checkpoint holds."""

    settings: Mapping[str, Any]
    """JSON values."""
    arrays: Mapping[str, npt.NDArray[Any]]

    def part(self, name: str) -> Content:
        """Return a part that was put under a name by `under`.

        Raises
        ------
        KeyError
            There is no such part.
        TypeError
            What has the name is no JSON object.
        """
        prefix, settings = f"{name}.", self.settings[name]
        if not isinstance(settings, Mapping):
            raise TypeError(f"{name} must be a JSON object; got {type(settings).__name__}")
        arrays = {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}
        return Content(settings, arrays)

    @staticmethod
    def under(**parts: Content) -> Content:
        """Put several contents into one, each under a name."""
        return Content(
            {name: part.settings for name, part in parts.items()},
            {f"{name}.{k}": v for name, part in parts.items() for k, v in part.arrays.items()},
        )


def write_checkpoint(path: Path, content: Content) -> None:
    """Write a checkpoint; a file that exists is replaced.

    Raises
    ------
    OSError
        If the file cannot be written; an existing one is then unchanged.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in content.arrays.items()}
    settings = json.dumps(content.settings)
    header = {
        "format": _FORMAT,
        "schema_version": SCHEMA_VERSION,
        "sha256": _sha256(settings, arrays),
        "settings": settings,
    }
    write_atomically(path, save(arrays, metadata={_HEADER: json.dumps(header)}))


def read_checkpoint(path: Path) -> Content:
    """Read a checkpoint back.

    Raises
    ------
    CheckpointError
        If the file is missing, is no checkpoint, was changed after it was written, or was written
        for another schema of computation vectors.
    """
    try:
        with safe_open(path, framework="np") as file:
            header = dict(parse_json((file.metadata() or {})[_HEADER]))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"Expected a model saved by tvm_cdmpp; could not read '{path}': {error}."
        ) from error
    if header.get("format") != _FORMAT or header.get("schema_version") != SCHEMA_VERSION:
        raise CheckpointError(
            f"'{path}' has format {header.get('format')} and schema version "
            f"{header.get('schema_version')}; this version of tvm_cdmpp reads format {_FORMAT} "
            f"and schema version {SCHEMA_VERSION}. Train it again from its records."
        )
    settings = str(header.get("settings"))
    if header.get("sha256") != _sha256(settings, arrays):
        raise CheckpointError(
            f"'{path}' was changed after it was written: its content does not have the hash that "
            "it names. Take a copy that is whole, or train it again."
        )
    try:
        content = parse_json(settings)
        if not isinstance(content, dict):
            raise TypeError("its settings must be a JSON object")
    except (TypeError, ValueError) as error:
        raise damaged(path, error) from error
    return Content(content, arrays)


def damaged(path: Path, error: Exception, kind: str = "predictor") -> CheckpointError:
    """Return the error to raise where what a checkpoint holds cannot be, in one line."""
    reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
    return CheckpointError(
        f"The {kind} in '{path}' is damaged: {reason.rstrip('.')}. Take a copy that is whole, "
        "or train it again."
    )


def check_arrays(arrays: Mapping[str, npt.NDArray[Any]], limit: float) -> None:
    """Reject arrays that make predictions of no numbers.

    Parameters
    ----------
    arrays
        By what a message calls them.
    limit
        Far above what is ever learned.

    Raises
    ------
    ValueError
        A value is not finite, or its magnitude is above the limit.
    """
    for name, array in arrays.items():
        if not float(np.abs(array).max(initial=0)) <= limit:
            raise ValueError(
                f"{name} has values that are not finite, or with a magnitude above {limit:g}"
            )


def _sha256(settings: str, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256(settings.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
