"""The tables of `benchmarks.device_choice` and `benchmarks.onboarding`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.markdown import origin, table_head, table_row

_ESTIMATES = ("predicted", "estimate", "peak")
_PARTS = {"operators": "operators", "held_out": "of these, not trained on", "networks": "networks"}


def choice_section(file: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield whether the right one of two devices is chosen."""
    settings = result["settings"]
    yield (
        f"**Choosing one of two devices** ([data](results/{file.name})). Weights "
        f"`{settings['weights']}`; the fastest of at most {settings['per_task']} recorded programs "
        "of each workload that both devices have, networks as sums of these. Share of right "
        "orders, of those that differ by more than 5 %; and by how much what was chosen is slower "
        "than the better one, mean over all. Next to the prediction: the analytic estimate of the "
        "same programs, and the device with the higher peak."
    )
    yield ""
    names = ("predicted", "analytic estimate", "peak FLOP/s")
    yield from table_head("devices", "", "compared", "differ", *names)
    for name, found in (("all pairs", result["overall"]), *_pairs(result)):
        for part, title in _PARTS.items():
            if found[part]["compared"]:
                yield table_row(
                    name if part == "operators" else "",
                    title,
                    f"{found[part]['compared']:,}",
                    f"{found[part]['differ']:,}",
                    *(_cell(found[part][estimate]) for estimate in _ESTIMATES),
                )
    yield ""
    yield origin(result)


def _pairs(result: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in result["pairs"]:
        yield " / ".join(row["devices"]), row


def _cell(found: dict[str, float | None]) -> str:
    right, regret = found["right"], found["regret"]
    share = "-" if right is None else f"{right:.0%}"
    return f"{share}, +{regret:.0%}"
