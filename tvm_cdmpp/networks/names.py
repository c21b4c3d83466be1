"""Which networks have a name; known without TVM, so that a wrong one is told at once."""

import difflib
from pathlib import Path

from tvm_cdmpp.errors import NetworkError

NETWORKS: tuple[str, ...] = (
    "resnet-18", "resnet-50", "mobilenet", "squeezenet", "vgg-16", "inception-v3", "densenet-121",
    "mlp", "dcgan", "resnet3d-18", "bert-tiny", "bert-base", "vit-tiny", "mobilenet-v2",
)  # fmt: skip
"""Names that `load_network` knows."""


def check_network_is_there(name_or_path: str) -> None:
    """Refuse what is neither one of `NETWORKS` nor a file.

    Raises
    ------
    NetworkError
        Says which names are meant, or known.
    """
    if name_or_path not in NETWORKS and not Path(name_or_path).is_file():
        raise NetworkError(_unknown(name_or_path))


def _unknown(name: str) -> str:
    if Path(name).suffix or "/" in name:
        return f"There is no network file {name}, nor is that a name of {', '.join(NETWORKS)}."
    close = difflib.get_close_matches(name.lower(), NETWORKS, n=3)
    meant = f" Did you mean {' or '.join(close)}?" if close else ""
    return (
        f"Unknown network {name!r}.{meant} Known are {', '.join(NETWORKS)}, and the paths of "
        "ONNX, TorchScript and torch.export files."
    )
