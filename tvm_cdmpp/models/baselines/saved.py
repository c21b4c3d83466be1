"""What is saved of a baseline: its kind, for a file tells nothing else of whose it is; its size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tvm_cdmpp.errors import CheckpointError
from tvm_cdmpp.models.checkpoint import Content, read_checkpoint


def read_kind(path: Path, kind: str) -> Content:
    """Read a checkpoint that must hold a model of one kind, by its setting `kind`.

    Raises
    ------
    CheckpointError
        The file is no checkpoint (see `read_checkpoint`), or holds another kind of model.
    """
    content = read_checkpoint(path)
    found = content.settings.get("kind")
    if found != kind:
        raise CheckpointError(f"Expected a model of kind '{kind}' in '{path}'; got '{found}'.")
    return content


@dataclass(frozen=True)
class ModelSize:
    """How large a model is."""

    parameters: int
    """Numbers fitted to data; of trees, their nodes."""
    num_bytes: int
    """Bytes of them as saved, settings left out."""

    @staticmethod
    def of(content: Content) -> ModelSize:
        """Measure the arrays that a checkpoint holds; floating-point numbers are parameters."""
        arrays = content.arrays.values()
        return ModelSize(
            sum(array.size for array in arrays if np.issubdtype(array.dtype, np.floating)),
            sum(array.nbytes for array in arrays),
        )
