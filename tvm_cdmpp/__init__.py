"""CDMPP as cost model for TVM's auto-scheduler: the public names, nothing else.

Names are resolved on first use, so that importing this package needs no TVM and loads no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tvm_cdmpp import errors
from tvm_cdmpp.errors import CDMPPError

if TYPE_CHECKING:
    from tvm_cdmpp.bridge.runtime import describe_tvm, load_tvm
    from tvm_cdmpp.devices.registry import find_device
    from tvm_cdmpp.devices.spec import DeviceSpec
    from tvm_cdmpp.search.cost_model import CDMPPModel

__version__ = "0.1.0"
__all__ = [
    "CDMPPError",
    "CDMPPModel",
    "DeviceSpec",
    "__version__",
    "describe_tvm",
    "errors",
    "find_device",
    "load_tvm",
]

_HOMES = {
    "CDMPPModel": "tvm_cdmpp.search.cost_model",
    "DeviceSpec": "tvm_cdmpp.devices.spec",
    "describe_tvm": "tvm_cdmpp.bridge.runtime",
    "find_device": "tvm_cdmpp.devices.registry",
    "load_tvm": "tvm_cdmpp.bridge.runtime",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
