"""A network as it would be compiled, up to its tensor programs: no code is generated for a device.

TVM's graph executor code generator gives the operators in order, and a pass before all others takes
each operator's program as its schedule wrote it, before buffers are flattened and loops unrolled.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tvm_cdmpp.bridge import load_tvm, quiet_tvm
from tvm_cdmpp.networks.deployment import CountingBest, compile_context, compiled_form
from tvm_cdmpp.networks.network import Network, compiling

tvm = load_tvm()
relay = tvm.relay
_codegen: Any = importlib.import_module("tvm.relay.backend.graph_executor_codegen")

Target: TypeAlias = Any
_BEFORE_ALL_PASSES = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class LoweredNetwork:
    """What a network runs."""

    graph_json: str
    """As TVM's graph executor takes it."""
    parameters: frozenset[str]
    """Inputs of the graph that are constants."""
    programs: Mapping[str, Any]
    """`PrimFunc` of each function that TVM scheduled; library calls have none."""
    searched: Mapping[str, str]
    """DAG of the task, as `tvm.ir.save_json` writes it, of each function with a schedule that was
    given; all others have one of TVM's own."""
    num_tasks_without_record: int
    """Tasks for which no schedule was given, so that they have TVM's own; 0 without any."""


def lower_network(network: Network, target: Target, best: CountingBest | None) -> LoweredNetwork:
    """Lower a network just as `deploy` compiles it.

    Parameters
    ----------
    network
        From `load_network`.
    target
        What to compile for; no such device need be here.
    best
        Schedules of its tasks; None for TVM's own.

    Raises
    ------
    NetworkError
        TVM cannot compile the network for this target.
    """
    programs: dict[str, Any] = {}

    def keep(program: Any, mod: Any, context: Any) -> Any:
        programs[str(program.attrs["global_symbol"])] = program
        return program

    first = tvm.tir.transform.prim_func_pass(keep, opt_level=0, name="keep_program")
    codegen = _codegen.GraphExecutorCodegen(None, target)
    options = {"tir.add_lower_pass": [(_BEFORE_ALL_PASSES, first)]}
    with compiling(network.name, target), quiet_tvm(), compile_context(best, **options):
        form = compiled_form(network, target, best)
        mod, _ = relay.optimize(form, target, params=network.params)
        graph_json, _, parameters = codegen.codegen(mod, mod["main"])
    applied = {} if best is None else best.applied
    return LoweredNetwork(
        graph_json=str(graph_json),
        parameters=frozenset(map(str, parameters)),
        programs=programs,
        searched={name: dag for name, dag in applied.items() if name in programs},
        num_tasks_without_record=0 if best is None else len(best.missing),
    )
