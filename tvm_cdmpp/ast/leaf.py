"""What is known about one leaf before it becomes a computation vector.

Both extractors, the fast one and the exact one, end in these facts; one function turns them into
vectors (`tvm_cdmpp.extract.native.describe`), so vectors can differ only where facts do.
"""

from __future__ import annotations

from dataclasses import dataclass

OP_CLASSES = (
    "float_add",
    "float_mul",
    "float_div",
    "float_compare",
    "float_math",
    "int_add",
    "int_mul",
    "int_div",
    "int_compare",
    "int_math",
    "select",
    "bool",
    "cast",
)
"""Classes of operations, counted per execution of a leaf.

`*_add` holds subtractions, `*_div` remainders, `*_compare` min and max, `*_math` calls such as exp
or sqrt; `select` is a choice between two values, `bool` and, or and not, `cast` a conversion of a
value read from a buffer. Index arithmetic is not counted: integer operations other than comparisons
count only when they work on values read from a buffer.
"""

LOOP_KINDS = (
    "serial",
    "unrolled",
    "vectorized",
    "parallel",
    "vthread",
    "blockIdx.x",
    "threadIdx.x",
    "blockIdx.y",
    "threadIdx.y",
    "blockIdx.z",
    "threadIdx.z",
)
"""Kinds of loops, in the order of Ansor's annotation numbers."""

SCOPES = ("global", "shared", "local")
"""Memory scopes: seen by all threads, by a block of GPU threads, by one GPU thread."""


@dataclass(frozen=True)
class Loop:
    """One loop around a leaf; it runs more than once."""

    extent: int
    kind: str
    is_reduce: bool
    """Whether the leaf accumulates over it."""


@dataclass(frozen=True)
class Access:
    """One access of a leaf, to the stored buffer or to one that is read."""

    element_bytes: int
    scope: str
    is_inside: bool
    """Whether the buffer is allocated inside a loop, for one iteration at a time."""
    shape: tuple[int, ...]
    """What is allocated, in elements per dimension."""
    cover: tuple[tuple[int, ...], ...]
    """Per dimension and level: how far the index reaches, at most the shape.

    At level n the loops from number n inward run and the others stand still; the last level, with
    nothing running, is all ones.
    """
    steps: tuple[int, ...]
    """Distance in memory from the first to the second iteration of each loop, in elements; zero
    where that is not known."""
    share: tuple[tuple[int, int], ...]
    """Per dimension: how far the index reaches while the outermost parallel loop makes its first
    two iterations, and while it makes those that one core is given; all other loops run. The cover
    of all loops where there is no parallel one."""


@dataclass(frozen=True)
class Leaf:
    """One store statement of a tensor program."""

    name: str
    """Of the stored buffer."""
    buffer: int
    """Number of the stored buffer, in order of the first store to it."""
    nest: int
    """Number of the outermost loop around the leaf; a leaf without loops has its own."""
    is_init: bool
    """Whether it stores the initial value of a reduction."""
    position: int
    """2 * (pre-order number) - depth, over root, loops and leaves."""
    unroll_limit: int
    """Automatic unrolling up to this many steps; 0 if not asked for."""
    compute_bytes: int
    """Bytes of the widest type computed with: of floats, else of integers; 0 for a mere copy."""
    ops: tuple[int, ...]
    """Operations per execution, one count for each of `OP_CLASSES`."""
    loops: tuple[Loop, ...]
    """Outermost first."""
    accesses: tuple[Access, ...]
    """The store, then the distinct reads in no particular order; what an update adds to is not
    among them."""
