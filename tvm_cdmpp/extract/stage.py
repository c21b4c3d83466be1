"""What one stage of a compute DAG does, as plain data: axes, reads and operation counts.

A `TaskGraph` is analysed once per task; applying transform steps edits copies of its stage list.
Nothing here needs TVM, so graphs can be stored and used anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from tvm_cdmpp.ast import OP_CLASSES
from tvm_cdmpp.extract.index import Index

OpCounts = tuple[int, ...]
NO_OPS: OpCounts = (0,) * len(OP_CLASSES)


class LayoutRewrite(IntEnum):
    """What becomes of constant inputs whose layout is free, as TVM numbers it."""

    AS_GIVEN = 0
    COPIED = 1
    """The program copies them into the order in which they are read: the default of a search
    task that is made by hand."""
    REWRITTEN = 2
    """They are stored in that order beforehand: what tasks extracted from a network ask for."""


class ReadLayout(IntEnum):
    """What may be done with the layout of an input that a stage reads."""

    GIVEN = 0
    FREE = 1
    """A constant whose layout is rewritten to the order in which it is read here."""
    NOT_REWRITABLE = 2
    """The same, but TVM fails to, since the constant is read elsewhere, too."""


@dataclass(frozen=True)
class Read:
    """One access to a producer stage: the stage's number and one index per buffer dimension."""

    stage: int
    indices: tuple[Index, ...]
    output: int = 0
    """Which result of a stage that has several."""
    layout: ReadLayout = ReadLayout.GIVEN


@dataclass(frozen=True)
class Condition:
    """`low <= index <= high`; an end that is None is open."""

    index: Index
    low: int | None
    high: int | None


@dataclass(frozen=True)
class Choice:
    """A choice between two values; TVM drops the parts of its condition that always hold."""

    num_parts: int
    """Parts of the condition, joined by and."""
    conditions: tuple[Condition, ...]
    """Those of the parts that compare indices."""


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
    is_output: bool = False
    """Whether no other stage reads it; then it is computed as a whole. TVM does not write a
    returned result that others read where it is computed inside of them or inlined."""
    is_returned: bool = False
    """Whether it is among the task's tensors, so that its memory is the caller's."""
    float_bytes: int = 0
    """Bytes of the widest float computed with, a reduction's combiner included; 0 if none."""
    int_bytes: int = 0
    """The same for integers, loop variables left out."""
    outputs: tuple[StageSpec, ...] = ()
    """The results of a stage that computes several at once, such as argmax; empty for one. They
    share axes and loops; `reads` of the stage itself are those of all of them."""
    peers: tuple[int, ...] = ()
    """For one of several results of a reduction: the others whose sums so far it reads."""
    sources: tuple[int, ...] = ()
    """The same for those of the factored parts that it adds up, should they be factored."""
    choices: tuple[Choice, ...] = ()
    """The outermost first."""
    guard: str = ""
    """What is stored instead where a condition around the whole expression does not hold: the
    constant `c` of `if_then_else(condition, value, c)`; empty without such a condition."""
    guarded_read: int = -1
    """Number of the read that is all of the `value`; TVM joins the conditions of two stages where
    one is inlined into the other there, and both have the same guard."""

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
    num_opaque_extents: int = 0
    """Loops whose extent depends on data; they count as long as `extents` assumes."""

    def remarks(self) -> list[str]:
        """Return what a user of the task should know, a sentence each."""
        found = []
        if self.num_opaque_reads:
            found.append(
                f"{self.num_opaque_reads} reads cannot be analysed; they count as touching whole "
                "buffers."
            )
        if self.num_opaque_extents:
            found.append(
                f"{self.num_opaque_extents} loops run as often as the data says; their lengths are "
                "assumed."
            )
        inner = [
            stage.name
            for stage in self.stages
            if stage.is_returned and not (stage.is_output or stage.has_reduction)
        ]
        if inner:
            found.append(
                f"Other stages read the result {', '.join(inner)}, so TVM may inline it, and does "
                "not write it then: what is measured and scored may lack that work. Return a "
                "copy of it instead."
            )
        return found
