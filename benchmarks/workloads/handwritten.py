"""Operators that no library has: what users write in `te` themselves."""

from typing import Any

from tvm_cdmpp.bridge import load_tvm

tvm = load_tvm()
te, topi, tir = tvm.te, tvm.topi, tvm.tir

Tensors = list[Any]


def windowed_sum(n: int = 83, window: int = 7) -> Tensors:
    """Sum of the last few values; fewer at the start."""
    a = te.placeholder((n,), name="A")
    k = te.reduce_axis((0, window), name="k")
    inside = te.compute(
        (n,),
        lambda i: te.sum(tir.if_then_else(i - k >= 0, a[i - k], tir.const(0.0, "float32")), axis=k),
        name="sums",
    )
    return [a, inside]


def stencil1d(n: int = 127) -> Tensors:
    """Three-point stencil."""
    a = te.placeholder((n,), name="A")
    return [
        a,
        te.compute((n - 2,), lambda i: (a[i] + a[i + 1] * 2.0 + a[i + 2]) * 0.25, name="blurred"),
    ]


def stencil2d_chain(n: int = 34) -> Tensors:
    """Two five-point stencils in a row: the first one may be computed inside the second."""

    def step(x: Any, size: int, name: str) -> Any:
        return te.compute(
            (size, size),
            lambda i, j: (
                x[i + 1, j + 1] * 0.5
                + (x[i, j + 1] + x[i + 2, j + 1] + x[i + 1, j] + x[i + 1, j + 2]) * 0.125
            ),
            name=name,
        )

    a = te.placeholder((n, n), name="A")
    return [a, step(step(a, n - 2, "first"), n - 4, "second")]


def modulo_index(n: int = 20, m: int = 30) -> Tensors:
    """Rows shifted in a circle, columns by quotient and remainder."""
    a = te.placeholder((n, m), name="A")
    shifted = te.compute(
        (n, m),
        lambda i, j: a[tir.indexmod(i + 7, n), tir.indexmod(j, 6) * 5 + tir.indexdiv(j, 6)],
        name="shifted",
    )
    return [a, topi.add(shifted, 1.0)]


def triangular(n: int = 28) -> Tensors:
    """Product of two lower triangles, the rest left out by a choice."""
    a, b = te.placeholder((n, n), name="A"), te.placeholder((n, n), name="B")
    k = te.reduce_axis((0, n), name="k")
    product = te.compute(
        (n, n),
        lambda i, j: te.sum(
            tir.Select(tir.all(k <= i, j <= k), a[i, k] * b[k, j], tir.const(0.0, "float32")),
            axis=k,
        ),
        name="product",
    )
    return [a, b, product]


def diagonal(n: int = 45) -> Tensors:
    """Diagonal of a matrix: one variable in two indices."""
    a = te.placeholder((n, n), name="A")
    return [a, te.compute((n,), lambda i: a[i, i] * a[n - 1 - i, i], name="diagonal")]


def quadratic_index(n: int = 12) -> Tensors:
    """Index that is a product of two variables: not affine."""
    a = te.placeholder((n * n,), name="A")
    return [a, te.compute((n, n), lambda i, j: a[i * j] + 1.0, name="squares")]


def pairwise_distance(n: int = 19, m: int = 23, k: int = 16) -> Tensors:
    """Squared distance of each pair of points."""
    a, b = te.placeholder((n, k), name="A"), te.placeholder((m, k), name="B")
    axis = te.reduce_axis((0, k), name="k")
    squares = te.compute(
        (n, m),
        lambda i, j: te.sum((a[i, axis] - b[j, axis]) * (a[i, axis] - b[j, axis]), axis=axis),
        name="squares",
    )
    return [a, b, te.compute((n, m), lambda i, j: te.sqrt(squares[i, j]), name="distance")]


def two_outputs(n: int = 18, m: int = 40) -> Tensors:
    """One stage that two results read."""
    a = te.placeholder((n, m), name="A")
    b = te.compute((n, m), lambda i, j: te.exp(a[i, j]), name="B")
    c = te.compute((n, m), lambda i, j: b[i, j] + 1.0, name="C")
    d = te.compute((n, m), lambda i, j: b[i, j] * 2.0, name="D")
    return [a, c, d]


def tensor_contraction(n: int = 8) -> Tensors:
    """Four-index contraction of quantum chemistry: two reduced axes, six loops."""
    a, b = te.placeholder((n, 6, n, 5), name="A"), te.placeholder((5, n, 6, n), name="B")
    x, y = te.reduce_axis((0, 6), name="x"), te.reduce_axis((0, 5), name="y")
    return [
        a,
        b,
        te.compute(
            (n, n, n, n),
            lambda i, j, k, m: te.sum(a[i, x, j, y] * b[y, k, x, m], axis=[x, y]),
            name="C",
        ),
    ]


def capsule_conv(size: int = 8, channels: int = 4, filters: int = 6) -> Tensors:
    """Convolution of 4 x 4 matrices instead of numbers."""
    data = te.placeholder((1, size, size, channels, 4, 4), name="data")
    kernel = te.placeholder((3, 3, channels, filters, 4, 4), name="kernel")
    kh, kw = te.reduce_axis((0, 3), name="kh"), te.reduce_axis((0, 3), name="kw")
    c, k = te.reduce_axis((0, channels), name="c"), te.reduce_axis((0, 4), name="k")
    conv = te.compute(
        (1, size - 2, size - 2, filters, 4, 4),
        lambda n, h, w, f, i, j: te.sum(
            data[n, h + kh, w + kw, c, i, k] * kernel[kh, kw, c, f, k, j], axis=[kh, kw, c, k]
        ),
        name="capsules",
    )
    return [data, kernel, conv]
