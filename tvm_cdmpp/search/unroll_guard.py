"""A cost model that learns how far the loops of a task can be unrolled.

Unrolling a loop whose body is long, such as one full of conditions, makes a program that takes
minutes to compile. Such programs fail with a build timeout, all alike, and to most cost models an
unrolled program looks fast; so without this, a search chooses them again and again.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tvm_cdmpp.ast import COLUMN, CompactASTBatch
from tvm_cdmpp.bridge import build_timed_out, load_tvm
from tvm_cdmpp.extract import dump_records
from tvm_cdmpp.models import Content

_PythonBasedModel: Any = load_tvm().auto_scheduler.cost_model.cost_model.PythonBasedModel

_UNROLLING = re.compile(rb"auto_unroll_max_step\$(\d+)")


class UnrollGuard(_PythonBasedModel):
    """A cost model that passes all calls on to another one, and rules out hopeless unrolling.

    A task's programs that may unroll as far as those of which more timed out than were built get
    the score `-inf`, unless all of the given ones do.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        # By workload: builds that timed out less builds that did not, by the steps of unrolling.
        self._balance: dict[str, Counter[int]] = {}

    def predict(self, task: Any, states: Any) -> Any:
        """Return the wrapped model's scores but for programs that unroll too far."""
        scores = self.model.predict(task, states)
        limit = self._limit(str(task.workload_key))
        if limit is None:
            return scores
        hopeless = np.array([steps >= limit for steps in _unrolling(task, states)], dtype=bool)
        if hopeless.all():
            return scores
        return np.where(hopeless, -np.inf, scores).tolist()

    def predict_asts(self, task: Any, batch: CompactASTBatch) -> Any:
        """Return what the wrapped model says; programs that unroll too far do not run."""
        said = self.model.predict_asts(task, batch)
        limit = self._limit(str(task.workload_key))
        if limit is None or not len(batch):
            return said
        steps = np.exp2(batch.vectors[:, COLUMN["unroll_limit"]]) - 1
        hopeless = np.maximum.reduceat(steps, batch.offsets[:-1]) > limit - 0.5
        return replace(said, runs_probability=np.where(hopeless, 0.0, said.runs_probability))

    def update(self, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        """Learn which builds timed out, and let the wrapped model learn."""
        self.model.update(inputs, results)
        for measured, result in zip(inputs, results, strict=True):
            (steps,) = _unrolling(measured.task, [measured.state])
            balance = self._balance.setdefault(str(measured.task.workload_key), Counter())
            balance[steps] += 1 if build_timed_out(result) else -1

    def catch_up(self) -> None:
        """Let the wrapped model do what it may have put off, as `CDMPPModel` does."""
        if hasattr(self.model, "catch_up"):
            self.model.catch_up()

    def content(self) -> Content:
        """Return what a checkpoint holds: what was built and what was not, by task."""
        balance = {key: list(found.items()) for key, found in self._balance.items()}
        return Content({"balance": balance}, {})

    def restore(self, content: Content) -> None:
        """Continue from what a checkpoint holds."""
        balance = content.settings["balance"]
        self._balance = {
            key: Counter({int(steps): int(late) for steps, late in found})
            for key, found in balance.items()
        }

    def _limit(self, workload_key: str) -> int | None:
        """Return the fewest steps of unrolling at which builds of a task mostly time out."""
        balance = self._balance.get(workload_key, Counter())
        return min((steps for steps, late in balance.items() if steps and late > 0), default=None)


def _unrolling(task: Any, states: Sequence[Any]) -> list[int]:
    """Return how many steps TVM may unroll in each program: the most of all its loop nests."""
    return [
        max(map(int, _UNROLLING.findall(line)), default=0)
        for line in dump_records(task, states).splitlines()
    ]
