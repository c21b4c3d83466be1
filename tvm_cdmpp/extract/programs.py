"""Compact ASTs of programs whose leaves are known, such as those that TVM scheduled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvm_cdmpp.ast import CompactASTBatch, Leaf
from tvm_cdmpp.devices import Hardware
from tvm_cdmpp.extract.native import describe


def describe_programs(programs: Sequence[Sequence[Leaf]], hardware: Hardware) -> CompactASTBatch:
    """Return the compact ASTs of some programs, each given by its leaves, at least one.

    Parameters
    ----------
    programs
        As from `leaves_of`.
    hardware
        What they were generated for.
    """
    positions = [leaf.position for leaves in programs for leaf in leaves]
    return CompactASTBatch.of_counts(
        np.concatenate([describe(leaves, hardware) for leaves in programs]),
        np.array(positions, np.int32),
        np.array(list(map(len, programs)), np.int64),
    )
