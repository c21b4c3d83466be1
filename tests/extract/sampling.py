"""Search tasks made with te and topi, and states drawn from them, the same on every run.

The operators are those of the benchmarks; a choice of them is quick enough for every test.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.workloads.convolution import (
    conv1d_ncw,
    conv2d_1x1,
    conv2d_dilated,
    conv2d_grouped,
    conv2d_nchw,
    conv2d_nhwc,
    conv2d_transposed,
    conv2d_winograd,
    conv3d_ncdhw,
    depthwise,
    depthwise_nhwc,
)
from benchmarks.workloads.matrix import Tensors, batch_matmul, dense, matmul, matmul_relu
from benchmarks.workloads.movement import elementwise, transpose_reshape
from benchmarks.workloads.reduction import (
    average_pool,
    global_pool,
    layer_norm,
    max_pool,
    norm,
    softmax,
)
from benchmarks.workloads.tasks import make_task, sample_states
from tvm_cdmpp.bridge.runtime import load_tvm

tvm = load_tvm()
te, topi, auto_scheduler = tvm.te, tvm.topi, tvm.auto_scheduler

BUILDERS: tuple[Callable[[], Tensors], ...] = (
    matmul, matmul_relu, dense, batch_matmul, conv2d_nhwc, conv2d_nchw, conv2d_1x1,
    conv2d_dilated, conv2d_winograd, depthwise, depthwise_nhwc, conv2d_grouped,
    conv2d_transposed, conv1d_ncw, conv3d_ncdhw, max_pool, average_pool, global_pool, softmax,
    layer_norm, norm, elementwise, transpose_reshape,
)  # fmt: skip


__all__ = [
    "BUILDERS", "Tensors", "auto_scheduler", "average_pool", "batch_matmul", "conv1d_ncw",
    "conv2d_1x1", "conv2d_dilated", "conv2d_grouped", "conv2d_nchw", "conv2d_nhwc",
    "conv2d_transposed", "conv2d_winograd", "conv3d_ncdhw", "dense", "depthwise",
    "depthwise_nhwc", "elementwise", "global_pool", "layer_norm", "make_task", "matmul",
    "matmul_relu", "max_pool", "norm", "sample_states", "softmax", "te", "topi",
    "transpose_reshape", "tvm",
]  # fmt: skip
