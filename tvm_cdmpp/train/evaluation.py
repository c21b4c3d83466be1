"""Predictions for measured programs, however many, a window of them in memory at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.models import CostPredictor, Prediction, TrainingRows


def evaluate(
    predictor: CostPredictor,
    rows: TrainingRows,
    *,
    window: int = 1 << 14,
    num_threads: int = 1,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Prediction:
    """Predict measured programs, each on the device that it was measured on.

    `score` compares the outcome with `rows.latencies_s` and `rows.groups`.

    Parameters
    ----------
    predictor
        The model.
    rows
        n programs; their latencies are not looked at.
    window
        Programs of one device to hold in memory at once.
    num_threads
        For the model.
    on_rows
        Told how many programs are done.

    Returns
    -------
    predictions
        In the order of the rows; without leaves. Without a spread where the model gives none.
    """
    latency_s, runs = np.empty((2, len(rows)))
    spread: npt.NDArray[np.float64] | None = np.empty(len(rows))
    devices = list(dict.fromkeys(rows.devices))
    device_of = np.array([devices.index(device) for device in rows.devices], np.int64)
    number_of = device_of[rows.machine_of] if len(rows) else np.zeros(0, np.int64)
    done = 0
    for number, device in enumerate(devices):
        programs = np.flatnonzero(number_of == number)
        for first in range(0, len(programs), window):
            chosen = programs[first : first + window]
            found = predictor.predict(rows.asts.take(chosen), device, num_threads=num_threads)
            latency_s[chosen], runs[chosen] = found.latency_s, found.runs_probability
            if spread is None or found.spread is None:
                spread = None
            else:
                spread[chosen] = found.spread
            done += len(chosen)
            on_rows(done)
    return Prediction(latency_s, runs, spread)
