"""Made-up measurements, without a store."""

from typing import Any

import numpy as np

from tvm_cdmpp.data.quality import Measurements


def measured(row: Any, mean_s: Any, log: Any = 0) -> Measurements:
    """Measurements with a single repeat, in the order of their programs."""
    rows = np.asarray(row)
    order = np.argsort(rows, kind="stable")
    logs = np.broadcast_to(np.asarray(log), rows.shape)[order]
    return Measurements(
        row=rows[order],
        log=logs,
        hour=np.zeros(len(rows), int),
        mean_s=np.asarray(mean_s)[order],
        variation=np.full(len(rows), np.nan),
        repeats=np.ones(len(rows), int),
        noisy=np.zeros(len(rows), bool),
    )
