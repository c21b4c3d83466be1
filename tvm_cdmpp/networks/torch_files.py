"""Networks of PyTorch: modules, TorchScript files, `torch.export` files.

An exported program is traced to TorchScript first: TVM's Relay importer reads nothing else of
PyTorch's.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.errors import NetworkError
from tvm_cdmpp.networks.imported import (
    IMPORT_FAILURES,
    Array,
    Imported,
    Reference,
    one_line,
    refusal,
)
from tvm_cdmpp.networks.inputs import InputSpecs, InputWishes, OpenShape, complete_shapes

tvm = load_tvm()

IRModule: TypeAlias = Any
NDArray: TypeAlias = Any

_jit: Any = torch.jit  # its functions carry no types
# What a trace has not: what is decided, or chosen among operators, when the network runs.
_SCRIPTED = ("prim::If", "prim::Loop", "aten::conv2d")
_SCRIPTED_HINT = (
    " It was made by torch.jit.script; save a trace of it, "
    "torch.jit.trace(module, inputs).save(path), or "
    "torch.export.save(torch.export.export(module, inputs), path), which holds its shapes."
)


def trace_module(
    module: torch.nn.Module, inputs: InputSpecs
) -> tuple[IRModule, dict[str, NDArray]]:
    """Trace a PyTorch module on zeros and import the trace.

    Parameters
    ----------
    module
        In evaluation mode; takes its inputs by position.
    inputs
        In the order that `module` takes them.
    """
    zeros = tuple(
        torch.zeros(shape, dtype=getattr(torch, dtype)) for shape, dtype in inputs.values()
    )
    with warnings.catch_warnings(), torch.no_grad():
        # torch 2.13 deprecates tracing; it is the only way into Relay.
        warnings.simplefilter("ignore")
        traced = _jit.trace(module, zeros, check_trace=False)
        return _import_trace(traced, inputs)


def _import_trace(traced: Any, inputs: InputSpecs) -> tuple[IRModule, dict[str, NDArray]]:
    mod, params = tvm.relay.frontend.from_pytorch(traced, list(inputs.items()))
    return mod, dict(params)


def torch_reference(module: Any, inputs: InputSpecs) -> Reference:
    """Return a PyTorch module or trace as what others are compared with."""

    def run(arrays: Mapping[str, Array]) -> list[Array]:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = module(*(torch.from_numpy(arrays[name].copy()) for name in inputs))
        return _arrays(found)

    return Reference(f"PyTorch {torch.__version__}", run)


def _arrays(found: Any) -> list[Array]:
    """Return what a module gave, tuples in tuples flattened as TVM does."""
    if isinstance(found, (tuple, list)):
        return [array for part in found for array in _arrays(part)]
    if not isinstance(found, torch.Tensor):
        raise TypeError(f"an output is a {type(found).__name__}, not a tensor")
    return [found.numpy()]


def from_export(path: Path, wishes: InputWishes) -> Imported:
    """Import a file of `torch.export.save`; see `importers.read_network_file`."""
    try:
        program = torch.export.load(path)
        known, dtypes = _export_inputs(program)
        module = program.module()
    except IMPORT_FAILURES as error:
        reason = one_line(error).rstrip(".")
        raise NetworkError(f"Cannot load {path} with torch.export.load: {reason}.") from error
    complete = complete_shapes(path, known, wishes)
    inputs = {name: (shape, dtypes[name]) for name, shape in complete.items()}
    try:
        return Imported(*trace_module(module, inputs), inputs, torch_reference(module, inputs))
    except IMPORT_FAILURES as error:
        raise refusal(path, inputs, error) from error


def _export_inputs(
    program: torch.export.ExportedProgram,
) -> tuple[dict[str, OpenShape | None], dict[str, str]]:
    """Shapes (None where dynamic) and element types of the tensors a program takes."""
    if program.example_inputs is not None and program.example_inputs[1]:
        raise ValueError("it takes keyword arguments; export it with positional ones")
    wanted = program.graph_signature.user_inputs
    values = {
        node.name: node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in wanted
    }
    others = [name for name, value in values.items() if not isinstance(value, torch.Tensor)]
    if others or len(values) != len(wanted):
        raise ValueError("all its inputs must be tensors")
    shapes: dict[str, OpenShape | None] = {
        name: tuple(size if isinstance(size, int) else None for size in value.shape)
        for name, value in values.items()
    }
    return shapes, {name: str(value.dtype).split(".")[-1] for name, value in values.items()}


def from_torchscript(path: Path, wishes: InputWishes) -> Imported:
    """Import a TorchScript file; see `importers.read_network_file`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.13 deprecates TorchScript
        try:
            script = _jit.load(path, map_location="cpu").eval()
        except IMPORT_FAILURES as error:
            reason = one_line(error).rstrip(".")
            raise NetworkError(f"Cannot load {path} with torch.jit.load: {reason}.") from error
        names = [argument.name for argument in script.forward.schema.arguments[1:]]
        hint = _SCRIPTED_HINT if _is_scripted(script) else ""
        try:
            complete = complete_shapes(path, dict.fromkeys(names), wishes)
        except NetworkError as error:
            raise NetworkError(f"{error}{hint}") from None
        inputs = {name: (complete[name], _dtype(script, name, names, wishes)) for name in names}
        reference = torch_reference(script, inputs)
        failures: list[Exception] = []
        # Freezing removes what scripting leaves to decide at run time, and a trace has not.
        for frozen in (False, True):
            try:
                trace = _jit.freeze(script) if frozen else script
                return Imported(*_import_trace(trace, inputs), inputs, reference)
            except IMPORT_FAILURES as error:
                failures.append(error)
    raise refusal(path, inputs, failures[0], hint) from failures[0]


def _is_scripted(script: Any) -> bool:
    return any(list(script.inlined_graph.findAllNodes(kind, True)) for kind in _SCRIPTED)


def _dtype(script: Any, name: str, names: list[str], wishes: InputWishes) -> str:
    """Choose an element type, which TorchScript does not keep: indices, or what the weights are."""
    if name in wishes.dtypes:
        return wishes.dtypes[name]
    if name in _index_inputs(script, names):
        return "int64"
    floating = {str(w.dtype).split(".")[-1] for w in script.parameters() if w.is_floating_point()}
    return floating.pop() if len(floating) == 1 else "float32"


def _index_inputs(script: Any, names: list[str]) -> set[str]:
    """Find the inputs that look up an embedding."""
    graph = script.inlined_graph
    looked_up = {
        list(node.inputs())[1].debugName() for node in graph.findAllNodes("aten::embedding", True)
    }
    values = [value.debugName() for value in graph.inputs()][1:]
    return {name for name, value in zip(names, values, strict=True) if value in looked_up}
