"""Tasks of the held-out networks that searches are compared on, by what they compute.

Names are those of `tvm_cdmpp.bridge.task_names` for this TVM; one that it no longer gives is an
error, not left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm_cdmpp.bridge import default_target, task_names
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.networks import extract_tasks, load_network

SEARCH_TASKS: dict[str, tuple[str, str]] = {
    "conv-1x1": ("resnet-50", "conv2d_add_relu 1x14x14x1024,1x1x1024x256 float32"),
    "conv-1x1-stride-2": ("resnet-50", "conv2d 1x56x56x256,1x1x256x512 float32"),
    "conv-3x3": ("resnet-50", "conv2d_add_relu 1x56x56x64,3x3x64x64 float32"),
    "conv-winograd": ("resnet-50", "conv2d_winograd_add_relu 1x14x14x256,6x6x256x256 float32"),
    "conv-7x7": ("resnet-50", "conv2d_add_relu 1x224x224x3,7x7x3x64 float32"),
    "max-pool": ("resnet-50", "max_pool2d_add_relu 1x112x112x64,1x1x1x64 float32"),
    "dense-1": ("resnet-50", "batch_matmul 1x1x2048,1x1000x2048 float32"),
    "conv-1x1-small": ("mobilenet-v2", "conv2d_add_clip 1x14x14x64,1x1x64x384 float32"),
    "depthwise": ("mobilenet-v2", "conv2d_add_clip 1x14x14x384,3x3x384x1 float32"),
    "depthwise-stride-2": ("mobilenet-v2", "conv2d_add_clip 1x112x112x96,3x3x96x1 float32"),
    "dense": ("bert-base", "batch_matmul 1x128x768,1x768x768 float32"),
    "batch-matmul": ("bert-base", "batch_matmul 12x128x64,12x64x128 float32"),
    "softmax": ("bert-base", "softmax_broadcast_to 1x12x128x128 float32"),
    "norm": ("bert-base", "variance 1x128x768,1x128x1 float32"),
}
"""Network and task, by a short name."""


@dataclass(frozen=True)
class NamedTask:
    """A task, and what it is called here."""

    name: str
    network: str
    description: str
    task: Any


def load_tasks(names: Sequence[str]) -> list[NamedTask]:
    """Extract tasks of `SEARCH_TASKS` for this machine; a network takes half a minute.

    Raises
    ------
    ConfigError
        There is no task of that name, or its network has none like it any more.
    """
    unknown = sorted(set(names) - set(SEARCH_TASKS))
    if unknown:
        raise ConfigError(
            f"unknown tasks {', '.join(unknown)}; expected some of {', '.join(SEARCH_TASKS)}"
        )
    found: dict[str, dict[str, Any]] = {}
    for network in dict.fromkeys(SEARCH_TASKS[name][0] for name in names):
        print(f"extracting the tasks of {network}", flush=True)
        tasks, _ = extract_tasks(load_network(network), default_target())
        found[network] = dict(zip(task_names(tasks), tasks, strict=True))
    made = []
    for name in names:
        network, description = SEARCH_TASKS[name]
        if description not in found[network]:
            raise ConfigError(
                f"{network} has no task '{description}' with this TVM; it has "
                f"{'; '.join(found[network])}"
            )
        made.append(NamedTask(name, network, description, found[network][description]))
    return made
