"""Element-wise operators and those that only move data."""

from typing import Any

from tvm_cdmpp.bridge import load_tvm

tvm = load_tvm()
te, topi = tvm.te, tvm.topi

Tensors = list[Any]


def elementwise() -> Tensors:
    """Chain of operators, with broadcasting."""
    a, b = te.placeholder((6, 11, 40), name="A"), te.placeholder((40,), name="B")
    c = topi.tanh(topi.add(topi.multiply(a, 2.0), b))
    return [a, b, topi.sigmoid(topi.add(c, topi.exp(c)))]


def elementwise_half() -> Tensors:
    """Half precision, with casts to single and back."""
    a = te.placeholder((24, 50), "float16", "A")
    return [a, topi.cast(topi.exp(topi.cast(topi.multiply(a, a), "float32")), "float16")]


def quantize() -> Tensors:
    """Scale, round, clip, narrow."""
    a = te.placeholder((10, 12, 24), name="A")
    scaled = topi.round(topi.multiply(a, 17.5))
    return [a, topi.cast(topi.clip(scaled, -128.0, 127.0), "int8")]


def transpose_reshape() -> Tensors:
    """Swap two axes, join two."""
    a = te.placeholder((8, 6, 10), name="A")
    return [a, topi.add(topi.reshape(topi.transpose(a, (1, 0, 2)), (6, 80)), 1.0)]


def transpose2d(n: int = 43, m: int = 64) -> Tensors:
    """Swap rows and columns."""
    a = te.placeholder((n, m), name="A")
    return [a, topi.transpose(a)]


def concatenate() -> Tensors:
    """Three inputs side by side."""
    inputs = [te.placeholder((1, c, 9, 9), name=f"A{c}") for c in (5, 8, 3)]
    return [*inputs, topi.nn.relu(topi.concatenate(inputs, axis=1))]


def pad() -> Tensors:
    """Zeros around a map, then a consumer."""
    a = te.placeholder((2, 9, 11), name="A")
    return [a, topi.exp(topi.nn.pad(a, (0, 1, 2), (0, 3, 2)))]


def mirror_pad() -> Tensors:
    """Mirrored border."""
    a = te.placeholder((3, 10, 12), name="A")
    return [a, topi.nn.mirror_pad(a, (0, 2, 2), (0, 2, 2), "REFLECT")]


def strided_slice() -> Tensors:
    """Every second row, every third column from the fifth on."""
    a = te.placeholder((30, 61), name="A")
    return [a, topi.multiply(topi.strided_slice(a, [1, 5], [29, 60], [2, 3]), 2.0)]


def flip() -> Tensors:
    """Rows backwards: a negative stride."""
    a = te.placeholder((14, 33), name="A")
    return [a, topi.add(topi.flip(a, 1), 1.0)]


def tile_repeat() -> Tensors:
    """Remainder and quotient of an axis."""
    a = te.placeholder((7, 12), name="A")
    return [a, topi.add(topi.tile(a, (2, 3)), topi.repeat(topi.repeat(a, 2, 0), 3, 1))]


def stack_split() -> Tensors:
    """Cut in two, join along a new axis."""
    a = te.placeholder((20, 18), name="A")
    return [a, topi.stack(topi.split(a, 2, 0), 1)]


def depth_to_space() -> Tensors:
    """Channels become pixels."""
    a = te.placeholder((1, 12, 7, 7), name="A")
    return [a, topi.nn.depth_to_space(a, 2)]


def resize_nearest() -> Tensors:
    """Enlarged by copying; coordinates are rounded floats."""
    a = te.placeholder((1, 8, 9, 9), name="A")
    return [a, topi.nn.upsampling(a, 2.0, 2.0)]


def resize_linear() -> Tensors:
    """Enlarged by interpolation."""
    a = te.placeholder((1, 4, 7, 7), name="A")
    return [a, topi.image.resize2d(a, [0.0] * 4, (13, 13))]


def embedding(tokens: int = 24, rows: int = 100, width: int = 32) -> Tensors:
    """Rows of a table, by numbers read from memory."""
    table, tokens_in = (
        te.placeholder((rows, width), name="table"),
        te.placeholder((tokens,), "int32", "tokens"),
    )
    position = te.placeholder((tokens, width), name="position")
    rows_of = topi.take(table, tokens_in, axis=0)
    return [table, tokens_in, position, topi.add(rows_of, position)]


def gather() -> Tensors:
    """One element per output, by numbers read from memory."""
    a, index = te.placeholder((12, 40), name="A"), te.placeholder((12, 15), "int32", "index")
    return [a, index, topi.gather(a, 1, index)]


def gather_sum() -> Tensors:
    """Bag of embeddings: gather inside of a reduction."""
    table, index = te.placeholder((64, 24), name="table"), te.placeholder((9, 10), "int32", "index")
    k = te.reduce_axis((0, 10), name="k")
    bag = te.compute((9, 24), lambda i, j: te.sum(table[index[i, k], j], axis=k), name="bag")
    return [table, index, bag]


def one_hot() -> Tensors:
    """One-hot vectors: compares with numbers read from memory."""
    index = te.placeholder((37,), "int32", "index")
    on, off = tvm.tir.const(1.0), tvm.tir.const(0.0)
    return [index, topi.one_hot(index, on, off, 20, 1, "float32")]


def where() -> Tensors:
    """Choice by a condition read from memory."""
    shape = (16, 29)
    condition = te.placeholder(shape, "bool", "condition")
    a, b = te.placeholder(shape, name="A"), te.placeholder(shape, name="B")
    return [condition, a, b, topi.where(condition, a, topi.negative(b))]


def cumsum() -> Tensors:
    """Prefix sums as TVM has them: an extern operation with loops of its own."""
    a = te.placeholder((8, 20), name="A")
    return [a, topi.cumsum(a, axis=1)]
