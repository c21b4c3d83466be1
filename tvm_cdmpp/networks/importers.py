"""Read a user's network file: ONNX, TorchScript or `torch.export`.

The content decides what a file is; a suffix only helps to tell ONNX from noise. All three come out
as a Relay module with static shapes. Choices:

- An exported program is traced to TorchScript first: TVM's Relay importer reads nothing else of
  PyTorch's.
- TVM's ONNX importer needs `onnx.mapping`, which onnx 1.19 and later lack, and takes the first of
  several reduction axes when these come as an input; both are put right here, for one import only.
"""

import contextlib
import importlib
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch

from tvm_cdmpp.bridge.quiet import reason_of
from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.errors import MissingDependencyError, NetworkError

tvm = load_tvm()

IRModule: TypeAlias = Any
NDArray: TypeAlias = Any
InputSpecs: TypeAlias = dict[str, tuple[tuple[int, ...], str]]
"""Per input of a network: shape and element type."""
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

_jit: Any = torch.jit  # its functions carry no types
# What the importers and torch's loaders raise on a file or a graph they cannot take.
_IMPORT_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Imported:
    """A network as TVM's importers return it."""

    mod: IRModule
    params: dict[str, NDArray]
    inputs: InputSpecs


def read_network_file(path: Path, shapes: Shapes) -> Imported:
    """Import a network file.

    Parameters
    ----------
    path
        ONNX, TorchScript (traced) or `torch.export` file.
    shapes
        Shapes by input name; inputs whose shape the file holds may be left out.

    Raises
    ------
    NetworkError
        The file is unreadable or of another kind, an input is unknown or lacks a shape, or TVM
        does not support an operator.
    MissingDependencyError
        The file is ONNX and the `onnx` package is not installed.
    """
    kind = _file_kind(path)
    if kind == "onnx":
        return _from_onnx(path, shapes)
    if kind == "export":
        return _from_export(path, shapes)
    return _from_torchscript(path, shapes)


