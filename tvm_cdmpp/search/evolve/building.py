"""How long programs take to build, compared with each other, by their descriptions alone.

Most of a search's time goes into building what is measured, in LLVM for the most part, and programs
that are predicted alike often differ by a factor of several.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import COLUMN, CompactASTBatch

_OF_STATEMENTS = 0.30
_OF_LOOPS = 0.18


def log_build_cost(batch: CompactASTBatch) -> npt.NDArray[np.float64]:
    """Return ln of what it takes to build each program, but for a factor that all share; (n,).

    What matters is how many accesses there are once loops are unrolled, of all leaves, and how deep
    the deepest loop nest is. Least squares on the time that 2,400 recorded programs of six networks
    took on an x86 CPU; ranks correlate by 0.63 within tasks.

    Parameters
    ----------
    batch
        Compact ASTs of n programs, each with at least one leaf.
    """
    if not len(batch):
        return np.zeros(0)
    firsts = batch.offsets[:-1]
    statements = _count(batch, "unrolled_body") * _count(batch, "num_accesses")
    loops = np.maximum.reduceat(_count(batch, "num_loops"), firsts)
    cost: npt.NDArray[np.float64] = (
        _OF_STATEMENTS * np.log(np.maximum(np.add.reduceat(statements, firsts), 1.0))
        + _OF_LOOPS * loops
    )
    return cost


def _count(batch: CompactASTBatch, name: str) -> npt.NDArray[np.float64]:
    count: npt.NDArray[np.float64] = np.exp2(batch.vectors[:, COLUMN[name]].astype(np.float64)) - 1
    return count
