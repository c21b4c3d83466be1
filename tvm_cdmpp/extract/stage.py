"""What one stage of a compute DAG does, as plain data: axes, reads and operation counts.

A `TaskGraph` is analysed once per task; replaying transform steps edits copies of its stage list.
Nothing here needs TVM, so graphs can be stored and replayed anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm_cdmpp.ast.leaf import OP_CLASSES
from tvm_cdmpp.extract.index import Index

OpCounts = tuple[int, ...]
NO_OPS: OpCounts = (0,) * len(OP_CLASSES)


@dataclass(frozen=True)
class Read:
    """One access to a producer stage: the stage's number and one index per buffer dimension."""

    stage: int
    indices: tuple[Index, ...]


@dataclass(frozen=True)
class StageSpec:
    """One operation of the DAG.

    Axes are numbered spatial first, then reduction. `ops` counts the stored expression (for a
    reduction: its source), `combine_ops` what a reduction adds to combine one more value.
    """

    name: str
    shape: tuple[int, ...]
    element_bytes: int
    num_spatial: int
    axis_extents: tuple[int, ...]
    reads: tuple[Read, ...] = ()
    ops: OpCounts = NO_OPS
    combine_ops: OpCounts = NO_OPS
    is_placeholder: bool = False
    layout_free: bool = False
    """A constant input whose layout Ansor rewrites to the order in which it is read."""
    is_output: bool = False
    compute_bytes: int = 0
    """As of `Leaf`: of the stored expression, a reduction's combiner included."""

    @property
    def has_reduction(self) -> bool:
        """Whether the stage has reduction axes (then it has an init and an update leaf)."""
        return len(self.axis_extents) > self.num_spatial


@dataclass(frozen=True)
class TaskGraph:
    """The analysed compute DAG of one task: its stages in topological order."""

    stages: tuple[StageSpec, ...]
    num_opaque_reads: int = 0
    """Reads with an index that could not be analysed; they count as touching whole dimensions."""
