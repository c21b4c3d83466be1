"""The class of operator of a task, by names and, where these say too little, by axes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.data.logs import book, import_all, records, write_log
from tests.extract import sampling
from tests.extract.sampling import te, topi
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.train.operators import _class, operator_by_axes, operator_of_tasks


def saved(tensors: sampling.Tensors) -> str:
    return str(sampling.tvm.ir.save_json(list(tensors)))


def grouped(channels_per_group: int) -> sampling.Tensors:
    data = te.placeholder((1, 8, 10, 10), name="data")
    kernel = te.placeholder((16, channels_per_group, 3, 3), name="kernel")
    groups = 8 // channels_per_group
    return [data, kernel, topi.nn.group_conv2d_nchw(data, kernel, 1, 1, 1, groups)]


def blocked() -> sampling.Tensors:
    """A convolution whose channels are in blocks, as x86 has them."""
    data = te.placeholder((1, 4, 10, 10, 8), name="data")
    kernel = te.placeholder((2, 4, 3, 3, 8, 16), name="kernel")
    return [data, kernel, topi.nn.conv2d_NCHWc(data, kernel, 1, 1, 1, "NCHW8c", "NCHW16c")]


def blocked_depthwise() -> sampling.Tensors:
    data = te.placeholder((1, 4, 10, 10, 8), name="data")
    kernel = te.placeholder((4, 1, 3, 3, 1, 8), name="kernel")
    y, x = te.reduce_axis((0, 3), name="y"), te.reduce_axis((0, 3), name="x")
    result = te.compute(
        (1, 4, 4, 4, 8),
        lambda n, chunk, h, w, block: te.sum(
            data[n, chunk, 2 * h + y, 2 * w + x, block] * kernel[chunk, 0, y, x, 0, block],
            axis=[y, x],
        ),
    )
    return [data, kernel, result]


@pytest.mark.parametrize(
    ("builder", "operator"),
    [
        (sampling.matmul, "matmul"),
        (sampling.matmul_relu, "matmul"),
        (sampling.dense, "matmul"),
        (sampling.batch_matmul, "batch_matmul"),
        (sampling.conv2d_nhwc, "conv2d"),
        (sampling.conv2d_nchw, "conv2d"),
        (sampling.conv2d_1x1, "conv2d"),
        (sampling.conv2d_dilated, "conv2d"),
        (sampling.conv1d_ncw, "conv1d"),
        (sampling.conv3d_ncdhw, "conv3d"),
        (sampling.depthwise, "depthwise_conv2d"),
        (sampling.depthwise_nhwc, "depthwise_conv2d"),
        (sampling.conv2d_grouped, "group_conv2d"),
        (partial(grouped, 4), "group_conv2d"),
        (partial(grouped, 1), "depthwise_conv2d"),
        (blocked, "conv2d"),
        (blocked_depthwise, "depthwise_conv2d"),
        (sampling.max_pool, "pool"),
        (sampling.average_pool, "pool"),
        (sampling.norm, "reduction"),
        (sampling.layer_norm, "reduction"),
        (sampling.elementwise, "elementwise"),
        (sampling.transpose_reshape, "elementwise"),
    ],
)
def test_axes_tell_the_operator(builder: Callable[[], sampling.Tensors], operator: str) -> None:
    with sampling.tvm.target.Target("llvm"):
        assert operator_by_axes(saved(builder())) == operator


@pytest.mark.parametrize(
    ("named", "builder", "operator"),
    [
        # Names that say enough stand, whatever the axes look like.
        ("conv2d_transpose", "conv2d_transposed", "conv2d_transpose"),
        ("conv2d_winograd", "conv2d_winograd", "conv2d_winograd"),
        ("softmax", "softmax", "softmax"),
        # A convolution without a window is one all the same.
        ("conv2d", "matmul", "conv2d"),
        ("conv2d", "depthwise", "depthwise_conv2d"),
        ("conv2d", "conv2d_grouped", "group_conv2d"),
        ("matmul", "batch_matmul", "batch_matmul"),
        ("reduction", "conv2d_nhwc", "conv2d"),
        ("reduction", "norm", "reduction"),
    ],
)
def test_axes_refine_names(named: str, builder: str, operator: str) -> None:
    assert _class(named, saved(getattr(sampling, builder)())) == operator


def test_one_class_per_task(tmp_path: Path) -> None:
    """The products' stages have names that say nothing; the store calls them reductions."""
    made = [*records(3), *records(3, 80)]
    import_all(tmp_path / "store", write_log(tmp_path / "a.json", made), known=book(37, 80))
    store = RecordStore.open(tmp_path / "store")
    assert store.workloads["operator"].to_pylist() == ["reduction", "reduction"]
    assert operator_of_tasks(store) == ["matmul", "matmul"]
