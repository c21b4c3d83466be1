"""The curve of an onboarding in a file next to its records, so that a run goes on where it was."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tvm_cdmpp.files import append_lines
from tvm_cdmpp.train.onboarding import CurvePoint


def keep_point(file: Path, point: CurvePoint, learning: Mapping[str, Any]) -> None:
    """Append a point.

    Parameters
    ----------
    file
        JSON lines.
    point
        Of the curve.
    learning
        What it depends on besides the records, as JSON values.
    """
    append_lines(file, [json.dumps({**asdict(point), "learning": learning})])


def _are_numbers(values: Iterable[Any]) -> bool:
    return all(v is None or (isinstance(v, int | float) and math.isfinite(v)) for v in values)


def read_points(file: Path, learning: Mapping[str, Any]) -> list[CurvePoint]:
    """Return the points that are of the same learning; none where there is no file.

    Lines that a kill tore, or that are no points, are left out.
    """
    found: list[CurvePoint] = []
    if not file.exists():
        return found
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
            if values.pop("learning") == learning and _are_numbers(values.values()):
                found.append(CurvePoint(**values))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return found
