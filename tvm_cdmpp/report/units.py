"""Latencies in words: the same units in tables and on pages."""


def latency(latency_s: float | None) -> str:
    """Write a latency in a unit that fits; a dash for one that is not known."""
    if latency_s is None:
        return "-"
    unit, per_second = latency_unit(latency_s)
    return f"{per_second * latency_s:.4g} {unit}"


def latency_unit(latency_s: float) -> tuple[str, float]:
    """Return the unit that fits a latency, and how many of it are a second."""
    return ("us", 1e6) if latency_s < 1e-4 else ("ms", 1e3) if latency_s < 1.0 else ("s", 1.0)
