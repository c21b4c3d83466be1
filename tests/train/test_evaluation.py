"""Predictions for many rows: of each program on its own device, a window at a time."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.contract import CPU, GPU, MeanOfLeafCount, rows_of
from tests.models.programs import random_batch
from tvm_cdmpp.ast.compact import CompactASTBatch, concatenate
from tvm_cdmpp.devices.hardware import Hardware
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.models.contract import Prediction
from tvm_cdmpp.models.network import PredictorConfig
from tvm_cdmpp.models.predictor import Predictor
from tvm_cdmpp.models.rows import Machine, TrainingRows
from tvm_cdmpp.train.evaluation import evaluate


@pytest.fixture
def rows() -> TrainingRows:
    """Programs of a CPU and a GPU in turns; the GPU is described to TVM in two ways."""
    batch = random_batch(50)
    machines = (Machine(CPU), Machine(GPU), Machine(GPU, Hardware(cores=3)))
    return TrainingRows(
        batch, np.ones(50), np.zeros(50, np.int64), machines, np.arange(50, dtype=np.int64) % 3
    )


class Watched(MeanOfLeafCount):
    """Remembers what it was asked, and is sure of what it says of CPUs."""

    def __init__(self, *, sure: bool = True) -> None:
        super().__init__()
        self.asked: list[tuple[str, int]] = []
        self.sure = sure

    def predict(
        self, batch: CompactASTBatch, device: DeviceSpec, *, num_threads: int = 1
    ) -> Prediction:
        self.asked.append((device.name, len(batch)))
        latency_s = np.full(len(batch), float(device.cores or 0))
        knows = self.sure or device.kind == "cpu"
        return Prediction(latency_s, np.ones(len(batch)), latency_s / 10 if knows else None)


def test_windows_of_one_device_each(rows: TrainingRows) -> None:
    model, done = Watched(), list[int]()
    found = evaluate(model, rows, window=20, on_rows=done.append)
    assert model.asked == [("cpu", 17), ("gpu", 20), ("gpu", 13)]
    assert done == [17, 37, 50]
    expected = np.where(np.arange(50) % 3 == 0, CPU.cores, GPU.cores)
    np.testing.assert_array_equal(found.latency_s, expected)
    assert found.spread is not None
    np.testing.assert_array_equal(found.spread, expected / 10)


def test_they_are_those_of_the_model(rows: TrainingRows) -> None:
    model = Predictor.untrained(PredictorConfig(), seed=0)
    model.fit(rows_of(random_batch(40, seed=1), failed=9), seed=0)
    found = evaluate(model, rows, window=7)
    assert found.spread is None
    for row in (0, 1, 49):
        device = rows.devices[rows.machine_of[row]]
        alone = model.predict(rows.batch().take([row]), device)
        assert found.latency_s[row] == pytest.approx(alone.latency_s[0], rel=1e-4)
        assert found.runs_probability[row] == pytest.approx(alone.runs_probability[0], rel=1e-4)


def test_no_spread_where_the_model_has_none_of_a_device(rows: TrainingRows) -> None:
    assert evaluate(Watched(sure=False), rows).spread is None


def test_no_rows() -> None:
    nothing = TrainingRows.on(CPU, concatenate([]), [], np.zeros(0, np.int64))
    assert evaluate(Watched(), nothing).latency_s.shape == (0,)