def _file_kind(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(1)
        names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else None
    except (OSError, zipfile.BadZipFile) as error:
        raise NetworkError(f"Cannot read the network file {path}: {error}.") from error
    if names is None:
        # An ONNX file starts with field 1 of its message, the IR version.
        if path.suffix == ".onnx" or start == b"\x08":
            return "onnx"
        raise NetworkError(
            f"Expected an ONNX, TorchScript or torch.export file; {path} is none of them."
        )
    inside = {name.partition("/")[2] for name in names} | set(names)
    if "models/model.json" in inside or "serialized_exported_program.json" in inside:
        return "export"
    if any(name.startswith("code/") for name in inside):
        return "torchscript"
    hint = (
        "it holds weights or a pickled module, not a graph. Save the network with "
        "torch.export.save(torch.export.export(module, inputs), path) or "
        "torch.jit.trace(module, inputs).save(path)"
        if "data.pkl" in inside
        else "it is a zip archive of something else"
    )
    raise NetworkError(f"Expected an ONNX, TorchScript or torch.export file; {path}: {hint}.")


def _complete_shapes(
    path: Path, known: Mapping[str, tuple[int, ...] | None], given: Shapes
) -> dict[str, tuple[int, ...]]:
    """Combine the shapes of the file (None where it does not say) with those given."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise NetworkError(
            f"{path} has no input called {', '.join(unknown)}; its inputs are {', '.join(known)}."
        )
    merged = {name: given.get(name, shape) for name, shape in known.items()}
    missing = [name for name, shape in merged.items() if shape is None]
    if missing:
        raise NetworkError(
            f"{path} does not say the shape of {', '.join(missing)}. Give a shape for each: "
            f"`--input-shape {missing[0]}:1x3x224x224` on the command line, or "
            f"`input_shapes={{{missing[0]!r}: (1, 3, 224, 224)}}`. Or save the network by "
            "torch.export.save or as ONNX: such files hold shapes."
        )
    shapes = {name: tuple(shape) for name, shape in merged.items() if shape is not None}
    for name, shape in shapes.items():
        if any(size < 1 for size in shape):
            raise NetworkError(f"Sizes must be at least 1; input {name} got {shape}.")
    return shapes


def _refusal(path: Path, inputs: InputSpecs, error: Exception) -> NetworkError:
    lines = [line.strip() for line in str(error).splitlines()]
    unsupported = [line for line in lines if "not supported" in line or "not implemented" in line]
    reason = unsupported[0] if unsupported else reason_of(error)
    given = ", ".join(f"{name} {shape} {dtype}" for name, (shape, dtype) in inputs.items())
    return NetworkError(f"TVM cannot import {path} with the inputs {given}: {reason}.")


# ---------------------------------------------------------------- PyTorch


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


def _from_export(path: Path, shapes: Shapes) -> Imported:
    try:
        program = torch.export.load(path)
        known, dtypes = _export_inputs(program)
        module = program.module()
    except _IMPORT_FAILURES as error:
        raise NetworkError(f"Cannot load {path} with torch.export.load: {error}.") from error
    complete = _complete_shapes(path, known, shapes)
    inputs = {name: (shape, dtypes[name]) for name, shape in complete.items()}
    try:
        return Imported(*trace_module(module, inputs), inputs)
    except _IMPORT_FAILURES as error:
        raise _refusal(path, inputs, error) from error


def _export_inputs(
    program: torch.export.ExportedProgram,
) -> tuple[dict[str, tuple[int, ...] | None], dict[str, str]]:
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
    shapes: dict[str, tuple[int, ...] | None] = {}
    for name, value in values.items():
        is_static = all(isinstance(size, int) for size in value.shape)
        shapes[name] = tuple(value.shape) if is_static else None
    return shapes, {name: str(value.dtype).split(".")[-1] for name, value in values.items()}


def _from_torchscript(path: Path, shapes: Shapes) -> Imported:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.13 deprecates TorchScript
        try:
            script = _jit.load(path, map_location="cpu").eval()
        except _IMPORT_FAILURES as error:
            raise NetworkError(f"Cannot load {path} with torch.jit.load: {error}.") from error
        names = [argument.name for argument in script.forward.schema.arguments[1:]]
        complete = _complete_shapes(path, dict.fromkeys(names), shapes)
        indices = _index_inputs(script, names)
        inputs = {
            name: (complete[name], "int64" if name in indices else "float32") for name in names
        }
        try:
            return Imported(*_import_trace(script, inputs), inputs)
        except _IMPORT_FAILURES as error:
            raise _refusal(path, inputs, error) from error


def _index_inputs(script: Any, names: list[str]) -> set[str]:
    """Find the inputs that look up an embedding; TorchScript does not keep element types."""
    graph = script.inlined_graph
    looked_up = {
        list(node.inputs())[1].debugName() for node in graph.findAllNodes("aten::embedding", True)
    }
    values = [value.debugName() for value in graph.inputs()][1:]
    return {name for name, value in zip(names, values, strict=True) if value in looked_up}


# ---------------------------------------------------------------- ONNX


def _from_onnx(path: Path, shapes: Shapes) -> Imported:
    onnx = _import_onnx(path)
    decode_error = importlib.import_module("google.protobuf.message").DecodeError
    try:
        model = onnx.load(path)
        weights = {tensor.name for tensor in model.graph.initializer}
        values = {v.name: v.type.tensor_type for v in model.graph.input if v.name not in weights}
        known = {name: _static_shape(value) for name, value in values.items()}
        _allow_missing_shapes(model.graph)
        onnx.checker.check_model(model)
    except (*_IMPORT_FAILURES, decode_error, onnx.checker.ValidationError) as error:
        reason = str(error).strip().rstrip(".")
        raise NetworkError(f"{path} is not a valid ONNX file: {reason}.") from error
    complete = _complete_shapes(path, known, shapes)
    dtypes = {
        name: str(onnx.helper.tensor_dtype_to_np_dtype(value.elem_type))
        for name, value in values.items()
    }
    inputs = {name: (shape, dtypes[name]) for name, shape in complete.items()}
    _inline_reduction_axes(onnx, model.graph)
    try:
        with _onnx_mapping(onnx), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mod, params = tvm.relay.frontend.from_onnx(model, shape=complete, dtype=dtypes)
    except _IMPORT_FAILURES as error:
        raise _refusal(path, inputs, error) from error
    return Imported(mod, dict(params), inputs)


def _import_onnx(path: Path) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            f"Reading {path} needs the onnx package, which is not installed. Install it with "
            '`pip install "tvm-cdmpp[onnx]"`.'
        ) from error
    return onnx


def _static_shape(tensor: Any) -> tuple[int, ...] | None:
    """Shape in the file; None when a size is a variable."""
    if not tensor.HasField("shape"):
        return None
    sizes = tuple(int(dim.dim_value) for dim in tensor.shape.dim)
    return sizes if all(sizes) else None


def _allow_missing_shapes(graph: Any) -> None:
    """Let inputs and outputs be without a shape: the checker demands one, other tools do not."""
    for value in (*graph.input, *graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()


def _inline_reduction_axes(onnx: Any, graph: Any) -> None:
    """Turn constant axes that a reduction takes as an input into its attribute."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for node in graph.node:
        is_reduction = node.op_type.startswith("Reduce") and len(node.input) == 2
        if is_reduction and node.input[1] in constants:
            axes = onnx.numpy_helper.to_array(constants[node.input[1]]).tolist()
            if axes:
                del node.input[1:]
                node.attribute.append(onnx.helper.make_attribute("axes", axes))


@contextlib.contextmanager
def _onnx_mapping(onnx: Any) -> Iterator[None]:
    """Provide `onnx.mapping` for the time of an import, where onnx has none."""
    name = "onnx.mapping"
    try:
        has_mapping = bool(importlib.import_module(name))
    except ImportError:
        has_mapping = False
    if has_mapping:
        yield
        return
    module = ModuleType(name)
    types = [number for number in onnx.TensorProto.DataType.values() if number]
    module.__dict__["TENSOR_TYPE_TO_NP_TYPE"] = {
        number: onnx.helper.tensor_dtype_to_np_dtype(number) for number in types
    }
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]
