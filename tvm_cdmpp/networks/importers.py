"""Read a user's network file: ONNX, TorchScript or `torch.export`.

The content decides what a file is; a suffix only helps to tell ONNX from noise. All three come out
as a Relay module with static shapes. What a file leaves open (a batch size, TorchScript's shapes
and types) the user settles; what it states stands.
"""

import zipfile
from pathlib import Path

from tvm_cdmpp.errors import NetworkError
from tvm_cdmpp.networks.imported import Imported
from tvm_cdmpp.networks.inputs import InputWishes
from tvm_cdmpp.networks.onnx_files import from_onnx
from tvm_cdmpp.networks.torch_files import from_export, from_torchscript


def read_network_file(path: Path, wishes: InputWishes) -> Imported:
    """Import a network file.

    Parameters
    ----------
    path
        ONNX, TorchScript (traced) or `torch.export` file.
    wishes
        What the file leaves open.

    Raises
    ------
    NetworkError
        The file is unreadable or of another kind, an input is unknown or lacks a shape, or TVM
        does not support an operator.
    MissingDependencyError
        The file is ONNX and the `onnx` package is not installed.
    """
    kind = _file_kind(path)
    if wishes.dtypes and kind != "torchscript":
        raise NetworkError(
            f"{path} says the element types of its inputs; leave out those given for "
            f"{', '.join(wishes.dtypes)}."
        )
    if kind == "onnx":
        return from_onnx(path, wishes)
    if kind == "export":
        return from_export(path, wishes)
    return from_torchscript(path, wishes)


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
