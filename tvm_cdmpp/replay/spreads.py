"""How far off a sum of predicted latencies is.

The errors of operators are not independent, but correlated by `CORRELATION`, so that the spread of
a sum of many falls to its square root and no further. What is wrong about the level of a device is
wrong for all of them, and does not fall.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CORRELATION = 0.2
"""Of the errors of ln latency of two tasks on one device, beside its level. On devices that the
weights know 0.1 was measured (`network_intervals` in benchmarks/results); a calibration leaves more
of the level."""


def joint_spread(
    parts: Sequence[tuple[float, float, float]], correlation: float = CORRELATION
) -> float:
    """Return the spread of ln(sum) of latencies, to first order.

    Parameters
    ----------
    parts
        Seconds, the standard deviation of their natural logarithm, and that of a level that all
        have in common.
    correlation
        Of the errors of any two beside their level.
    """
    total_s = sum(seconds for seconds, _, _ in parts)
    if not total_s:
        return 0.0
    deviations = [seconds * spread / total_s for seconds, spread, _ in parts]
    level = sum(seconds * spread / total_s for seconds, _, spread in parts)
    own = sum(deviation**2 for deviation in deviations)
    return math.sqrt(level**2 + correlation * sum(deviations) ** 2 + (1 - correlation) * own)
