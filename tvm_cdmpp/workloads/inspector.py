"""What TVM says about the workloads of logs: their keys, work, and whether steps fit them."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.data import DagFacts, Workload, is_hash, workload_id
from tvm_cdmpp.devices import Hardware
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract import (
    LayoutRewrite,
    StepExtractor,
    TaskGraph,
    analyse,
    load_dag,
    records_of_steps,
)
from tvm_cdmpp.workloads.functions import rebuild_workload
from tvm_cdmpp.workloads.keys import keys_of
from tvm_cdmpp.workloads.operators import rebuild_operator

if TYPE_CHECKING:
    # It loads torch, which an import of logs seldom needs.
    from tvm_cdmpp.workloads.derive import DerivedWorkloads

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
    """Implements `tvm_cdmpp.data.workload_book.Inspector`.

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
        shapes = (op.output(n).shape for op in compute_dag.ops for n in range(op.num_outputs))
        if any(getattr(size, "value", None) == 0 for shape in shapes for size in shape):
            raise RecordError("a tensor of the workload has a size of 0: there is no work in it")
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
        extractor = StepExtractor(self._graphs[dag], Hardware(*hardware), LayoutRewrite(layout))
        _, errors = extractor.extract(records_of_steps(steps))
        found = {place: str(error) for place, error in errors.items()}
        for place, text in enumerate(steps):
            reason = "" if place in errors else _wrong_extent(self._graphs[dag], text)
            if reason:
                found[place] = reason
        return found


def _wrong_extent(graph: TaskGraph, steps: bytes) -> str:
    """Tell whether a loop that is split had another length in the workload the steps are of.

    Neither TVM nor the extractor looks at the length that a step notes down. It is compared for
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
