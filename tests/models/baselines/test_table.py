"""The table of baselines."""

from pathlib import Path

import numpy as np
import pytest

from tests.models.baselines.examples import CPU
from tests.models.programs import random_batch
from tvm_cdmpp.errors import CheckpointError, ConfigError
from tvm_cdmpp.models import BASELINES, make_baseline


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_what_the_table_says(name: str) -> None:
    assert type(make_baseline(name, seed=0)) is BASELINES[name].predictor
    assert BASELINES[name].description


@pytest.mark.parametrize("name", [name for name in BASELINES if not name.endswith("-paper")])
def test_saved_ones_are_loaded_by_their_class(name: str, tmp_path: Path) -> None:
    entry, batch = BASELINES[name], random_batch(5)
    model = make_baseline(name, seed=0)
    model.save(tmp_path / "m")
    loaded = entry.predictor.load(tmp_path / "m")
    np.testing.assert_array_equal(
        loaded.predict(batch, CPU).latency_s, model.predict(batch, CPU).latency_s
    )
    for other in BASELINES.values():
        if other.predictor is not entry.predictor:
            with pytest.raises(CheckpointError, match="kind"):
                other.predictor.load(tmp_path / "m")


def test_names_and_descriptions_tell_them_apart() -> None:
    assert len({entry.description for entry in BASELINES.values()}) == len(BASELINES)
    assert {"roofline", "trees", "tenset-mlp", "tiramisu-lstm", "habitat", "graph"} <= set(
        BASELINES
    )


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match=r"'forest'.*roofline, trees"):
        make_baseline("forest", seed=0)
