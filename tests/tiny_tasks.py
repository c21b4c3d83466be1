"""Tiny tasks, and measurements of them that nobody made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.search.evolve import policy
from tvm_cdmpp.search.evolve.evolution import EvolutionConfig

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler
TARGET = tvm.target.Target("llvm")


@auto_scheduler.register_workload
def tiny_matmul(n: int, m: int, k: int) -> list[Any]:
    te = tvm.te
    a = te.placeholder((n, k), name="A")
    b = te.placeholder((k, m), name="B")
    r = te.reduce_axis((0, k), name="r")
    tag = {"auto_scheduler_task_scheduler_tag": "matmul"}
    c = te.compute((n, m), lambda i, j: te.sum(a[i, r] * b[r, j], axis=r), name="C", attrs=tag)
    return [a, b, c]


def matmul(n: int, m: int, k: int, target: Any = TARGET) -> Any:
    return auto_scheduler.SearchTask(func=tiny_matmul, args=(n, m, k), target=target)


def shrink_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a search take a fraction of a second."""
    params = auto_scheduler.SketchPolicy.DEFAULT_PARAMS
    monkeypatch.setitem(params, "evolutionary_search_population", 64)
    monkeypatch.setitem(params, "evolutionary_search_num_iters", 1)
    monkeypatch.setitem(params, "sample_init_min_population", 16)
    small = EvolutionConfig(generations=1, children=64, parents=32, descents=1, sweeps=1)
    monkeypatch.setattr(policy, "EvolutionConfig", lambda: small)


def invent(task: Any, latencies_s: Sequence[float]) -> tuple[list[Any], list[Any]]:
    """Distinct programs of a task, with invented latencies; 0 stands for a failed build."""
    params = {"evolutionary_search_population": 64, "sample_init_min_population": 16}
    policy = auto_scheduler.SketchPolicy(task, verbose=0, seed=1, params=params)
    states = list(policy.sample_initial_population())[: len(latencies_s)]
    assert len(states) == len(latencies_s)
    inputs = [auto_scheduler.MeasureInput(task, state) for state in states]
    results = [
        auto_scheduler.MeasureResult([latency_s or 1e10], 0 if latency_s else 2, "", 0.1, 1.0)
        for latency_s in latencies_s
    ]
    return inputs, results


def read_log(path: Path) -> list[tuple[Any, Any]]:
    return list(auto_scheduler.RecordReader(str(path)))
