"""Programs of a task that tell how fast those of a search are, before any search.

TVM samples some, and those count that a model says are the fastest. What is predicted to be fast is
partly a mistake; what was measured to be fast, partly by chance. The programs that a search leaves
have both, and so have the fastest of these when they are measured. What is bred towards what a
model likes would have far more of the former: on two CPUs, weights that had learned from the
fastest of three such programs of each task took those of searches to be 1.2 to 1.4 times as slow as
they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.devices import DeviceSpec, Hardware
from tvm_cdmpp.extract import LayoutRewrite, StepExtractor, analyse, dump_records
from tvm_cdmpp.models import TrainedPredictor

auto_scheduler = load_tvm().auto_scheduler

_SAMPLED = 96
"""Programs of a task to choose from, at least."""
_SHARE = 0.25
"""Of these, how many are taken."""


class LikelyFast(NamedTuple):
    """Programs, those first that are predicted to be fastest."""

    states: Sequence[Any]
    log_s: Mapping[str, npt.NDArray[np.float64]]
    """Natural logarithm of predicted seconds, by the origin of the weights; (n,)."""

    def draw(self, number: int, seed: int) -> list[Any]:
        """Return some states, so many at most, of which any first ones stand for all."""
        order = np.random.default_rng(seed).permutation(len(self.states))
        return [self.states[place] for place in order[:number].tolist()]


def likely_fast(
    task: Any, device: DeviceSpec, predictors: Sequence[TrainedPredictor], least: int, seed: int
) -> LikelyFast:
    """Sample programs of a task and take the quarter that is predicted to be fastest.

    Parameters
    ----------
    task
        The `SearchTask`.
    device
        What predictions are for.
    predictors
        The first of them tells which are fastest.
    least
        How many to return at least, where the task has so many.
    seed
        Of the sampling; one seed gives the same programs.
    """
    with _numpy_unchanged():
        sampled = _sampled(task, max(_SAMPLED, round(least / _SHARE)), seed)
    hardware = Hardware.of(task.hardware_params)
    extractor = StepExtractor(
        analyse(task.compute_dag), hardware, LayoutRewrite(int(task.layout_rewrite_option))
    )
    batch, errors = extractor.extract(dump_records(task, sampled) if sampled else b"")
    usable = [state for place, state in enumerate(sampled) if place not in errors]
    if not usable:
        return LikelyFast([], {p.origin: np.zeros(0) for p in predictors})
    batch = batch.take(np.array([place for place in range(len(sampled)) if place not in errors]))
    log_s = {p.origin: np.log(p.predict(batch, device).latency_s) for p in predictors}
    order = np.argsort(log_s[predictors[0].origin], kind="stable")
    order = order[: max(min(least, len(order)), round(_SHARE * len(order)))]
    return LikelyFast(
        [usable[place] for place in order.tolist()],
        {origin: values[order] for origin, values in log_s.items()},
    )


def _sampled(task: Any, number: int, seed: int) -> list[Any]:
    """Let TVM sample programs of a task, which differ."""
    policy = auto_scheduler.SketchPolicy(
        task,
        params={
            **auto_scheduler.SketchPolicy.DEFAULT_PARAMS,
            "evolutionary_search_population": number,
            "sample_init_min_population": number // 2,
        },
        seed=1 + seed,  # TVM reads 0 as "no seed"
        verbose=0,
    )
    states = policy.sample_initial_population()
    return list({str(state): state for state in states}.values())


@contextmanager
def _numpy_unchanged() -> Iterator[None]:
    """Keep what TVM's sampling draws from NumPy's global generator from searches."""
    before = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(0)  # noqa: NPY002
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
