"""Convolutions in all layouts."""

from typing import Any

from tvm_cdmpp.bridge import load_tvm

tvm = load_tvm()
te, topi = tvm.te, tvm.topi

Tensors = list[Any]


def _pair(data: tuple[int, ...], kernel: tuple[int, ...], dtype: str = "float32") -> Tensors:
    return [te.placeholder(data, dtype, "data"), te.placeholder(kernel, dtype, "kernel")]


def conv1d_ncw(channels: int = 12, width: int = 61, filters: int = 20) -> Tensors:
    """One-dimensional, channels first."""
    data, kernel = _pair((1, channels, width), (filters, channels, 5))
    return [data, kernel, topi.nn.conv1d_ncw(data, kernel, 1, 2, 1)]


def conv1d_nwc() -> Tensors:
    """One-dimensional, channels last, stride 2."""
    data, kernel = _pair((2, 47, 12), (3, 12, 20))
    return [data, kernel, topi.nn.conv1d_nwc(data, kernel, 2, 1, 1)]


def conv1d_grouped() -> Tensors:
    """One-dimensional in four groups."""
    data, kernel = _pair((1, 16, 40), (24, 4, 3))
    return [data, kernel, topi.nn.group_conv1d_ncw(data, kernel, 1, 1, 1, 4)]


def conv1d_transposed() -> Tensors:
    """One-dimensional, transposed."""
    data, kernel = _pair((1, 8, 19), (8, 6, 4))
    return [
        data, kernel, topi.nn.conv1d_transpose_ncw(data, kernel, (2,), (1, 1), "float32", (0,))
    ]  # fmt: skip


def conv2d_nhwc(
    size: int = 14, channels: int = 24, filters: int = 32, stride: int = 1, dtype: str = "float32"
) -> Tensors:
    """3 x 3, channels last, with bias and ReLU."""
    data, kernel = _pair((1, size, size, channels), (3, 3, channels, filters), dtype)
    bias = te.placeholder((1, 1, 1, filters), dtype, "bias")
    conv = topi.nn.conv2d_nhwc(data, kernel, stride, 1, 1, dtype)
    return [data, kernel, bias, topi.nn.relu(topi.add(conv, bias))]


def conv2d_stored() -> Tensors:
    """Kernel stored in tiles, as a search chose: quotients and remainders."""
    data, kernel = _pair((1, 14, 14, 24), (3, 3, 6, 8, 4, 4))
    layout = "3ry3rx6rc8ff4rc4ff"
    args = (1, 1, 1, "float32")
    conv = topi.nn.conv2d_nhwc(data, kernel, *args, auto_scheduler_rewritten_layout=layout)
    return [data, kernel, topi.nn.relu(conv)]


def conv2d_nchw(
    batch: int = 2, channels: int = 13, size: int = 15, filters: int = 16, stride: int = 2
) -> Tensors:
    """3 x 3, channels first, with bias, residual and ReLU."""
    data, kernel = _pair((batch, channels, size, size), (filters, channels, 3, 3))
    bias = te.placeholder((1, filters, 1, 1), name="bias")
    conv = topi.nn.conv2d_nchw(data, kernel, stride, 1, 1)
    residual = te.placeholder(conv.shape, name="residual")
    return [data, kernel, bias, residual, topi.nn.relu(topi.add(conv, bias) + residual)]


def conv2d_nchwc() -> Tensors:
    """Channels in blocks of eight."""
    data, kernel = _pair((1, 2, 14, 14, 8), (3, 2, 3, 3, 8, 8))
    conv = topi.nn.conv2d_NCHWc(data, kernel, 1, 1, 1, "NCHW8c", "NCHW8c")
    return [data, kernel, topi.nn.relu(conv)]


def conv2d_hwcn() -> Tensors:
    """Batch innermost."""
    data, kernel = _pair((9, 9, 8, 16), (3, 3, 8, 12))
    return [data, kernel, topi.nn.conv2d_hwcn(data, kernel, 1, 1, 1)]


def conv2d_1x1() -> Tensors:
    """1 x 1: in truth a product of matrices."""
    data, kernel = _pair((1, 7, 7, 64), (1, 1, 64, 40))
    return [data, kernel, topi.nn.conv2d_nhwc(data, kernel, 1, 0, 1, "float32")]


def conv2d_stem() -> Tensors:
    """First layer of a network: 7 x 7, stride 2, three channels."""
    data, kernel = _pair((1, 33, 33, 3), (7, 7, 3, 16))
    return [data, kernel, topi.nn.relu(topi.nn.conv2d_nhwc(data, kernel, 2, 3, 1, "float32"))]


def conv2d_uneven_padding() -> Tensors:
    """Uneven: padding on two sides only, prime extents."""
    data, kernel = _pair((1, 13, 17, 11), (3, 2, 11, 19))
    return [data, kernel, topi.nn.conv2d_nhwc(data, kernel, (2, 1), [0, 1, 1, 0], 1, "float32")]


