"""Programs of a record store: what models read that need more than compact ASTs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tvm_cdmpp.data import RecordStore
from tvm_cdmpp.models import Ints, Prediction, TrainingRows


@dataclass(frozen=True)
class StoredPrograms:
    """Some programs of a store; `used` and `rows` are what `rows_of_store` returns."""

    store: RecordStore
    used: Ints
    """Their rows in the store; (n,)."""
    rows: TrainingRows


class StoreModel(Protocol):
    """A model of the comparison that reads programs from a store, not their compact ASTs."""

    programs_seen: int
    """Programs that the last fit looked at, each as often as it did."""

    def fit(self, programs: StoredPrograms, *, seed: int) -> None:
        """Learn from those that ran."""

    def predict(self, programs: StoredPrograms) -> Prediction:
        """Predict latencies, each on the device that the program was measured on."""

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
