"""The computation vector: what a predictor is told about one leaf, field by field.

One list, with a version, is the only definition; extractors write columns by name and models
read them by name. Counts and sizes are stored as log2(1 + x), so that factors of two are steps of
one from single iterations to gigabytes; flags are 0 or 1. "Touched" follows the cover of `extract
.bounds`: the bounding box of the elements that an access reaches while some loops run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SCHEMA_VERSION = 1

TRAFFIC_CAPACITIES_BYTES = tuple(2**n for n in (12, 14, 15, 17, 19, 21, 23, 25))
"""Cache capacities at which the traffic of a leaf is given: 4 KiB to 32 MiB."""

ACCESS_SLOTS = ("write", "read0", "read1", "read2", "rest")
"""The stored buffer, the three largest buffers read, and all others together."""

NUM_INNER_LOOPS = 4

Scale = Literal["log2", "flag"]


@dataclass(frozen=True)
class Field:
    """One number of a computation vector."""

    name: str
    scale: Scale
    meaning: str
    """What is stored, with the unit before scaling."""


def _access_fields(slot: str) -> list[Field]:
    return [
        Field(f"{slot}_element_bytes", "log2", "bytes of one element; 0: slot unused"),
        Field(f"{slot}_access_bytes", "log2", "executions x element bytes"),
        Field(f"{slot}_unique_bytes", "log2", "bytes touched by all executions"),
        Field(f"{slot}_line_bytes", "log2", "cache lines touched by all executions, in bytes"),
        Field(f"{slot}_reuse", "log2", "accessed bytes per byte touched"),
        Field(f"{slot}_stride", "log2", "elements between iterations of the innermost loop"),
        Field(f"{slot}_is_invariant", "flag", "the innermost loop does not move the access"),
        Field(f"{slot}_is_contiguous", "flag", "the innermost loop moves it by one element"),
        Field(f"{slot}_tile_bytes", "log2", "bytes touched by the two innermost loops"),
        Field(f"{slot}_is_local", "flag", "the buffer lives inside a loop of its consumer"),
    ]


def _fields() -> tuple[Field, ...]:
    fields = [
        Field(f"{name}_ops", "log2", f"{name} operations, times executions")
        for name in ("float_add", "float_mul", "float_div", "float_compare", "float_math",
                     "integer", "logic")
    ]  # fmt: skip
    fields += [
        Field("is_init", "flag", "stores the initial value of a reduction"),
        Field("is_copy", "flag", "stores a value without computing"),
        Field("executions", "log2", "product of the extents of all loops around the leaf"),
        Field("spatial_executions", "log2", "the same, over data-parallel loops"),
        Field("reduce_executions", "log2", "the same, over reduction loops"),
        Field("num_loops", "log2", "loops with more than one iteration"),
        Field("parallel_extent", "log2", "product of the extents of parallel loops"),
        Field("task_executions", "log2", "executions per iteration of the parallel loops"),
        Field("vector_extent", "log2", "product of the extents of vectorized loops; 1 if none"),
        Field("is_vectorized", "flag", "the innermost loop is vectorized"),
        Field("unroll_extent", "log2", "product of the extents of loops marked to unroll"),
        Field("unroll_limit", "log2", "automatic unrolling up to this many steps"),
        Field("unrolled_body", "log2", "executions in the innermost nest that gets unrolled"),
        Field("block_extent", "log2", "GPU blocks"),
        Field("thread_extent", "log2", "GPU threads per block"),
        Field("vthread_extent", "log2", "GPU virtual threads"),
        Field("buffer_bytes", "log2", "size of the stored buffer as allocated"),
        Field("num_accesses", "log2", "distinct buffer accesses"),
    ]
    for n in range(NUM_INNER_LOOPS):
        fields += [
            Field(f"inner{n}_extent", "log2", f"extent of loop {n} from inside, over 1"),
            Field(f"inner{n}_is_reduce", "flag", "that loop is a reduction"),
        ]
    for slot in ACCESS_SLOTS:
        fields += _access_fields(slot)
    fields += [
        Field(
            f"traffic_{capacity}",
            "log2",
            f"bytes moved into a cache of {capacity} bytes: lines touched by the outermost loop "
            "nest that fits, times how often it runs",
        )
        for capacity in TRAFFIC_CAPACITIES_BYTES
    ]
    return tuple(fields)


FIELDS = _fields()
NUM_FIELDS = len(FIELDS)
COLUMN = {field.name: column for column, field in enumerate(FIELDS)}
"""Column of each field in a computation vector."""
