"""What a `MeasureResult` says: seconds, a failure, or a number that cannot be."""

from __future__ import annotations

import math
from typing import Any

from tvm_cdmpp.errors import RecordError

_INSTANTIATION, _NOT_LOADED, _RUNTIME, _WRONG_ANSWER = 1, 3, 4, 5
_BUILD_TIMEOUT, _RUN_TIMEOUT, _UNKNOWN = 6, 7, 8
_SHORTEST_COST_S = 1e-12
"""Less than a cycle."""
LONGEST_COST_S = 1e9
"""TVM writes 1e10 for a failed measurement."""


def latency_s(result: Any) -> float:
    """Return the mean of the measured costs, as Ansor ranks programs; infinite for a failure.

    Raises
    ------
    RecordError
        The measurement is said to be fine, but its costs cannot be seconds.
    """
    if failed(result):
        return math.inf
    costs_s = [float(cost) for cost in result.costs]
    if not costs_s or not all(_SHORTEST_COST_S < cost_s < LONGEST_COST_S for cost_s in costs_s):
        raise RecordError(f"expected seconds above {_SHORTEST_COST_S:g}; got {costs_s}")
    return sum(costs_s) / len(costs_s)


def possible_latency_s(result: Any) -> float:
    """Return the latency, infinite where the program failed or what was timed cannot be."""
    try:
        return latency_s(result)
    except RecordError:
        return math.inf


def failed(result: Any) -> bool:
    """Tell whether a program did not build or run."""
    return int(result.error_no) != 0


def timed_out(result: Any) -> bool:
    """Tell whether a failure says "too slow" rather than "cannot run".

    TVM reports runs that take too long as errors of the run, with the reason in the message.
    """
    error_no = int(result.error_no)
    return error_no in (_BUILD_TIMEOUT, _RUN_TIMEOUT) or (
        error_no == _RUNTIME and "TimeoutError" in str(result.error_msg)
    )


def failed_to_run(result: Any) -> bool:
    """Tell whether a program was built and did not run, or did not get to a remote device."""
    return int(result.error_no) in (_NOT_LOADED, _RUNTIME, _WRONG_ANSWER, _RUN_TIMEOUT, _UNKNOWN)


def build_timed_out(result: Any) -> bool:
    """Tell whether building a program took too long."""
    return int(result.error_no) == _BUILD_TIMEOUT


def does_not_apply(result: Any) -> bool:
    """Tell whether TVM could not make a program of the state at all."""
    return int(result.error_no) == _INSTANTIATION
