"""What is found out about a network and a target before anything is searched for them."""

from typing import Any, TypeAlias

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.networks.deployment import deploy
from tvm_cdmpp.networks.network import Network

tvm = load_tvm()

Target: TypeAlias = Any


def check_libraries(target: Target) -> None:
    """Refuse a target whose `-libs` this TVM lacks: such a network compiles, and then cannot run.

    Raises
    ------
    ConfigError
        Names the libraries.
    """
    functions = tvm._ffi.registry.list_global_func_names()
    present = {str(name).split(".")[2] for name in functions if name.startswith("tvm.contrib.")}
    missing = [str(name) for name in target.libs if str(name) not in present]
    if missing:
        raise ConfigError(
            f"The target {target} calls {', '.join(missing)}, which this TVM was built without. "
            "Leave out -libs: the operators are then searched for like all others."
        )


def check_compiles(network: Network, target: Target) -> None:
    """Compile a network once, without a log, so that a search for it is not in vain.

    Parameters
    ----------
    network
        From `load_network`.
    target
        Its programs run with this TVM.

    Raises
    ------
    ConfigError
        As `check_libraries`.
    NetworkError
        TVM cannot compile the network for this target.
    """
    check_libraries(target)
    deploy(network, target)
