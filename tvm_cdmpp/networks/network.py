"""Networks to tune: named ones and a user's own files, as Relay modules, and their tasks.

Named networks have random weights, scaled so that activations neither fade nor
overflow: outputs of a wrongly compiled network must differ visibly. A network is kept as its author
wrote it, and `to_search_form` makes of it what is searched and deployed with a log:

- convolutions in channels-last layout, the one Ansor's sketches are made for;
- dense layers as batch matmul with one batch. Ansor lays weights out anew for each program; TVM
  encodes such a layout as text, in which the axis names of its dense operator (`i0`, `i1`) run into
  the sizes, so every program of a dense task fails to build (seen on 0.17). The axes of batch
  matmul are letters.
"""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias

from tvm_cdmpp.bridge import errors_of_threads, hardware_params, load_tvm, quiet_tvm, reason_of
from tvm_cdmpp.errors import CDMPPError, NetworkError
from tvm_cdmpp.networks.imported import Reference
from tvm_cdmpp.networks.importers import read_network_file
from tvm_cdmpp.networks.inputs import MOST_BATCH, InputSpecs, InputWishes
from tvm_cdmpp.networks.named import build_named
from tvm_cdmpp.networks.names import NETWORKS, check_network_is_there

tvm = load_tvm()
relay = tvm.relay
dataflow_pattern = importlib.import_module("tvm.relay.dataflow_pattern")
_DFPatternCallback: Any = dataflow_pattern.DFPatternCallback

IRModule: TypeAlias = Any
RelayFunction: TypeAlias = Any
NDArray: TypeAlias = Any
SearchTask: TypeAlias = Any
Target: TypeAlias = Any


def _layouts(flat: str, solid: str) -> dict[str, list[str]]:
    """Layouts by operator: `flat` for two spatial axes, `solid` for three."""
    return {
        "nn.conv2d": [flat, "default"],
        "nn.conv2d_transpose": [flat, "default"],
        "nn.conv3d": [solid, "default"],
        "nn.max_pool2d": [flat],
        "nn.avg_pool2d": [flat],
        "nn.global_max_pool2d": [flat],
        "nn.global_avg_pool2d": [flat],
        "nn.max_pool3d": [solid],
        "nn.avg_pool3d": [solid],
        "image.resize2d": [flat],
    }


CHANNELS_LAST: dict[str, list[str]] = _layouts("NHWC", "NDHWC")
CHANNELS_FIRST: dict[str, list[str]] = _layouts("NCHW", "NCDHW")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Network:
    """A network ready to compile."""

    name: str
    """Name in `NETWORKS`, or the file's stem."""
    mod: IRModule
    """Relay module with static shapes, as imported."""
    params: dict[str, NDArray]
    """Weights by parameter name; an ONNX network has them inside `mod`."""
    inputs: InputSpecs
    """Shape and element type of each input."""
    reference: Reference | None = None
    """How the framework that it comes from runs it; None where there is none."""


