"""What measured programs say: of themselves everything, of others the less the farther they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models.programs import random_batch
from tvm_cdmpp.ast.compact import CompactASTBatch, concatenate, program_vectors
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import CheckpointError
from tvm_cdmpp.models.additive import AdditiveConfig
from tvm_cdmpp.models.attribution import MEASURED, attribute
from tvm_cdmpp.models.checkpoint import Content, write_checkpoint
from tvm_cdmpp.models.neighbours import _MOST, Neighbours
from tvm_cdmpp.models.rows import TrainingRows
from tvm_cdmpp.models.trained import TrainedPredictor

DEVICE = DeviceSpec(name="cpu", kind="cpu", cores=4)
BATCH = random_batch(80)
_VECTORS = program_vectors(BATCH)
_VARIES = int(np.argmax([len(np.unique(column)) for column in _VECTORS.T]))
_CENTRE, _SPREAD = np.mean(_VECTORS[:, _VARIES]), np.std(_VECTORS[:, _VARIES])


def smooth(batch: CompactASTBatch) -> np.ndarray:
    """A residual that like programs share."""
    vectors = program_vectors(batch)
    return np.asarray(0.5 + 0.3 * np.tanh((vectors[:, _VARIES] - _CENTRE) / _SPREAD), np.float64)


def moved(batch: CompactASTBatch, by: float) -> CompactASTBatch:
    return replace(batch, vectors=batch.vectors + np.float32(by))


def test_measured_programs_take_what_was_measured() -> None:
    residuals = np.random.default_rng(0).normal(0.3, 0.2, len(BATCH))
    residuals[7] = 4.0  # as if its loads all met in one place of the cache
    found = Neighbours.fit(BATCH, residuals)
    np.testing.assert_allclose(found.offsets(BATCH), residuals, atol=0.05)


def test_others_take_what_like_ones_took() -> None:
    found = Neighbours.fit(BATCH, smooth(BATCH))
    others = random_batch(60, seed=1)
    error = np.abs(found.offsets(others) - smooth(others))
    assert error.mean() < 0.6 * np.abs(np.median(smooth(BATCH)) - smooth(others)).mean()
    far = found.offsets(moved(BATCH, 1e4))
    np.testing.assert_allclose(far, np.median(smooth(BATCH)), atol=1e-6)


@pytest.mark.parametrize("interpolate", [True, False])
def test_a_level_is_for_others_than_those_measured(interpolate: bool) -> None:
    residuals = smooth(BATCH)
    found = Neighbours.fit(BATCH, residuals, interpolate=interpolate, level=-0.2)
    of_others = (np.median(residuals) if interpolate else 0.0) - 0.2
    np.testing.assert_allclose(found.offsets(moved(BATCH, 1e4)), of_others, atol=1e-6)
    np.testing.assert_allclose(found.offsets(BATCH), residuals, atol=0.05)


def test_one_that_is_far_off_misleads_none_that_are_near_it() -> None:
    residuals = smooth(BATCH)
    calm = Neighbours.fit(BATCH, residuals)
    residuals[7] += 4.0
    stirred = Neighbours.fit(BATCH, residuals)
    near = moved(BATCH.take(np.array([7])), 0.03)
    assert abs(float((stirred.offsets(near) - calm.offsets(near))[0])) < 1.0


def test_a_program_that_was_measured_twice_takes_the_mean() -> None:
    twice = concatenate([BATCH, BATCH.take(np.array([3]))])
    residuals = np.append(smooth(BATCH), smooth(BATCH)[3] + 0.4)
    found = Neighbours.fit(twice, residuals).offsets(BATCH.take(np.array([3])))
    assert float(found[0]) == pytest.approx(residuals[3] + 0.2, abs=0.02)


def test_few_many_and_no_programs() -> None:
    one = Neighbours.fit(BATCH.take(np.array([0])), np.array([0.7]))
    np.testing.assert_allclose(one.offsets(BATCH), 0.7, atol=1e-6)
    assert one.offsets(BATCH.take(np.zeros(0, np.int64))).shape == (0,)
    many = concatenate([BATCH] * 5)
    assert len(Neighbours.fit(many, np.tile(smooth(BATCH), 5)).places) == _MOST
    empty = CompactASTBatch(
        np.zeros((0, BATCH.vectors.shape[1]), np.float32),
        np.zeros(0, np.int32),
        np.zeros(1, np.int64),
    )
    np.testing.assert_allclose(one.offsets(empty), 0.7)


@pytest.fixture
def predictor() -> TrainedPredictor:
    """As `adapt` leaves it."""
    predictor = TrainedPredictor.untrained(AdditiveConfig(), seed=3)
    expert = predictor.experts["cpu"]
    expert.neighbours = (
        Neighbours.fit(BATCH, smooth(BATCH)),
        Neighbours.fit(BATCH, 0.1 + 0 * smooth(BATCH)),
    )
    return predictor


def test_predictions_leaves_and_explanations_have_it(
    predictor: TrainedPredictor, tmp_path: Path
) -> None:
    plain = TrainedPredictor.untrained(AdditiveConfig(), seed=3)
    before, after = plain.predict(BATCH, DEVICE), predictor.predict(BATCH, DEVICE)
    off = np.log(after.latency_s / before.latency_s)
    np.testing.assert_allclose(off, smooth(BATCH) + 0.1, atol=0.05)
    assert before.leaf_s is not None and after.leaf_s is not None
    of_leaf = np.log(after.leaf_s / before.leaf_s)
    np.testing.assert_allclose(of_leaf, np.repeat(off, BATCH.leaf_counts), atol=1e-5)
    gpu = DeviceSpec(name="gpu", kind="gpu", cores=80)
    np.testing.assert_array_equal(
        predictor.predict(BATCH, gpu).latency_s, plain.predict(BATCH, gpu).latency_s
    )
    program = BATCH.take(np.array([5]))
    found = attribute(predictor, program, DEVICE)
    assert found.latency_s == pytest.approx(float(after.latency_s[5]), rel=1e-5)
    predictor.save(tmp_path / "weights")
    loaded = TrainedPredictor.load(tmp_path / "weights")
    np.testing.assert_array_equal(loaded.predict(BATCH, DEVICE).latency_s, after.latency_s)
    np.testing.assert_array_equal(loaded.ahead().predict(BATCH, DEVICE).latency_s, after.latency_s)


@pytest.mark.parametrize("alike", [True, False])
def test_explanations_add_up_with_what_measured_programs_add(
    predictor: TrainedPredictor, alike: bool
) -> None:
    programs = np.flatnonzero(BATCH.leaf_counts == 4)
    first, second = (BATCH.take(programs[[place]]) for place in (0, 1))
    found = attribute(predictor, first, DEVICE, second if alike else None, steps=1024)
    level = sum(each.level for each in predictor.experts["cpu"].neighbours)
    to_other = predictor.offsets(second, DEVICE)[0] if alike else level
    added = float(predictor.offsets(first, DEVICE)[0] - to_other)
    assert abs(added) > 0.05
    assert found.groups[MEASURED] == pytest.approx(added, abs=1e-6)
    if alike:
        predicted_s = predictor.predict(second, DEVICE).latency_s
        assert found.reference_s == pytest.approx(float(predicted_s[0]), rel=1e-5)
    difference = math.log(found.latency_s / found.reference_s)
    assert sum(found.groups.values()) == pytest.approx(difference, abs=0.01)


def test_a_group_is_there_only_where_measured_programs_add_something(
    predictor: TrainedPredictor,
) -> None:
    program = BATCH.take(np.array([5]))
    plain = TrainedPredictor.untrained(AdditiveConfig(), seed=3)
    assert MEASURED in attribute(predictor, program, DEVICE).groups
    assert MEASURED not in attribute(predictor, program, DEVICE, program).groups
    assert MEASURED not in attribute(plain, program, DEVICE).groups


def test_a_search_does_not_apply_it_twice(predictor: TrainedPredictor) -> None:
    measured_s = predictor.predict(BATCH, DEVICE).latency_s
    rows = TrainingRows.on(DEVICE, BATCH, measured_s, np.zeros(len(BATCH), np.int64))
    predictor.fit(rows)
    found = np.log(predictor.predict(BATCH, DEVICE).latency_s / measured_s)
    assert np.abs(found).max() < 0.05
    assert abs(predictor.experts["cpu"].level) < 1e-3


def narrower(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leave out a column, everywhere where there are any."""
    found = dict(arrays)
    for name in ("centre", "scale", "places"):
        key = f"cpu.neighbours.0.{name}"
        found[key] = found[key][..., :-1]
    return found


