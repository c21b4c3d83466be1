"""What TVM says about the workloads of logs: their keys, work, and whether steps fit them."""

import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from tvm_cdmpp.data.workloads import DagFacts, Workload, is_hash, workload_id
from tvm_cdmpp.devices.hardware import Hardware
from tvm_cdmpp.extract.dag import analyse, load_dag
from tvm_cdmpp.extract.replayer import StepReplayer, records_of_steps
from tvm_cdmpp.extract.stage import LayoutRewrite, TaskGraph
from tvm_cdmpp.files import write_atomically
from tvm_cdmpp.search.keys import keys_of
from tvm_cdmpp.search.operators import rebuild_operator
from tvm_cdmpp.tvm_runtime import load_tvm

if TYPE_CHECKING:
    # It loads torch, which an import of logs seldom needs.
    from tvm_cdmpp.search.derive import DerivedWorkloads

tvm = load_tvm()
te, topi = tvm.te, tvm.topi
_registry = importlib.import_module("tvm.auto_scheduler.workload_registry")

Tensor: TypeAlias = Any

_MADE = -1
"""Extent of a loop that a step made."""
_NEW_STAGES = ("CHR", "CHW", "RF")
"""Steps that make two stages of one."""
_NEW_LOOPS = ("RE", "FU", "FSP", "FFSP", "CA", "SA")
"""Steps after which the loops of their stage are not those of the DAG."""


class TvmInspector:
    """Implements `tvm_cdmpp.data.workloads.Inspector`.

    Parameters
    ----------
    derived
        Networks whose tasks logs may have; none by default.
    """

    def __init__(self, derived: "DerivedWorkloads | None" = None) -> None:
        self._derived = derived
        self._graphs: dict[str, TaskGraph] = {}

    @property
    def fingerprint(self) -> str:
        """Return a text that changes with the networks, and with TVM."""
        return f"{tvm.__version__} {self._derived.fingerprint if self._derived else ''}"

    def describe(self, dag: str) -> DagFacts:
        """Return TVM's key of a DAG, and its floating-point operations.

        Raises
        ------
        RecordError
            TVM, or the analysis of DAGs, cannot take it.
        """
        compute_dag = load_dag(dag)
        self._graphs[dag] = analyse(compute_dag)
        return DagFacts(
            str(compute_dag.workload_key()), float(compute_dag.flop_ct), keys_of(compute_dag)
        )

    def rebuild(self, key: str, target: str) -> list[Workload]:
        """Return what a key may mean.

        See `rebuild_workload` for names, `DerivedWorkloads` and `rebuild_operator` for hashes.
        """
        if not is_hash(key):
            dags, origin = rebuild_workload(key), "named function"
        elif self._derived and (found := self._derived.find(key, target)):
            return [found]
        else:
            dags, origin = rebuild_operator(key), "common operator"
        return [Workload(workload_id(dag), (key,), dag, origin) for dag in dags]

    def misfits(
        self, dag: str, hardware: Sequence[int], layout: int, steps: Sequence[bytes]
    ) -> dict[int, str]:
        """Replay steps on a DAG, and tell which do not fit, and why."""
        if dag not in self._graphs:
            self.describe(dag)
        replayer = StepReplayer(self._graphs[dag], Hardware(*hardware), LayoutRewrite(layout))
        _, errors = replayer.extract(records_of_steps(steps))
        found = {place: str(error) for place, error in errors.items()}
        for place, text in enumerate(steps):
            reason = "" if place in errors else _wrong_extent(self._graphs[dag], text)
            if reason:
                found[place] = reason
        return found


