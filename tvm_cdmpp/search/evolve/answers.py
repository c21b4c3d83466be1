"""What a model says of programs of one task, asked once for each."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.models import Prediction
from tvm_cdmpp.search.evolve.choice import Floats
from tvm_cdmpp.search.evolve.space import fingerprints


class Asked(Protocol):
    """A model that can be asked."""

    def predict_asts(self, task: Any, batch: CompactASTBatch) -> Prediction:
        """Predict programs of a task, given by their compact ASTs."""


class Answers:
    """Asks a model that does not learn meanwhile, and remembers what it said.

    Programs that were bred are looked at again when some are chosen to be measured.

    Parameters
    ----------
    model
        Is asked.
    task
        What all programs are of.
    """

    def __init__(self, model: Asked, task: Any) -> None:
        self._model, self._task = model, task
        self._programs = [np.zeros(0, np.uint64)]
        self._said = [np.zeros((0, 2))]

    def score(self, batch: CompactASTBatch) -> Floats:
        """Ask; return scores as `Evolution` takes them, one over seconds; (n,)."""
        latency_s, runs_probability = self._ask(batch).T
        score: Floats = runs_probability / latency_s
        return score

    def of(self, batch: CompactASTBatch) -> tuple[Floats, Floats]:
        """Return seconds and the probability to run, (n,) each; only what is new is asked."""
        programs = fingerprints(batch)
        missing = np.flatnonzero(~np.isin(programs, np.concatenate(self._programs)))
        if missing.size:
            self._ask(batch.take(missing))
        known, first = np.unique(np.concatenate(self._programs), return_index=True)
        latency_s, runs_probability = np.concatenate(self._said)[
            first[np.searchsorted(known, programs)]
        ].T
        return latency_s, runs_probability

    def _ask(self, batch: CompactASTBatch) -> Floats:
        found = self._model.predict_asts(self._task, batch)
        said = np.stack([found.latency_s, found.runs_probability], axis=1, dtype=np.float64)
        self._programs.append(fingerprints(batch))
        self._said.append(said)
        return said
