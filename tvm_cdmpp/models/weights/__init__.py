"""The weights that come with the package, and how weights are found.

- `evaluation`: trained on the official training part, so that figures on the test part can be
  checked by anyone.
- `shipped`: trained on all records, the held-out networks among them; what a search uses.
"""

from __future__ import annotations

from pathlib import Path

from tvm_cdmpp.errors import CheckpointError
from tvm_cdmpp.models.checkpoint import Content, damaged, read_checkpoint
from tvm_cdmpp.models.predictor import Predictor
from tvm_cdmpp.models.trained import TrainedPredictor
from tvm_cdmpp.models.weight_files import WEIGHTS, find_weights

_RUNS = frozenset({"log", "run"})
"""Parts of a checkpoint that is no predictor's: what a search, or a training, goes on with."""


def load_weights(name: str | Path) -> Predictor | TrainedPredictor:
    """Load weights of the package, or from a file.

    Parameters
    ----------
    name
        One of `WEIGHTS`, or a file that a model or `tvm-cdmpp train` wrote.

    Raises
    ------
    CheckpointError
        There is no such file, or it holds no predictor, a damaged one or another version's.
    """
    file = find_weights(name)
    return predictor_of(read_checkpoint(file), file)


def predictor_of(content: Content, path: Path) -> Predictor | TrainedPredictor:
    """Make a predictor of what a checkpoint holds, a saved search's as well.

    Raises
    ------
    CheckpointError
        It holds no predictor, or a damaged one.
    """
    if "predictor" in content.settings:  # a search's
        try:
            content = content.part("predictor")
        except TypeError as error:
            raise damaged(path, error) from error
    if of_run := _RUNS & set(content.settings):
        raise CheckpointError(
            f"'{path}' is the state of {'a search' if 'log' in of_run else 'a training'}, with "
            "which it goes on, and no weights. Expected one of "
            f"{', '.join(WEIGHTS)}, or a file of `train`, `finetune`, `adapt` or a model's `save`."
        )
    if "experts" in content.settings:
        return TrainedPredictor.of_content(content, path)
    return Predictor.of_content(content, path)
