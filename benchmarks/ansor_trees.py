"""XGBoost on Ansor's features, with the parameters of TVM's `XGBModel`.

A program's score is the sum over its stores of what the trees say of each ("pack-sum"), and the
trees are grown on the squared error of that sum.

- `throughput`: as TVM has it. The label is the normalised throughput, best latency of the task over
  that of the program, which is also its weight. A score says nothing of seconds: here it is taken
  to be relative to the geometric mean of the tasks' best latencies, so only the order within a task
  says anything about the method.
- `log`: the label is the logarithm of the latency, all programs weigh the same, and the device
  vector stands beside the features, which do not tell devices apart.

TVM grows up to 10,000 trees and stops when the training error has not fallen for 50; here there are
`ROUNDS`, chosen for time, so these trees may be fewer than TVM would grow.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xgboost

from benchmarks.ansor_features import AnsorFeatures, read_features
from benchmarks.stored import StoredPrograms
from tvm_cdmpp.models import Content, Prediction, TrainingRows, write_checkpoint

ROUNDS = 300
_PARAMETERS = {
    "max_depth": 10,
    "gamma": 0.001,
    "min_child_weight": 0,
    "eta": 0.2,
    "nthread": 1,
    "verbosity": 0,
    "disable_default_eval_metric": 1,
}
_LEAST_SCORE = 1e-3
"""Also that of programs that cannot be lowered, which TVM gives minus infinity."""


@dataclass
class AnsorTrees:
    """Trees on Ansor's features, a `StoreModel`; see the module."""

    label: Literal["throughput", "log"]
    folder: Path
    """Of the features; see `benchmarks.ansor_features`."""
    rounds: int = ROUNDS
    booster: Any = None
    level: float = 0.0
    """Natural logarithm of the seconds that the trees count from."""
    programs_seen: int = 0

    def fit(self, programs: StoredPrograms, *, seed: int) -> None:
        """Grow trees; see `StoreModel`."""
        rows, used = programs.rows, programs.used
        features = read_features(programs.store, used, self.folder)
        chosen = np.flatnonzero(np.isfinite(rows.latencies_s) & features.is_lowered)
        packs = features.take(chosen)
        log_s = np.log(rows.latencies_s[chosen])
        weights = np.ones(len(chosen))
        if self.label == "throughput":
            _, group = np.unique(rows.groups[chosen], return_inverse=True)
            best = np.full(group.max() + 1, np.inf)
            np.minimum.at(best, group, log_s)
            self.level = float(best.mean())
            labels = weights = np.exp(best[group] - log_s)
        else:
            self.level = float(log_s.mean())
            labels = log_s - self.level
        pack = packs.program

        def squared_error(
            predicted: npt.NDArray[np.float32], _: Any
        ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
            error = np.bincount(pack, weights=predicted) - labels
            return (error * weights)[pack], weights[pack]

        self.booster = xgboost.train(
            _PARAMETERS | {"seed": seed, "base_score": 0.0},
            xgboost.QuantileDMatrix(self._columns(packs, rows, chosen), nthread=1),
            self.rounds,
            obj=squared_error,
        )
        self.programs_seen = self.rounds * len(chosen)

    def predict(self, programs: StoredPrograms) -> Prediction:
        """Predict latencies; see `StoreModel`."""
        rows = programs.rows
        features = read_features(programs.store, programs.used, self.folder)
        columns = self._columns(features, rows, np.arange(len(rows)))
        of_store = self.booster.inplace_predict(columns)
        score = np.bincount(features.program, weights=of_store, minlength=len(rows))
        if self.label == "throughput":
            score = np.where(features.is_lowered, score, 0.0)
            score = -np.log(np.maximum(score, _LEAST_SCORE))
        return Prediction(np.exp(self.level + score), features.is_lowered.astype(np.float64))

    def save(self, path: Path) -> None:
        """Write the trees."""
        arrays = {"trees": np.frombuffer(self.booster.save_raw("ubj"), np.uint8)}
        write_checkpoint(path, Content({"label": self.label, "level": self.level}, arrays))

    def _columns(
        self, features: AnsorFeatures, rows: TrainingRows, chosen: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        if self.label == "throughput":
            return features.stores
        devices = np.array([device.vector() for device in rows.devices])
        beside = devices[rows.machine_of[chosen]][features.program]
        return np.concatenate([features.stores, beside], axis=1)
