"""Trained weights, by name or from a file."""

from __future__ import annotations

from pathlib import Path

from tvm_cdmpp.errors import CheckpointError
from tvm_cdmpp.models.contract import CostPredictor
from tvm_cdmpp.models.predictor import Predictor


def load_weights(name_or_path: str) -> CostPredictor:
    """Load a trained model.

    Parameters
    ----------
    name_or_path
        A file that `CostPredictor.save` wrote.

    Raises
    ------
    CheckpointError
        There is no such file, or it is no such model.
    """
    path = Path(name_or_path)
    if not path.is_file():
        raise CheckpointError(
            f"No weights '{name_or_path}': expected a file that was saved by a model."
        )
    return Predictor.load(path)
