"""The fields that analytic estimates calculate with, before scaling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import COUNTED, CompactASTBatch

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
Count: TypeAlias = Callable[[str], FloatArray]
Mask: TypeAlias = npt.NDArray[np.bool_]
Flag: TypeAlias = Callable[[str], Mask]

_ROW = {name: row for row, name in enumerate(COUNTED)}


class Facts:
    """The fields that the estimate reads, before scaling, of all leaves of a batch."""

    def __init__(self, batch: CompactASTBatch) -> None:
        # One contiguous row per field; the fields are read many times.
        self._counts = np.ascontiguousarray(batch.unscaled_fields().T)
        self._flags = self._counts > 0.5

    def count(self, name: str) -> FloatArray:
        """Return one field of all leaves."""
        counts: FloatArray = self._counts[_ROW[name]]
        return counts

    def flag(self, name: str) -> Mask:
        """Return where a field is set."""
        flags: Mask = self._flags[_ROW[name]]
        return flags