def test_each_kind_of_schedule_takes_what_its_own_say(
    predictor: TrainedPredictor, tmp_path: Path
) -> None:
    plain = predictor.predict(BATCH, DEVICE).latency_s
    expert = predictor.experts["cpu"]
    expert.neighbours += (
        Neighbours.fit(BATCH, np.full(len(BATCH), -1.0), own=False),
        Neighbours.of_level(2.0, own=True),
    )
    predictor.save(tmp_path / "weights")
    of_own = replace(DEVICE, own_schedule=True)
    for found in (predictor, TrainedPredictor.load(tmp_path / "weights")):
        for device, level in ((DEVICE, -1.0), (of_own, 2.0)):
            now = found.predict(BATCH, device).latency_s
            np.testing.assert_allclose(np.log(now / plain), level, atol=1e-3)
            attributed = attribute(found, BATCH.take(np.array([5])), device)
            assert attributed.latency_s == pytest.approx(float(now[5]), rel=1e-5)
            rows = TrainingRows.on(device, BATCH, now, np.zeros(len(BATCH), np.int64))
            learned = found.ahead().without_levels(rows)
            np.testing.assert_allclose(
                learned.latencies_s, rows.latencies_s * _ratio(found, device)
            )


def _ratio(predictor: TrainedPredictor, device: DeviceSpec) -> np.ndarray:
    """What the network says of each program, over what is predicted."""
    network = TrainedPredictor.untrained(AdditiveConfig(), seed=3)
    predicted_s = predictor.predict(BATCH, device).latency_s
    return np.asarray(network.predict(BATCH, device).latency_s / predicted_s)


