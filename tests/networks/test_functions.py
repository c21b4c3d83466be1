"""What the names of TVM's functions say, of real ones."""

import pytest

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.networks.functions import class_of, operator_of, own_operator_of, readable

tvm = load_tvm()
PREFIX = "tvmgen_default_fused_"


@pytest.mark.parametrize(
    ("function", "name", "class_", "operator", "own"),
    [
        ("nn_contrib_conv2d_NCHWc_add_nn_relu_3", "conv2d_NCHWc_add_relu_3", "conv2d", "conv2d",
         "conv2d"),
        ("nn_contrib_depthwise_conv2d_NCHWc", "depthwise_conv2d_NCHWc", "depthwise conv2d",
         "depthwise_conv2d", "depthwise_conv2d"),
        ("nn_contrib_dense_pack_add", "dense_pack_add", "matmul", "matmul", "matmul"),
        ("nn_adaptive_avg_pool2d", "adaptive_avg_pool2d", "pool", "pool", "global_avg_pool"),
        ("nn_max_pool2d_add", "max_pool2d_add", "pool", "pool", "max_pool"),
        ("layout_transform_1", "layout_transform_1", "layout", "layout", "layout"),
        ("add_nn_relu", "add_relu", "elementwise", "elementwise", "elementwise"),
    ],
)  # fmt: skip
def test_names_tell_the_operator(
    function: str, name: str, class_: str, operator: str, own: str
) -> None:
    function = PREFIX + function
    assert (readable(function), class_of(function)) == (name, class_)
    assert operator_of(function) == operator
    assert own_operator_of(function, tvm.tir.PrimFunc([], tvm.tir.Evaluate(0))) == own


@pytest.mark.parametrize(
    ("function", "weights", "own"),
    [
        ("nn_contrib_conv2d_NCHWc_add", (4, 2, 1, 1, 16, 16), "conv2d_1x1"),
        ("nn_contrib_conv2d_NCHWc_add", (4, 2, 3, 1, 16, 16), "conv2d"),
        ("nn_contrib_conv2d_NCHWc_add", (1, 4, 1, 1, 16), "conv2d"),  # a bias
        ("nn_contrib_depthwise_conv2d_NCHWc", (4, 1, 1, 1, 1, 16), "depthwise_conv2d"),
    ],
)
def test_kernels_of_one_element_are_a_class_of_their_own(
    function: str, weights: tuple[int, ...], own: str
) -> None:
    tensors = [tvm.te.placeholder(shape, name="x") for shape in ((1, 2, 8, 8, 16), weights)]
    out = tvm.te.compute((4,), lambda i: tensors[0][0, 0, 0, 0, i] + i, name="out")
    program = tvm.te.create_prim_func([*tensors, out])
    assert own_operator_of(PREFIX + function, program) == own


@pytest.mark.parametrize(
    ("function", "class_"),
    [
        ("maximum", "elementwise"), ("minimum_add", "elementwise"), ("max", "reduction"),
        ("min_1", "reduction"), ("argmin", "reduction"), ("topk", "other"), ("argsort_2", "other"),
        ("cumsum", "other"), ("vision_non_max_suppression", "other"), ("scatter_nd", "other"),
        ("device_copy", "communication"), ("all_reduce", "communication"), ("copy", "layout"),
        ("nn_global_max_pool2d", "pool"), ("nn_max_pool3d", "pool"), ("nn_log_softmax", "softmax"),
        ("nn_dense_max", "matmul"),
    ],
)  # fmt: skip
def test_words_of_names_count_whole(function: str, class_: str) -> None:
    assert class_of(PREFIX + function) == class_


@pytest.mark.parametrize(
    ("right", "own"),
    [((4, 64, 32), "batch_matmul"), ((4, 32, 64), "batch_matmul_by_columns")],
)
def test_batched_products_differ_by_how_the_right_matrix_lies(
    right: tuple[int, ...], own: str
) -> None:
    te = tvm.te
    tensors = [te.placeholder(shape, name="x") for shape in ((4, 16, 32), right)]
    out = te.compute((4,), lambda i: tensors[0][i, 0, 0] + tensors[1][i, 0, 0], name="out")
    program = te.create_prim_func([*tensors, out])
    assert own_operator_of(f"{PREFIX}nn_batch_matmul", program) == own
    assert operator_of(f"{PREFIX}nn_batch_matmul") == "batch_matmul"


@pytest.mark.parametrize("transposed", [True, False])
def test_square_matrices_lie_as_tvm_says(transposed: bool) -> None:
    """Their shapes tell nothing."""
    shapes = ((4, 16, 32), (4, 32, 32))
    tensors = [tvm.te.placeholder(shape, name="x") for shape in shapes]
    out = tvm.topi.nn.batch_matmul(*tensors, transpose_b=transposed)
    program = tvm.te.create_prim_func([*tensors, out])
    own = "batch_matmul" if transposed else "batch_matmul_by_columns"
    assert own_operator_of(f"{PREFIX}nn_batch_matmul_1", program) == own
