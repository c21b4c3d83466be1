"""Fitting: it learns, it is repeatable, and failures are no latencies."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import spearmanr

from tests.models.programs import both, random_batch
from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.ast.schema import COLUMN
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models.fitting import FitConfig, fit
from tvm_cdmpp.models.labels import LabelTransform
from tvm_cdmpp.models.network import PredictorConfig
from tvm_cdmpp.models.predictor import Predictor
from tvm_cdmpp.models.rows import TrainingRows

DEVICE = DeviceSpec(name="cpu", kind="cpu", cores=4)
SMALL = PredictorConfig(width=32, heads=2, layers=1, hidden=32)

Latencies = npt.NDArray[np.float64]


def rows_of(batch: CompactASTBatch, latencies_s: Latencies, num_tasks: int = 1) -> TrainingRows:
    tasks = np.arange(len(batch), dtype=np.int64) % num_tasks
    return TrainingRows.on(DEVICE, batch, latencies_s, tasks)


def updates(batch: CompactASTBatch) -> npt.NDArray[np.float32]:
    """Computation vectors of the products' update leaves, the second of every program."""
    return batch.vectors[batch.offsets[:-1] + 1]


def latencies_against_the_estimate(batch: CompactASTBatch) -> Latencies:
    """Latencies by a rule of their own: nothing that the analytic estimate would know."""
    tile = updates(batch)[:, COLUMN["inner1_extent"]].astype(np.float64)
    latencies: Latencies = 1e-4 * np.exp2(np.abs(tile - 3.0))
    noise = np.random.default_rng(0).lognormal(0, 0.3, len(batch))
    return latencies * noise


def fitted(rows: TrainingRows, seed: int = 0, steps: int = 20) -> Predictor:
    predictor = Predictor.untrained(SMALL, seed=7)
    fit(predictor, rows, FitConfig(steps=steps), seed)
    return predictor


def weights(predictor: Predictor) -> torch.Tensor:
    return torch.cat([value.flatten() for value in predictor.network.state_dict().values()])


def test_memorises_32_programs() -> None:
    batch = random_batch(32)
    latencies_s = latencies_against_the_estimate(batch)
    predictor = Predictor.untrained(PredictorConfig(), seed=0)
    before = predictor.predict(batch, DEVICE).latency_s
    assert abs(spearmanr(before, latencies_s).statistic) < 0.8
    fit(predictor, rows_of(batch, latencies_s), FitConfig(steps=300), seed=0)
    predicted, runs = both(predictor.predict(batch, DEVICE))
    assert spearmanr(predicted, latencies_s).statistic > 0.9
    assert np.median(abs(predicted / latencies_s - 1)) < 0.15
    assert (runs == 1).all()


def test_fitting_goes_on_from_what_is_known() -> None:
    batch = random_batch(64)
    rows = rows_of(batch, latencies_against_the_estimate(batch))

    def error(predictor: Predictor) -> float:
        return float(np.log(predictor.predict(batch, DEVICE).latency_s / rows.latencies_s).std())

    predictor = fitted(rows, steps=60)
    first = error(predictor)
    fit(predictor, rows, FitConfig(steps=60), seed=1)
    assert error(predictor) < first < error(Predictor.untrained(SMALL, seed=7))


