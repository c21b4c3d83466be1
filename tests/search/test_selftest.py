"""The self-test passes with a working cost model and names what is wrong with a broken one."""

from typing import Any

import numpy as np
import pytest

from tvm_cdmpp.errors import MeasureError
from tvm_cdmpp.search.selftest import run_selftest


def make_model(score: float) -> Any:
    from tvm.auto_scheduler.cost_model.cost_model import PythonBasedModel

    class Model(PythonBasedModel):
        def __init__(self) -> None:
            super().__init__()
            self.updates: list[int] = []

        def predict(self, task: Any, states: Any) -> list[float]:
            return [score] * len(states)

        def update(self, inputs: Any, results: Any) -> None:
            assert len(inputs) == len(results)
            self.updates.append(len(results))

    return Model()


def test_working_model_is_measured_and_updated() -> None:
    model = make_model(1.0)
    report = run_selftest(model, num_measures=2)
    assert report.num_measured == 2
    assert model.updates == [2]
    assert 10 < report.num_states < 1000
    assert 0 < report.best_latency_s < 0.1
    assert report.target.startswith("llvm")


@pytest.mark.parametrize("score", [-1.0, 0.0, np.nan, -np.inf])
def test_unusable_scores_are_refused(score: float) -> None:
    with pytest.raises(MeasureError, match="must give"):
        run_selftest(make_model(score))