def _wrong_extent(graph: TaskGraph, steps: bytes) -> str:
    """Tell whether a loop that is split had another length in the workload the steps are of.

    Neither TVM nor the replayer looks at the length that a step notes down. It is compared for
    loops of the DAG itself; loops that other steps made have lengths of their own.
    """
    loops = [list(stage.axis_extents) for stage in graph.stages]
    for kind, stage, *values in orjson.loads(steps):
        if kind == "SP":
            place, extent, lengths, _ = values
            if place < len(loops[stage]):
                expected = loops[stage][place]
                if extent and expected not in (_MADE, extent):
                    return f"a loop of {expected} iterations is split as one of {extent}"
                loops[stage][place : place + 1] = [_MADE] * (len(lengths) + 1)
        elif kind in _NEW_LOOPS:
            loops[stage] = []
        elif kind in _NEW_STAGES:
            # The first of the two does the work of the stage as it was, in whatever loops.
            loops.insert(stage, loops[stage] if kind == "CHW" else [])
            loops[stage + 1] = []
    return ""


def rebuild_workload(key: str) -> list[str]:
    """Make the DAG of a named workload anew.

    Parameters
    ----------
    key
        A workload key such as `["matmul", 512, 512, 512, "float32"]`.

    Returns
    -------
    dags
        `tvm.ir.save_json` of its tensors: by the functions of that name in `FUNCTIONS`, or the one
        that is registered in TVM. A function that does not take the arguments gives none.
    """
    try:
        name, *arguments = json.loads(key)
        functions = FUNCTIONS.get(name, ())
        if not functions and name in _registry.WORKLOAD_FUNC_REGISTRY:
            functions = (lambda *_: _registry.workload_key_to_tensors(key),)
    except (TypeError, ValueError):
        return []
    dags = []
    for function in functions:
        try:
            dags.append(str(tvm.ir.save_json(list(function(*arguments)))))
        except (TypeError, ValueError, AssertionError, tvm.TVMError):
            continue
    return list(dict.fromkeys(dags))


# ------------------------------------------------ functions that published logs name
# Each was compared with the DAGs that their authors' programs give.


# Tensors are given in the order in which those programs register them.


def _matmul(n: int, k: int, m: int, dtype: str = "float32") -> list[Tensor]:
    left = te.placeholder((n, k), name="A", dtype=dtype)
    right = te.placeholder((k, m), name="B", dtype=dtype)
    axis = te.reduce_axis((0, k), name="k")
    product = te.compute(
        (n, m), lambda i, j: te.sum(left[i, axis] * right[axis, j], axis=axis), name="C"
    )
    return [left, right, product]


def _matmul_reduced_last(n: int, m: int, k: int, dtype: str = "float32") -> list[Tensor]:
    return _matmul(n, k, m, dtype)


def _batch_matmul(batch: int, heads: int, n: int, k: int, m: int) -> list[Tensor]:
    left = te.placeholder((batch * heads, n, k), name="A")
    right = te.placeholder((batch * heads, k, m), name="B")
    return [left, right, topi.nn.batch_matmul(left, right, transpose_b=False)]


def _conv2d(*arguments: Any) -> list[Tensor]:
    batch, channels, height, width, filters, kernel_h, kernel_w, stride, padding = arguments
    data = te.placeholder((batch, channels, height, width), name="input0")
    kernel = te.placeholder((filters, channels, kernel_h, kernel_w), name="input1")
    return [data, kernel, topi.nn.conv2d_nchw(data, kernel, stride, padding, 1)]


def _conv2d_tutorial(*arguments: Any) -> list[Tensor]:
    """Make a plain `conv2d`, in the argument order of `conv2d_layer` in TVM's tutorials."""
    batch, height, width, filters, channels, kernel_h, kernel_w, stride, padding = arguments
    data = te.placeholder((batch, channels, height, width), name="data")
    kernel = te.placeholder((filters, channels, kernel_h, kernel_w), name="kernel")
    return [data, kernel, topi.nn.conv2d_nchw(data, kernel, stride, padding, 1)]


def _conv2d_bias_relu(*arguments: Any) -> list[Tensor]:
    """Make the `conv2d_layer` of TVM's tutorials."""
    batch, height, width, filters, channels, kernel_h, kernel_w, stride, padding = arguments
    data = te.placeholder((batch, channels, height, width), name="data")
    kernel = te.placeholder((filters, channels, kernel_h, kernel_w), name="kernel")
    bias = te.placeholder((1, filters, 1, 1), name="bias")
    conv = topi.nn.conv2d_nchw(data, kernel, stride, padding, dilation=1, out_dtype="float32")
    return [data, kernel, bias, topi.nn.relu(conv + bias)]


