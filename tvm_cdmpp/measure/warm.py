"""How much longer functions take than estimated that find all that they read in the caches.

- Plain ones, which move data, do simple arithmetic, or call the C library for each element. No
  predictor learned from them; what they take is estimated from cycles and bytes, by the clock and
  the caches that a device is known by. Of those, a rented machine tells little.
- Products that do little with each weight. By themselves they wait for memory, as predictors have
  learned it; what they take where the weights are in the caches is estimated from that.

So some are measured once, each run again and again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from tvm_cdmpp.bridge import failed, latency_s
from tvm_cdmpp.devices import Hardware
from tvm_cdmpp.measure.calibration import calibration_program
from tvm_cdmpp.measure.session import MeasureOptions
from tvm_cdmpp.measure.untuned import build_all
from tvm_cdmpp.measure.waking import Wakes, wait_until_idle
from tvm_cdmpp.networks import (
    KEPT_LAYERS,
    LIBRARY_LAYERS,
    PLAIN_LAYERS,
    Layer,
    OwnFunction,
    network_of_layers,
    own_functions,
    plain_functions,
)

_LEAST = 3
"""Functions that must tell; of fewer, nothing is said."""
_MOST = 8.0
"""Times what is estimated; what takes longer has waited."""
_LEAST_GONE = 0.4
"""Share of a product's work alone that must be gone in full caches, for it to tell what is left."""
_FAILED = "failed"
_TOGETHER = 4
"""Functions from one call of `on_stage` to the next."""

Level: TypeAlias = float | str
"""ln(measured / estimated) of a function's work, or why that is not told."""
OnStage = Callable[[str, int, int], None]
"""Told what is being measured, how many of it are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class WarmEstimate:
    """What a function is estimated to take again and again by itself."""

    start_s: float
    work_s: float
    gone: float = 1.0
    """Share of its work with empty caches that is gone."""


class WarmEstimator(Protocol):
    """What is compared."""

    def plain(self, function: OwnFunction, wake_s: float | None) -> WarmEstimate:
        """Estimate a function, given what waking threads takes, where that is known."""

    def kept(self, function: OwnFunction, wake_s: float | None, alone_s: float) -> WarmEstimate:
        """Estimate a product, given also what it took with empty caches."""


@dataclass(frozen=True, slots=True)
class WarmLevels:
    """ln(measured / estimated) of work, the median of some functions; None where too few told."""

    plain: float | None
    library: float | None
    kept: float | None
    untold: tuple[str, ...] = ()
    """Functions that do not count, each with why."""


def warm_levels(
    options: MeasureOptions,
    target: Any,
    wakes: Wakes,
    estimator: WarmEstimator,
    on_stage: OnStage = lambda what, done, number: None,
) -> WarmLevels:
    """Measure functions with full caches.

    Parameters
    ----------
    options
        How they are measured, and where.
    target
        A CPU.
    wakes
        Measures what waking threads takes just then.
    estimator
        What is compared.
    on_stage
        Called as each stage begins, and after every few functions.
    """
    bench = _Bench(options, target, on_stage)

    def wake() -> float | None:
        on_stage("waking threads", 0, 1)
        return wakes.take()

    untold = list[str]()

    def told(functions: Sequence[OwnFunction], levels: Sequence[Level]) -> list[float]:
        pairs = zip(functions, levels, strict=True)
        untold.extend(f"{each.name} {level}" for each, level in pairs if isinstance(level, str))
        return [level for level in levels if not isinstance(level, str)]

    def plain_levels(what: str, layers: Sequence[Layer]) -> list[float]:
        functions = plain_functions(network_of_layers(layers), target, bench.cores)
        wake_s = wake()
        found_s = bench.time(what, functions, full=True)
        estimates = [estimator.plain(function, wake_s) for function in functions]
        return told(functions, _levels(found_s, estimates))

    def kept_levels() -> list[float]:
        functions = own_functions(network_of_layers(KEPT_LAYERS), target, bench.cores)
        alone_s = bench.time("products with empty caches", functions, full=False)
        pairs = list(zip(functions, alone_s, strict=True))
        alone = [(function, seconds) for function, seconds in pairs if seconds is not None]
        untold.extend(f"{function.name} {_FAILED}" for function, found in pairs if found is None)
        wake_s = wake()
        ran = [function for function, _ in alone]
        found_s = bench.time("products with full caches", ran, full=True)
        estimates = [estimator.kept(each, wake_s, seconds) for each, seconds in alone]
        return told(ran, _levels(found_s, estimates))

    plain = plain_levels("plain functions with full caches", PLAIN_LAYERS)
    library = plain_levels("functions that call the C library", LIBRARY_LAYERS)
    kept = kept_levels()
    return WarmLevels(
        plain=_median(plain),
        library=_median(library),
        kept=_median(kept),
        untold=tuple(untold),
    )


class _Bench:
    """Builds and times functions."""

    def __init__(self, options: MeasureOptions, target: Any, on_stage: OnStage) -> None:
        self._options, self._target, self._on_stage = options, target, on_stage
        self._stand_in = calibration_program(target)  # TVM's runner asks for its target
        self.cores = Hardware.of(self._stand_in.task.hardware_params).cores

    def time(
        self, what: str, functions: Sequence[OwnFunction], *, full: bool
    ) -> list[float | None]:
        """Time functions with full or empty caches; None for those that do not run."""
        found_s = list[float | None]()
        self._on_stage(what, 0, len(functions))
        for first in range(0, len(functions), _TOGETHER):
            found_s += self._time(functions[first : first + _TOGETHER], full=full)
            self._on_stage(what, len(found_s), len(functions))
        return found_s

    def _time(self, functions: Sequence[OwnFunction], *, full: bool) -> list[float | None]:
        inputs = [self._stand_in] * len(functions)
        built = build_all(inputs, functions, self._options.builder(), self._target)
        if self._options.remote is None:
            wait_until_idle()
        results = self._options.runner(on_cpu=not full).run(inputs, built, verbose=0)
        return [None if failed(result) else latency_s(result) for result in results]


def _levels(found_s: Sequence[float | None], estimates: Sequence[WarmEstimate]) -> list[Level]:
    """Return the level of each function, or why it does not tell."""
    return [_level(*pair) for pair in zip(found_s, estimates, strict=True)]


def _level(seconds: float | None, estimate: WarmEstimate) -> Level:
    if seconds is None:
        return _FAILED
    if estimate.gone < _LEAST_GONE:
        return "gains too little by full caches"
    measured_s = seconds - estimate.start_s
    if measured_s <= estimate.start_s:
        return "is hardly more than its start"
    if measured_s >= estimate.start_s + _MOST * estimate.work_s:
        return "waited for other programs"
    return math.log(measured_s / estimate.work_s) / estimate.gone


def _median(levels: Sequence[float]) -> float | None:
    return float(np.median(levels)) if len(levels) >= _LEAST else None
