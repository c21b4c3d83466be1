"""The zoo: search tasks over operators, shapes and targets, and states drawn from them.

No GPU is needed for GPU tasks. Ansor refuses prefix sums (an extern operation), so these are in
`REFUSED` and not in the zoo; sparse products, whose loops only the data bounds, it tiles by the
rules of `sparse`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.workloads import convolution as conv
from benchmarks.workloads import edges as edge
from benchmarks.workloads import handwritten as hand
from benchmarks.workloads import matrix as mat
from benchmarks.workloads import movement as move
from benchmarks.workloads import reduction as red
from benchmarks.workloads import sparse
from tvm_cdmpp.bridge import hardware_params, load_tvm

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler
PythonBasedModel: Any = auto_scheduler.cost_model.cost_model.PythonBasedModel

Builder = Callable[..., list[Any]]

CPU = "llvm -num-cores 4"
GPUS = {
    "cuda": "cuda -arch=sm_80",
    "rocm": "rocm -mcpu=gfx906",
    "metal": "metal",
    "opencl": "opencl",
    "vulkan": "vulkan",
    "mali": "opencl -device=mali",
}

INSERT_STAGE = auto_scheduler.LayoutRewriteOption.INSERT_TRANSFORM_STAGE
PRE_TRANSFORMED = auto_scheduler.LayoutRewriteOption.REWRITE_FOR_PRE_TRANSFORMED
NO_REWRITE = auto_scheduler.LayoutRewriteOption.NO_REWRITE
_OPTIONS = (NO_REWRITE, INSERT_STAGE, PRE_TRANSFORMED)

REFUSED: tuple[Builder, ...] = (move.cumsum,)


@dataclass(frozen=True)
class ZooTask:
    """One task of the zoo; the search task itself is made when asked for."""

    builder: Builder
    device: str = "cpu"
    """`cpu` or one of `GPUS`."""
    args: tuple[Any, ...] = ()
    """Of the builder."""
    layout: int | None = None
    """A `LayoutRewriteOption`; None for the one TVM takes for the target."""

    @property
    def name(self) -> str:
        """Operator, arguments, device and layout option, such as `matmul(64,64,64)/cuda`."""
        args = f"({','.join(map(str, self.args))})" if self.args else ""
        layouts = {None: "", NO_REWRITE: "/as-is", INSERT_STAGE: "/staged"}
        return (
            f"{self.builder.__name__}{args}/{self.device}{layouts.get(self.layout, '/rewritten')}"
        )

    def make(self) -> Any:
        """Make the search task."""
        target = CPU if self.device == "cpu" else GPUS[self.device]
        return make_task(self.builder, target, self.args, self.layout)


_ON_CPU: tuple[Builder, ...] = (
    mat.matmul, mat.matmul_relu, mat.matmul_transposed, mat.matmul_int8, mat.matmul_mixed,
    mat.matmul_layout_free, mat.dense, mat.dense_gelu, mat.batch_matmul, mat.batch_matmul_stored,
    mat.attention, mat.attention_causal, mat.mlp,
    conv.conv1d_ncw, conv.conv1d_nwc, conv.conv1d_grouped, conv.conv1d_transposed,
    conv.conv2d_nhwc, conv.conv2d_stored, conv.conv2d_nchw, conv.conv2d_nchwc, conv.conv2d_hwcn,
    conv.conv2d_1x1, conv.conv2d_stem, conv.conv2d_uneven_padding, conv.conv2d_dilated,
    conv.conv2d_int8, conv.conv2d_winograd, conv.conv2d_winograd_nchw, conv.depthwise,
    conv.depthwise_nhwc,
    conv.depthwise_multiplier, conv.conv2d_grouped, conv.conv2d_grouped_nhwc,
    conv.conv2d_transposed, conv.conv3d_ncdhw, conv.conv3d_ndhwc, conv.conv3d_transposed,
    conv.deformable_conv2d,
    red.max_pool, red.average_pool, red.average_pool_nhwc, red.max_pool1d, red.average_pool3d,
    red.global_pool, red.adaptive_pool, red.adaptive_pool1d, red.softmax, red.softmax_axis,
    red.fast_softmax, red.log_softmax, red.layer_norm, red.layer_norm_topi, red.group_norm,
    red.rms_norm, red.l2_norm, red.batch_norm, red.lrn, red.norm, red.sum_last, red.sum_first,
    red.sum_outer_axes, red.sum_all, red.max_last, red.argmax, red.mean_square_error,
    move.elementwise, move.elementwise_half, move.quantize, move.transpose_reshape,
    move.transpose2d, move.concatenate, move.pad, move.mirror_pad, move.strided_slice, move.flip,
    move.tile_repeat, move.stack_split, move.depth_to_space, move.resize_nearest,
    move.resize_linear, move.embedding, move.gather, move.gather_sum, move.one_hot, move.where,
    hand.windowed_sum, hand.stencil1d, hand.stencil2d_chain, hand.modulo_index, hand.triangular,
    hand.diagonal, hand.quadratic_index, hand.pairwise_distance, hand.two_outputs,
    hand.tensor_contraction, hand.capsule_conv,
)  # fmt: skip

_ON_GPU: dict[str, tuple[Builder, ...]] = {
    "cuda": (
        mat.matmul, mat.matmul_relu, mat.matmul_int8, mat.matmul_mixed, mat.dense,
        mat.batch_matmul, mat.attention, mat.mlp, conv.conv1d_nwc, conv.conv2d_nhwc,
        conv.conv2d_nchw, conv.conv2d_uneven_padding, conv.conv2d_winograd, conv.depthwise,
        conv.conv2d_grouped, conv.conv2d_transposed, conv.conv3d_ncdhw, red.max_pool,
        red.average_pool, red.global_pool, red.adaptive_pool, red.softmax, red.layer_norm,
        red.norm, red.sum_all, red.sum_last, red.argmax, move.elementwise, move.transpose_reshape,
        move.concatenate, move.embedding, move.gather_sum, hand.windowed_sum,
        hand.stencil2d_chain, hand.modulo_index, hand.triangular, hand.capsule_conv,
    ),
    "rocm": (mat.dense, conv.conv2d_nchw, conv.conv1d_transposed, red.softmax, red.sum_first),
    "metal": (mat.batch_matmul, conv.depthwise_nhwc, conv.conv2d_1x1, red.log_softmax),
    "opencl": (mat.matmul, conv.conv2d_dilated, red.average_pool, red.sum_all, move.pad),
    "vulkan": (mat.matmul_transposed, conv.conv2d_nhwc, conv.conv3d_ndhwc, red.l2_norm),
    "mali": (mat.matmul_layout_free, conv.conv2d_nhwc, red.max_pool),
}  # fmt: skip

_AS_GIVEN: frozenset[Builder] = frozenset(
    {
        mat.matmul_transposed, mat.dense, mat.dense_gelu, mat.attention, mat.attention_causal,
        mat.mlp, mat.batch_matmul_stored, conv.conv2d_stored, edge.dense_head,
    }
)  # fmt: skip
"""TVM cannot rewrite layouts of these: it mixes up axes whose names end in digits, as topi's
matmul has them; nor of two constants in one program, nor of one it has rewritten already."""

_LAYOUTS: tuple[tuple[Builder, tuple[Any, ...], int], ...] = (
    (mat.matmul_layout_free, (), PRE_TRANSFORMED),
    (mat.matmul_layout_free, (), NO_REWRITE),
    (mat.batch_matmul, (), PRE_TRANSFORMED),
    (conv.conv2d_nhwc, (), PRE_TRANSFORMED),
    (conv.conv2d_nhwc, (), NO_REWRITE),
    (conv.conv2d_uneven_padding, (), PRE_TRANSFORMED),
    (conv.conv3d_ndhwc, (), PRE_TRANSFORMED),
    (conv.conv2d_winograd, (14, 16, 16, True), INSERT_STAGE),
    (conv.conv2d_winograd, (14, 16, 16, True), PRE_TRANSFORMED),
)

_HEADS: tuple[tuple[Builder, tuple[Any, ...]], ...] = (
    (edge.head, (2, 768)), (edge.head, (1, 64)), (edge.head, (10, 512)),
    (edge.head_by_hand, (1, 1, 96)), (edge.head_by_hand, (1, 5, 96)),
    (edge.head_by_hand, (7, 1, 64)), (edge.head_by_hand, (1, 16, 1)),
    (mat.matmul_layout_free, (3, 2, 640)), (mat.batch_matmul, (6, 1, 1, 128)),
    (edge.stored_twice, ()), (edge.self_product, ()),
)  # fmt: skip
"""With every layout option: few results, which Ansor factors, and constants that are read twice."""

_EDGES: tuple[tuple[Builder, tuple[Any, ...]], ...] = (
    (edge.dense_head, (4, 1, 64)), (edge.dense_head, (1, 10, 33)), (edge.unit_product, ()),
    (edge.unit_product, (1, 1, 64)), (edge.unit_product, (1, 64, 1)),
    (edge.unit_product, (64, 1, 1)), (edge.unit_image, (1, 24, 1)), (edge.unit_image, (16, 1, 1)),
    (edge.unit_image, (1, 1, 3)), (edge.unit_softmax, ()), (edge.unit_norm, ()),
    (edge.scalar, ()), (edge.empty_rows, ()), (edge.empty_sum, ()),
    (edge.empty_sum_factored, ()), (edge.empty_elementwise, ()), (edge.empty_part, ()),
    (edge.returned_elementwise, ()), (edge.returned_sum, ()), (edge.returned_product, ()),
    (edge.returned_padding, ()), (edge.returned_argmax, ()), (edge.lstm_cell, ()),
    (edge.batch_statistics, ()), (edge.dense_gradient, ()),
)  # fmt: skip
"""On CPU and GPU."""

_SPARSE: tuple[Builder, ...] = (
    sparse.sparse_dense_csr, sparse.sparse_dense_bsr, sparse.ragged_sum
)  # fmt: skip

_OTHER = (
    ZooTask(mat.matmul, args=(128, 128, 128)),
    ZooTask(mat.matmul, args=(53, 61, 67)),
    ZooTask(mat.matmul, args=(1, 96, 128)),
    ZooTask(mat.matmul, args=(32, 48, 64, "float16")),
    ZooTask(mat.matmul, "cuda", args=(256, 256, 512)),
    ZooTask(mat.matmul, "cuda", args=(53, 61, 67, "float16")),
    ZooTask(conv.conv2d_nhwc, args=(56, 64, 64)),
    ZooTask(conv.conv2d_nhwc, args=(13, 11, 23, 2, "float16")),
    ZooTask(conv.conv2d_nchw, "cuda", args=(1, 64, 56, 64, 1)),
    ZooTask(conv.depthwise, args=(96, 28)),
    ZooTask(red.softmax, args=(7, 11)),
    ZooTask(red.sum_all, args=(256, 512)),
    ZooTask(red.norm, args=(8, 64, 64)),
)


def zoo() -> list[ZooTask]:
    """Return all tasks of the zoo, with distinct names."""
    return [
        *(_on_cpu(builder) for builder in _ON_CPU),
        *(ZooTask(builder, device) for device, them in _ON_GPU.items() for builder in them),
        *(ZooTask(builder, "cpu", args, option) for builder, args, option in _LAYOUTS),
        *(ZooTask(builder, "cpu", args, option) for option in _OPTIONS for builder, args in _HEADS),
        *(_on_cpu(builder, *args) for builder, args in _EDGES),
        *(ZooTask(builder, "cuda", args) for builder, args in _EDGES),
        *(ZooTask(builder) for builder in _SPARSE),
        *_OTHER,
    ]


def throughput_tasks() -> list[ZooTask]:
    """Return a few tasks to measure speed with: of the sizes networks have, small DAGs first."""
    return [
        ZooTask(mat.matmul, args=(512, 512, 512)),
        ZooTask(mat.batch_matmul, args=(12, 128, 128, 64)),
        ZooTask(red.softmax, args=(1536, 128)),
        ZooTask(conv.conv2d_nhwc, args=(56, 64, 64)),
        ZooTask(conv.depthwise, args=(96, 56)),
        ZooTask(red.layer_norm, args=(128, 768)),
        _on_cpu(mat.attention, 12, 128, 64),
        ZooTask(conv.conv2d_winograd, args=(28, 128, 128)),
        ZooTask(mat.matmul, "cuda", args=(512, 512, 512)),
        ZooTask(red.softmax, "cuda", args=(1536, 128)),
        ZooTask(mat.dense, "cuda", args=(128, 768, 3072)),
        ZooTask(conv.conv2d_nchw, "cuda", args=(1, 64, 56, 64, 1)),
        ZooTask(red.layer_norm, "cuda", args=(128, 768)),
    ]


def _on_cpu(builder: Builder, *args: Any) -> ZooTask:
    return ZooTask(builder, "cpu", args, NO_REWRITE if builder in _AS_GIVEN else None)


_CPU_PARAMS = auto_scheduler.HardwareParams(6, 64, 64, 0, 0, 0, 0, 0)


def make_task(
    builder: Builder, target: str = CPU, args: Sequence[Any] = (), layout: int | None = None
) -> Any:
    """Make a search task; on a GPU with given limits, so that none needs to be here.

    Parameters
    ----------
    builder
        Returns the tensors of a workload, from `args`.
    target
        In TVM's notation.
    args
        Numbers and strings.
    layout
        A `LayoutRewriteOption`; None for the one TVM takes for the target.
    """
    name = f"zoo.{builder.__name__}"
    auto_scheduler.register_workload(name, builder, override=True)
    made = tvm.target.Target(target)
    # Of a CPU, Ansor's own, but for the cores: those of this machine do not matter.
    limits = _CPU_PARAMS if made.kind.name == "llvm" else hardware_params(made)
    with made:  # topi's NCHWc asks for it
        return auto_scheduler.SearchTask(
            func=name, args=tuple(args), target=made, hardware_params=limits,
            layout_rewrite_option=layout,
        )  # fmt: skip


class _SeededModel(PythonBasedModel):
    """Random scores from a seed; TVM's own RandomModel draws from numpy's global generator."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = np.random.default_rng(seed)

    def predict(self, _task: Any, states: Sequence[Any]) -> list[float]:
        """Score at random."""
        return [float(score) for score in self._generator.uniform(0.1, 1.0, len(states))]

    def update(self, _inputs: Sequence[Any], _results: Sequence[Any]) -> None:
        """Learn nothing."""


def sample_states(task: Any, n: int, seed: int = 0) -> list[Any]:
    """Draw up to `n` distinct states with Ansor's sketch policy; the same on every run.

    Two thirds come from its random initial population, one third from its evolutionary search
    (with random scores). Simple tasks have fewer than `n` distinct states.

    Parameters
    ----------
    task
        A search task.
    n
        Number of states.
    seed
        Other seeds draw other states.
    """
    policy = auto_scheduler.SketchPolicy(
        task,
        _SeededModel(seed),
        params={
            "sample_init_min_population": n,
            "evolutionary_search_population": max(16, n),
            "evolutionary_search_num_iters": 2,
        },
        seed=seed + 1,  # TVM takes a seed of zero for none
        verbose=0,
        init_search_callbacks=sparse.sketch_rules(),
    )
    population = list(policy.sample_initial_population())
    initial = {str(state): state for state in population}
    offspring = policy.evolutionary_search(population, 3 * n) if n >= 3 and population else []
    # The search also returns states that it started from.
    evolved = {str(state): state for state in offspring if str(state) not in initial}
    num_evolved = min(len(evolved), max(n // 3, n - len(initial)))
    states = [*list(initial.values())[: n - num_evolved], *evolved.values()]
    return states[:n]
