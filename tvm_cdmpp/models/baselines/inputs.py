"""What the baselines are told about programs: what the CDMPP network is told, but the positions.

Leaves of all programs lie one after the other. Networks take those of one leaf count at a time, so
that nothing is padded; `summarise` makes one row per program for models that want that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import NUM_FIELDS, CompactASTBatch
from tvm_cdmpp.devices import DEVICE_FIELDS, DeviceSpec
from tvm_cdmpp.models.analytic import estimate_leaf_latency_s, sum_leaves
from tvm_cdmpp.models.rows import Ints, TrainingRows

NUM_INPUTS = NUM_FIELDS + 1 + len(DEVICE_FIELDS)
"""Inputs per leaf: its computation vector, the log2 of its analytic seconds, the device vector."""

TIME_INPUT = NUM_FIELDS
"""Column of the analytic seconds."""

WINDOW = 1 << 14
"""Programs to hold in memory at once."""

_FIRST_DEVICE_INPUT = NUM_FIELDS + 1


@dataclass(frozen=True)
class ProgramInputs:
    """Inputs of B programs with N leaves in total.

    Attributes
    ----------
    leaves
        Inputs of every leaf, not scaled; (N, NUM_INPUTS).
    offsets
        Program p owns the leaves offsets[p] to offsets[p + 1]; (B + 1,).
    log_analytic_s
        Natural logarithm of the analytic latencies in seconds; (B,).
    """

    leaves: npt.NDArray[np.float32]
    offsets: Ints
    log_analytic_s: npt.NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of programs."""
        return len(self.log_analytic_s)

    def by_leaf_count(self, programs: Ints) -> Iterator[tuple[Ints, npt.NDArray[np.float32]]]:
        """Divide the given programs by their numbers of leaves.

        Yields
        ------
        places, leaves
            Places in `programs` of those with L leaves, (n,), and their inputs,
            (n, L, NUM_INPUTS).
        """
        counts = np.diff(self.offsets)[programs]
        for count in np.unique(counts):
            places = np.flatnonzero(counts == count)
            firsts = self.offsets[programs[places]]
            yield places, self.leaves[firsts[:, None] + np.arange(count)]


def make_inputs(
    batch: CompactASTBatch, devices: Sequence[DeviceSpec], device_of: Ints | None = None
) -> ProgramInputs:
    """Prepare programs.

    Parameters
    ----------
    batch
        B programs, all with at least one leaf.
    devices
        Where they run.
    device_of
        Place in `devices` of each program, (B,); by default all run on the first.
    """
    if device_of is None:
        device_of = np.zeros(len(batch), np.int64)
    of_leaf = np.repeat(device_of, batch.leaf_counts)
    leaf_s = np.empty(len(batch.vectors))
    leaves = np.empty((len(batch.vectors), NUM_INPUTS), np.float32)
    for place in np.unique(device_of):
        programs, here = np.flatnonzero(device_of == place), of_leaf == place
        leaf_s[here] = estimate_leaf_latency_s(batch.take(programs), devices[place])
        leaves[here, _FIRST_DEVICE_INPUT:] = devices[place].vector()
    leaves[:, :NUM_FIELDS] = batch.vectors
    leaves[:, TIME_INPUT] = np.log2(leaf_s)
    return ProgramInputs(leaves, batch.offsets, np.log(sum_leaves(batch, leaf_s)))


def inputs_of_rows(rows: TrainingRows, chosen: Ints) -> ProgramInputs:
    """Read and prepare some rows."""
    return make_inputs(rows.asts.take(chosen), rows.devices, rows.machine_of[chosen])


def windows(
    rows: TrainingRows, chosen: Ints, size: int = WINDOW
) -> Iterator[tuple[Ints, ProgramInputs]]:
    """Read and prepare some rows, a window of at most `size` of them at a time."""
    for first in range(0, len(chosen), size):
        part = chosen[first : first + size]
        yield part, inputs_of_rows(rows, part)


def summarise(inputs: ProgramInputs) -> npt.NDArray[np.float32]:
    """Describe each program by one row of numbers.

    Returns
    -------
    summary
        Inputs of the leaf with the largest analytic time, device vector included; the largest and
        the sum over leaves of all other inputs; and the log2 of the program's analytic seconds.
        Of shape (B, 3 * NUM_FIELDS + 4 + len(DEVICE_FIELDS)).
    """
    starts = inputs.offsets[:-1]
    about_leaves = inputs.leaves[:, :_FIRST_DEVICE_INPUT]
    programs = np.repeat(np.arange(len(inputs)), np.diff(inputs.offsets))
    # Sorted by program, then by time: the slowest leaf is the last of each program.
    slowest = np.lexsort((inputs.leaves[:, TIME_INPUT], programs))[inputs.offsets[1:] - 1]
    return np.concatenate(
        [
            inputs.leaves[slowest],
            np.maximum.reduceat(about_leaves, starts),
            np.add.reduceat(about_leaves, starts),
            (inputs.log_analytic_s / np.log(2.0)).astype(np.float32)[:, None],
        ],
        axis=1,
    )
