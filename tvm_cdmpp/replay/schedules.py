"""Schedules for the tasks of a network without measuring: the best that the predictor can find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.networks import CountingBest
from tvm_cdmpp.search import CDMPPModel

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler

_LEAST_INITIAL = 16


def best_predicted(
    tasks: Sequence[Any], device: DeviceSpec, weights: str, trials: int, seed: int = 0
) -> CountingBest:
    """Search each task with the predictor alone, and take what it likes best.

    Parameters
    ----------
    tasks
        The network's tasks (`SearchTask`).
    device
        Hardware to search for.
    weights
        As of `CDMPPModel`.
    trials
        Programs per generation of the search of each task.
    seed
        One seed gives one set of schedules.

    Returns
    -------
    best
        To lower the network with; a task of which nothing could be made has TVM's own schedule.
    """
    model = CDMPPModel(seed, device=device, weights=weights)
    records = []
    for number, task in enumerate(tasks):
        params = {
            **auto_scheduler.SketchPolicy.DEFAULT_PARAMS,
            "evolutionary_search_population": max(trials, _LEAST_INITIAL),
            "sample_init_min_population": min(trials, 50),
        }
        policy = auto_scheduler.SketchPolicy(
            task, model, params=params, seed=1 + number + len(tasks) * seed, verbose=0
        )
        states = list(policy.evolutionary_search(policy.sample_initial_population(), trials))
        if states:
            scores = model.predict(task, states)
            best = max(range(len(states)), key=scores.__getitem__)
            result = auto_scheduler.MeasureResult([1.0 / max(scores[best], 1e-9)], 0, "", 0.0, 0.0)
            records.append((auto_scheduler.MeasureInput(task, states[best]), result))
    return CountingBest(records)
