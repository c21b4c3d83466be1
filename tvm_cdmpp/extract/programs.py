"""Compact ASTs of programs whose leaves are known, such as those that TVM scheduled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tvm_cdmpp.ast import CompactASTBatch, Leaf
from tvm_cdmpp.devices import Hardware
from tvm_cdmpp.errors import LoweringError
from tvm_cdmpp.extract.native import describe
from tvm_cdmpp.extract.tir import leaves_of


def leaves_if_readable(program: Any, cores: int) -> Sequence[Leaf]:
    """Return the leaves of a `PrimFunc`; none of one that cannot be read.

    Parameters
    ----------
    program, cores
        As of `leaves_of`.
    """
    try:
        return leaves_of(program, cores)
    except LoweringError:
        return ()


def leaves_by_name(
    names: Iterable[str], programs: Mapping[str, Any], cores: int
) -> dict[str, Sequence[Leaf]]:
    """Return the leaves of functions; none of those without a program that can be read.

    Parameters
    ----------
    names
        Of the functions.
    programs
        `PrimFunc` by function, where there is one.
    cores
        As of `leaves_of`.
    """
    return {
        name: leaves_if_readable(programs[name], cores) if name in programs else ()
        for name in names
    }


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
