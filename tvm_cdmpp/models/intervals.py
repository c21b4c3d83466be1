"""What holds a latency in 90 % of cases, if its logarithm is normally distributed."""

from __future__ import annotations

import math

SIGMAS_90 = 1.645
"""90 % of a normal distribution are within that many standard deviations."""


def interval(latency_s: float, *spreads: float) -> tuple[float, float]:
    """Return both ends of the interval.

    Parameters
    ----------
    latency_s
        Predicted seconds.
    spreads
        Standard deviations of their natural logarithm, for reasons that have nothing to do with
        each other.
    """
    factor = math.exp(SIGMAS_90 * math.hypot(*spreads))
    return latency_s / factor, latency_s * factor
