"""Search tasks made with te and topi, and states drawn from them, the same on every run.

Shapes are small but realistic; some extents are prime, so that splits do not divide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tvm_cdmpp.tvm_runtime import load_tvm

tvm = load_tvm()
te, topi, auto_scheduler = tvm.te, tvm.topi, tvm.auto_scheduler
PythonBasedModel: Any = auto_scheduler.cost_model.cost_model.PythonBasedModel

Tensors = list[Any]
CUDA_LIMITS = (-1, 16, 64, 49152, 2147483647, 1024, 8, 32)


def matmul(n: int = 37, m: int = 48, k: int = 64) -> Tensors:
    a, b = te.placeholder((n, k), name="A"), te.placeholder((k, m), name="B")
    axis = te.reduce_axis((0, k), name="k")
    c = te.compute((n, m), lambda i, j: te.sum(a[i, axis] * b[axis, j], axis=axis), name="C")
    return [a, b, c]


def matmul_relu(n: int = 4, m: int = 6, k: int = 8) -> Tensors:
    a, b, c = matmul(n, m, k)
    return [a, b, te.compute((n, m), lambda i, j: te.max(c[i, j], 0.0), name="D")]


def dense(n: int = 29, m: int = 64, k: int = 96) -> Tensors:
    data, weight = te.placeholder((n, k), name="data"), te.placeholder((m, k), name="weight")
    bias = te.placeholder((m,), name="bias")
    return [data, weight, bias, topi.nn.relu(topi.nn.dense(data, weight, bias))]


def batch_matmul() -> Tensors:
    a, b = te.placeholder((6, 31, 32), name="A"), te.placeholder((6, 40, 32), name="B")
    return [a, b, topi.nn.batch_matmul(a, b)]


def conv2d_nhwc() -> Tensors:
    data = te.placeholder((1, 14, 14, 24), name="data")
    kernel = te.placeholder((3, 3, 24, 32), name="kernel")
    bias = te.placeholder((1, 1, 1, 32), name="bias")
    conv = topi.nn.conv2d_nhwc(data, kernel, 1, 1, 1, "float32")
    return [data, kernel, bias, topi.nn.relu(topi.add(conv, bias))]


def conv2d_nchw() -> Tensors:
    data = te.placeholder((2, 13, 15, 15), name="data")
    kernel = te.placeholder((16, 13, 3, 3), name="kernel")
    bias = te.placeholder((1, 16, 1, 1), name="bias")
    residual = te.placeholder((2, 16, 8, 8), name="residual")
    conv = topi.nn.conv2d_nchw(data, kernel, 2, 1, 1)
    return [data, kernel, bias, residual, topi.nn.relu(topi.add(conv, bias) + residual)]


def conv2d_1x1() -> Tensors:
    data = te.placeholder((1, 7, 7, 64), name="data")
    kernel = te.placeholder((1, 1, 64, 40), name="kernel")
    return [data, kernel, topi.nn.conv2d_nhwc(data, kernel, 1, 0, 1, "float32")]


def conv2d_dilated() -> Tensors:
    data = te.placeholder((1, 8, 17, 17), name="data")
    kernel = te.placeholder((12, 8, 3, 3), name="kernel")
    return [data, kernel, topi.nn.conv2d_nchw(data, kernel, 1, 2, 2)]


def conv2d_winograd() -> Tensors:
    data = te.placeholder((1, 14, 14, 16), name="data")
    kernel = te.placeholder((3, 3, 16, 16), name="kernel")
    conv = topi.nn.conv2d_winograd_nhwc(data, kernel, 1, 1, 1, "float32")
    return [data, kernel, topi.nn.relu(conv)]


def depthwise() -> Tensors:
    data = te.placeholder((1, 24, 14, 14), name="data")
    kernel = te.placeholder((24, 1, 3, 3), name="kernel")
    conv = topi.nn.depthwise_conv2d_nchw(data, kernel, 1, 1, 1)
    return [data, kernel, topi.nn.relu(conv)]


def depthwise_nhwc() -> Tensors:
    data = te.placeholder((1, 15, 15, 19), name="data")
    kernel = te.placeholder((3, 3, 19, 1), name="kernel")
    return [data, kernel, topi.nn.depthwise_conv2d_nhwc(data, kernel, 2, 1, 1)]


def conv2d_grouped() -> Tensors:
    data = te.placeholder((1, 12, 11, 11), name="data")
    kernel = te.placeholder((16, 3, 3, 3), name="kernel")
    return [data, kernel, topi.nn.group_conv2d_nchw(data, kernel, 1, 1, 1, 4)]


def conv2d_transposed() -> Tensors:
    data = te.placeholder((1, 8, 7, 7), name="data")
    kernel = te.placeholder((8, 6, 4, 4), name="kernel")
    args = ((2, 2), 1, "float32", (0, 0))
    return [data, kernel, topi.nn.conv2d_transpose_nchw(data, kernel, *args)]


def conv1d() -> Tensors:
    data = te.placeholder((1, 12, 61), name="data")
    kernel = te.placeholder((20, 12, 5), name="kernel")
    return [data, kernel, topi.nn.conv1d_ncw(data, kernel, 1, 2, 1)]


def conv3d() -> Tensors:
    data = te.placeholder((1, 4, 7, 9, 9), name="data")
    kernel = te.placeholder((8, 4, 3, 3, 3), name="kernel")
    return [data, kernel, topi.nn.conv3d_ncdhw(data, kernel, 1, 1, 1, 1)]


def max_pool() -> Tensors:
    return _pool("max")


def average_pool() -> Tensors:
    return _pool("avg")


def _pool(kind: str) -> Tensors:
    data = te.placeholder((1, 16, 23, 23), name="data")
    return [data, topi.nn.pool2d(data, [3, 3], [2, 2], [1, 1], [1, 1, 1, 1], kind)]


def global_pool() -> Tensors:
    data = te.placeholder((1, 40, 7, 7), name="data")
    return [data, topi.nn.global_pool(data, "avg")]


def softmax(n: int = 16, m: int = 37) -> Tensors:
    data = te.placeholder((n, m), name="data")
    return [data, topi.nn.softmax(data)]


def layer_norm() -> Tensors:
    """Mean and variance by hand, so that it does not depend on the TVM version."""
    data = te.placeholder((20, 96), name="data")
    gamma, beta = te.placeholder((96,), name="gamma"), te.placeholder((96,), name="beta")
    mean = topi.divide(topi.sum(data, axis=1, keepdims=True), 96.0)
    centred = topi.subtract(data, mean)
    variance = topi.divide(topi.sum(topi.multiply(centred, centred), 1, keepdims=True), 96.0)
    normal = topi.multiply(centred, topi.rsqrt(topi.add(variance, 1e-5)))
    return [data, gamma, beta, topi.add(topi.multiply(normal, gamma), beta)]


def norm() -> Tensors:
    """A reduction to one number: Ansor factors it."""
    data = te.placeholder((1, 24, 53), name="data")
    i, j = te.reduce_axis((0, 24), name="i"), te.reduce_axis((0, 53), name="j")
    square = te.compute((1,), lambda b: te.sum(data[b, i, j] * data[b, i, j], [i, j]), name="N")
    return [data, te.compute((1,), lambda b: te.sqrt(square[b]), name="root")]


def elementwise() -> Tensors:
    a, b = te.placeholder((6, 11, 40), name="A"), te.placeholder((40,), name="B")
    c = topi.tanh(topi.add(topi.multiply(a, 2.0), b))
    return [a, b, topi.sigmoid(topi.add(c, topi.exp(c)))]


def transpose_reshape() -> Tensors:
    a = te.placeholder((8, 6, 10), name="A")
    return [a, topi.add(topi.reshape(topi.transpose(a, (1, 0, 2)), (6, 80)), 1.0)]


BUILDERS: tuple[Callable[[], Tensors], ...] = (
    matmul, matmul_relu, dense, batch_matmul, conv2d_nhwc, conv2d_nchw, conv2d_1x1,
    conv2d_dilated, conv2d_winograd, depthwise, depthwise_nhwc, conv2d_grouped,
    conv2d_transposed, conv1d, conv3d, max_pool, average_pool, global_pool, softmax, layer_norm,
    norm, elementwise, transpose_reshape,
)  # fmt: skip


def make_task(
    builder: Callable[..., Tensors], target: str = "llvm -num-cores 4", args: Sequence[int] = ()
) -> Any:
    """Make a search task; on CUDA with given limits, so that no GPU is needed."""
    name = f"tests.{builder.__name__}"
    auto_scheduler.register_workload(name, builder, override=True)
    limits = auto_scheduler.HardwareParams(*CUDA_LIMITS) if "cuda" in target else None
    return auto_scheduler.SearchTask(
        func=name, args=tuple(args), target=target, hardware_params=limits
    )


def task_zoo(target: str = "llvm -num-cores 4") -> list[tuple[str, Any]]:
    """Return (name, task) for every builder."""
    return [(builder.__name__, make_task(builder, target)) for builder in BUILDERS]


class _SeededModel(PythonBasedModel):
    """Random scores from a seed; TVM's own RandomModel draws from numpy's global generator."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = np.random.default_rng(seed)

    def predict(self, _task: Any, states: Sequence[Any]) -> list[float]:
        return [float(score) for score in self._generator.uniform(0.1, 1.0, len(states))]

    def update(self, _inputs: Sequence[Any], _results: Sequence[Any]) -> None:
        pass


def sample_states(task: Any, n: int, seed: int = 0) -> list[Any]:
    """Draw up to `n` states: two thirds at random, one third after evolutionary search.

    Simple tasks have fewer than `n` distinct states.
    """
    random = max(1, n - n // 3)
    policy = auto_scheduler.SketchPolicy(
        task,
        _SeededModel(seed),
        params={
            "sample_init_min_population": random,
            "evolutionary_search_population": max(16, n),
            "evolutionary_search_num_iters": 2,
        },
        seed=seed + 1,  # TVM takes a seed of zero for none
        verbose=0,
    )
    initial = list(policy.sample_initial_population())
    evolved = list(policy.evolutionary_search(initial, n // 3)) if n >= 3 else []
    return [*initial[:random], *evolved][:n]
