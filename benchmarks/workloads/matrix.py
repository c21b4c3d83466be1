"""Products of matrices, with what usually follows them."""

from typing import Any

from tvm_cdmpp.bridge import load_tvm

tvm = load_tvm()
te, topi = tvm.te, tvm.topi

Tensors = list[Any]


def matmul(n: int = 37, m: int = 48, k: int = 64, dtype: str = "float32") -> Tensors:
    """Plain product, written by hand."""
    a, b = te.placeholder((n, k), dtype, "A"), te.placeholder((k, m), dtype, "B")
    axis = te.reduce_axis((0, k), name="k")
    c = te.compute((n, m), lambda i, j: te.sum(a[i, axis] * b[axis, j], axis=axis), name="C")
    return [a, b, c]


def matmul_relu(n: int = 4, m: int = 6, k: int = 8) -> Tensors:
    """Product and an element-wise consumer."""
    a, b, c = matmul(n, m, k)
    return [a, b, te.compute((n, m), lambda i, j: te.max(c[i, j], 0.0), name="D")]


def matmul_transposed(n: int = 31, m: int = 41, k: int = 29) -> Tensors:
    """Both operands transposed; all extents prime."""
    a, b = te.placeholder((k, n), name="A"), te.placeholder((m, k), name="B")
    return [a, b, topi.nn.matmul(a, b, transpose_a=True, transpose_b=True)]


def matmul_int8(n: int = 32, m: int = 48, k: int = 64) -> Tensors:
    """Eight-bit factors, 32-bit sums, rescaled to eight bits."""
    a, b = te.placeholder((n, k), "int8", "A"), te.placeholder((k, m), "int8", "B")
    axis = te.reduce_axis((0, k), name="k")
    c = te.compute(
        (n, m),
        lambda i, j: te.sum(a[i, axis].astype("int32") * b[axis, j].astype("int32"), axis=axis),
        name="C",
    )
    scaled = topi.right_shift(topi.add(topi.multiply(c, 3), 8), 4)
    return [a, b, topi.cast(topi.clip(scaled, -128, 127), "int8")]


def matmul_mixed(n: int = 32, m: int = 48, k: int = 64) -> Tensors:
    """Half-precision factors, sums in single precision."""
    a, b = te.placeholder((n, k), "float16", "A"), te.placeholder((k, m), "float16", "B")
    axis = te.reduce_axis((0, k), name="k")
    c = te.compute(
        (n, m),
        lambda i, j: te.sum(a[i, axis].astype("float32") * b[axis, j].astype("float32"), axis=axis),
        name="C",
    )
    return [a, b, topi.cast(topi.nn.relu(c), "float16")]


def matmul_layout_free(n: int = 24, m: int = 40, k: int = 36) -> Tensors:
    """Written by hand, with a weight whose layout the search may choose."""
    a, b = te.placeholder((n, k), name="A"), te.placeholder((k, m), name="B")
    axis = te.reduce_axis((0, k), name="k")
    c = te.compute(
        (n, m),
        lambda i, j: te.sum(a[i, axis] * b[axis, j], axis=axis),
        name="C",
        attrs={"layout_free_placeholders": [b]},
    )
    return [a, b, c]


def dense(n: int = 29, m: int = 64, k: int = 96, dtype: str = "float32") -> Tensors:
    """Dense layer with bias and ReLU."""
    data, weight = te.placeholder((n, k), dtype, "data"), te.placeholder((m, k), dtype, "weight")
    bias = te.placeholder((m,), dtype, "bias")
    return [data, weight, bias, topi.nn.relu(topi.nn.dense(data, weight, bias))]


def dense_gelu(n: int = 16, m: int = 96, k: int = 48) -> Tensors:
    """Dense layer with the exact GELU of Transformers."""
    data, weight = te.placeholder((n, k), name="data"), te.placeholder((m, k), name="weight")
    bias = te.placeholder((m,), name="bias")
    x = topi.add(topi.nn.dense(data, weight), bias)
    half = topi.multiply(topi.add(topi.erf(topi.multiply(x, 0.70710678)), 1.0), 0.5)
    return [data, weight, bias, topi.multiply(x, half)]


def batch_matmul(b: int = 6, n: int = 31, m: int = 40, k: int = 32) -> Tensors:
    """Product of each pair in a batch."""
    x, y = te.placeholder((b, n, k), name="A"), te.placeholder((b, m, k), name="B")
    return [x, y, topi.nn.batch_matmul(x, y)]


def batch_matmul_stored() -> Tensors:
    """Right factor stored in tiles, as a search chose: quotients and remainders."""
    x, y = te.placeholder((6, 31, 32), name="A"), te.placeholder((6, 10, 8, 4, 4), name="B")
    product = topi.nn.batch_matmul(x, y, auto_scheduler_rewritten_layout="6b10j8k4j4k")
    return [x, y, product]


def attention(heads: int = 4, tokens: int = 24, width: int = 16) -> Tensors:
    """Scaled products of queries and keys, softmax, weighted sum of values."""
    shape = (heads, tokens, width)
    query, key = te.placeholder(shape, name="query"), te.placeholder(shape, name="key")
    value = te.placeholder((heads, width, tokens), name="value")
    scores = topi.multiply(topi.nn.batch_matmul(query, key), width**-0.5)
    return [query, key, value, topi.nn.batch_matmul(topi.nn.softmax(scores), value)]


def attention_causal(heads: int = 2, tokens: int = 17, width: int = 16) -> Tensors:
    """Attention that does not look ahead: half of the scores are masked."""
    shape = (heads, tokens, width)
    query, key = te.placeholder(shape, name="query"), te.placeholder(shape, name="key")
    value = te.placeholder((heads, width, tokens), name="value")
    scores = topi.nn.batch_matmul(query, key)
    masked = te.compute(
        (heads, tokens, tokens),
        lambda h, i, j: tvm.tir.Select(j <= i, scores[h, i, j] * width**-0.5, -1e9),
        name="masked",
    )
    return [query, key, value, topi.nn.batch_matmul(topi.nn.softmax(masked), value)]


def mlp(n: int = 16, k: int = 48, m: int = 64) -> Tensors:
    """Two dense layers."""
    data = te.placeholder((n, k), name="data")
    first, second = te.placeholder((m, k), name="first"), te.placeholder((k, m), name="second")
    hidden = topi.tanh(topi.nn.dense(data, first))
    return [data, first, second, topi.nn.relu(topi.nn.dense(hidden, second))]
