"""Weights by name or from a file."""

from pathlib import Path

import numpy as np
import pytest

from tests.models.contract import CPU
from tests.models.programs import random_batch
from tvm_cdmpp.errors import CheckpointError
from tvm_cdmpp.models.checkpoint import Content, write_checkpoint
from tvm_cdmpp.models.network import PredictorConfig
from tvm_cdmpp.models.predictor import Predictor
from tvm_cdmpp.models.weights import load_weights


def test_weights_from_a_file(tmp_path: Path) -> None:
    model = Predictor.untrained(PredictorConfig(), seed=3)
    model.save(tmp_path / "mine")
    batch = random_batch(10)
    np.testing.assert_array_equal(
        load_weights(str(tmp_path / "mine")).predict(batch, CPU).latency_s,
        model.predict(batch, CPU).latency_s,
    )


@pytest.mark.parametrize(("part", "what"), [("log", "a search"), ("run", "a training")])
def test_what_a_run_goes_on_with_is_no_weights(part: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_checkpoint(path, Content.under(**{part: Content({}, {})}))
    with pytest.raises(CheckpointError, match=f"is the state of {what}"):
        load_weights(path)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(CheckpointError, match="No weights 'nonsense'"):
        load_weights("nonsense")
