"""Save and load a predictor: one safetensors file whose header holds the settings as JSON.

One file, written under a temporary name and renamed, so that a reader sees the old checkpoint or
the new one. Further tensors (measured programs, for example) may travel with the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tvm_cdmpp.ast.schema import SCHEMA_VERSION
from tvm_cdmpp.errors import CheckpointError
from tvm_cdmpp.files import write_atomically
from tvm_cdmpp.models.labels import LabelTransform
from tvm_cdmpp.models.predictor import Network, Predictor, PredictorConfig

_FORMAT = 1
_HEADER = "tvm_cdmpp"
_WEIGHT_PREFIX = "network."


def save_predictor(
    path: Path,
    predictor: Predictor,
    arrays: Mapping[str, npt.NDArray[Any]] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a predictor.

    Parameters
    ----------
    path
        File to write; replaced if it exists.
    predictor
        What to save.
    arrays, extra
        Further arrays, and further settings as JSON values, returned by `load_predictor`.

    Raises
    ------
    OSError
        If the file cannot be written; an existing one is then unchanged.
    """
    header = {
        "format": _FORMAT,
        "schema_version": SCHEMA_VERSION,
        "config": asdict(predictor.network.config),
        "labels": asdict(predictor.labels),
        "base_slope": predictor.base_slope,
        "base_shift": predictor.base_shift,
        "predicts_failure": predictor.predicts_failure,
        "extra": dict(extra or {}),
    }
    weights = {_WEIGHT_PREFIX + k: v for k, v in predictor.network.state_dict().items()}
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in (arrays or {}).items()
    }
    data = save({**weights, **tensors}, metadata={_HEADER: json.dumps(header)})
    write_atomically(path, data)


def load_predictor(
    path: Path,
) -> tuple[Predictor, dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Read a predictor back.

    Returns
    -------
    predictor, arrays, extra
        As they were given to `save_predictor`.

    Raises
    ------
    CheckpointError
        If the file is missing, is no checkpoint, or was written for another schema of
        computation vectors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(json.loads((file.metadata() or {})[_HEADER]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"Expected a predictor saved by tvm_cdmpp; could not read '{path}': {error}."
        ) from error
    if header.get("format") != _FORMAT or header.get("schema_version") != SCHEMA_VERSION:
        raise CheckpointError(
            f"'{path}' has format {header.get('format')} and schema version "
            f"{header.get('schema_version')}; this version of tvm_cdmpp reads format {_FORMAT} "
            f"and schema version {SCHEMA_VERSION}. Train it again from its records."
        )
    try:
        network = Network(PredictorConfig(**header["config"]))
        weights = {
            name.removeprefix(_WEIGHT_PREFIX): tensor
            for name, tensor in tensors.items()
            if name.startswith(_WEIGHT_PREFIX)
        }
        network.load_state_dict(weights)
        predictor = Predictor(
            network,
            LabelTransform(**header["labels"]),
            header["base_slope"],
            header["base_shift"],
            header["predicts_failure"],
        )
        extra = header["extra"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"The predictor in '{path}' is damaged: {error}.") from error
    arrays = {
        name: tensor.numpy()
        for name, tensor in tensors.items()
        if not name.startswith(_WEIGHT_PREFIX)
    }
    return predictor, arrays, extra