def load_network(
    name_or_path: str,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int | None = None,
    input_dtypes: Mapping[str, str] | None = None,
    batch_option: str = "--batch",
) -> Network:
    """Load a named network or a network file.

    Parameters
    ----------
    name_or_path
        One of `NETWORKS`, or the path of an ONNX, TorchScript (traced) or `torch.export` file.
    input_shapes
        Shapes by input name, for files that do not hold them (TorchScript never does).
    batch
        Size of the first axes: of a named network, 1 by default; of a file, where it is open. At
        most `MOST_BATCH`.
    input_dtypes
        Element types by input name, for TorchScript, which does not hold them: by default int64
        for what looks up an embedding, and the type of the weights for all others.
    batch_option
        What the command line calls `batch`, for messages.

    Raises
    ------
    NetworkError
        The name is unknown, the file unusable, a shape missing, or an operator unsupported.
    MissingDependencyError
        The file is ONNX and the `onnx` package is not installed.
    """
    if isinstance(batch, bool) or not isinstance(batch, Integral | None):
        raise NetworkError(f"batch must be a whole number; got {batch!r}.")
    batch = None if batch is None else int(batch)
    if batch is not None and not 1 <= batch <= MOST_BATCH:
        raise NetworkError(f"batch must be 1 to {MOST_BATCH}; got {batch}.")
    wishes = InputWishes(input_shapes or {}, batch, input_dtypes or {}, batch_option)
    if name_or_path in NETWORKS:
        if wishes.shapes or wishes.dtypes:
            raise NetworkError(
                f"{name_or_path} has fixed inputs, but for the batch; leave out shapes and element "
                "types, or save the network you mean to a file."
            )
        name, imported = name_or_path, build_named(name_or_path, batch or 1)
    else:
        check_network_is_there(name_or_path)
        path = Path(name_or_path)
        with quiet_tvm():
            name, imported = path.stem, read_network_file(path, wishes)
    mod = relay.transform.InferType()(imported.mod)
    check_runs_as_graph(name, mod)
    return Network(
        name=name,
        mod=mod,
        params=imported.params,
        inputs=imported.inputs,
        reference=imported.reference,
    )


def network_of_relay(name: str, mod: IRModule, params: Mapping[str, NDArray]) -> Network:
    """Make a network of a Relay module.

    Parameters
    ----------
    name
        What to call it.
    mod
        The module; all sizes must be known.
    params
        Its weights by parameter name; its other parameters are inputs.

    Raises
    ------
    NetworkError
        TVM's graph executor cannot run it: it branches, loops, or has a size that is known only
        when it runs.
    """
    typed = relay.transform.InferType()(mod)
    check_runs_as_graph(name, typed)
    inputs = {
        str(var.name_hint): (
            tuple(int(size) for size in var.checked_type.shape),
            str(var.checked_type.dtype),
        )
        for var in typed["main"].params
        if var.name_hint not in params
    }
    return Network(name=name, mod=typed, params=dict(params), inputs=inputs)


def extract_tasks(network: Network, target: Target) -> tuple[list[SearchTask], list[int]]:
    """Extract what Ansor can tune in a network.

    Parameters
    ----------
    network
        From `load_network`.
    target
        What to compile for.

    Returns
    -------
    tasks
        Distinct tasks with at least one reduction, in an order that only network and target
        decide.
    weights
        How often each task occurs in the network, at least 1.

    Raises
    ------
    NetworkError
        TVM cannot compile the network for this target, or there is nothing to tune in it.
    """
    tasks, weights = find_tasks(network, target)
    if not tasks:
        raise NetworkError(f"{network.name} has no operator that Ansor could tune.")
    return tasks, weights


def find_tasks(network: Network, target: Target) -> tuple[list[Any], list[int]]:
    """Do as `extract_tasks`, but return no task where there is none.

    Raises
    ------
    NetworkError
        TVM cannot compile the network for this target.
    """
    with compiling(network.name, target):
        return tasks_of(to_search_form(network.mod), network.params, target)


