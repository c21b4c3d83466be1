"""Workloads whose hash is that of a common operator, made anew from the shapes in the key.

A key has the hash of a DAG's text, in which there are no sizes, and the shapes of its tensors. So
the DAG of a known operator with these shapes is what the key means if its hash is the same. The
text has no element types either; they are taken to be float32, as nearly all logs have them.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.data import flat_key
from tvm_cdmpp.workloads.keys import keys_of

tvm = load_tvm()
te, topi = tvm.te, tvm.topi

Shape: TypeAlias = tuple[int, ...]
Tensor: TypeAlias = Any


def rebuild_operator(key: str) -> list[str]:
    """Make the DAG anew that a key with the hash of a common operator means.

    Parameters
    ----------
    key
        The key; its shapes may be flat, as old versions of TVM wrote them.

    Returns
    -------
    dags
        `tvm.ir.save_json` of its tensors; none if the hash is of none of `OPERATORS`.
    """
    try:
        _hash, *numbers = json.loads(f"[{flat_key(key)}]")
    except ValueError:
        return []
    if not all(isinstance(number, int) and number > 0 for number in numbers):
        return []
    for ranks, make in OPERATORS:
        if sum(ranks) != len(numbers):
            continue
        *inputs, output = _split(numbers, ranks)
        placeholders = [te.placeholder(shape, name=f"p{n}") for n, shape in enumerate(inputs)]
        try:
            tensors = [*placeholders, make(output, *placeholders)]
            dag = tvm.auto_scheduler.ComputeDAG(tensors)
        except (tvm.TVMError, ValueError, AssertionError, ZeroDivisionError):
            continue  # Other operators may have as many numbers.
        if flat_key(key) in keys_of(dag):
            return [str(tvm.ir.save_json(tensors))]
    return []


def _split(numbers: list[int], ranks: tuple[int, ...]) -> Iterator[Shape]:
    for rank in ranks:
        yield tuple(numbers[:rank])
        numbers = numbers[rank:]


def _dense(_: Shape, data: Tensor, weight: Tensor, *bias: Tensor) -> Tensor:
    product = topi.nn.dense(data, weight)
    return topi.add(product, *bias) if bias else product


def _conv2d(output: Shape, data: Tensor, kernel: Tensor, *bias: Tensor) -> Tensor:
    """Make a convolution; the padding before an axis is the smaller half."""
    sizes = [int(size) for size in data.shape[2:]]
    kernels = [int(size) for size in kernel.shape[2:]]
    stride = -(-sizes[0] // output[2])
    padding = [
        (out - 1) * stride + taps - size
        for out, taps, size in zip(output[2:], kernels, sizes, strict=True)
    ]
    before = [max(0, total) // 2 for total in padding]
    after = [max(0, total) - least for total, least in zip(padding, before, strict=True)]
    product = topi.nn.conv2d_nchw(data, kernel, stride, [*before, *after], 1)
    return topi.add(product, *bias) if bias else product


def _softmax(_: Shape, data: Tensor) -> Tensor:
    return topi.nn.softmax(data)


def _sum(_: Shape, data: Tensor) -> Tensor:
    return topi.sum(data, -1, keepdims=True)


def _max(_: Shape, data: Tensor) -> Tensor:
    return topi.max(data, -1, keepdims=True)


def _mean(_: Shape, data: Tensor) -> Tensor:
    size = tvm.tir.const(int(data.shape[-1]), data.dtype)
    return topi.divide(topi.sum(data, -1, keepdims=True), size)


def _then_relu(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *arguments: topi.cpp.nn.relu(make(*arguments))


OPERATORS: tuple[tuple[tuple[int, ...], Callable[..., Tensor]], ...] = (
    ((2, 2, 2), _dense),
    ((2, 2, 1, 2), _dense),
    ((2, 2, 1, 2), _then_relu(_dense)),
    ((2, 2, 2, 2), _dense),
    ((2, 2, 2, 2), _then_relu(_dense)),
    ((3, 3, 3), lambda _, left, right: topi.nn.batch_matmul(left, right)),
    ((3, 3, 3), lambda _, left, right: topi.nn.batch_matmul(left, right, transpose_b=False)),
    *(((rank, rank), make) for rank in (2, 3, 4) for make in (_softmax, _mean, _sum, _max)),
    ((4, 4, 4), _conv2d),
    ((4, 4, 4, 4), _conv2d),
    ((4, 4, 4, 4), _then_relu(_conv2d)),
)
"""Ranks of the tensors, and what makes the last of them from its shape and the others."""
