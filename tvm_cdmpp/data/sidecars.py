"""Files next to a log that are no logs, and what the calibrations among them say of its lines."""

import json
import re
from pathlib import Path
from typing import Any

from tvm_cdmpp.errors import RecordError

_SIDECAR = re.compile(r".+\.(calibration\.jsonl|history\.json)|comparison\.json")


def is_sidecar(name: str) -> bool:
    """Tell whether a file of this name is what a command writes next to logs."""
    return _SIDECAR.fullmatch(name) is not None


def read_noisy_lines(log: Path) -> frozenset[int]:
    """Return the lines of a log, from 1, that were measured while the machine was noisy.

    `LOG.calibration.jsonl` tells (see `tvm_cdmpp.measure.calibration.CalibrationRow`): noisy is
    what was marked so, and what is so by the lowest calibration of its run, which may have come
    later. Of two calibrations that vouch for a line the later one holds.

    Raises
    ------
    RecordError
        The file holds something else.
    """
    file = log.with_name(f"{log.name}.calibration.jsonl")
    if not file.is_file():
        return frozenset()
    rows: list[dict[str, Any]] = []
    lowest_s: dict[float, float] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            continue  # half a line of a killed run, which vouches for nothing
        try:
            latency_s = float(row["latency_s"])
            lowest_s[row["run"]] = min(latency_s, lowest_s.get(row["run"], latency_s))
            rows.append({**row, "end": row["first_line"] + row["num_lines"]})
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(
                f"{file}:{number} is no calibration ({type(error).__name__}: {error}); repair or "
                "remove the file"
            ) from error
    noisy: set[int] = set()
    for row in rows:
        lines = range(row["first_line"] + 1, row["end"] + 1)
        bound_s = (1 + row["bound"]) * lowest_s[row["run"]]
        if row["noisy"] or row["latency_s"] > bound_s:
            noisy.update(lines)
        else:
            noisy.difference_update(lines)
    return frozenset(noisy)