_RAISED = (
    tvm.TVMError, ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip


@contextmanager
def compiling(name: str, target: Target) -> Iterator[None]:
    """Name the network and the target in what TVM raises meanwhile.

    TVM's strategies and schedules are Python, which raises whatever they come upon.

    Raises
    ------
    NetworkError
        TVM raised something.
    """
    try:
        yield
    except CDMPPError:
        raise
    except _RAISED as error:
        raise NetworkError(
            f"TVM cannot compile {name} for {target}: {reason_of(error)}."
        ) from error


def tasks_of(
    mod: IRModule, params: Mapping[str, NDArray], target: Target, *, with_simple: bool = False
) -> tuple[list[SearchTask], list[int]]:
    """Extract the tasks of a module as it is.

    Parameters
    ----------
    mod, params
        Relay module, and its weights by parameter name.
    target
        What to compile for.
    with_simple
        Also those without a reduction that is worth tuning.

    Returns
    -------
    tasks, weights
        As of `extract_tasks`; there may be none.

    Raises
    ------
    TVMError
        TVM cannot compile the module for this target.
    """
    with quiet_tvm(), errors_of_threads():
        tasks, weights = tvm.auto_scheduler.extract_tasks(
            mod["main"],
            dict(params),
            target,
            hardware_params=hardware_params(target),
            include_simple_tasks=with_simple,
            opt_level=3,
        )
    return list(tasks), [int(weight) for weight in weights]


def to_search_form(mod: IRModule) -> IRModule:
    """Bring a network to the form that is searched, and deployed with a log.

    Parameters
    ----------
    mod
        Relay module, as in `Network.mod`.
    """
    return change_layout(_batch_dense(mod), CHANNELS_LAST)


def change_layout(mod: IRModule, layouts: Mapping[str, list[str]]) -> IRModule:
    """Convert operators to other layouts, transposing in between where needed.

    Parameters
    ----------
    mod
        Relay module.
    layouts
        Layouts of data and kernel by operator: `CHANNELS_LAST` or `CHANNELS_FIRST`.
    """
    passes = [
        relay.transform.RemoveUnusedFunctions(),
        relay.transform.ConvertLayout(dict(layouts)),
        relay.transform.InferType(),
    ]
    with tvm.transform.PassContext(opt_level=3):
        return tvm.transform.Sequential(passes)(mod)


def _batch_dense(mod: IRModule) -> IRModule:
    """Replace each dense layer by a batch matmul with one batch."""
    main = dataflow_pattern.rewrite(_BatchDense(), mod["main"])
    changed = tvm.IRModule(dict(mod.functions), mod.type_definitions)
    changed["main"] = main
    return relay.transform.InferType()(changed)


class _BatchDense(_DFPatternCallback):
    def __init__(self) -> None:
        super().__init__(require_type=True)
        self.data, self.weight = dataflow_pattern.wildcard(), dataflow_pattern.wildcard()
        self.pattern = dataflow_pattern.is_op("nn.dense")(self.data, self.weight)

    def callback(self, pre: Any, post: Any, node_map: Any) -> Any:
        data, weight = node_map[self.data][0], node_map[self.weight][0]
        # Data may be what a dense layer just before became, which has no type as yet.
        depth = int(pre.args[0].checked_type.shape[-1])
        product = relay.nn.batch_matmul(
            relay.reshape(data, (1, -1, depth)),
            relay.expand_dims(weight, axis=0),
            out_dtype=pre.attrs.out_dtype,
        )
        return relay.reshape(product, [int(size) for size in pre.checked_type.shape])


def check_runs_as_graph(name: str, mod: IRModule) -> None:
    """Refuse what TVM's graph executor cannot run, before anything is searched for it.

    Raises
    ------
    NetworkError
        Something branches, loops, or has a size that is known only at run time.
    """
    found: list[str] = []

    def visit(node: Any) -> None:
        if isinstance(node, (relay.If, relay.Match)):
            found.append("control flow that depends on data")
        elif isinstance(node, relay.Call) and isinstance(node.op, relay.GlobalVar):
            found.append(f"a call of {node.op.name_hint}, a loop or function of its own")
        elif isinstance(node, (relay.Call, relay.Var)) and not _is_static(node.checked_type):
            op = str(getattr(node, "op", None) or getattr(node, "name_hint", "a value"))
            found.append(f"{op}, of type {node.checked_type}: a size known only when it runs")

    relay.analysis.post_order_visit(mod["main"], visit)
    if found:
        raise NetworkError(
            f"{name} has {found[0]}. Ansor searches for fixed sizes: save the network with them, "
            "without control flow that depends on data."
        )


def _is_static(kind: Any) -> bool:
    if isinstance(kind, tvm.ir.TupleType):
        return all(map(_is_static, kind.fields))
    return all(isinstance(size, tvm.tir.IntImm) for size in getattr(kind, "shape", ()))
