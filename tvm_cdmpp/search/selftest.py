"""A search in miniature that shows whether this machine can tune: predict, measure, learn.

One small matmul goes through every part a tuning run needs, with a handful of programs, so that
a broken installation shows in seconds and by the part that is broken.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_cdmpp.bridge import default_target, load_tvm
from tvm_cdmpp.errors import MeasureError

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler

_SIZE = 128
_POPULATION = 128
_BUILD_TIMEOUT_S = 60
_RUN_TIMEOUT_S = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfTestReport:
    """What one self-test did."""

    target: str
    """The target that programs were built for."""
    num_states: int
    """Candidate programs that were made and scored."""
    num_measured: int
    """Programs built and run without error."""
    best_latency_s: float
    """Mean latency of the fastest measured program."""
    duration_s: float
    """Wall-clock time of the whole test."""


def run_selftest(model: Any, *, num_measures: int = 3, seed: int = 0) -> SelfTestReport:
    """Search a small matmul on this machine's CPU with a cost model, end to end.

    Parameters
    ----------
    model
        A TVM cost model with `predict(task, states)` and `update(inputs, results)`.
    num_measures
        Programs to build and run.
    seed
        Seed of the candidate programs.

    Returns
    -------
    report
        What was done; returning at all means that every part worked.

    Raises
    ------
    MeasureError
        The model's scores are unusable, or a program could not be built or run.
    """
    start_s = time.perf_counter()
    task = _matmul_task()
    # Not the model under test: with one that refuses every program, sampling would never end.
    policy = auto_scheduler.SketchPolicy(
        task,
        program_cost_model=auto_scheduler.RandomModel(),
        params={
            "evolutionary_search_population": _POPULATION,
            "sample_init_min_population": _POPULATION // 2,
        },
        seed=seed,
        verbose=0,
    )
    states = list(policy.sample_initial_population())
    scores = _predict(model, task, states)
    chosen = np.argsort(-scores)[:num_measures]
    inputs = [auto_scheduler.MeasureInput(task, states[i]) for i in chosen]
    results = _measure(inputs)
    model.update(inputs, results)
    _predict(model, task, states)
    return SelfTestReport(
        target=str(task.target),
        num_states=len(states),
        num_measured=len(results),
        best_latency_s=min(_mean_latency_s(result) for result in results),
        duration_s=time.perf_counter() - start_s,
    )


def _matmul_task() -> Any:
    te = tvm.te
    left = te.placeholder((_SIZE, _SIZE), name="left")
    right = te.placeholder((_SIZE, _SIZE), name="right")
    k = te.reduce_axis((0, _SIZE), name="k")
    product = te.compute(
        (_SIZE, _SIZE), lambda i, j: te.sum(left[i, k] * right[k, j], axis=k), name="product"
    )
    dag = auto_scheduler.ComputeDAG([left, right, product])
    # Registered as tensors, so that child processes need no module of this package.
    auto_scheduler.workload_registry.register_workload_tensors(
        dag.workload_key(), [left, right, product]
    )
    return auto_scheduler.SearchTask(
        compute_dag=dag, workload_key=dag.workload_key(), target=default_target()
    )


def _predict(model: Any, task: Any, states: list[Any]) -> np.ndarray:
    if not states:
        raise MeasureError("The search made no candidate programs for a matmul; expected dozens.")
    scores = np.asarray(model.predict(task, states), dtype=np.float64)
    usable = (np.isfinite(scores) & (scores > 0)) | np.isneginf(scores)
    if scores.shape != (len(states),) or not usable.all() or np.isneginf(scores).all():
        raise MeasureError(
            f"The cost model must give {len(states)} scores that are positive, or -inf for "
            f"programs that cannot run; got shape {scores.shape}, values {scores[:5]}."
        )
    return scores


def _measure(inputs: list[Any]) -> list[Any]:
    builder = auto_scheduler.LocalBuilder(timeout=_BUILD_TIMEOUT_S)
    runner = auto_scheduler.LocalRunner(
        timeout=_RUN_TIMEOUT_S, number=3, repeat=1, min_repeat_ms=10
    )
    results = list(runner.run(inputs, builder.build(inputs, 0), 0))
    for result in results:
        if result.error_no != 0:
            raise MeasureError(
                f"A matmul program could not be built or run (TVM's error {result.error_no}): "
                f"{result.error_msg.strip()[-2000:]}"
            )
    return results


def _mean_latency_s(result: Any) -> float:
    return float(np.mean([cost.value for cost in result.costs]))
