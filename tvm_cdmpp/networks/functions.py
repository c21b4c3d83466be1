"""The functions that TVM compiles of a network: what their names say."""

from __future__ import annotations

import re
from typing import Any

from tvm_cdmpp.bridge import load_tvm, named_shapes

tvm = load_tvm()

_CLASSES = (
    ("conv3d", "conv3d"),
    ("conv2d_transpose", "conv2d transpose"),
    ("depthwise", "depthwise conv2d"),
    ("conv2d", "conv2d"),
    ("conv1d", "conv1d"),
    ("matmul|dense", "matmul"),
    ("softmax", "softmax"),
    ("pool|pool1d|pool2d|pool3d", "pool"),
    ("layout_transform|transpose|concatenate", "layout"),
    ("device_copy|__copy|all_reduce|all_gather|reduce_scatter|all_to_all", "communication"),
    ("copy", "layout"),
    ("topk|sort|argsort|searchsorted|unique|cumsum|cumprod|scatter", "other"),
    ("non_max_suppression|get_valid_counts", "other"),
    ("sum|einsum|logsumexp|mean|variance|prod|max|min|argmax|argmin|all|any", "reduction"),
)
"""Words of a name, which underscores join, and the class that they tell; the first that is found
counts. `other` is what neither reduces nor does the same to each element, as a sort."""

BY_COLUMNS = "batch_matmul_by_columns"
"""Products whose right matrix has a row for each column of the left one, as PyTorch writes them:
TVM's schedule walks down its columns."""

_DEPTHWISE = "DepthwiseConv2d"
"""Name of the buffer that TVM's depthwise convolutions sum up in, whatever their schedule."""
_KERNEL_AXES = 6
"""Of a convolution's weights in TVM's layouts of blocks; those of its size are the third and the
fourth. Nothing else that a convolution reads has so many."""

_REDUCING = frozenset(name for _, name in _CLASSES[:8])
_POOLS = ("max_pool", "global_avg_pool", "adaptive_avg_pool", "avg_pool")


def class_of(function: str, program: Any = None) -> str:
    """Return the class of operators that a function belongs to, by its name.

    Depthwise convolutions are called conv2d but in TVM's own layouts; their `PrimFunc`, if it is
    given, tells them.
    """
    names = (name for words, name in _CLASSES if re.search(_word(words), function))
    found = next(names, "elementwise")
    is_depthwise = found == "conv2d" and program is not None and _DEPTHWISE in str(program)
    return "depthwise conv2d" if is_depthwise else found


def is_of_reducing_class(function: str) -> bool:
    """Tell whether all functions of this one's class reduce."""
    return class_of(function) in _REDUCING


def operator_of(function: str) -> str:
    """Return the class of operators of a function, of those that tasks have, by its name.

    Depthwise and grouped convolutions are called conv2d but in TVM's own layouts.
    """
    return "batch_matmul" if "batch_matmul" in function else class_of(function).replace(" ", "_")


def own_operator_of(function: str, program: Any) -> str:
    """Return that class where TVM's own schedules are meant, which tell more kinds apart.

    Parameters
    ----------
    function
        The name.
    program
        Its `PrimFunc`.
    """
    if "batch_matmul" in function and len(program.params) >= 2:
        # TVM's schedule is several times slower where the right matrix has its rows first.
        return BY_COLUMNS if _has_rows_first(program) else "batch_matmul"
    if operator_of(function) == "conv2d" and _is_pointwise(program):
        return "conv2d_1x1"  # loads less of what it multiplies again
    pools = (part.replace("adaptive", "global") for part in _POOLS if part in function)
    return next(pools, operator_of(function))


def _is_pointwise(program: Any) -> bool:
    """Tell whether a convolution has a kernel of one element, by its weights."""
    shapes = (program.buffer_map[parameter].shape for parameter in program.params)
    kernels = [shape[2:4] for shape in shapes if len(shape) == _KERNEL_AXES]
    return len(kernels) == 1 and all(int(size) == 1 for size in kernels[0])


def _has_rows_first(program: Any) -> bool:
    """Tell whether the right one of two matrices has a row for each column of the left one."""
    named = re.search(r"T_batch_matmul_[NT]([NT])", str(program))
    if named:  # TVM says of each matrix whether it is transposed
        return named[1] == "N"
    left, right = (program.buffer_map[parameter].shape for parameter in program.params[:2])
    return int(left[-1]) != int(right[-1])


def product_matrices(program: Any) -> tuple[tuple[tuple[int, ...], int], ...] | None:
    """Find the two matrices that a function multiplies, whatever else it reads.

    Parameters
    ----------
    program
        Its `PrimFunc`.

    Returns
    -------
    matrices
        Shape and bytes of an element of the left one and the right one; None where they are not two
        of its parameters with three axes each.
    """
    buffers = list(program.buffer_map.values())
    found: list[Any] = []

    def read(node: Any) -> None:
        if isinstance(node, tvm.tir.BufferLoad):
            found.extend(buffer for buffer in buffers if buffer.data.same_as(node.buffer.data))

    def look(node: Any) -> None:
        is_product = isinstance(node, tvm.tir.BufferStore) and "batch_matmul" in node.buffer.name
        if is_product and not found:
            tvm.tir.stmt_functor.post_order_visit(node.value, read)

    tvm.tir.stmt_functor.post_order_visit(program.body, look)
    if len(found) != 2 or any(len(buffer.shape) != 3 for buffer in found):
        return None
    return tuple(
        (tuple(map(int, buffer.shape)), tvm.DataType(buffer.dtype).bits // 8) for buffer in found
    )


def _word(words: str) -> str:
    """Return what matches any of some words, but not as a part of another: max in maximum."""
    return rf"(?<![a-zA-Z0-9])(?:{words})(?![a-zA-Z0-9])"


def shapes_of(program: Any) -> str:
    """Return the shapes of a function's first two inputs, as names of tasks have them.

    An example is `1x56x56x64,3x3x64x64`. Empty for None, as a library call has no program.
    """
    if program is None:
        return ""
    *read, _ = (program.buffer_map[parameter] for parameter in program.params)
    return named_shapes(read)


def readable(function: str) -> str:
    """Return a function's name without what all such names share."""
    short = re.sub(r"^tvmgen_default_|(?<![a-z])fused_|(?<![a-z0-9])nn_|contrib_", "", function)
    return re.sub(r"(?<=_)nn_", "", short)
