"""CDMPP as cost model for TVM's auto-scheduler: the public names, nothing else.

Names are resolved on first use, so that importing this package needs no TVM and loads no torch.
"""

from typing import TYPE_CHECKING

from tvm_cdmpp import errors
from tvm_cdmpp.errors import CDMPPError
from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.bridge import describe_tvm, load_tvm
    from tvm_cdmpp.data import RecordStore
    from tvm_cdmpp.devices import DeviceSpec, find_device
    from tvm_cdmpp.replay import predict
    from tvm_cdmpp.search import CDMPPModel

__version__ = "0.1.0"
__all__ = [
    "CDMPPError",
    "CDMPPModel",
    "DeviceSpec",
    "RecordStore",
    "__version__",
    "describe_tvm",
    "errors",
    "find_device",
    "load_tvm",
    "predict",
]

__getattr__, __dir__ = offer(__name__)
