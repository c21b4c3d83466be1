"""What libraries test last: axes of size one and none, and results that are read again."""

from typing import Any

from tvm_cdmpp.bridge import load_tvm

tvm = load_tvm()
te, topi, tir = tvm.te, tvm.topi, tvm.tir

Tensors = list[Any]


def head(classes: int = 2, width: int = 768) -> Tensors:
    """Classification head, its weight free to be laid out anew; Ansor may factor its sums."""
    x = te.placeholder((1, 1, width), name="x")
    weight = te.placeholder((1, classes, width), name="weight")
    return [x, weight, topi.nn.batch_matmul(x, weight)]


def head_by_hand(rows: int = 1, classes: int = 1, width: int = 96) -> Tensors:
    """Head without a batch, with a bias."""
    x, weight = te.placeholder((rows, width), name="x"), te.placeholder((width, classes), name="W")
    bias = te.placeholder((classes,), name="bias")
    k = te.reduce_axis((0, width), name="k")
    product = te.compute(
        (rows, classes),
        lambda i, j: te.sum(x[i, k] * weight[k, j], axis=k),
        name="product",
        attrs={"layout_free_placeholders": [weight]},
    )
    return [x, weight, bias, topi.add(product, bias)]


def dense_head(rows: int = 4, classes: int = 1, width: int = 64) -> Tensors:
    """Dense layer of TVM with few results."""
    x, weight = te.placeholder((rows, width), name="x"), te.placeholder((classes, width), name="W")
    return [x, weight, topi.nn.dense(x, weight)]


def stored_twice(width: int = 24) -> Tensors:
    """Weight that is free to be laid out anew, and read elsewhere: TVM cannot rewrite it."""
    x, weight = te.placeholder((8, width), name="x"), te.placeholder((width, width), name="W")
    k = te.reduce_axis((0, width), name="k")
    product = te.compute(
        (8, width),
        lambda i, j: te.sum(x[i, k] * weight[k, j], axis=k),
        name="product",
        attrs={"layout_free_placeholders": [weight]},
    )
    return [x, weight, product, topi.multiply(weight, 0.5)]


def self_product(b: int = 3, n: int = 16, k: int = 8) -> Tensors:
    """Product of a batch with itself: what TVM takes for a weight is read twice."""
    x = te.placeholder((b, n, k), name="x")
    return [x, topi.nn.batch_matmul(x, x)]


def unit_product(n: int = 1, m: int = 1, k: int = 1) -> Tensors:
    """Product whose axes may all be of size one."""
    a, b = te.placeholder((n, k), name="A"), te.placeholder((k, m), name="B")
    axis = te.reduce_axis((0, k), name="k")
    c = te.compute((n, m), lambda i, j: te.sum(a[i, axis] * b[axis, j], axis=axis), name="C")
    return [a, b, te.compute((n, m), lambda i, j: te.max(c[i, j], 0.0), name="D")]


def unit_image(channels: int = 1, filters: int = 24, kernel: int = 1) -> Tensors:
    """Convolution of one pixel, as behind global pooling."""
    pad = kernel // 2
    data = te.placeholder((1, channels, 1, 1), name="data")
    weight = te.placeholder((filters, channels, kernel, kernel), name="weight")
    return [data, weight, topi.nn.relu(topi.nn.conv2d_nchw(data, weight, 1, pad, 1))]


def unit_softmax(n: int = 12) -> Tensors:
    """Softmax over a single class."""
    data = te.placeholder((n, 1), name="data")
    return [data, topi.nn.softmax(data)]


def unit_norm(n: int = 1, m: int = 64) -> Tensors:
    """Layer normalisation of one row."""
    data = te.placeholder((n, m), name="data")
    mean = topi.divide(topi.sum(data, axis=1, keepdims=True), float(m))
    return [data, topi.nn.relu(topi.subtract(data, mean))]


def scalar(n: int = 33) -> Tensors:
    """One number from a vector, and what is done with it."""
    data = te.placeholder((n,), name="data")
    return [data, topi.sqrt(topi.add(topi.sum(data), 1e-5))]


def empty_rows(rows: int = 0, width: int = 16) -> Tensors:
    """No result at all, as an empty batch gives."""
    a = te.placeholder((rows, width), name="A")
    k = te.reduce_axis((0, width), name="k")
    return [a, te.compute((rows,), lambda i: te.sum(a[i, k], axis=k), name="sums")]


def empty_sum(rows: int = 4) -> Tensors:
    """Reduction over nothing."""
    a = te.placeholder((rows, 0), name="A")
    k = te.reduce_axis((0, 0), name="k")
    return [a, te.compute((rows,), lambda i: te.sum(a[i, k], axis=k), name="sums")]


def empty_sum_factored() -> Tensors:
    """Sum of nothing that a search would like to factor."""
    a = te.placeholder((64, 0), name="A")
    i, j = te.reduce_axis((0, 64), name="i"), te.reduce_axis((0, 0), name="j")
    return [a, te.compute((1,), lambda _: te.sum(a[i, j], axis=[i, j]), name="sum")]


def empty_elementwise() -> Tensors:
    """Nothing in the middle of three axes."""
    a = te.placeholder((4, 0, 3), name="A")
    return [a, topi.nn.relu(topi.add(a, 1.0))]


