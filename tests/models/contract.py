"""What is true of every model, and the simplest model that it is true of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.models.programs import extract, matmul_graph, random_batch
from tvm_cdmpp.ast.compact import CompactASTBatch, concatenate
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import CheckpointError
from tvm_cdmpp.models.checkpoint import Content, read_checkpoint, write_checkpoint
from tvm_cdmpp.models.contract import CostPredictor, Prediction
from tvm_cdmpp.models.rows import TrainingRows

CPU = DeviceSpec(name="cpu", kind="cpu", cores=4)
GPU = DeviceSpec(name="gpu", kind="gpu", cores=80)


@dataclass
class MeanOfLeafCount:
    """Predicts the geometric mean of the latencies of programs with as many leaves."""

    mean_s: dict[str, float] = field(default_factory=dict)

    def predict(
        self, batch: CompactASTBatch, device: DeviceSpec, *, num_threads: int = 1
    ) -> Prediction:
        known_s = [self.mean_s.get(str(count), 1e-3) for count in batch.leaf_counts]
        return Prediction(np.array(known_s), np.ones(len(batch)))

    def fit(self, rows: TrainingRows, *, seed: int) -> None:
        runs = np.isfinite(rows.latencies_s)
        for count in np.unique(rows.asts.leaf_counts[runs]):
            same = runs & (rows.asts.leaf_counts == count)
            self.mean_s[str(count)] = float(np.exp(np.log(rows.latencies_s[same]).mean()))

    def save(self, path: Path) -> None:
        write_checkpoint(path, Content({"mean_s": self.mean_s}, {}))

    @classmethod
    def load(cls, path: Path) -> MeanOfLeafCount:
        settings: Mapping[str, dict[str, float]] = read_checkpoint(path).settings
        if "mean_s" not in settings:
            raise CheckpointError(f"'{path}' holds another model.")
        return cls(settings["mean_s"])


def rows_of(
    batch: CompactASTBatch, device: DeviceSpec = CPU, *, failed: int = 0, seed: int = 0
) -> TrainingRows:
    latencies_s = np.random.default_rng(seed).lognormal(-8, 1, len(batch))
    latencies_s[:failed] = np.inf
    return TrainingRows.on(device, batch, latencies_s, np.arange(len(batch)) % 3)


class ModelContract:
    """Tests of a model; a subclass says how to make a new one."""

    make: Callable[[], CostPredictor]

    @pytest.fixture
    def fitted(self) -> CostPredictor:
        model = self.make()
        model.fit(rows_of(random_batch(60), failed=5), seed=1)
        return model

    def test_predictions_are_sane(self, fitted: CostPredictor) -> None:
        batch = random_batch(50, seed=7)
        for model in (self.make(), fitted):
            for device in (CPU, GPU):
                found = model.predict(batch, device)
                check_sane(found, batch)

    def test_company_and_order_change_nothing(self, fitted: CostPredictor) -> None:
        batch = random_batch(40, seed=7)
        leaves = extract([[]], matmul_graph(8, 8, 8))
        long = CompactASTBatch.of_counts(  # makes a model that pads pad all others
            np.concatenate([leaves.vectors] * 4), np.arange(12, dtype=np.int32), np.array([12])
        )
        order = np.random.default_rng(0).permutation(40)
        together = fitted.predict(batch, CPU)
        padded = fitted.predict(concatenate([batch, long]), CPU)
        shuffled = fitted.predict(batch.take(order), CPU)
        for name in ("latency_s", "runs_probability", "spread"):
            expected = getattr(together, name)
            if expected is None:
                continue
            np.testing.assert_allclose(getattr(padded, name)[:-1], expected, rtol=1e-4)
            np.testing.assert_allclose(getattr(shuffled, name), expected[order], rtol=1e-4)
        alone = fitted.predict(batch.take([3]), CPU)
        np.testing.assert_allclose(alone.latency_s, together.latency_s[[3]], rtol=1e-4)

    def test_threads_change_nothing(self, fitted: CostPredictor) -> None:
        batch = random_batch(20)
        np.testing.assert_allclose(
            fitted.predict(batch, CPU, num_threads=2).latency_s,
            fitted.predict(batch, CPU).latency_s,
            rtol=1e-5,
        )

    def test_no_programs(self, fitted: CostPredictor) -> None:
        found = fitted.predict(concatenate([]), CPU)
        assert found.latency_s.shape == found.runs_probability.shape == (0,)

    def test_learning_brings_the_level_nearer(self) -> None:
        batch = random_batch(64)
        rows = TrainingRows.on(CPU, batch, np.full(64, 30.0), np.zeros(64, np.int64))
        model = self.make()

        def error() -> float:
            return float(abs(np.log(model.predict(batch, CPU).latency_s / 30.0)).mean())

        before = error()
        model.fit(rows, seed=0)
        assert error() < 0.1 * before

    def test_one_seed_one_model(self) -> None:
        rows = rows_of(random_batch(40), failed=3)
        batch = random_batch(30, seed=5)
        first, again = self.make(), self.make()
        first.fit(rows, seed=4)
        again.fit(rows, seed=4)
        np.testing.assert_array_equal(
            first.predict(batch, CPU).latency_s, again.predict(batch, CPU).latency_s
        )

    def test_nothing_but_failures(self) -> None:
        batch = random_batch(10)
        model = self.make()
        before = model.predict(batch, CPU).latency_s
        model.fit(rows_of(batch, failed=10), seed=0)
        np.testing.assert_array_equal(model.predict(batch, CPU).latency_s, before)

    @pytest.mark.parametrize("latency_s", [1e-7, 10.0])
    def test_one_program(self, latency_s: float) -> None:
        batch = random_batch(1)
        model = self.make()
        rows = TrainingRows.on(CPU, batch, [latency_s], np.zeros(1, np.int64))
        model.fit(rows, seed=0)
        check_sane(model.predict(random_batch(20), CPU), random_batch(20))
        assert model.predict(batch, CPU).latency_s == pytest.approx(latency_s, rel=0.5)

    def test_rows_of_two_devices(self) -> None:
        parts = [rows_of(random_batch(30), CPU), rows_of(random_batch(30, seed=2), GPU, seed=1)]
        model = self.make()
        model.fit(TrainingRows.join(parts), seed=0)
        check_sane(model.predict(random_batch(20), GPU), random_batch(20))

    def test_saved_models_predict_the_same(self, fitted: CostPredictor, tmp_path: Path) -> None:
        batch = random_batch(30, seed=3)
        for number, model in enumerate((self.make(), fitted)):
            file = tmp_path / str(number)
            model.save(file)
            loaded = type(model).load(file)
            mine, theirs = model.predict(batch, CPU), loaded.predict(batch, CPU)
            np.testing.assert_array_equal(theirs.latency_s, mine.latency_s)
            np.testing.assert_array_equal(theirs.runs_probability, mine.runs_probability)

    def test_fitting_goes_on_after_loading(self, fitted: CostPredictor, tmp_path: Path) -> None:
        fitted.save(tmp_path / "m")
        loaded = type(fitted).load(tmp_path / "m")
        more, batch = rows_of(random_batch(30, seed=8), seed=8), random_batch(20)
        for model in (fitted, loaded):
            model.fit(more, seed=2)
        np.testing.assert_array_equal(
            loaded.predict(batch, CPU).latency_s, fitted.predict(batch, CPU).latency_s
        )

    def test_what_is_no_model_is_refused(self, tmp_path: Path) -> None:
        write_checkpoint(tmp_path / "other", Content({"x": 1}, {}))
        (tmp_path / "text").write_text("no model")
        for name in ("other", "text", "missing"):
            with pytest.raises(CheckpointError, match=name):
                type(self.make()).load(tmp_path / name)


def check_sane(found: Prediction, batch: CompactASTBatch) -> None:
    """Shapes and ranges are those of the contract."""
    assert found.latency_s.shape == found.runs_probability.shape == (len(batch),)
    assert np.isfinite(found.latency_s).all()
    assert (found.latency_s > 0).all()
    assert ((found.runs_probability >= 0) & (found.runs_probability <= 1)).all()
    if found.spread is not None:
        assert found.spread.shape == (len(batch),)
        assert (np.isfinite(found.spread) & (found.spread >= 0)).all()
    if found.leaf_s is not None:
        assert found.leaf_s.shape == (len(batch.vectors),)
