"""Latencies and numbers in words: the same in tables and on pages."""

from collections.abc import Iterable


def latency(latency_s: float | None) -> str:
    """Write a latency in a unit that fits; a dash for one that is not known."""
    if latency_s is None:
        return "-"
    unit, per_second = latency_unit(latency_s)
    return f"{per_second * latency_s:.4g} {unit}"


def latency_unit(latency_s: float) -> tuple[str, float]:
    """Return the unit that fits a latency, and how many of it are a second."""
    return ("us", 1e6) if latency_s < 1e-4 else ("ms", 1e3) if latency_s < 1.0 else ("s", 1.0)


def counted(number: int, what: str) -> str:
    """Write how many there are of what has a plural in -s."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def ranges(numbers: Iterable[int], most: int | None = None) -> str:
    """Write ascending numbers as ranges, such as 1-4, 7; the first of them where there are many."""
    found: list[list[int]] = []
    for number in map(int, numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    shown = [f"{a}-{b}" if a < b else f"{a}" for a, b in found[:most]]
    return ", ".join(shown + ["..."] * (len(shown) < len(found)))