def empty_part(rows: int = 4, width: int = 16) -> Tensors:
    """Something and nothing behind one another."""
    a, b = te.placeholder((rows, width), name="A"), te.placeholder((0, width), name="B")
    return [a, b, topi.add(topi.concatenate([a, b], 0), 1.0)]


def returned_elementwise(n: int = 16) -> Tensors:
    """Element-wise result that a sum reads; where TVM inlines it, it is never written."""
    a = te.placeholder((n, n), name="A")
    k = te.reduce_axis((0, n), name="k")
    b = te.compute((n, n), lambda i, j: a[i, j] + 1.0, name="B")
    return [a, b, te.compute((n,), lambda i: te.sum(b[i, k], axis=k), name="C")]


def returned_sum(n: int = 16, m: int = 24) -> Tensors:
    """Reduction that is a result, and read."""
    a = te.placeholder((n, m), name="A")
    k = te.reduce_axis((0, m), name="k")
    d = te.compute((n,), lambda i: te.sum(a[i, k], axis=k), name="D")
    return [a, d, te.compute((n,), lambda i: d[i] * 2.0, name="E")]


def returned_product(n: int = 24, m: int = 32, k: int = 16) -> Tensors:
    """Product before and after its activation, as training keeps both."""
    a, b = te.placeholder((n, k), name="A"), te.placeholder((k, m), name="B")
    axis = te.reduce_axis((0, k), name="k")
    c = te.compute((n, m), lambda i, j: te.sum(a[i, axis] * b[axis, j], axis=axis), name="C")
    return [a, b, c, te.compute((n, m), lambda i, j: te.max(c[i, j], 0.0), name="D")]


def returned_padding(n: int = 20) -> Tensors:
    """Image with a border, a result of its own, and the stencil that reads it."""
    a = te.placeholder((n, n), name="A")
    padded = topi.nn.pad(a, [1, 1], name="padded")
    blurred = te.compute(
        (n, n), lambda i, j: padded[i, j] + padded[i + 1, j + 1] + padded[i + 2, j + 2], name="blur"
    )
    return [a, padded, blurred]


def returned_argmax(n: int = 9, m: int = 33) -> Tensors:
    """Largest values and their places, both results, the values read again."""
    data = te.placeholder((n, m), name="data")
    k = te.reduce_axis((0, m), name="k")

    def larger(left: Any, right: Any) -> tuple[Any, Any]:
        first = left[1] >= right[1]
        return (
            tir.Select(first, left[0], right[0]),
            tir.Select(first, left[1], right[1]),
        )

    def lowest(_: str, dtype: str) -> tuple[Any, Any]:
        return tir.const(-1, "int32"), te.min_value(dtype)

    places, values = te.compute(
        (n,),
        lambda i: te.comm_reducer(larger, lowest, name="argmax")((k.var, data[i, k]), axis=k),
        name="largest",
    )
    return [data, values, te.compute((n,), lambda i: values[i] * 2.0, name="twice"), places]


def lstm_cell(batch: int = 1, width: int = 24) -> Tensors:
    """One step of a recurrent cell: its state c is a result that its output h reads."""
    x = te.placeholder((batch, width), name="x")
    state = te.placeholder((batch, width), name="state")
    weight = te.placeholder((4 * width, width), name="weight")
    k = te.reduce_axis((0, width), name="k")
    gates = te.compute(
        (batch, 4 * width), lambda i, j: te.sum(x[i, k] * weight[j, k], axis=k), name="gates"
    )
    c = te.compute(
        (batch, width),
        lambda i, j: (
            te.sigmoid(gates[i, j]) * state[i, j]
            + te.sigmoid(gates[i, j + width]) * te.tanh(gates[i, j + 2 * width])
        ),
        name="c",
    )
    h = te.compute(
        (batch, width),
        lambda i, j: te.sigmoid(gates[i, j + 3 * width]) * te.tanh(c[i, j]),
        name="h",
    )
    return [x, state, weight, h, c]


def batch_statistics(n: int = 24, m: int = 10) -> Tensors:
    """Normalisation while training: mean and variance are results, too."""
    data = te.placeholder((n, m), name="data")
    mean = topi.divide(topi.sum(data, axis=0), float(n))
    centred = topi.subtract(data, mean)
    variance = topi.divide(topi.sum(topi.multiply(centred, centred), axis=0), float(n))
    normal = topi.multiply(centred, topi.rsqrt(topi.add(variance, 1e-5)))
    return [data, normal, mean, variance]


def dense_gradient(n: int = 12, m: int = 20, k: int = 16) -> Tensors:
    """Gradients of a dense layer with ReLU: the masked one is a result, and read by both others."""
    upstream = te.placeholder((n, m), name="upstream")
    hidden = te.placeholder((n, m), name="hidden")
    data, weight = te.placeholder((n, k), name="data"), te.placeholder((m, k), name="weight")
    masked = te.compute(
        (n, m),
        lambda i, j: tir.Select(hidden[i, j] > 0.0, upstream[i, j], tir.const(0.0, "float32")),
        name="masked",
    )
    j, i = te.reduce_axis((0, m), name="j"), te.reduce_axis((0, n), name="i")
    of_data = te.compute(
        (n, k), lambda a, b: te.sum(masked[a, j] * weight[j, b], axis=j), name="of_data"
    )
    of_weight = te.compute(
        (m, k), lambda a, b: te.sum(masked[i, a] * data[i, b], axis=i), name="of_weight"
    )
    return [upstream, hidden, data, weight, masked, of_data, of_weight]