@pytest.mark.parametrize("value", [[3], [1, 1], [-1]])
def test_a_kind_that_is_none_is_named(
    predictor: TrainedPredictor, tmp_path: Path, value: list[int]
) -> None:
    content = predictor.content()
    wrong = {**content.arrays, "cpu.neighbours.0.own": np.array(value, np.int8)}
    write_checkpoint(tmp_path / "m", Content(content.settings, wrong))
    with pytest.raises(CheckpointError, match="own of neighbours"):
        TrainedPredictor.load(tmp_path / "m")


@pytest.mark.parametrize("name", ["level", "centre", "scale", "places", "weights"])
def test_damage_is_named(predictor: TrainedPredictor, tmp_path: Path, name: str) -> None:
    content, key = predictor.content(), f"cpu.neighbours.0.{name}"
    for wrong, message in (
        ({**content.arrays, key: np.zeros((3, 3), np.float32)}, "do not fit each other"),
        ({k: v for k, v in content.arrays.items() if k != key}, name),
        ({**content.arrays, key: content.arrays[key] * math.nan}, "not finite"),
        ({**content.arrays, key: np.full_like(content.arrays[key], 1e30)}, "magnitude above"),
        (narrower(content.arrays), f"the {_VECTORS.shape[1]} columns of program vectors"),
    ):
        write_checkpoint(tmp_path / "m", Content(content.settings, wrong))
        with pytest.raises(CheckpointError, match=message):
            TrainedPredictor.load(tmp_path / "m")


def test_of_a_level_others_take_a_share_and_programs_all_of_it() -> None:
    residuals = smooth(BATCH)
    found = Neighbours.fit(BATCH, residuals, level=0.3, share=0.5)
    of_others = 0.5 * (np.median(residuals) + 0.3)
    np.testing.assert_allclose(found.offsets(moved(BATCH, 1e4)), of_others, atol=1e-6)
    np.testing.assert_allclose(found.offsets(BATCH), residuals, atol=0.05)
