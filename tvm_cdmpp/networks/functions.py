"""The functions that TVM compiles of a network: what their names say."""

from __future__ import annotations

import re
from typing import Any

_CLASSES = (
    ("conv3d", "conv3d"),
    ("conv2d_transpose", "conv2d transpose"),
    ("depthwise", "depthwise conv2d"),
    ("conv2d", "conv2d"),
    ("conv1d", "conv1d"),
    ("batch_matmul", "matmul"),
    ("matmul", "matmul"),
    ("dense", "matmul"),
    ("softmax", "softmax"),
    ("pool", "pool"),
    ("layout_transform", "layout"),
    ("transpose", "layout"),
    ("concatenate", "layout"),
    ("device_copy", "communication"),
    ("__copy", "communication"),
    ("copy", "layout"),
    ("mean", "reduction"),
    ("sum", "reduction"),
    ("max", "reduction"),
    ("variance", "reduction"),
)

_REDUCING = frozenset(name for _, name in _CLASSES[:10])
_POOLS = ("max_pool", "global_avg_pool", "adaptive_avg_pool", "avg_pool")


def class_of(function: str) -> str:
    """Return the class of operators that a function belongs to, by its name."""
    return next((name for part, name in _CLASSES if part in function), "elementwise")


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
        left, right = (program.buffer_map[parameter].shape for parameter in program.params[:2])
        # TVM's schedule is several times slower where the right matrix has its rows first.
        return "batch_matmul" if int(left[-1]) == int(right[-1]) else "batch_matmul_rows_first"
    pools = (part.replace("adaptive", "global") for part in _POOLS if part in function)
    return next(pools, operator_of(function))


def readable(function: str) -> str:
    """Return a function's name without what all such names share."""
    short = re.sub(r"^tvmgen_default_|(?<![a-z])fused_|(?<![a-z0-9])nn_|contrib_", "", function)
    return re.sub(r"(?<=_)nn_", "", short)
