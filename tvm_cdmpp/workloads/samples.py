"""Small operators of many kinds, to find out with what a device is like.

Their sizes are such that a program takes up to some milliseconds on a core, and their data is more
than its fast caches hold in some of them. They are not those of any network in particular.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from tvm_cdmpp.bridge import hardware_params, load_tvm

tvm = load_tvm()
te, topi, auto_scheduler = tvm.te, tvm.topi, tvm.auto_scheduler

Tensors: TypeAlias = list[Any]


def sample_tasks(target: Any) -> list[Any]:
    """Return a task (`SearchTask`) of each of `OPERATORS`.

    Child processes that build and run its programs need nothing of this package.

    Parameters
    ----------
    target
        What to build for: a CPU or a GPU.
    """
    return [_task(make(), name, target) for name, make in OPERATORS.items()]


def _task(tensors: Tensors, name: str, target: Any) -> Any:
    dag = auto_scheduler.ComputeDAG(tensors)
    # By tensors, not by function, so that child processes need not import this module.
    key = auto_scheduler.workload_registry.register_workload_tensors(dag.workload_key(), tensors)
    return auto_scheduler.SearchTask(
        workload_key=key,
        compute_dag=dag,
        target=target,
        hardware_params=hardware_params(target),
        desc=name,
    )


def _conv2d(batch: int, channels: int, size: int, filters: int, kernel: int) -> Tensors:
    data = te.placeholder((batch, size, size, channels), name="data")
    weight = te.placeholder((kernel, kernel, channels, filters), name="weight")
    conv = topi.nn.conv2d_nhwc(data, weight, 1, kernel // 2, 1)
    return [data, weight, topi.nn.relu(conv)]


def _winograd(batch: int, channels: int, size: int, filters: int) -> Tensors:
    """Make a convolution by Winograd's algorithm as networks have it: of a transformed kernel."""
    tile = 4
    data = te.placeholder((batch, size, size, channels), name="data")
    weight = te.placeholder((tile + 2, tile + 2, filters, channels), name="weight")
    conv = topi.nn.conv2d_winograd_nhwc_without_weight_transform(data, weight, 1, 1, 1, "float32")
    return [data, weight, topi.nn.relu(conv)]


def _depthwise(channels: int, size: int, kernel: int) -> Tensors:
    data = te.placeholder((1, size, size, channels), name="data")
    weight = te.placeholder((kernel, kernel, channels, 1), name="weight")
    return [data, weight, topi.nn.depthwise_conv2d_nhwc(data, weight, 1, kernel // 2, 1)]


def _dense(rows: int, inputs: int, outputs: int) -> Tensors:
    """Make a product of matrices; TVM cannot rewrite the layout of the weight of its own."""
    data = te.placeholder((rows, inputs), name="data")
    weight = te.placeholder((outputs, inputs), name="weight")
    axis = te.reduce_axis((0, inputs), name="k")
    product = te.compute(
        (rows, outputs), lambda i, j: te.sum(data[i, axis] * weight[j, axis], axis), name="dense"
    )
    return [data, weight, topi.nn.relu(product)]


def _batch_matmul(batch: int, rows: int, inputs: int, columns: int) -> Tensors:
    left = te.placeholder((batch, rows, inputs), name="left")
    right = te.placeholder((batch, columns, inputs), name="right")
    return [left, right, topi.nn.batch_matmul(left, right)]


def _pool(channels: int, size: int) -> Tensors:
    data = te.placeholder((1, size, size, channels), name="data")
    return [data, topi.nn.pool2d(data, [3, 3], [2, 2], [1, 1], [1] * 4, "max", layout="NHWC")]


def _softmax(rows: int, columns: int) -> Tensors:
    data = te.placeholder((rows, columns), name="data")
    return [data, topi.nn.softmax(data)]


def _mean(channels: int, size: int) -> Tensors:
    data = te.placeholder((1, size, size, channels), name="data")
    return [data, topi.sum(data, (1, 2), keepdims=True)]


def _elementwise(rows: int, columns: int) -> Tensors:
    left = te.placeholder((rows, columns), name="left")
    right = te.placeholder((rows, columns), name="right")
    return [left, right, topi.tanh(topi.add(left, right))]


OPERATORS: dict[str, Callable[[], Tensors]] = {
    "conv2d_3x3": lambda: _conv2d(4, 32, 28, 64, 3),
    "conv2d_1x1": lambda: _conv2d(1, 128, 28, 64, 1),
    "conv2d_winograd": lambda: _winograd(4, 64, 14, 64),
    "depthwise": lambda: _depthwise(96, 56, 3),
    "dense": lambda: _dense(64, 384, 512),
    "dense_1": lambda: _dense(1, 1024, 1000),
    "batch_matmul": lambda: _batch_matmul(8, 96, 64, 96),
    "max_pool": lambda: _pool(64, 56),
    "softmax": lambda: _softmax(384, 512),
    "sum": lambda: _mean(256, 28),
    "elementwise": lambda: _elementwise(512, 1024),
}
"""What makes the tensors, by name; two of conv2d and of dense, as most of networks is these."""
