"""Compact ASTs: the leaves of tensor programs in pre-order, and where they sit in the tree.

Programs of a batch are stored one after the other without padding; `densify` makes the dense form
that a Transformer wants. The position of a leaf is `2 * k - depth`, with `k` its pre-order number
among the root, the loops with more than one iteration and the leaves, and the root at depth 0:
its place in the serialised tree of CDMPP (Hu et al., EuroSys 2024), end markers counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast.schema import COLUMN, COUNTED_COLUMNS, FIELDS, NUM_FIELDS
from tvm_cdmpp.errors import RecordError

_NO_LOGS = np.flatnonzero([FIELDS[column].scale != "log2" for column in COUNTED_COLUMNS])
"""Places of the fields among `COUNTED` that are stored as they are."""


@dataclass(frozen=True)
class CompactASTBatch:
    """The compact ASTs of some programs.

    Attributes
    ----------
    vectors
        Computation vectors of all leaves, of shape (leaves, NUM_FIELDS), float32.
    positions
        Positions of all leaves, of shape (leaves,), int32.
    offsets
        Program p owns the leaves offsets[p] to offsets[p + 1]; shape (programs + 1,).
    unscaled
        The fields `COUNTED` of all leaves before scaling, of shape (leaves, len(COUNTED)),
        float32; None where only the vectors are known, as of stored ones.
    """

    vectors: npt.NDArray[np.float32]
    positions: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    unscaled: npt.NDArray[np.float32] | None = None

    @staticmethod
    def of_counts(
        vectors: npt.NDArray[np.float32],
        positions: npt.NDArray[np.int32],
        leaf_counts: npt.NDArray[np.int64],
        unscaled: npt.NDArray[np.float32] | None = None,
    ) -> CompactASTBatch:
        """Make a batch from the leaves of its programs and their numbers, in order."""
        offsets = np.concatenate([[0], np.cumsum(leaf_counts)]).astype(np.int64)
        return CompactASTBatch(vectors, positions, offsets, unscaled)

    def __len__(self) -> int:
        """Return the number of programs."""
        return len(self.offsets) - 1

    @property
    def leaf_counts(self) -> npt.NDArray[np.int64]:
        """Leaves per program."""
        return np.diff(self.offsets)

    def unscaled_fields(self) -> npt.NDArray[np.float32]:
        """Return the fields `COUNTED` before scaling, of shape (leaves, len(COUNTED)).

        Those not kept are recovered from the vectors, to within the rounding of their logarithms.
        """
        if self.unscaled is not None:
            return self.unscaled
        counts: npt.NDArray[np.float32] = self.vectors[:, COUNTED_COLUMNS]
        others = counts[:, _NO_LOGS]
        np.exp2(counts, out=counts)  # in place: a new array this large costs more than the powers
        counts -= 1.0
        # Rounded, because 16 lanes stored as a float32 logarithm may come back as 16.000002.
        np.rint(counts, out=counts)
        counts[:, _NO_LOGS] = others
        return counts

    def vectors_of(self, program: int) -> npt.NDArray[np.float32]:
        """Return the computation vectors of one program."""
        return self.vectors[self.offsets[program] : self.offsets[program + 1]]

    def leaves_of(self, programs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the places of the leaves of the given programs, in the given order."""
        counts = self.leaf_counts[programs]
        firsts = np.cumsum(counts) - counts
        within = np.arange(counts.sum()) - np.repeat(firsts, counts)
        places: npt.NDArray[np.int64] = np.repeat(self.offsets[programs], counts) + within
        return places

    def without_empty(self) -> CompactASTBatch:
        """Return the programs that have leaves, in order; nothing is copied."""
        counts = self.leaf_counts
        return CompactASTBatch.of_counts(
            self.vectors, self.positions, counts[counts > 0], self.unscaled
        )

    def take(self, programs: npt.ArrayLike) -> CompactASTBatch:
        """Return the batch of the given programs, in the given order."""
        chosen = np.asarray(programs, dtype=np.int64)
        rows, counts = self.leaves_of(chosen), self.leaf_counts[chosen]
        unscaled = None if self.unscaled is None else self.unscaled.take(rows, axis=0)
        vectors = self.vectors.take(rows, axis=0)  # half as long again by an index
        return CompactASTBatch.of_counts(vectors, self.positions[rows], counts, unscaled)


