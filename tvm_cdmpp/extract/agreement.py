"""Where two extractions of the same program differ, field by field.

For those who add an operator or a kind of schedule: draw states, extract them both ways, compare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import FIELDS, OP_CLASSES, Access, Leaf

# What differs, and its two values.
_Found: TypeAlias = tuple[str, Any, Any]

_LEAF_FIELDS = ("position", "nest", "buffer", "is_init", "unroll_limit", "compute_bytes")
_LOOP_FIELDS = ("extent", "kind", "is_reduce")
_ACCESS_FIELDS = ("element_bytes", "scope", "is_inside", "shape", "cover", "steps", "share")


@dataclass(frozen=True)
class Difference:
    """One field on which two extractions of a program disagree."""

    cause: str
    """The field, such as `loops.kind`, `reads.cover` or `ops.float_add`."""
    leaf: int
    """Number of the leaf; -1 if it is about the program."""
    fast: Any
    exact: Any

    def __str__(self) -> str:
        place = f"leaf {self.leaf}" if self.leaf >= 0 else "program"
        return f"{place}: {self.cause} is {self.fast} on the fast path, {self.exact} exactly"


def differences(fast: Sequence[Leaf], exact: Sequence[Leaf]) -> list[Difference]:
    """Compare the leaves of one program as two extractors found them.

    Reads have no order, so they are compared as multisets. Names are not compared, since the fast
    path has its own; numbers of buffers are.

    Parameters
    ----------
    fast
        Leaves from a `StepExtractor`.
    exact
        Leaves from `tvm_cdmpp.extract.tir`.

    Returns
    -------
    differences
        None if the two agree. If they count different leaves, that alone.
    """
    if len(fast) != len(exact):
        return [Difference("leaf count", -1, len(fast), len(exact))]
    return [
        Difference(cause, number, a, b)
        for number, (one, other) in enumerate(zip(fast, exact, strict=True))
        for cause, a, b in _of_leaf(one, other)
    ]


def vector_differences(
    fast: npt.NDArray[np.float32],
    exact: npt.NDArray[np.float32],
    *,
    tolerance: float = 1e-5,
) -> list[Difference]:
    """Compare the computation vectors of one program.

    Parameters
    ----------
    fast, exact
        Of shape (leaves, fields).
    tolerance
        Largest difference, relative to the larger of 1 and the exact value.
    """
    if fast.shape != exact.shape:
        return [Difference("vector shape", -1, fast.shape, exact.shape)]
    close = abs(fast - exact) <= tolerance * np.maximum(1.0, abs(exact))
    return [
        Difference(
            f"vector.{FIELDS[field].name}",
            leaf,
            float(fast[leaf, field]),
            float(exact[leaf, field]),
        )
        for leaf, field in np.argwhere(~close).tolist()
    ]


def _of_leaf(fast: Leaf, exact: Leaf) -> Iterator[_Found]:
    yield from _of_fields("", _LEAF_FIELDS, fast, exact)
    for name, a, b in zip(OP_CLASSES, fast.ops, exact.ops, strict=True):
        if a != b:
            yield f"ops.{name}", a, b
    if len(fast.loops) != len(exact.loops):
        # Covers and steps are per loop, so they could not be compared.
        yield "loops.count", [x.extent for x in fast.loops], [x.extent for x in exact.loops]
        return
    for one, other in zip(fast.loops, exact.loops, strict=True):
        yield from _of_fields("loops.", _LOOP_FIELDS, one, other)
    yield from _of_fields("store.", _ACCESS_FIELDS, fast.accesses[0], exact.accesses[0])
    yield from _of_reads(fast.accesses[1:], exact.accesses[1:])


def _of_reads(fast: Sequence[Access], exact: Sequence[Access]) -> Iterator[_Found]:
    if len(fast) != len(exact):
        yield "reads.count", len(fast), len(exact)
        return
    left = list((Counter(exact) - Counter(fast)).elements())
    for read in (Counter(fast) - Counter(exact)).elements():
        # Its counterpart is the one that it resembles most.
        nearest = min(left, key=lambda other: sum(1 for _ in _of_read(read, other)))
        left.remove(nearest)
        yield from _of_read(read, nearest)


def _of_read(fast: Access, exact: Access) -> Iterator[_Found]:
    return _of_fields("reads.", _ACCESS_FIELDS, fast, exact)


def _of_fields(prefix: str, names: Sequence[str], fast: Any, exact: Any) -> Iterator[_Found]:
    for name in names:
        a, b = getattr(fast, name), getattr(exact, name)
        if a != b:
            yield f"{prefix}{name}", a, b
