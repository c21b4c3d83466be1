"""Layers of many kinds as TVM compiles them untuned, to find out what its own schedules are worth.

Each stands by itself, with weights of its own, in sizes that are common and of no network in
particular, some for a batch of four, of which the predictors have seen little. Convolutions get the
layouts that TVM wants when the network is compiled; pooling comes behind one, so that it runs in
these as well.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.networks.network import Network, network_of_relay

relay: Any = load_tvm().relay

Expr: TypeAlias = Any
Data: TypeAlias = Callable[..., Expr]
Layer: TypeAlias = Callable[[Data], Expr]


def network_of_layers(layers: Sequence[Layer]) -> Network:
    """Return a network of layers that have nothing to do with each other.

    Parameters
    ----------
    layers
        Some of `LAYERS`.
    """
    inputs: list[Any] = []

    def data(*shape: int) -> Expr:
        inputs.append(relay.var(f"x{len(inputs)}", shape=shape))
        return inputs[-1]

    outputs = relay.Tuple([layer(data) for layer in layers])
    module = load_tvm().IRModule.from_expr(relay.Function(inputs, outputs))
    return network_of_relay("layers", module, {})


def _weight(*shape: int) -> Expr:
    return relay.const(np.random.default_rng(0).normal(0.0, 0.1, shape).astype(np.float32))


def _activated(value: Expr, channels: int) -> Expr:
    return relay.nn.relu(relay.nn.bias_add(value, _weight(channels)))


def _conv2d(
    shape: tuple[int, int, int], filters: int, kernel: int, stride: int = 1, *, batch: int = 1,
    groups: int = 1,
) -> Layer:  # fmt: skip
    def layer(data: Data) -> Expr:
        channels = shape[0]
        weight = _weight(filters, channels // groups, kernel, kernel)
        value = relay.nn.conv2d(
            data(batch, *shape), weight, strides=stride, padding=kernel // 2, groups=groups,
            channels=filters, kernel_size=(kernel, kernel),
        )  # fmt: skip
        return _activated(value, filters)

    return layer


def _depthwise(
    shape: tuple[int, int, int], kernel: int, stride: int = 1, *, batch: int = 1
) -> Layer:
    return _conv2d(shape, shape[0], kernel, stride, batch=batch, groups=shape[0])


def _conv2d_transpose(shape: tuple[int, int, int], filters: int, *, batch: int = 1) -> Layer:
    return lambda data: relay.nn.conv2d_transpose(
        data(batch, *shape), _weight(shape[0], filters, 4, 4), strides=(2, 2), padding=(1, 1),
        channels=filters, kernel_size=(4, 4),
    )  # fmt: skip


def _dense(rows: int, inputs: int, outputs: int) -> Layer:
    return lambda data: relay.nn.relu(
        relay.add(relay.nn.dense(data(rows, inputs), _weight(outputs, inputs)), _weight(outputs))
    )


def _batch_matmul(batch: int, rows: int, inputs: int, columns: int) -> Layer:
    return lambda data: relay.nn.batch_matmul(
        data(batch, rows, inputs), data(batch, columns, inputs)
    )


def _batch_matmul_rows_first(batch: int, rows: int, inputs: int, columns: int) -> Layer:
    """Make a product as PyTorch writes it; TVM's schedule is another's."""
    return lambda data: relay.nn.batch_matmul(
        data(batch, rows, inputs), data(batch, inputs, columns), transpose_b=False
    )


def _pool(
    shape: tuple[int, int, int], pool: Callable[..., Expr], *, batch: int = 1, **sizes: Any
) -> Layer:
    return lambda data: pool(_conv2d(shape, shape[0], 1, batch=batch)(data), **sizes)


def _softmax(*shape: int) -> Layer:
    return lambda data: relay.nn.softmax(data(*shape))


def _reduced(reduce: Callable[..., Expr], *shape: int) -> Layer:
    return lambda data: reduce(data(*shape), axis=-1, keepdims=True)


def _concatenated(*shapes: tuple[int, ...]) -> Layer:
    return lambda data: relay.concatenate([data(*shape) for shape in shapes], axis=1)


def _activated_sum(*shape: int) -> Layer:
    return lambda data: relay.nn.relu(relay.add(data(*shape), data(*shape)))


def _by_library(function: Callable[[Expr], Expr], *shape: int) -> Layer:
    """Call a function of the C library, of values between .1 and 1 where those read are up to 10.

    TVM fills what it measures with such; `erf` takes longer of large ones than of most activations.
    """
    return lambda data: function(relay.multiply(data(*shape), relay.const(0.1)))


_MAX_POOL: dict[str, Any] = {"pool_size": (3, 3), "strides": (2, 2), "padding": (1, 1)}
_AVG_POOL: dict[str, Any] = {"pool_size": (2, 2), "strides": (2, 2)}

LAYERS: tuple[Layer, ...] = (
    _conv2d((32, 28, 28), 64, 3),
    _dense(64, 384, 512),
    _depthwise((96, 56, 56), 3),
    _conv2d((128, 28, 28), 64, 1),
    _batch_matmul(8, 96, 64, 96),
    _pool((64, 56, 56), relay.nn.max_pool2d, **_MAX_POOL),
    _softmax(384, 512),
    _dense(1, 1024, 1000),
    _conv2d_transpose((256, 8, 8), 128),
    _reduced(relay.mean, 128, 256),
    _conv2d((128, 14, 14), 128, 3, batch=4),
    _dense(128, 256, 1024),
    _pool((96, 28, 28), relay.nn.avg_pool2d, **_AVG_POOL),
    _depthwise((240, 14, 14), 5, batch=4),
    _batch_matmul(4, 128, 32, 128),
    _conv2d((256, 14, 14), 512, 1, batch=4),
    _pool((256, 14, 14), relay.nn.global_avg_pool2d),
    _softmax(8, 96, 96),
    _dense(16, 512, 2048),
    _conv2d_transpose((96, 16, 16), 48, batch=4),
    _batch_matmul_rows_first(1, 160, 768, 192),
    _conv2d((64, 56, 56), 128, 3, 2, batch=4),
    _reduced(relay.variance, 96, 512),
    _batch_matmul_rows_first(1, 128, 256, 1024),
    _batch_matmul_rows_first(4, 80, 80, 64),
    _dense(1, 512, 128),
    _depthwise((64, 112, 112), 3, 2),
    _conv2d((3, 112, 112), 32, 7, 2),
    _batch_matmul(16, 64, 64, 32),
    _dense(256, 96, 96),
    _conv2d((160, 28, 28), 160, 1, batch=4),
    _softmax(1, 1000),
    _batch_matmul_rows_first(8, 96, 128, 64),
    _batch_matmul_rows_first(1, 100, 384, 384),
    _conv2d((96, 14, 14), 96, 3, batch=4),
    _dense(4, 2048, 256),
    _batch_matmul_rows_first(1, 64, 256, 768),
    _conv2d_transpose((512, 4, 4), 256),
    _pool((32, 80, 80), relay.nn.max_pool2d, batch=4, **_MAX_POOL),
    _reduced(relay.mean, 96, 512),
)
"""The first few are of different kinds."""

PLAIN_LAYERS: tuple[Layer, ...] = (
    lambda data: relay.layout_transform(data(1, 128, 28, 28), "NCHW", "NCHW16c"),
    lambda data: relay.transpose(data(1, 96, 768), (0, 2, 1)),
    _concatenated((1, 64, 28, 28), (1, 96, 28, 28)),
    _activated_sum(1, 96, 28, 28),
    lambda data: relay.transpose(data(1, 128, 8, 64), (0, 2, 1, 3)),
    lambda data: relay.layout_transform(data(4, 64, 28, 28), "NCHW", "NHWC"),
    _concatenated((4, 32, 28, 28), (4, 32, 28, 28), (4, 64, 28, 28)),
    _activated_sum(4, 128, 512),
    lambda data: relay.transpose(data(4, 14, 14, 256), (0, 3, 1, 2)),
)
"""Layers that Ansor does not tune: they move data, or do the same to each element."""

LIBRARY_LAYERS: tuple[Layer, ...] = (
    _by_library(relay.erf, 1, 96, 512),
    _by_library(relay.erf, 4, 80, 256),
    _by_library(relay.erf, 1, 64, 768),
    _by_library(relay.sigmoid, 1, 64, 28, 28),
    _by_library(relay.tanh, 4, 128, 128),
)
"""The same, with calls of the C library for each element."""

KEPT_LAYERS: tuple[Layer, ...] = (
    _dense(1, 640, 160),
    _dense(4, 640, 160),
    _dense(1, 384, 320),
    _dense(4, 384, 320),
    _dense(1, 1024, 192),
    _dense(4, 1024, 192),
    _dense(1, 192, 768),
    _dense(8, 320, 320),
)
"""Layers that do little with each weight, and whose weights the cores' own caches can hold."""
