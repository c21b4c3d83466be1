"""The computation vector: what a predictor is told about one leaf, field by field.

The fields are computed in `tvm_cdmpp/extract/native/features.h`, the only place with formulas, from
the facts of `tvm_cdmpp.ast.leaf`; this is their documentation, in the same order. Counts and sizes
are stored as log2(1 + x), so that factors of two are steps of one from single iterations to
gigabytes; flags are 0 or 1, fractions plain numbers.

The start were the 164 fields of CDMPP (Hu et al., EuroSys 2024), which are those of Ansor (Zheng et
al., OSDI 2020, appendix B) without its allocation features. What differs:

- Left out: counts of fused multiply-adds (always 0), one-hot positions of annotated loops (only two
  of eight occur), lengths of y and z thread axes (Ansor binds x only), a flag for GPU programs (the
  device vector tells), the one-hot type of an access (slots tell), and index arithmetic, which the
  compiler takes out of the loops.
- Changed: four slots with a role (the store, the largest reads) and one for all others in place of
  the first five of a list whose order changes between programs; reuse is that of the leaf itself,
  not of whatever was walked before it; lines count rows that are not contiguous; allocation is
  filled in.
- New: traffic into caches of eight sizes (a roofline's memory side: Williams et al., CACM 2009),
  with the arithmetic intensity at each, strides of the two innermost loops, work left for one core
  and what its last round wastes, what a core touches of what all do (which depends on the order of
  the loops that were fused), use of vector registers, sums kept open, and for GPUs use of warps,
  shares of the limits and memory sectors per warp.

"Touched" is the bounding box of the elements that an access reaches while some loops run; nothing
is clipped at guards of loops that do not divide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tvm_cdmpp.ast.leaf import OP_CLASSES

SCHEMA_VERSION = 3

TRAFFIC_CAPACITIES_BYTES = tuple(2**n for n in (12, 14, 15, 17, 19, 21, 23, 25))
"""Cache capacities at which the traffic of a leaf is given: 4 KiB to 32 MiB."""

ACCESS_SLOTS = ("write", "read0", "read1", "read2", "rest")
"""The stored buffer, the three largest buffers read, and all others together (sums, the largest of
sizes and strides, flags that hold for any)."""

NUM_INNER_LOOPS = 4

Scale = Literal["log2", "flag", "fraction"]
Group = Literal[
    "arithmetic",
    "loops",
    "annotations",
    "parallelism",
    "vectors",
    "memory",
    "reuse",
    "cores",
    "traffic",
    "allocation",
    "gpu",
]
GROUPS: tuple[Group, ...] = Group.__args__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Field:
    """One number of a computation vector."""

    group: Group
    name: str
    scale: Scale
    meaning: str
    """What is stored, with the unit before scaling."""


def _arithmetic() -> list[Field]:
    ops = [
        Field("arithmetic", f"{name}_ops", "log2", f"{name} operations, times executions")
        for name in OP_CLASSES
    ]
    return [
        *ops,
        Field("arithmetic", "compute_bytes", "log2", "bytes of the widest type computed with"),
        Field("arithmetic", "is_init", "flag", "stores the initial value of a reduction"),
        Field("arithmetic", "is_copy", "flag", "stores a value without computing"),
        Field("arithmetic", "executions", "log2", "product of the extents of all loops around"),
    ]


def _loops() -> list[Field]:
    fields = [
        Field("loops", "spatial_executions", "log2", "executions over data-parallel loops"),
        Field("loops", "reduce_executions", "log2", "executions over reduction loops"),
        Field("loops", "num_loops", "log2", "loops with more than one iteration"),
        Field("loops", "spatial_inside", "log2", "executions inside the innermost reduction loop"),
        Field("loops", "reduce_inside", "log2", "executions inside the innermost spatial loop"),
    ]
    for n in range(NUM_INNER_LOOPS):
        fields += [
            Field("loops", f"inner{n}_extent", "log2", f"extent of loop {n} from inside, over 1"),
            Field("loops", f"inner{n}_is_reduce", "flag", f"loop {n} from inside is a reduction"),
        ]
    return fields


def _annotations() -> list[Field]:
    return [
        Field("annotations", "unroll_extent", "log2", "extents of loops marked to unroll"),
        Field("annotations", "unroll_limit", "log2", "automatic unrolling up to this many steps"),
        Field("annotations", "unrolled_body", "log2", "executions in the nest that gets unrolled"),
    ]


def _parallelism() -> list[Field]:
    return [
        Field("parallelism", "parallel_extent", "log2", "extents of parallel loops, multiplied"),
        Field("parallelism", "task_executions", "log2", "executions per parallel iteration"),
        Field("parallelism", "core_executions", "log2", "executions of the busiest core"),
        Field(
            "parallelism",
            "core_use",
            "fraction",
            "busy share of the cores, the last round included; 0 where cores are not known",
        ),
    ]


def _vectors() -> list[Field]:
    return [
        Field("vectors", "vector_extent", "log2", "extents of vectorized loops; 1 if none"),
        Field("vectors", "is_vectorized", "flag", "the innermost loop is vectorized"),
        Field("vectors", "vector_use", "fraction", "used share of the vector registers stored"),
        Field(
            "vectors",
            "open_registers",
            "log2",
            "vector registers for the sums inside the innermost reduction loop",
        ),
    ]


def _memory(slot: str) -> list[Field]:
    described: list[tuple[str, Scale, str]] = [
        ("element_bytes", "log2", "bytes of one element; 0: slot unused"),
        ("access_bytes", "log2", "executions x element bytes"),
        ("unique_bytes", "log2", "bytes touched by all executions"),
        ("line_bytes", "log2", "cache lines touched by all executions, in bytes"),
        ("tile_bytes", "log2", "bytes touched by the two innermost loops"),
        ("stride", "log2", "elements between iterations of the innermost loop"),
        ("second_stride", "log2", "elements between iterations of the next loop out"),
        ("is_invariant", "flag", "the innermost loop does not move the access"),
        ("is_contiguous", "flag", "the innermost loop moves it by one element"),
        ("is_aligned", "flag", "rows of the buffer are whole vector registers"),
        ("is_inside", "flag", "the buffer lives inside a loop of its consumer"),
        ("is_shared", "flag", "the buffer is shared by a block of GPU threads"),
    ]
    return [Field("memory", f"{slot}_{name}", scale, text) for name, scale, text in described]


def _reuse(slot: str) -> list[Field]:
    return [
        Field("reuse", f"{slot}_reuse", "log2", "accessed bytes per byte touched"),
        Field(
            "reuse",
            f"{slot}_reuse_count",
            "log2",
            "extent of the innermost loop that comes back to the same elements; 0 if none",
        ),
        Field(
            "reuse",
            f"{slot}_reuse_distance",
            "log2",
            "bytes of all lines that one iteration of the loop that comes back touches",
        ),
    ]


def _cores() -> list[Field]:
    fields = []
    for slot in ACCESS_SLOTS:
        fields += [
            Field(
                "cores", f"{slot}_core_bytes", "log2", "bytes of the lines that one core touches"
            ),
            Field(
                "cores",
                f"{slot}_next_bytes",
                "log2",
                "bytes of the lines that a core's second parallel iteration adds; 0 with one each, "
                "and where loops stand around the parallel one",
            ),
            Field(
                "cores",
                f"{slot}_sharers",
                "log2",
                "busy cores that touch a line, on average; 0 without a parallel loop",
            ),
        ]
    return [*fields, Field("cores", "core_working_set", "log2", "bytes of all lines of one core")]


def _traffic() -> list[Field]:
    return [
        Field("traffic", "working_set", "log2", "bytes of all lines touched"),
        *(
            Field(
                "traffic",
                f"traffic_{capacity}",
                "log2",
                f"bytes moved into a cache of {capacity} bytes: lines touched by the outermost "
                "loop nest that fits, times how often it runs; of a parallel loop, by the share "
                "of a core, or what its iterations add one after the other",
            )
            for capacity in TRAFFIC_CAPACITIES_BYTES
        ),
        *(
            Field(
                "traffic",
                f"intensity_{capacity}",
                "log2",
                f"operations per byte moved into a cache of {capacity} bytes",
            )
            for capacity in TRAFFIC_CAPACITIES_BYTES
        ),
    ]


def _allocation() -> list[Field]:
    return [
        Field("allocation", "buffer_bytes", "log2", "size of the stored buffer as allocated"),
        Field(
            "allocation",
            "buffer_fills",
            "log2",
            "how often the elements of the stored buffer are written",
        ),
        Field(
            "allocation", "buffer_is_register", "flag", "the stored buffer belongs to one thread"
        ),
        Field("allocation", "num_accesses", "log2", "distinct buffer accesses"),
    ]


def _gpu() -> list[Field]:
    return [
        Field("gpu", "block_extent", "log2", "blocks"),
        Field("gpu", "thread_extent", "log2", "threads of a block"),
        Field("gpu", "vthread_extent", "log2", "virtual threads"),
        Field("gpu", "warp_use", "fraction", "busy share of the warps of a block"),
        Field("gpu", "thread_share", "fraction", "threads of a block over the device's limit"),
        Field("gpu", "shared_bytes", "log2", "shared memory of a block"),
        Field(
            "gpu", "shared_share", "fraction", "shared memory of a block over the device's limit"
        ),
        Field("gpu", "register_bytes", "log2", "memory of one thread in the nest"),
        *(
            Field(
                "gpu",
                f"{slot}_warp_sectors",
                "log2",
                "32-byte sectors that one warp touches; none of registers",
            )
            for slot in ACCESS_SLOTS
        ),
    ]


FIELDS: tuple[Field, ...] = (
    *_arithmetic(),
    *_loops(),
    *_annotations(),
    *_parallelism(),
    *_vectors(),
    *(field for slot in ACCESS_SLOTS for field in _memory(slot)),
    *(field for slot in ACCESS_SLOTS for field in _reuse(slot)),
    *_cores(),
    *_traffic(),
    *_allocation(),
    *_gpu(),
)
NUM_FIELDS = len(FIELDS)
COLUMN = {field.name: column for column, field in enumerate(FIELDS)}
"""Column of each field in a computation vector."""

COUNTED = (
    *(f"{name}_ops" for name in OP_CLASSES),
    "inner0_extent", "inner0_is_reduce", "inner1_extent",
    *(
        f"{slot}_{name}"
        for slot in ACCESS_SLOTS
        for name in ("element_bytes", "is_contiguous", "is_invariant")
    ),
    *(f"traffic_{capacity}" for capacity in TRAFFIC_CAPACITIES_BYTES),
    "executions", "reduce_executions", "unrolled_body", "parallel_extent", "block_extent",
    "vector_extent", "is_vectorized", "is_init",
    *(
        f"{slot}_{name}"
        for slot in ACCESS_SLOTS
        for name in ("is_shared", "tile_bytes", "unique_bytes", "warp_sectors")
    ),
    "buffer_bytes", "buffer_is_register", "thread_extent", "vthread_extent", "shared_bytes",
    "register_bytes", "spatial_inside", "reduce_inside", "write_is_inside",
)  # fmt: skip
"""Fields that estimates calculate with, so that a batch keeps them before scaling as well."""
COUNTED_COLUMNS = [COLUMN[name] for name in COUNTED]
