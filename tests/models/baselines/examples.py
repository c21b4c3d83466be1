"""Rows to learn from, and the networks small enough to learn from them in a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tests.models.programs import random_batch
from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.ast.schema import COLUMN
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.models.baselines.base import NetworkPredictor
from tvm_cdmpp.models.baselines.graph import GraphConfig, GraphPredictor
from tvm_cdmpp.models.baselines.habitat import HabitatConfig, HabitatPredictor
from tvm_cdmpp.models.baselines.lstm import LSTMConfig, RecursiveLSTMPredictor
from tvm_cdmpp.models.baselines.mlp import MLPConfig, MLPPredictor
from tvm_cdmpp.models.rows import TrainingRows

CPU = DeviceSpec(name="cpu", kind="cpu", cores=4)

SMALL: dict[type[NetworkPredictor], Any] = {
    MLPPredictor: MLPConfig(width=32),
    RecursiveLSTMPredictor: LSTMConfig(first=32, second=32, third=32, width=32, dropout=0.05),
    HabitatPredictor: HabitatConfig(width=32, layers=2),
    GraphPredictor: GraphConfig(width=32, layers=2),
}


def small(kind: type[NetworkPredictor], setting: str = "tuned", **changes: Any) -> NetworkPredictor:
    """A small network that trains as in the given setting, but briefly and fast."""
    _, training = kind.settings[setting]
    brief = {"steps": 60, "batch_size": 64, "group_size": 16, "learning_rate": 4e-3}
    config = SMALL[kind]
    if kind is GraphPredictor:
        config = replace(config, skip=setting == "skip")
    if kind is RecursiveLSTMPredictor:
        config = replace(config, merges=setting == "paper")
    return kind.make(config, replace(training, **(brief | changes)), seed=0)


def rows_by_tile(num_programs: int = 120, seed: int = 0, num_tasks: int = 3) -> TrainingRows:
    """Latencies by a rule that the analytic estimate does not know, and a little noise."""
    batch = random_batch(num_programs, seed)
    tile = _updates(batch)[:, COLUMN["inner1_extent"]].astype(np.float64)
    noise = np.random.default_rng(seed).lognormal(0, 0.05, num_programs)
    latencies_s = 1e-5 * np.exp2(tile) * noise
    return TrainingRows.on(CPU, batch, latencies_s, np.arange(num_programs) % num_tasks)


def _updates(batch: CompactASTBatch) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Computation vectors of the products' update leaves, the second of every program."""
    return batch.vectors[batch.offsets[:-1] + 1]
