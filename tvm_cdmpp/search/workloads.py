"""What TVM says about the workloads of logs: their keys, work, and whether steps fit them."""

import importlib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tvm_cdmpp.data.workloads import DagFacts
from tvm_cdmpp.devices.hardware import Hardware
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract.dag import analyse
from tvm_cdmpp.extract.replayer import StepReplayer
from tvm_cdmpp.extract.stage import LayoutRewrite, TaskGraph
from tvm_cdmpp.search.quiet import reason_of
from tvm_cdmpp.tvm_runtime import load_tvm

tvm = load_tvm()
te, topi = tvm.te, tvm.topi
_registry = importlib.import_module("tvm.auto_scheduler.workload_registry")

Tensor: TypeAlias = Any

# Around a record's steps; nothing else of a line matters to the replayer.
_HEAD, _TAIL = b'{"i":[["","",[],"",0,[]],[[],', b']],"r":[[0],0,0,0],"v":"v0.6"}\n'


class TvmInspector:
    """Implements `tvm_cdmpp.data.workloads.Inspector`."""

    def __init__(self) -> None:
        self._graphs: dict[str, TaskGraph] = {}

    def describe(self, dag: str) -> DagFacts:
        """Return TVM's key of a DAG, and its floating-point operations.

        Raises
        ------
        RecordError
            TVM, or the analysis of DAGs, cannot take it.
        """
        compute_dag = _load(dag)
        self._graphs[dag] = analyse(compute_dag)
        return DagFacts(str(compute_dag.workload_key()), float(compute_dag.flop_ct))

    def rebuild(self, key: str) -> str | None:
        """Return the DAG of a key that names a function of `FUNCTIONS` or one registered in TVM."""
        return rebuild_workload(key)

    def misfits(
        self, dag: str, hardware: Sequence[int], layout: int, steps: Sequence[bytes]
    ) -> dict[int, str]:
        """Replay steps on a DAG, and tell which do not fit, and why."""
        if dag not in self._graphs:
            self.describe(dag)
        replayer = StepReplayer(self._graphs[dag], Hardware(*hardware), LayoutRewrite(layout))
        records = b"".join(_HEAD + text + _TAIL for text in steps)
        _, errors = replayer.extract(records)
        return {place: str(error) for place, error in errors.items()}


def rebuild_workload(key: str) -> str | None:
    """Make the DAG of a named workload anew.

    Parameters
    ----------
    key
        A workload key such as `["matmul", 512, 512, 512, "float32"]`.

    Returns
    -------
    dag
        `tvm.ir.save_json` of its tensors; None if the name is not known or its arguments do not
        fit, for a name says nothing certain about a function that is not there.
    """
    try:
        name, *arguments = json.loads(key)
    except (TypeError, ValueError):
        return None
    function = FUNCTIONS.get(name) if isinstance(name, str) else None
    try:
        if function is not None:
            tensors = function(*arguments)
        elif name in _registry.WORKLOAD_FUNC_REGISTRY:
            tensors = tvm.auto_scheduler.workload_key_to_tensors(key)
        else:
            return None
        return str(tvm.ir.save_json(list(tensors)))
    except (TypeError, ValueError, AssertionError, AttributeError, tvm.TVMError):
        return None


def _load(dag: str) -> Any:
    try:
        return tvm.auto_scheduler.ComputeDAG(list(tvm.ir.load_json(dag)))
    except (tvm.TVMError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"TVM cannot read the DAG: {reason_of(error)}") from error


# ------------------------------------------------ functions that published logs name
# Each was compared with the DAGs that their authors' programs give.


def _matmul(n: int, m: int, k: int, dtype: str = "float32") -> list[Tensor]:
    left = te.placeholder((n, k), name="A", dtype=dtype)
    right = te.placeholder((k, m), name="B", dtype=dtype)
    axis = te.reduce_axis((0, k), name="k")
    product = te.compute(
        (n, m), lambda i, j: te.sum(left[i, axis] * right[axis, j], axis=axis), name="C"
    )
    return [left, right, product]


FUNCTIONS: dict[str, Callable[..., Sequence[Tensor]]] = {}
