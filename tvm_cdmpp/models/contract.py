"""What every model of latencies does, so that searches need not know which one it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models.rows import TrainingRows

FloatArray = npt.NDArray[np.floating[Any]]

_CAUTION = 0.5
"""Spreads that programs are ordered above their predicted latency; chosen on the validation part of
the split `networks`, where it leaves 8.2 % to the best program of a task in place of 9.4 %."""
_MOST_SPREAD = 10.0
"""Larger ones count as this in the order, which is the last place by then: no number overflows."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of n programs.

    Attributes
    ----------
    latency_s
        Seconds, finite and positive; (n,).
    runs_probability
        Probability that a program builds and runs at all, in [0, 1]; (n,).
    spread
        Standard deviation of the natural logarithm of the latency, finite and not negative; (n,).
        None where the model has no idea of its error.
    leaf_s
        Seconds of every leaf, in the order of the batch; (leaves,). None where the model does not
        tell leaves apart.
    """

    latency_s: FloatArray
    runs_probability: FloatArray
    spread: FloatArray | None = None
    leaf_s: FloatArray | None = None

    @property
    def order_s(self) -> FloatArray:
        """Seconds to order programs by, and to choose the fastest; (n,).

        Of many predictions, the lowest are mostly those that are too low, the more so the less is
        known of a program; a prediction of least relative error is below the median, too.
        """
        if self.spread is None:
            return self.latency_s
        return self.latency_s * np.exp(_CAUTION * np.minimum(self.spread, _MOST_SPREAD))


class CostPredictor(Protocol):
    """A model of the latency of programs on devices.

    A new model is one that `fit` has not seen yet: it predicts all the same, as well as it can.
    `tests/models/contract.py` holds what must be true of every implementation.
    """

    def predict(
        self, batch: CompactASTBatch, device: DeviceSpec, *, num_threads: int = 1
    ) -> Prediction:
        """Predict programs.

        What is said of a program depends neither on its place in the batch nor on the others.

        Parameters
        ----------
        batch
            Compact ASTs of n programs, each with at least one leaf; n may be 0.
        device
            Hardware to predict for.
        num_threads
            Threads to use; one is best while a search keeps the other cores busy.
        """

    def fit(self, rows: TrainingRows, *, seed: int) -> None:
        """Learn from measured programs, in place; what was known is where it starts.

        Parameters
        ----------
        rows
            Measured programs. Without a finite latency among them nothing is learned.
        seed
            One seed and the same calls give the same model.
        """

    def save(self, path: Path) -> None:
        """Write the model to one file, atomically.

        Raises
        ------
        OSError
            If the file cannot be written; an existing one is then unchanged.
        """

    @classmethod
    def load(cls, path: Path) -> CostPredictor:
        """Read a model back; it predicts as before, to the bit.

        Raises
        ------
        CheckpointError
            If the file is missing, damaged, another kind of model's or another version's.
        """
