"""What a compiled function of a network is: its name in words, its class, and its leaves."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvm_cdmpp.ast import CompactASTBatch, Leaf
from tvm_cdmpp.devices import Hardware
from tvm_cdmpp.errors import LoweringError
from tvm_cdmpp.extract import describe, leaves_of

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


def class_of(function: str) -> str:
    """Return the class of operators that a function belongs to, by its name."""
    return next((name for part, name in _CLASSES if part in function), "elementwise")


def readable(function: str) -> str:
    """Return a function's name without what all such names share."""
    short = re.sub(r"^tvmgen_default_|(?<![a-z])fused_|(?<![a-z0-9])nn_|contrib_", "", function)
    return re.sub(r"(?<=_)nn_", "", short)


def leaves_in(program: Any) -> Sequence[Leaf]:
    """Return the leaves of a program; none for one that cannot be read."""
    if program is None:
        return ()
    try:
        return leaves_of(program)
    except LoweringError:
        return ()


def batch_of(programs: Sequence[Sequence[Leaf]], hardware: Hardware) -> CompactASTBatch:
    """Return the compact ASTs of programs, given the leaves of each."""
    positions = [leaf.position for leaves in programs for leaf in leaves]
    return CompactASTBatch.of_counts(
        np.concatenate([describe(leaves, hardware) for leaves in programs]),
        np.array(positions, np.int32),
        np.array(list(map(len, programs)), np.int64),
    )


def is_task(name: str, leaves: Sequence[Leaf]) -> bool:
    """Tell whether Ansor tunes a function: whether it reduces.

    Reductions across GPU threads are intrinsics, not loops; these operators are told by their name.
    """
    loops = (loop for leaf in leaves for loop in leaf.loops)
    return any(loop.is_reduce for loop in loops) or class_of(name) in _REDUCING


def flops_of(leaf: Leaf) -> float:
    """Return the floating point operations of all executions of a leaf."""
    is_float = leaf.ops[:5]  # the float classes come first in `OP_CLASSES`
    return float(sum(is_float)) * math.prod(loop.extent for loop in leaf.loops)
