"""Networks of ONNX files.

TVM's ONNX importer needs `onnx.mapping`, which onnx 1.19 and later lack, and takes the first of
several reduction axes when these come as an input; both are put right here, for one import only.
"""

import contextlib
import importlib
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.errors import MeasureError, MissingDependencyError, NetworkError, install_command
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

_CONTROL_FLOW = ("If", "Loop", "Scan")


def from_onnx(path: Path, wishes: InputWishes) -> Imported:
    """Import an ONNX file; see `importers.read_network_file`."""
    onnx = _import_onnx(path)
    decode_error = importlib.import_module("google.protobuf.message").DecodeError
    try:
        model = onnx.load(path)
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs_of_file = [v for v in model.graph.input if v.name not in weights]
        values = {v.name: v.type.tensor_type for v in inputs_of_file}
        known = {name: _stated_shape(value) for name, value in values.items()}
        _allow_missing_shapes(model.graph)
        onnx.checker.check_model(model)
    except (*IMPORT_FAILURES, decode_error, onnx.checker.ValidationError) as error:
        reason = one_line(error).rstrip(".")
        raise NetworkError(f"{path} is not a valid ONNX file: {reason}.") from error
    others = [v.name for v in inputs_of_file if not v.type.HasField("tensor_type")]
    if others:
        raise NetworkError(f"All inputs must be tensors; {', '.join(others)} of {path} is none.")
    complete = complete_shapes(path, known, wishes)
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
    except IMPORT_FAILURES as error:
        raise refusal(path, inputs, error, _unknown_operators(model.graph, error)) from error
    return Imported(mod, dict(params), inputs, _onnx_reference(path, inputs))


def _import_onnx(path: Path) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            f"Reading {path} needs the onnx package, which is not installed. Install it with "
            f"{install_command('onnx')}."
        ) from error
    return onnx


def _stated_shape(tensor: Any) -> OpenShape | None:
    """Shape in the file; None for sizes that are variables or not stated."""
    if not tensor.HasField("shape"):
        return None
    return tuple(
        int(dim.dim_value) if dim.HasField("dim_value") else None for dim in tensor.shape.dim
    )


def _unknown_operators(graph: Any, error: Exception) -> str:
    """Name the nodes at fault, and say what can be done.

    These are the nodes whose operators TVM's message names, or else those of control flow, on which
    its importer fails with messages that name nothing.
    """
    named_by_tvm = [
        node for node in graph.node if re.search(rf"\b{re.escape(node.op_type)}\b", str(error))
    ]
    nodes = named_by_tvm or [node for node in graph.node if node.op_type in _CONTROL_FLOW]
    if not nodes:
        return ""
    named = ", ".join(
        f"{node.op_type} is node {node.name or '(without a name)'}, which makes {node.output[0]}"
        for node in nodes[:3]
    )
    return f" {named}. Replace it by operators that TVM has, or cut the network there."


def _onnx_reference(path: Path, inputs: InputSpecs) -> Reference:
    """Return ONNX Runtime's way of running the file; it fails where that is not installed."""
    try:
        runtime = importlib.import_module("onnxruntime")
        state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    except ImportError:
        return Reference("ONNX Runtime", _fail_without_runtime)
    # They have no common class but Exception.
    kinds = [kind for kind in vars(state).values() if isinstance(kind, type)]
    failures = tuple(kind for kind in kinds if issubclass(kind, Exception))
    file = str(path.absolute())

    def run(arrays: Mapping[str, Array]) -> list[Array]:
        try:
            session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
            found = session.run(None, {name: arrays[name] for name in inputs})
        except failures as error:
            raise MeasureError(one_line(error)) from error
        return [np.asarray(array) for array in found]

    return Reference(f"ONNX Runtime {runtime.__version__}", run)


def _fail_without_runtime(arrays: Mapping[str, Array]) -> list[Array]:
    raise MeasureError("it is not installed; `pip install onnxruntime` does that")


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
