"""Pooling, softmax, normalisation and plain reductions."""

from typing import Any

from tvm_cdmpp.bridge import load_tvm

tvm = load_tvm()
te, topi = tvm.te, tvm.topi

Tensors = list[Any]


def _pool(kind: str) -> Tensors:
    data = te.placeholder((1, 16, 23, 23), name="data")
    return [data, topi.nn.pool2d(data, [3, 3], [2, 2], [1, 1], [1, 1, 1, 1], kind)]


def max_pool() -> Tensors:
    """Largest of 3 x 3."""
    return _pool("max")


def average_pool() -> Tensors:
    """Mean of 3 x 3; the border has fewer values."""
    return _pool("avg")


def average_pool_nhwc() -> Tensors:
    """Mean of 2 x 2, channels last, padding counted."""
    data = te.placeholder((1, 15, 15, 12), name="data")
    args = ([2, 2], [2, 2], [1, 1], [0, 0, 1, 1], "avg", False, "NHWC", True)
    return [data, topi.nn.pool2d(data, *args)]


def max_pool1d() -> Tensors:
    """Largest of three in a row."""
    data = te.placeholder((2, 12, 53), name="data")
    return [data, topi.nn.pool1d(data, [3], [2], [1], [1, 1], "max")]


def average_pool3d() -> Tensors:
    """Mean of 2 x 2 x 2."""
    data = te.placeholder((1, 6, 8, 10, 10), name="data")
    return [data, topi.nn.pool3d(data, [2] * 3, [2] * 3, [1] * 3, [0] * 6, "avg")]


def global_pool(channels: int = 40, size: int = 7) -> Tensors:
    """Mean of a whole feature map."""
    data = te.placeholder((1, channels, size, size), name="data")
    return [data, topi.nn.global_pool(data, "avg")]


def adaptive_pool() -> Tensors:
    """Seven windows over sixteen values: window sizes differ."""
    data = te.placeholder((1, 12, 16, 16), name="data")
    return [data, topi.nn.adaptive_pool(data, (7, 7), "avg")]


def adaptive_pool1d() -> Tensors:
    """Five windows over seventeen values."""
    data = te.placeholder((1, 12, 17), name="data")
    return [data, topi.nn.adaptive_pool1d(data, (5,), "max")]


def softmax(n: int = 16, m: int = 37) -> Tensors:
    """Softmax over rows."""
    data = te.placeholder((n, m), name="data")
    return [data, topi.nn.softmax(data)]


def softmax_axis() -> Tensors:
    """Softmax over an axis in the middle."""
    data = te.placeholder((3, 19, 14), name="data")
    return [data, topi.nn.softmax(data, axis=1)]


def fast_softmax() -> Tensors:
    """Softmax with an approximated exponential, in bit tricks."""
    data = te.placeholder((12, 40), name="data")
    return [data, topi.nn.fast_softmax(data)]


def log_softmax() -> Tensors:
    """Logarithm of softmax."""
    data = te.placeholder((10, 43), name="data")
    return [data, topi.nn.log_softmax(data)]


def layer_norm(n: int = 20, m: int = 96) -> Tensors:
    """Mean and variance by hand, so that it does not depend on the TVM version."""
    data = te.placeholder((n, m), name="data")
    gamma, beta = te.placeholder((m,), name="gamma"), te.placeholder((m,), name="beta")
    mean = topi.divide(topi.sum(data, axis=1, keepdims=True), float(m))
    centred = topi.subtract(data, mean)
    variance = topi.divide(topi.sum(topi.multiply(centred, centred), 1, keepdims=True), float(m))
    normal = topi.multiply(centred, topi.rsqrt(topi.add(variance, 1e-5)))
    return [data, gamma, beta, topi.add(topi.multiply(normal, gamma), beta)]


