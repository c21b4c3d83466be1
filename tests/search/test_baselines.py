"""Cost models by name: the right class with the right settings, working with this XGBoost."""

import numpy as np
import pytest

from tests.tiny_tasks import auto_scheduler, invent, matmul
from tvm_cdmpp.devices.host import read_host_cpu
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.search.baselines import make_cost_model, num_threads


@pytest.mark.parametrize(
    ("kind", "warm_up", "adaptive"),
    [("xgb", 40, False), ("xgb-warm", 7, False), ("xgb-adaptive", 7, True)],
)
def test_xgboost_settings(kind: str, warm_up: int, adaptive: bool) -> None:
    model = make_cost_model(kind, seed=7, num_measures_per_round=8, num_tasks=5)
    assert isinstance(model, auto_scheduler.XGBModel)
    assert (model.num_warmup_sample, model.adaptive_training) == (warm_up, adaptive)
    assert model.xgb_params["seed"] == 7
    assert model.xgb_params["nthread"] == num_threads(kind) == read_host_cpu().physical_cores


def test_what_is_not_faster_on_several_threads_has_one() -> None:
    assert {num_threads(kind) for kind in ("random", "cdmpp-untrained:evolve")} == {1}
    assert num_threads("cdmpp-evaluation:evolve") == read_host_cpu().physical_cores


@pytest.mark.parametrize("kind", ["xgb-warm", "xgb-adaptive"])
def test_only_the_first_round_is_random(kind: str) -> None:
    """TVM's model predicts when it knows more records than its `num_warmup_sample`."""
    task = matmul(32, 32, 32)
    inputs, results = invent(task, [1e-3 * n for n in range(1, 9)])
    states = [measured.state for measured in inputs]
    model = make_cost_model(kind, seed=0, num_measures_per_round=8, num_tasks=5)
    assert list(model.predict(task, states)) != list(model.predict(task, states))
    model.update(inputs, results)
    scores = model.predict(task, states)
    assert list(scores) == list(model.predict(task, states))
    assert np.corrcoef(scores, [1 / n for n in range(1, 9)])[0, 1] > 0.8


def test_the_stock_set_up_is_random_for_a_round_per_task_and_one_more() -> None:
    task = matmul(32, 32, 32)
    inputs, results = invent(task, [1e-3 * n for n in range(1, 9)])
    states = [measured.state for measured in inputs]
    model = make_cost_model("xgb", seed=0, num_measures_per_round=8, num_tasks=1)
    model.update(inputs, results)
    assert list(model.predict(task, states)) != list(model.predict(task, states))
    model.update(inputs[:1], results[:1])
    assert list(model.predict(task, states)) == list(model.predict(task, states))


def test_xgboost_learns() -> None:
    task = matmul(32, 32, 32)
    inputs, results = invent(task, [1e-3 * n for n in range(1, 13)])
    model = make_cost_model("xgb-warm", seed=0, num_measures_per_round=8, num_tasks=1)
    model.update(inputs, results)
    scores = model.predict(task, [measured.state for measured in inputs])
    assert np.corrcoef(scores, [1 / n for n in range(1, 13)])[0, 1] > 0.8


def test_unknown_kind() -> None:
    with pytest.raises(ConfigError, match="unknown cost model 'gbm'; expected one of cdmpp"):
        make_cost_model("gbm", seed=0, num_measures_per_round=8, num_tasks=1)
