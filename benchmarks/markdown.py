"""Pieces of Markdown that all pages of results share."""

from collections.abc import Iterator
from typing import Any


def table_head(*titles: str) -> Iterator[str]:
    """Yield the first two lines of a table."""
    yield table_row(*titles)
    yield f"|{'---|' * len(titles)}"


def table_row(*cells: str) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


def over_seeds(seeds: int, mean: str, median: str) -> str:
    """Say what figures are over seeds: of two the median is the mean."""
    if seeds == 1:
        return "one seed"
    return f"{mean if seeds == 2 else median} over {seeds} seeds"


def hardware(result: dict[str, Any]) -> str:
    """Say where a result was measured."""
    machine = result["machine"]
    cores = f"{machine['physical_cores']} cores of {machine['cpu'] or 'an unnamed CPU'}"
    return f"{cores} and an {machine['gpu']}" if machine.get("gpu") else cores


def origin(result: dict[str, Any]) -> str:
    """Say when, from what and where a result was measured."""
    tvm = result["machine"]["tvm"]
    version = f"TVM {tvm}" if tvm else "no TVM"
    return (
        f"{result['date'][:10]}, commit {result['commit']}, `{result['command']}` on "
        f"{hardware(result)}, {version}."
    )