def dense_mask(leaf_counts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tell where programs have leaves once they are padded to the longest of them.

    Returns
    -------
    mask
        True where there is a leaf, of shape (programs, leaves of the longest program).
    """
    mask: npt.NDArray[np.bool_] = np.arange(leaf_counts.max(initial=1)) < leaf_counts[:, None]
    return mask


def densify(values: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Lay values of leaves out in the dense form that a Transformer wants.

    Parameters
    ----------
    values
        One entry per leaf, of shape (leaves, ...).
    mask
        From `dense_mask`.

    Returns
    -------
    dense
        Of shape mask.shape + (...), zero where there is no leaf; a view where nothing is padded.
    """
    shape = (*mask.shape, *values.shape[1:])
    if mask.all():
        return values.reshape(shape)
    dense = np.zeros(shape, dtype=values.dtype)
    dense[mask] = values
    return dense


def concatenate(batches: Sequence[CompactASTBatch]) -> CompactASTBatch:
    """Join batches, programs in order."""
    if not batches:
        return CompactASTBatch(
            np.zeros((0, NUM_FIELDS), np.float32), np.zeros(0, np.int32), np.zeros(1, np.int64),
            np.zeros((0, len(COUNTED_COLUMNS)), np.float32),
        )  # fmt: skip
    unscaled = [batch.unscaled for batch in batches if batch.unscaled is not None]
    return CompactASTBatch.of_counts(
        np.concatenate([batch.vectors for batch in batches]),
        np.concatenate([batch.positions for batch in batches]),
        np.concatenate([batch.leaf_counts for batch in batches]),
        np.concatenate(unscaled) if len(unscaled) == len(batches) else None,
    )


def program_vectors(batch: CompactASTBatch) -> npt.NDArray[np.float32]:
    """Describe each program by one vector, to tell which programs are alike.

    Parameters
    ----------
    batch
        Compact ASTs of n programs.

    Returns
    -------
    vectors
        The computation vector of the leaf that is executed most often, then the sum over all
        leaves; (n, 2 * NUM_FIELDS).

    Raises
    ------
    RecordError
        A program has no leaf.
    """
    counts = batch.leaf_counts
    if (counts == 0).any():
        raise RecordError(f"Program {int(np.argmin(counts))} has no leaf, so it has no features.")
    if not len(batch):
        return np.zeros((0, 2 * NUM_FIELDS), np.float32)
    firsts = batch.offsets[:-1]
    program = np.repeat(np.arange(len(batch)), counts)
    order = np.lexsort((-batch.vectors[:, COLUMN["executions"]], program))
    largest = batch.vectors[order[firsts]]
    return np.hstack([largest, np.add.reduceat(batch.vectors, firsts)])


def positional_encoding(
    positions: npt.NDArray[np.int32], width: int, longest: float = 1000.0
) -> npt.NDArray[np.float32]:
    """Encode positions as sines and cosines (Vaswani et al., 2017, section 3.5).

    The original CDMPP spreads its exponents over [0, 2) and pairs unequal frequencies; this is the
    usual encoding, with wavelengths from 2 pi to `longest` x 2 pi, as trees have at most a few
    hundred nodes.

    Parameters
    ----------
    positions
        Positions of any shape.
    width
        Even number of columns to return.
    longest
        Ratio of the longest to the shortest wavelength.

    Returns
    -------
    encoding
        Of shape positions.shape + (width,); sines in even columns, cosines in odd ones.
    """
    frequencies = longest ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    angles = positions[..., None].astype(np.float64) * frequencies
    encoding = np.empty((*positions.shape, width), dtype=np.float32)
    encoding[..., 0::2] = np.sin(angles)
    encoding[..., 1::2] = np.cos(angles)
    return encoding
