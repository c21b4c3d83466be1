"""What is said of edits of programs, and how often that is so when they are measured.

Who says it:

- the `prediction` for the edit next to that for the program. That is what all attributions add up
  to, however they share it out: it tells nothing of them;
- the `explanation`: the group with the largest attribution, the first that `explain` shows;
- `any_group` that adds something, drawn at random: what the order by size is worth.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models import TrainedPredictor, attribute

SAYINGS = ("prediction", "explanation", "any_group")

_LEAST_DIFFERENCE = 0.05
_RESAMPLES = 1000


def said(
    pair: CompactASTBatch,
    predictor: TrainedPredictor,
    device: DeviceSpec,
    generator: np.random.Generator,
) -> dict[str, float | None]:
    """Return what an edit is said to add to ln latency, by each of `SAYINGS`.

    Parameters
    ----------
    pair
        A program and its edit. With another number of leaves there are no attributions, and None
        is what they say.
    predictor, device
        What predicts, and for what.
    generator
        Draws the group.
    """
    if pair.leaf_counts[0] != pair.leaf_counts[1]:
        before_s, after_s = predictor.predict(pair, device).latency_s
        return {"prediction": math.log(after_s / before_s), "explanation": None, "any_group": None}
    found = attribute(predictor, pair.take([1]), device, pair.take([0]), steps=16)
    groups = [added for added in found.groups.values() if added] or [0.0]
    return {
        "prediction": math.log(found.latency_s / found.reference_s),
        "explanation": groups[0],
        "any_group": float(generator.choice(groups)),
    }


def shares(rows: Sequence[dict[str, Any]], by: str) -> dict[str, Any]:
    """Return what there is to say of some edits.

    Parameters
    ----------
    rows
        With `task`, what each of `SAYINGS` says that the edit adds to ln latency, and what it adds
        as `measured`; None where it did not run.
    by
        One of `SAYINGS`; edits of which it says nothing do not count.

    Returns
    -------
    shares
        `edits`, and of these those `too_alike`: measured within 5 %, they tell nothing and are left
        out. `said_good_are_good`: of the edits that are said to save 5 %, those that are good.
        `as_measured`: of all, those that are said to save, or cost, and do. `good`: of all, those
        that are good. Each with its 90 % interval, tasks being resampled; None where there is no
        such edit.
    """
    rows = [row for row in rows if row[by] is not None]
    told = [
        row
        for row in rows
        if row["measured"] is not None and abs(row["measured"]) >= _LEAST_DIFFERENCE
    ]
    tasks = [row["task"] for row in told]
    added = np.array([row[by] for row in told])
    good = np.array([row["measured"] for row in told]) < 0
    return {
        "edits": len(rows),
        "too_alike": sum(row["measured"] is not None for row in rows) - len(told),
        "said_good_are_good": share_over_tasks(tasks, good, added <= -_LEAST_DIFFERENCE),
        "as_measured": share_over_tasks(tasks, (added < 0) == good),
        "good": share_over_tasks(tasks, good),
    }


def share_over_tasks(
    tasks: Sequence[Any], holds: npt.ArrayLike, among: npt.ArrayLike | None = None
) -> dict[str, Any] | None:
    """Return how often something holds, with its 90 % interval, tasks being resampled.

    Parameters
    ----------
    tasks
        Of each case; those of one task are drawn together.
    holds
        Whether it holds for a case, from 0 to 1.
    among
        Cases that count; all where it is None.

    Returns
    -------
    share
        With its `interval` and of how many `cases` it is; None where there are none.
    """
    names, place = np.unique(np.asarray(tasks), return_inverse=True)
    counts = np.ones(len(place), bool) if among is None else np.asarray(among, bool)
    if not counts.any():
        return None
    held = np.asarray(holds, np.float64)
    drawn = np.random.default_rng(0).integers(len(names), size=(_RESAMPLES, len(names)))
    weights = np.array([np.bincount(row, minlength=len(names))[place] for row in drawn])
    resampled = weights @ (held * counts) / np.maximum(weights @ counts, 1)
    low, high = np.quantile(resampled[weights @ counts > 0], [0.05, 0.95])
    return {
        "share": float(held[counts].mean()),
        "interval": [float(low), float(high)],
        "cases": int(counts.sum()),
    }