def test_one_seed_one_result() -> None:
    batch = random_batch(40)
    rows = rows_of(batch, latencies_against_the_estimate(batch), num_tasks=2)
    torch.manual_seed(123)
    state = torch.random.get_rng_state()
    first = fitted(rows, seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(999)
    assert torch.equal(weights(first), weights(fitted(rows, seed=4)))
    assert not torch.equal(weights(first), weights(fitted(rows, seed=5)))


def test_failures_never_change_the_label_space() -> None:
    batch = random_batch(60)
    latencies_s = latencies_against_the_estimate(batch)
    some_failed = latencies_s.copy()
    some_failed[::3] = np.inf
    valid = np.isfinite(some_failed)
    predictor = fitted(rows_of(batch, some_failed), steps=2)
    without = fitted(rows_of(batch.take(np.flatnonzero(valid)), latencies_s[valid]), steps=2)
    assert predictor.labels == without.labels == LabelTransform.fit(latencies_s[valid])
    assert predictor.base_slope == without.base_slope
    assert predictor.base_shift == without.base_shift
    assert predictor.predicts_failure
    assert not without.predicts_failure


def test_failures_are_learned() -> None:
    batch = random_batch(160)
    vectorized = updates(batch)[:, COLUMN["is_vectorized"]] > 0.5
    assert 20 < vectorized.sum() < 140
    latencies_s = np.where(vectorized, np.inf, latencies_against_the_estimate(batch))
    train, test = np.arange(120), np.arange(120, 160)
    predictor = fitted(rows_of(batch.take(train), latencies_s[train]), steps=300)
    latencies, runs = both(predictor.predict(batch.take(test), DEVICE))
    assert runs[vectorized[test]].mean() < 0.3
    assert runs[~vectorized[test]].mean() > 0.7
    assert np.isfinite(latencies).all()


def test_nothing_but_failures() -> None:
    batch = random_batch(10)
    predictor = Predictor.untrained(SMALL, seed=0)
    before = weights(predictor)
    fit(predictor, rows_of(batch, np.full(10, np.inf)), FitConfig(), seed=0)
    assert torch.equal(weights(predictor), before)
    assert predictor.labels == LabelTransform()
    assert np.isfinite(predictor.predict(batch, DEVICE).latency_s).all()


@pytest.mark.parametrize("failed", [[], [0], [1, 2]])
def test_a_task_of_nothing_but_failures(failed: list[int]) -> None:
    """One task works, the others have only failures, or one program each."""
    batch = random_batch(4)
    latencies_s = np.array([1e-3, 2e-3, 3e-3, 4e-3])
    latencies_s[failed] = np.inf
    predictor = fitted(rows_of(batch, latencies_s, num_tasks=4))
    assert torch.isfinite(weights(predictor)).all()
    assert np.isfinite(predictor.predict(batch, DEVICE).latency_s).all()


@pytest.mark.parametrize("steps", range(1, 12))
def test_any_number_of_steps(steps: int) -> None:
    batch = random_batch(10)
    rows = rows_of(batch, latencies_against_the_estimate(batch))
    assert torch.isfinite(weights(fitted(rows, steps=steps))).all()


@pytest.mark.parametrize("count", [1, 2])
def test_few_or_equal_rows(count: int) -> None:
    batch = random_batch(1).take([0] * count)
    predictor = fitted(rows_of(batch, np.full(count, 2e-3)))
    assert predictor.predict(batch, DEVICE).latency_s == pytest.approx(2e-3, rel=0.5)


def test_a_batch_may_hold_only_failures() -> None:
    batch = random_batch(30)
    latencies_s = np.full(30, np.inf)
    latencies_s[0] = 1e-3
    predictor = Predictor.untrained(SMALL, seed=0)
    config = FitConfig(steps=20, batch_size=2)
    fit(predictor, rows_of(batch, latencies_s), config, seed=0)
    assert torch.isfinite(weights(predictor)).all()


def test_no_steps_fit_the_label_space_alone() -> None:
    batch = random_batch(10)
    rows = rows_of(batch, latencies_against_the_estimate(batch))
    predictor = fitted(rows, steps=0)
    assert predictor.labels == LabelTransform.fit(rows.latencies_s)


@pytest.mark.parametrize(("steps", "batch_size"), [(-1, 8), (10, 1), (10, 0)])
def test_config_errors(steps: int, batch_size: int) -> None:
    with pytest.raises(ConfigError, match=f"got steps={steps}, batch_size={batch_size}"):
        FitConfig(steps=steps, batch_size=batch_size)