def conv2d_dilated() -> Tensors:
    """Dilation 2."""
    data, kernel = _pair((1, 8, 17, 17), (12, 8, 3, 3))
    return [data, kernel, topi.nn.conv2d_nchw(data, kernel, 1, 2, 2)]


def conv2d_int8() -> Tensors:
    """Eight-bit data and kernel, 32-bit sums, shifted back to eight bits."""
    data, kernel = _pair((1, 14, 14, 16), (3, 3, 16, 16), "int8")
    conv = topi.nn.conv2d_nhwc(data, kernel, 1, 1, 1, "int32")
    return [data, kernel, topi.cast(topi.clip(topi.right_shift(conv, 7), -128, 127), "int8")]


def conv2d_winograd(
    size: int = 14, channels: int = 16, filters: int = 16, pre_computed: bool = False
) -> Tensors:
    """Winograd, channels last; the kernel may be transformed beforehand, as in a network."""
    kernel_shape = (6, 6, filters, channels) if pre_computed else (3, 3, channels, filters)
    data, kernel = _pair((1, size, size, channels), kernel_shape)
    conv = topi.nn.conv2d_winograd_nhwc(data, kernel, 1, 1, 1, "float32", pre_computed)
    return [data, kernel, topi.nn.relu(conv)]


def conv2d_winograd_nchw() -> Tensors:
    """Winograd, channels first."""
    data, kernel = _pair((1, 12, 13, 13), (16, 12, 3, 3))
    return [data, kernel, topi.nn.conv2d_winograd_nchw(data, kernel, 1, 1, 1, "float32")]


def depthwise(channels: int = 24, size: int = 14) -> Tensors:
    """Each channel by itself, channels first."""
    data, kernel = _pair((1, channels, size, size), (channels, 1, 3, 3))
    conv = topi.nn.depthwise_conv2d_nchw(data, kernel, 1, 1, 1)
    return [data, kernel, topi.nn.relu(conv)]


def depthwise_nhwc(channels: int = 19, size: int = 15) -> Tensors:
    """Each channel by itself, channels last, stride 2."""
    data, kernel = _pair((1, size, size, channels), (3, 3, channels, 1))
    return [data, kernel, topi.nn.depthwise_conv2d_nhwc(data, kernel, 2, 1, 1)]


def depthwise_multiplier() -> Tensors:
    """Two outputs per channel."""
    data, kernel = _pair((1, 11, 13, 13), (11, 2, 5, 5))
    return [data, kernel, topi.nn.depthwise_conv2d_nchw(data, kernel, 1, 2, 1)]


def conv2d_grouped() -> Tensors:
    """Four groups, channels first."""
    data, kernel = _pair((1, 12, 11, 11), (16, 3, 3, 3))
    return [data, kernel, topi.nn.group_conv2d_nchw(data, kernel, 1, 1, 1, 4)]


def conv2d_grouped_nhwc() -> Tensors:
    """Three groups, channels last."""
    data, kernel = _pair((1, 10, 10, 12), (3, 3, 4, 18))
    return [data, kernel, topi.nn.group_conv2d_nhwc(data, kernel, 1, 1, 1, 3)]


def conv2d_transposed(channels: int = 8, size: int = 7, filters: int = 6) -> Tensors:
    """Transposed, as generators use it: reads depend on a remainder."""
    data, kernel = _pair((1, channels, size, size), (channels, filters, 4, 4))
    args = ((2, 2), 1, "float32", (0, 0))
    return [data, kernel, topi.nn.conv2d_transpose_nchw(data, kernel, *args)]


def conv3d_ncdhw() -> Tensors:
    """Three-dimensional, channels first."""
    data, kernel = _pair((1, 4, 7, 9, 9), (8, 4, 3, 3, 3))
    return [data, kernel, topi.nn.conv3d_ncdhw(data, kernel, 1, 1, 1, 1)]


def conv3d_ndhwc() -> Tensors:
    """Three-dimensional, channels last."""
    data, kernel = _pair((1, 6, 9, 9, 5), (3, 3, 3, 5, 8))
    return [data, kernel, topi.nn.relu(topi.nn.conv3d_ndhwc(data, kernel, 2, 1, 1, 1))]


def conv3d_transposed() -> Tensors:
    """Three-dimensional, transposed."""
    data, kernel = _pair((1, 4, 4, 5, 5), (4, 6, 2, 2, 2))
    args = ((2, 2, 2), 0, "float32", (0, 0, 0))
    return [data, kernel, topi.nn.conv3d_transpose_ncdhw(data, kernel, *args)]


def deformable_conv2d() -> Tensors:
    """Deformable: it reads at positions that are data."""
    data, kernel = _pair((1, 4, 9, 9), (6, 4, 3, 3))
    offset = te.placeholder((1, 18, 9, 9), name="offset")
    conv = topi.nn.deformable_conv2d_nchw(data, offset, kernel, 1, 1, 1, 1, 1, "float32")
    return [data, offset, kernel, conv]