def layer_norm_topi() -> Tensors:
    """TVM's own, with two sums in one reduction."""
    data = te.placeholder((14, 60), name="data")
    gamma, beta = te.placeholder((60,), name="gamma"), te.placeholder((60,), name="beta")
    return [data, gamma, beta, topi.nn.layer_norm(data, gamma, beta, [1])]


def group_norm() -> Tensors:
    """Mean and variance of each group of channels."""
    data = te.placeholder((2, 8, 6, 6), name="data")
    gamma, beta = te.placeholder((8,), name="gamma"), te.placeholder((8,), name="beta")
    return [data, gamma, beta, topi.nn.group_norm(data, gamma, beta, 4, 1, [2, 3])]


def rms_norm() -> Tensors:
    """Root of the mean square."""
    data, weight = te.placeholder((13, 64), name="data"), te.placeholder((64,), name="weight")
    return [data, weight, topi.nn.rms_norm(data, weight, [1])]


def l2_norm() -> Tensors:
    """Vectors of length one."""
    data = te.placeholder((18, 50), name="data")
    square = topi.sum(topi.multiply(data, data), axis=1, keepdims=True)
    return [data, topi.divide(data, topi.sqrt(topi.maximum(square, 1e-12)))]


def batch_norm() -> Tensors:
    """Inference: scale and shift by known statistics."""
    data = te.placeholder((1, 16, 12, 12), name="data")
    parameters = [te.placeholder((16,), name=n) for n in ("gamma", "beta", "mean", "variance")]
    gamma, beta, mean, variance = (topi.reshape(p, (1, 16, 1, 1)) for p in parameters)
    scale = topi.divide(gamma, topi.sqrt(topi.add(variance, 1e-5)))
    normal = topi.add(topi.multiply(topi.subtract(data, mean), scale), beta)
    return [data, *parameters, topi.nn.relu(normal)]


def lrn() -> Tensors:
    """Local response normalisation across channels."""
    data = te.placeholder((1, 12, 9, 9), name="data")
    return [data, topi.nn.lrn(data, 5)]


def norm(b: int = 1, n: int = 24, m: int = 53) -> Tensors:
    """Euclidean norm: a reduction to few numbers, which Ansor factors."""
    data = te.placeholder((b, n, m), name="data")
    i, j = te.reduce_axis((0, n), name="i"), te.reduce_axis((0, m), name="j")
    square = te.compute((b,), lambda b: te.sum(data[b, i, j] * data[b, i, j], [i, j]), name="N")
    return [data, te.compute((b,), lambda b: te.sqrt(square[b]), name="root")]


def sum_last() -> Tensors:
    """Sum over the contiguous axis."""
    data = te.placeholder((6, 7, 96), name="data")
    return [data, topi.sum(data, axis=2)]


def sum_first(n: int = 128, m: int = 10) -> Tensors:
    """Sum over the outermost axis."""
    data = te.placeholder((n, m), name="data")
    return [data, topi.sum(data, axis=0)]


def sum_outer_axes() -> Tensors:
    """Sum over two axes that are not neighbours."""
    data = te.placeholder((12, 5, 30), name="data")
    return [data, topi.sum(data, axis=(0, 2))]


def sum_all(n: int = 41, m: int = 64) -> Tensors:
    """Sum of everything."""
    data = te.placeholder((n, m), name="data")
    return [data, topi.sum(data)]


def max_last() -> Tensors:
    """Largest of each row."""
    data = te.placeholder((23, 64), name="data")
    return [data, topi.max(data, axis=1)]


def argmax() -> Tensors:
    """Place of the largest: a reduction of two values at once."""
    data = te.placeholder((9, 33), name="data")
    return [data, topi.argmax(data, axis=1)]


def mean_square_error() -> Tensors:
    """Two inputs into one number."""
    a, b = te.placeholder((32, 48), name="A"), te.placeholder((32, 48), name="B")
    difference = topi.subtract(a, b)
    return [a, b, topi.divide(topi.sum(topi.multiply(difference, difference)), 1536.0)]
