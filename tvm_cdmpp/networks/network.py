"""Networks to tune: named ones and a user's own files, as Relay modules, and their tasks.

Named networks have batch size 1 and random weights, scaled so that activations neither fade nor
overflow: outputs of a wrongly compiled network must differ visibly. A network is kept as its author
wrote it, and `to_search_form` makes of it what is searched and deployed with a log:

- convolutions in channels-last layout, the one Ansor's sketches are made for;
- dense layers as batch matmul with one batch. Ansor lays weights out anew for each program; TVM
  encodes such a layout as text, in which the axis names of its dense operator (`i0`, `i1`) run into
  the sizes, so every program of a dense task fails to build (seen on 0.17). The axes of batch
  matmul are letters.
"""

import contextlib
import difflib
import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tvm_cdmpp.bridge.quiet import errors_of_threads, quiet_tvm, reason_of
from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.bridge.target import hardware_params
from tvm_cdmpp.errors import NetworkError
from tvm_cdmpp.networks.importers import Imported, InputSpecs, read_network_file, trace_module
from tvm_cdmpp.networks.zoo import ZOO, build_module

tvm = load_tvm()
relay = tvm.relay
dataflow_pattern = importlib.import_module("tvm.relay.dataflow_pattern")
_DFPatternCallback: Any = dataflow_pattern.DFPatternCallback

IRModule: TypeAlias = Any
RelayFunction: TypeAlias = Any
NDArray: TypeAlias = Any
SearchTask: TypeAlias = Any
Target: TypeAlias = Any

_SEED = 0
_PRODUCTS = ("nn.conv", "nn.dense")


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


CHANNELS_LAST = _layouts("NHWC", "NDHWC")
CHANNELS_FIRST = _layouts("NCHW", "NCDHW")


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


@dataclass(frozen=True, slots=True)
class _Stock:
    """A network of `tvm.relay.testing`."""

    module: str
    """Module of `tvm.relay.testing` that defines it."""
    options: dict[str, Any]
    """Arguments of its `get_workload`, besides the batch size."""
    gain: float = 2.0
    """Variance of a weight times its fan-in; 2 keeps the signal's size through ReLUs."""


# In residual networks the signal grows with every block, hence the smaller gain.
_STOCK = {
    "resnet-18": _Stock(
        "resnet", {"num_layers": 18, "image_shape": (224, 224, 3), "layout": "NHWC"}, 1.0
    ),
    "resnet-50": _Stock(
        "resnet", {"num_layers": 50, "image_shape": (224, 224, 3), "layout": "NHWC"}, 1.0
    ),
    "mobilenet": _Stock("mobilenet", {"image_shape": (224, 224, 3), "layout": "NHWC"}),
    "squeezenet": _Stock("squeezenet", {}),
    "vgg-16": _Stock("vgg", {"num_layers": 16}),
    "inception-v3": _Stock("inception_v3", {}),
    "densenet-121": _Stock("densenet", {"densenet_size": 121}),
    "mlp": _Stock("mlp", {}),
    "dcgan": _Stock("dcgan", {"layout": "NHWC"}),
    "resnet3d-18": _Stock(
        "resnet_3d", {"num_layers": 18, "image_shape": (16, 112, 112, 3), "layout": "NDHWC"}, 1.0
    ),
}

NETWORKS: tuple[str, ...] = (*_STOCK, *ZOO)
"""Names that `load_network` knows."""


