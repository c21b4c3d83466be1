"""How much longer plain functions take than estimated: such as move data, or do simple arithmetic.

No predictor learned from them; what they take is estimated from cycles and bytes, by the clock and
the caches that a device is known by. Of those, a rented machine tells little. So some are measured
once, each run again and again with all that it reads in the caches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tvm_cdmpp.bridge import failed, latency_s
from tvm_cdmpp.devices import Hardware
from tvm_cdmpp.measure.calibration import calibration_program
from tvm_cdmpp.measure.session import MeasureOptions
from tvm_cdmpp.measure.untuned import build_all
from tvm_cdmpp.networks import PLAIN_LAYERS, OwnFunction, network_of_layers, plain_functions

Estimator: TypeAlias = Callable[[OwnFunction, float | None], tuple[float, float]]
"""Given a function and what waking threads takes, returns seconds of its start and of its work."""

_LEAST = 3
"""Functions that must tell; of fewer, nothing is said."""
_MOST = 8.0
"""Times what is estimated; what takes longer has waited."""


def plain_level(
    options: MeasureOptions, target: Any, wake_s: float | None, estimate: Estimator
) -> float | None:
    """Return ln(measured / estimated) of the work of plain functions, the median of some.

    Parameters
    ----------
    options
        How they are measured, and where.
    target
        A CPU.
    wake_s
        What waking threads takes; None where that is not known.
    estimate
        What is compared.

    Returns
    -------
    level
        None where too few ran.
    """
    builder, runner = options.builder(), options.runner(on_cpu=False)
    stand_in = calibration_program(target)  # TVM's runner asks for its target
    cores = Hardware.of(stand_in.task.hardware_params).cores
    functions = plain_functions(network_of_layers(PLAIN_LAYERS), target, cores)
    inputs = [stand_in] * len(functions)
    results = runner.run(inputs, build_all(inputs, functions, builder, target), verbose=0)
    levels = []
    for function, result in zip(functions, results, strict=True):
        if failed(result):
            continue
        start_s, work_s = estimate(function, wake_s)
        measured_s = latency_s(result) - start_s
        # Else too little is known of the work, or other programs of a busy machine took the time.
        if start_s < measured_s < start_s + _MOST * work_s:
            levels.append(math.log(measured_s / work_s))
    return float(np.median(levels)) if len(levels) >= _LEAST else None
