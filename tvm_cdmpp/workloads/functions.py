"""The functions that published logs name in their workload keys."""

import importlib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tvm_cdmpp.bridge import load_tvm

tvm = load_tvm()
te, topi = tvm.te, tvm.topi
_registry = importlib.import_module("tvm.auto_scheduler.workload_registry")

Tensor: TypeAlias = Any


def rebuild_workload(key: str) -> list[str]:
    """Make the DAG of a named workload anew.

    Parameters
    ----------
    key
        A workload key such as `["matmul", 512, 512, 512, "float32"]`.

    Returns
    -------
    dags
        `tvm.ir.save_json` of its tensors: by the functions of that name in `FUNCTIONS`, or the one
        that is registered in TVM. A function that does not take the arguments gives none.
    """
    try:
        name, *arguments = json.loads(key)
        functions = FUNCTIONS.get(name, ())
        if not functions and name in _registry.WORKLOAD_FUNC_REGISTRY:
            functions = (lambda *_: _registry.workload_key_to_tensors(key),)
    except (TypeError, ValueError):
        return []
    dags = []
    for function in functions:
        try:
            dags.append(str(tvm.ir.save_json(list(function(*arguments)))))
        except (TypeError, ValueError, AssertionError, tvm.TVMError):
            continue
    return list(dict.fromkeys(dags))


# ------------------------------------------------ functions that published logs name
# Each was compared with the DAGs that their authors' programs give.


# Tensors are given in the order in which those programs register them.


def _matmul(n: int, k: int, m: int, dtype: str = "float32") -> list[Tensor]:
    left = te.placeholder((n, k), name="A", dtype=dtype)
    right = te.placeholder((k, m), name="B", dtype=dtype)
    axis = te.reduce_axis((0, k), name="k")
    product = te.compute(
        (n, m), lambda i, j: te.sum(left[i, axis] * right[axis, j], axis=axis), name="C"
    )
    return [left, right, product]


def _matmul_reduced_last(n: int, m: int, k: int, dtype: str = "float32") -> list[Tensor]:
    return _matmul(n, k, m, dtype)


def _batch_matmul(batch: int, heads: int, n: int, k: int, m: int) -> list[Tensor]:
    left = te.placeholder((batch * heads, n, k), name="A")
    right = te.placeholder((batch * heads, k, m), name="B")
    return [left, right, topi.nn.batch_matmul(left, right, transpose_b=False)]


def _conv2d(*arguments: Any) -> list[Tensor]:
    batch, channels, height, width, filters, kernel_h, kernel_w, stride, padding = arguments
    data = te.placeholder((batch, channels, height, width), name="input0")
    kernel = te.placeholder((filters, channels, kernel_h, kernel_w), name="input1")
    return [data, kernel, topi.nn.conv2d_nchw(data, kernel, stride, padding, 1)]


def _conv2d_tutorial(*arguments: Any) -> list[Tensor]:
    """Make a plain `conv2d`, in the argument order of `conv2d_layer` in TVM's tutorials."""
    batch, height, width, filters, channels, kernel_h, kernel_w, stride, padding = arguments
    data = te.placeholder((batch, channels, height, width), name="data")
    kernel = te.placeholder((filters, channels, kernel_h, kernel_w), name="kernel")
    return [data, kernel, topi.nn.conv2d_nchw(data, kernel, stride, padding, 1)]


def _conv2d_bias_relu(*arguments: Any) -> list[Tensor]:
    """Make the `conv2d_layer` of TVM's tutorials."""
    batch, height, width, filters, channels, kernel_h, kernel_w, stride, padding = arguments
    data = te.placeholder((batch, channels, height, width), name="data")
    kernel = te.placeholder((filters, channels, kernel_h, kernel_w), name="kernel")
    bias = te.placeholder((1, filters, 1, 1), name="bias")
    conv = topi.nn.conv2d_nchw(data, kernel, stride, padding, dilation=1, out_dtype="float32")
    return [data, kernel, bias, topi.nn.relu(conv + bias)]


def _conv2d_layer(*arguments: Any) -> list[Tensor]:
    """Tell the two meanings apart: the tutorial gives strides and padding as lists."""
    is_tutorial = len(arguments) == 9 and isinstance(arguments[7], list)
    return _conv2d_bias_relu(*arguments) if is_tutorial else _conv2d(*arguments)


def _depthwise(*arguments: Any) -> list[Tensor]:
    batch, channels, height, width, kernel_h, kernel_w, stride, padding = arguments
    data = te.placeholder((batch, channels, height, width), name="data")
    kernel = te.placeholder((channels, 1, kernel_h, kernel_w), name="kernel")
    return [data, kernel, topi.nn.depthwise_conv2d_nchw(data, kernel, stride, padding, 1)]


def _pool(*arguments: Any) -> list[Tensor]:
    kind, batch, channels, height, width, kernel_h, kernel_w, stride, padding = arguments
    data = te.placeholder((batch, channels, height, width), name="data")
    pad = [(kernel_h - 1) // 2, (kernel_w - 1) // 2] * 2 if padding == "SAME" else [0] * 4
    kernel, strides = [kernel_h, kernel_w], [stride, stride]
    return [data, topi.nn.pool2d(data, kernel, strides, [1, 1], pad, kind, count_include_pad=True)]


def _relu(*shape: int) -> list[Tensor]:
    data = te.placeholder(shape, name="data")
    return [data, topi.nn.relu(data)]


def _reduction(shape: list[int], axis: int | list[int], keep_dims: bool) -> list[Tensor]:
    data = te.placeholder(shape, name="data")
    return [data, topi.sum(data, axis, keep_dims)]


def _conv2d_of_shapes(shape: list[int], kernel_shape: list[int]) -> list[Tensor]:
    data = te.placeholder(shape, name="A")
    kernel = te.placeholder(kernel_shape, name="W")
    return [data, kernel, topi.nn.conv2d_nchw(data, kernel, 1, 1, 1)]


def _conv3d_of_shapes(shape: list[int], kernel_shape: list[int]) -> list[Tensor]:
    data = te.placeholder(shape, name="A")
    kernel = te.placeholder(kernel_shape, name="W")
    return [data, kernel, topi.nn.conv3d_ncdhw(data, kernel, 1, 1, 1, 1)]


FUNCTIONS: dict[str, tuple[Callable[..., Sequence[Tensor]], ...]] = {
    "matmul": (_matmul, _matmul_reduced_last),
    "matmul_layer": (_matmul,),
    "ansor_mm": (_matmul,),
    "batch_matmul_layer": (_batch_matmul,),
    "conv2d": (_conv2d_tutorial,),
    "conv2d_layer": (_conv2d_layer,),
    "depthwise_conv2d_layer": (_depthwise,),
    "pool_layer": (_pool,),
    "relu_layer": (_relu,),
    "reduction_layer": (_reduction,),
    "conv2d_ansor": (_conv2d_of_shapes,),
    "conv3d_ansor": (_conv3d_of_shapes,),
}
"""By the name in a workload key; called with the key's arguments."""