def load_network(
    name_or_path: str, *, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Network:
    """Load a named network or a network file.

    Parameters
    ----------
    name_or_path
        One of `NETWORKS`, or the path of an ONNX, TorchScript (traced) or `torch.export` file.
    input_shapes
        Shapes by input name, for files that do not hold them (TorchScript never does).

    Raises
    ------
    NetworkError
        The name is unknown, the file unusable, a shape missing, or an operator unsupported.
    MissingDependencyError
        The file is ONNX and the `onnx` package is not installed.
    """
    if name_or_path in NETWORKS:
        if input_shapes:
            raise NetworkError(
                f"{name_or_path} has fixed input shapes; leave out the shapes of "
                f"{', '.join(input_shapes)}, or save the network you mean to a file."
            )
        name, imported = name_or_path, _named(name_or_path)
    else:
        path = Path(name_or_path)
        if not path.is_file():
            raise NetworkError(_unknown(name_or_path))
        name, imported = path.stem, read_network_file(path, input_shapes or {})
    mod = relay.transform.InferType()(imported.mod)
    _check_static(name, mod)
    return Network(name=name, mod=mod, params=imported.params, inputs=imported.inputs)


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
    try:
        tasks, weights = tasks_of(to_search_form(network.mod), network.params, target)
    except tvm.TVMError as error:
        raise NetworkError(
            f"TVM cannot compile {network.name} for {target}: {reason_of(error)}."
        ) from error
    if not tasks:
        raise NetworkError(f"{network.name} has no operator that Ansor could tune.")
    return tasks, weights


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
        product = relay.nn.batch_matmul(
            relay.reshape(data, (1, -1, int(data.checked_type.shape[-1]))),
            relay.expand_dims(weight, axis=0),
            out_dtype=pre.attrs.out_dtype,
        )
        return relay.reshape(product, [int(size) for size in pre.checked_type.shape])


def _unknown(name: str) -> str:
    if Path(name).suffix or "/" in name:
        return f"There is no network file {name}, nor is that a name of {', '.join(NETWORKS)}."
    close = difflib.get_close_matches(name.lower(), NETWORKS, n=3)
    meant = f" Did you mean {' or '.join(close)}?" if close else ""
    return (
        f"Unknown network {name!r}.{meant} Known are {', '.join(NETWORKS)}, and the paths of "
        "ONNX, TorchScript and torch.export files."
    )


def _check_static(name: str, mod: IRModule) -> None:
    """Refuse sizes known only at run time, which Ansor cannot search for."""
    result = mod["main"].checked_type.ret_type
    fields = result.fields if isinstance(result, tvm.ir.TupleType) else [result]
    for field in fields:
        sizes = getattr(field, "shape", [None])
        if not all(isinstance(size, tvm.tir.IntImm) for size in sizes):
            raise NetworkError(
                f"{name} has an output of type {field}, whose size is known only when it runs. "
                "Save it with fixed sizes, without data-dependent control flow."
            )


# ---------------------------------------------------------------- named networks


def _named(name: str) -> Imported:
    if name in ZOO:
        entry = ZOO[name]
        inputs = {entry.input_name: (entry.shape, entry.dtype)}
        return Imported(*trace_module(build_module(name, seed=_SEED), inputs), inputs)
    stock = _STOCK[name]
    mod, params = _get_workload(stock)
    main = mod["main"]
    inputs = {
        str(var.name_hint): (
            tuple(int(size) for size in var.checked_type.shape),
            str(var.checked_type.dtype),
        )
        for var in main.params
        if var.name_hint not in params
    }
    return Imported(mod, _random_weights(main, params, stock.gain), inputs)


def _get_workload(stock: _Stock) -> tuple[IRModule, dict[str, NDArray]]:
    importlib.import_module("tvm.relay.testing")
    definition = importlib.import_module(f"tvm.relay.testing.{stock.module}")
    with _global_numpy_state():
        mod, params = definition.get_workload(batch_size=1, **stock.options)
    return mod, dict(params)


@contextlib.contextmanager
def _global_numpy_state() -> Iterator[None]:
    """Undo what `tvm.relay.testing` does to NumPy's global generator."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _random_weights(
    main: RelayFunction, params: dict[str, NDArray], gain: float
) -> dict[str, NDArray]:
    """Redraw the weights of products; the stock ones let the signal fade in channels-last layout.

    Parameters
    ----------
    main
        Relay function of the network.
    params
        Its parameters.
    gain
        Variance of a weight times its fan-in.
    """
    fan_ins: dict[str, float] = {}

    def visit(node: Any) -> None:
        if not isinstance(node, relay.Call) or not str(node.op.name).startswith(_PRODUCTS):
            return
        kernel = node.args[1]
        if isinstance(kernel, relay.Var):
            shape = params[kernel.name_hint].shape
            # A dense kernel has no layout: its first axis is the output.
            layout = str(getattr(node.attrs, "kernel_layout", "O"))
            strides = node.attrs.strides if "transpose" in node.op.name else ()
            # Of a transposed convolution's taps, only one in so many meets an input.
            taps_skipped = math.prod(int(stride) for stride in strides)
            fan_ins[kernel.name_hint] = math.prod(shape) / shape[layout.index("O")] / taps_skipped

    relay.analysis.post_order_visit(main, visit)
    rng = np.random.default_rng(_SEED)
    redrawn = dict(params)
    for name, fan_in in fan_ins.items():
        weight = rng.standard_normal(params[name].shape, dtype=np.float32)
        redrawn[name] = tvm.nd.array(weight * np.float32(math.sqrt(gain / fan_in)))
    return redrawn