def _conv2d_layer(*arguments: Any) -> list[Tensor]:
    """Tell the two meanings apart: the tutorial gives strides and padding as lists."""
    is_tutorial = len(arguments) == 9 and isinstance(arguments[7], list)
    return _conv2d_bias_relu(*arguments) if is_tutorial else _conv2d(*arguments)


def _depthwise(*arguments: Any) -> list[Tensor]:
    batch, channels, height, width, kernel_h, kernel_w, stride, padding = arguments
    data = te.placeholder((batch, channels, height, width), name="data")
    kernel = te.placeholder((channels, 1, kernel_h, kernel_w), name="kernel")
    return [data, kernel, topi.nn.depthwise_conv2d_nchw(data, kernel, stride, padding, 1)]


def _pool(*arguments: Any) -> list[Tensor]:
    kind, batch, channels, height, width, kernel_h, kernel_w, stride, padding = arguments
    data = te.placeholder((batch, channels, height, width), name="data")
    pad = [(kernel_h - 1) // 2, (kernel_w - 1) // 2] * 2 if padding == "SAME" else [0] * 4
    kernel, strides = [kernel_h, kernel_w], [stride, stride]
    return [data, topi.nn.pool2d(data, kernel, strides, [1, 1], pad, kind, count_include_pad=True)]


def _relu(*shape: int) -> list[Tensor]:
    data = te.placeholder(shape, name="data")
    return [data, topi.nn.relu(data)]


def _reduction(shape: list[int], axis: int | list[int], keep_dims: bool) -> list[Tensor]:
    data = te.placeholder(shape, name="data")
    return [data, topi.sum(data, axis, keep_dims)]


def _conv2d_of_shapes(shape: list[int], kernel_shape: list[int]) -> list[Tensor]:
    data = te.placeholder(shape, name="A")
    kernel = te.placeholder(kernel_shape, name="W")
    return [data, kernel, topi.nn.conv2d_nchw(data, kernel, 1, 1, 1)]


def _conv3d_of_shapes(shape: list[int], kernel_shape: list[int]) -> list[Tensor]:
    data = te.placeholder(shape, name="A")
    kernel = te.placeholder(kernel_shape, name="W")
    return [data, kernel, topi.nn.conv3d_ncdhw(data, kernel, 1, 1, 1, 1)]


FUNCTIONS: dict[str, tuple[Callable[..., Sequence[Tensor]], ...]] = {
    "matmul": (_matmul, _matmul_reduced_last),
    "matmul_layer": (_matmul,),
    "ansor_mm": (_matmul,),
    "batch_matmul_layer": (_batch_matmul,),
    "conv2d": (_conv2d_tutorial,),
    "conv2d_layer": (_conv2d_layer,),
    "depthwise_conv2d_layer": (_depthwise,),
    "pool_layer": (_pool,),
    "relu_layer": (_relu,),
    "reduction_layer": (_reduction,),
    "conv2d_ansor": (_conv2d_of_shapes,),
    "conv3d_ansor": (_conv3d_of_shapes,),
}
"""By the name in a workload key; called with the key's arguments."""


def write_workloads(log: Path, tasks: Sequence[Any]) -> None:
    """Write what the workload keys of a log mean into `workloads.jsonl` next to it.

    Lines of other logs and other workloads, which the file may hold already, are kept.

    Parameters
    ----------
    log
        The log.
    tasks
        Its tasks (`SearchTask`).

    Raises
    ------
    OSError
        The file cannot be read or written.
    """
    file = log.with_name("workloads.jsonl")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    known = set(lines)
    for task in tasks:
        entry = {
            "workload_key": str(task.workload_key),
            "files": [log.name],
            "dag": tvm.ir.save_json(task.compute_dag.tensors),
        }
        line = json.dumps(entry)
        if line not in known:
            lines.append(line)
    write_atomically(file, "".join(f"{line}\n" for line in lines).encode())
