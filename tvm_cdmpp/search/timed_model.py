"""A cost model that keeps the time of another one."""

import time
from typing import Any

from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.measure import MeasureSession

_PythonBasedModel: Any = load_tvm().auto_scheduler.cost_model.cost_model.PythonBasedModel


class TimedModel(_PythonBasedModel):
    """A cost model that passes all calls on to another one, an `UnrollGuard`, and keeps the time.

    Attributes
    ----------
    predict_s, update_s
        Wall time spent on scores, and on learning from measurements, so far. What a `CDMPPModel`
        puts off until the next scores is learning.
    """

    def __init__(self, model: Any, session: MeasureSession) -> None:
        super().__init__()
        self.model = model
        self.predict_s = 0.0
        self.update_s = 0.0
        self._session = session

    def predict(self, task: Any, states: Any) -> Any:
        """Return the wrapped model's scores; raise `SearchStopped` to cut a search short."""
        self._catch_up()
        begin = time.perf_counter()
        try:
            return self.model.predict(task, states)
        finally:
            self.predict_s += time.perf_counter() - begin

    def predict_asts(self, task: Any, batch: CompactASTBatch) -> Any:
        """Return what the wrapped model, a `CDMPPModel`, says of compact ASTs."""
        self._catch_up()
        begin = time.perf_counter()
        try:
            return self.model.predict_asts(task, batch)
        finally:
            self.predict_s += time.perf_counter() - begin

    def _catch_up(self) -> None:
        self._session.check()
        begin = time.perf_counter()
        try:
            self.model.catch_up()
        finally:
            self.update_s += time.perf_counter() - begin

    def update(self, inputs: Any, results: Any) -> None:
        """Let the wrapped model learn."""
        begin = time.perf_counter()
        try:
            self.model.update(inputs, results)
        finally:
            self.update_s += time.perf_counter() - begin
