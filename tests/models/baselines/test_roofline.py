"""The roofline: a level per device, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.models.baselines.examples import CPU
from tests.models.programs import random_batch
from tvm_cdmpp.devices.spec import generic_gpu
from tvm_cdmpp.models.analytic import estimate_latency_s
from tvm_cdmpp.models.baselines.roofline import RooflinePredictor
from tvm_cdmpp.models.rows import TrainingRows

GPU = generic_gpu("gpu")


def rows_at(factor: float, device: object = CPU) -> TrainingRows:
    """Latencies at a multiple of the estimate, and some far above it."""
    batch = random_batch(40)
    spec = GPU if device is GPU else CPU
    latencies_s = factor * estimate_latency_s(batch, spec)
    latencies_s[:10] *= 50.0
    latencies_s[10:15] = np.inf
    return TrainingRows.on(spec, batch, latencies_s, np.zeros(40, np.int64))


def test_each_device_has_the_median_level() -> None:
    model = RooflinePredictor()
    model.fit(TrainingRows.join([rows_at(3.0), rows_at(0.25, GPU)]), seed=0)
    batch = random_batch(10, seed=2)
    for device, factor in ((CPU, 3.0), (GPU, 0.25)):
        found = model.predict(batch, device).latency_s / estimate_latency_s(batch, device)
        np.testing.assert_allclose(found, factor, rtol=1e-4)
    assert model.size().parameters == 2


def test_a_device_that_was_not_seen_gets_what_is_usual() -> None:
    batch = random_batch(5)
    model = RooflinePredictor({"a": np.log(2.0), "b": np.log(8.0)})
    found = model.predict(batch, CPU).latency_s / estimate_latency_s(batch, CPU)
    np.testing.assert_allclose(found, 4.0)


def test_learning_about_one_device_leaves_the_others() -> None:
    model = RooflinePredictor()
    model.fit(rows_at(3.0), seed=0)
    model.fit(rows_at(0.25, GPU), seed=0)
    model.fit(replace(rows_at(5.0, GPU), latencies_s=np.full(40, np.inf)), seed=0)
    assert model.levels == pytest.approx({"cpu": np.log(3.0), "gpu": np.log(0.25)}, rel=1e-3)
