"""What sets the networks apart, and what they share: files, sizes, settings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.baselines.examples import CPU, SMALL, rows_by_tile, small
from tests.models.programs import random_batch
from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.ast.schema import COLUMN, NUM_FIELDS
from tvm_cdmpp.errors import CheckpointError, ConfigError
from tvm_cdmpp.models.analytic import estimate_latency_s
from tvm_cdmpp.models.baselines.base import NetworkPredictor
from tvm_cdmpp.models.baselines.graph import GraphPredictor, neighbour_mean
from tvm_cdmpp.models.baselines.habitat import CLASSES, HabitatPredictor, operator_classes
from tvm_cdmpp.models.baselines.inputs import NUM_INPUTS
from tvm_cdmpp.models.baselines.lstm import RecursiveLSTMPredictor
from tvm_cdmpp.models.baselines.mlp import MLPConfig, MLPPredictor
from tvm_cdmpp.models.checkpoint import Content, write_checkpoint

KINDS = list(SMALL)


def backwards(batch: CompactASTBatch) -> CompactASTBatch:
    """The same programs with their leaves in the opposite order."""
    programs = np.repeat(np.arange(len(batch)), batch.leaf_counts)
    order = np.lexsort((-np.arange(len(programs)), programs))
    return CompactASTBatch(batch.vectors[order], batch.positions[order], batch.offsets)


@pytest.mark.parametrize(
    ("kind", "setting", "knows"),
    [
        (MLPPredictor, "tuned", False),
        (HabitatPredictor, "tuned", False),
        (GraphPredictor, "skip", False),  # neighbours have no direction
        (RecursiveLSTMPredictor, "tuned", True),
    ],
)
def test_which_networks_know_the_order_of_leaves(kind: Any, setting: str, knows: bool) -> None:
    model = small(kind, setting)
    model.fit(rows_by_tile(), seed=0)
    batch = random_batch(20, seed=4)
    forth, back = (model.predict(b, CPU).latency_s for b in (batch, backwards(batch)))
    assert (abs(np.log(forth / back)).max() > 1e-3) == knows


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_networks_return_the_estimate(kind: type[NetworkPredictor]) -> None:
    batch = random_batch(10)
    for setting in kind.settings:
        model = kind.untrained(setting, seed=0)
        expected = estimate_latency_s(batch, CPU)
        np.testing.assert_allclose(model.predict(batch, CPU).latency_s, expected, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_draw_weights(kind: type[NetworkPredictor]) -> None:
    setting = next(iter(kind.settings))
    first, same, other = (kind.untrained(setting, seed=n).content().arrays for n in (1, 1, 2))
    assert all((first[name] == same[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_unknown_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"tenset-mlp.*paper, tuned.*fast"):
        MLPPredictor.untrained("fast", seed=0)


def test_files_of_other_networks_are_refused(tmp_path: Path) -> None:
    small(MLPPredictor).save(tmp_path / "mlp")
    with pytest.raises(CheckpointError, match=r"graph.*mlp.*tenset-mlp"):
        GraphPredictor.load(tmp_path / "mlp")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    content = small(MLPPredictor).content()
    for name, broken in {
        "size": Content({**content.settings, "config": {"width": 16}}, content.arrays),
        "setting": Content({**content.settings, "training": {"speed": 1}}, content.arrays),
        "weights": Content(content.settings, {}),
        "missing": Content({"kind": "tenset-mlp"}, content.arrays),
    }.items():
        write_checkpoint(tmp_path / name, broken)
        with pytest.raises(CheckpointError, match=f"/{name}' is damaged: ") as raised:
            MLPPredictor.load(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_loaded_models_know_how_they_train(tmp_path: Path) -> None:
    model = small(MLPPredictor, "paper", steps=7)
    model.save(tmp_path / "m")
    loaded = MLPPredictor.load(tmp_path / "m")
    assert loaded.training == model.training
    assert loaded.config == model.config


def test_size() -> None:
    width = 8
    model = MLPPredictor.make(MLPConfig(width=width), small(MLPPredictor).training, seed=0)
    layers = [(NUM_INPUTS, width), (width, width), (width, width), (width, width), (width, 1)]
    expected = sum((before + 1) * after for before, after in layers) + 2 * NUM_INPUTS
    assert model.size().parameters == expected
    assert model.size().num_bytes == 4 * expected


def test_published_sizes() -> None:
    """Layers are as wide as published; the inputs are ours."""
    mlp = MLPPredictor.untrained("paper", seed=0).network.state_dict()
    assert mlp["leaf.0.weight"].shape == (256, NUM_INPUTS)
    assert len([name for name in mlp if name.endswith("weight")]) == 5
    lstm = RecursiveLSTMPredictor.untrained("paper", seed=0).network.state_dict()
    widths = [len(lstm[name]) for name in lstm if name.startswith("embed") and "weight" in name]
    assert widths == [600, 350, 200, 180]
    assert lstm["lstm.weight_hh_l0"].shape == (4 * 180, 180)
    assert asdict(HabitatPredictor.settings["paper"][0]) == {"width": 1024, "layers": 8}


def test_neighbours() -> None:
    leaves = torch.tensor([[[1.0], [2.0], [4.0]]])
    assert neighbour_mean(leaves).flatten().tolist() == [2.0, 2.5, 2.0]
    assert neighbour_mean(leaves[:, :1]).flatten().tolist() == [0.0]


def test_skips_matter() -> None:
    with_, without = (GraphPredictor.untrained(name, seed=0) for name in ("skip", "plain"))
    torch.nn.init.ones_(with_.network.get_parameter("score.weight"))
    without.network.load_state_dict(with_.network.state_dict())
    leaves = torch.rand(2, 3, NUM_INPUTS)
    assert (with_.network(leaves) != without.network(leaves)).all()


def leaf(**fields: float) -> list[float]:
    """A computation vector: counts before scaling, all others 0."""
    vector = np.zeros(NUM_FIELDS)
    for name, value in {"reduce_executions": 1, **fields}.items():
        vector[COLUMN[name]] = np.log2(1.0 + value)
    return [float(value) for value in vector]


@pytest.mark.parametrize(
    ("expected", "leaves"),
    [
        (
            "contraction",
            [
                leaf(float_math_ops=9),
                leaf(reduce_executions=65, float_mul_ops=9, float_add_ops=9, read1_element_bytes=4),
            ],
        ),
        (
            "short_contraction",
            [leaf(reduce_executions=64, float_mul_ops=9, float_add_ops=9, read1_element_bytes=4)],
        ),
        ("transcendental", [leaf(reduce_executions=999, float_add_ops=9), leaf(float_math_ops=1)]),
        ("reduction", [leaf(reduce_executions=2, float_compare_ops=9)]),
        # A scaled sum of one buffer is no contraction.
        ("reduction", [leaf(reduce_executions=999, float_mul_ops=9, float_add_ops=9)]),
        # Nor is it spread over leaves that are none.
        (
            "reduction",
            [
                leaf(reduce_executions=999, float_add_ops=9),
                leaf(float_mul_ops=9, float_add_ops=9, read1_element_bytes=4),
            ],
        ),
        ("elementwise", [leaf(float_add_ops=9), leaf()]),
    ],
)
def test_classes_of_operators(expected: str, leaves: list[list[float]]) -> None:
    assert CLASSES[int(operator_classes(torch.tensor([leaves]))[0])] == expected


def test_matrix_products_are_contractions() -> None:
    batch = random_batch(30)
    for count in np.unique(batch.leaf_counts):
        same = batch.take(np.flatnonzero(batch.leaf_counts == count))
        leaves = torch.from_numpy(same.vectors.reshape(len(same), count, NUM_FIELDS))
        assert (operator_classes(leaves) == CLASSES.index("contraction")).all()


def test_classes_learn_apart() -> None:
    model = small(HabitatPredictor)
    before = {name: value.copy() for name, value in model.content().arrays.items()}
    model.fit(rows_by_tile(40), seed=0)
    after = model.content().arrays
    # Weights shrink where nothing is learned; nothing else happens to them.
    for number, name in enumerate(CLASSES):
        weight = f"of_class.{number}.0.2.weight"
        cosine = (before[weight] * after[weight]).sum() / np.sqrt(
            (before[weight] ** 2).sum() * (after[weight] ** 2).sum()
        )
        assert (cosine < 0.9999) == (name == "contraction")
