"""Two model files as users have them, for `benchmarks.network_latency`: ONNX and TorchScript."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

_CHANNELS = (3, 32, 64, 128)
_IMAGE = (3, 64, 64)

FILES: dict[str, Callable[[int], dict[str, Any]]] = {
    "users-cnn.pt": lambda batch: {"input_shapes": {"input": (batch, *_IMAGE)}},
    "users-mlp.onnx": lambda batch: {"batch": batch},
}
"""Options of `load_network` at a size of the batch, by the file's name."""


def write_files(folder: Path) -> None:
    """Write those that are missing."""
    for name, write in (("users-cnn.pt", _write_torch), ("users-mlp.onnx", _write_onnx)):
        if not (folder / name).exists():
            write(folder / name)


def _write_torch(path: Path) -> None:
    """Trace a small convolutional network with residual blocks."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        layers: list[nn.Module] = []
        for channels, out_channels in itertools.pairwise(_CHANNELS):
            layers += [
                nn.Conv2d(channels, out_channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
            ]  # fmt: skip
        module = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_CHANNELS[-1], 10)
        ).eval()
    torch.jit.trace(module, torch.zeros(1, *_IMAGE)).save(str(path))  # type: ignore[no-untyped-call]


def _write_onnx(path: Path) -> None:
    """Write an autoencoder of dense layers with an open batch."""
    import onnx
    from onnx import helper, numpy_helper

    sizes, generator = (512, 256, 64, 256, 512), np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for number, (size, out_size) in enumerate(itertools.pairwise(sizes)):
        weight = generator.normal(0, size**-0.5, (size, out_size)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"weight{number}"))
        nodes.append(helper.make_node("MatMul", [value, f"weight{number}"], [f"product{number}"]))
        nodes.append(helper.make_node("Relu", [f"product{number}"], [f"layer{number}"]))
        value = f"layer{number}"
    inputs, outputs = (
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])]
        for name, size in (("x", sizes[0]), (value, sizes[-1]))
    )
    graph = helper.make_graph(nodes, "autoencoder", inputs, outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opset), path)
