"""Which measured programs stay when there are too many to remember.

Every task, on every machine, has the same room; what a small one leaves is the others'. Half of a
task's room is for its fastest programs, which a search asks about. The other half is for those of
the rest that drew the lowest numbers when they came: a reservoir, in which an old program is as
likely to be as a new one, so that what was learned of a task is not lost while others are searched.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.models import Ints, TrainingRows

FloatArray = npt.NDArray[np.float64]


def rows_to_keep(rows: TrainingRows, draws: FloatArray, max_leaves: int) -> Ints:
    """Choose rows.

    Parameters
    ----------
    rows
        Measured programs, failed ones included.
    draws
        A random number of each, the same whenever it is asked about; (n,).
    max_leaves
        Leaves that those to keep may have together; the fastest program of each task stays even if
        there is no room for it.

    Returns
    -------
    kept
        Places of the rows to keep, ascending.
    """
    counts = rows.asts.leaf_counts
    order = np.argsort(rows.groups, kind="stable")
    tasks = np.split(order, np.flatnonzero(np.diff(rows.groups[order])) + 1)
    rooms = _rooms([int(counts[members].sum()) for members in tasks], max_leaves)
    kept = [
        _of_task(members, rows.latencies_s, draws, counts, room)
        for members, room in zip(tasks, rooms, strict=True)
    ]
    return np.sort(np.concatenate(kept))


def _rooms(sizes: list[int], total: int) -> list[int]:
    """Divide a total evenly; nobody gets more than its size."""
    rooms = [0] * len(sizes)
    waiting = len(sizes)
    for place in sorted(range(len(sizes)), key=sizes.__getitem__):
        rooms[place] = min(sizes[place], total // waiting)
        total -= rooms[place]
        waiting -= 1
    return rooms


def _of_task(
    members: Ints, latencies_s: FloatArray, draws: FloatArray, counts: Ints, room: int
) -> Ints:
    ranked = members[np.argsort(latencies_s[members], kind="stable")]
    num_fastest = max(1, int((np.cumsum(counts[ranked]) <= room / 2).sum()))
    fastest, rest = ranked[:num_fastest], ranked[num_fastest:]
    drawn = rest[np.argsort(draws[rest], kind="stable")]
    fits = np.cumsum(counts[drawn]) <= room - int(counts[fastest].sum())
    return np.concatenate([fastest, drawn[fits]])
