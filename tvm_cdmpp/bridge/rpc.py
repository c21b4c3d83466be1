"""TVM's RPC tracker and server, each in a child process of this one."""

import socket
from typing import Any

from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.errors import ConfigError, MeasureError

tvm = load_tvm()

_CONNECT_TIMEOUT_S = 5


def start_tracker(host: str, port: int, *, silent: bool = True) -> Any:
    """Start a tracker.

    Parameters
    ----------
    host, port
        Where to listen.
    silent
        Whether to say nothing of connections.

    Returns
    -------
    service
        Its `proc` is TVM's `PopenWorker`, to `join` or `kill`; nobody holding it ends it.

    Raises
    ------
    ConfigError
        Nobody can listen there.
    """
    from tvm.rpc.tracker import Tracker  # brings tornado

    _check_free(host, port)
    return Tracker(host, port, port + 1, silent=silent)


def start_server(
    host: str, port: int, *, tracker: tuple[str, int], key: str, silent: bool = True
) -> Any:
    """Start a server that offers this machine's devices to whoever asks a tracker for them.

    Parameters
    ----------
    host, port
        Where to listen.
    tracker
        Host and port of the tracker.
    key
        What to call this kind of device.
    silent
        Whether to say nothing of connections.

    Returns
    -------
    service
        Its `proc` is TVM's `PopenWorker`, to `join` or `kill`; nobody holding it ends it.

    Raises
    ------
    ConfigError
        Nobody can listen there.
    MeasureError
        The tracker does not answer.
    """
    try:
        # TVM itself would try for minutes.
        socket.create_connection(tracker, _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise MeasureError(
            f"the RPC tracker at {tracker[0]}:{tracker[1]} does not answer: {error}. Start it "
            f"first, with `tvm-cdmpp rpc tracker --port {tracker[1]}`, or correct the address."
        ) from error
    _check_free(host, port)
    return tvm.rpc.Server(host, port, port + 1, key=key, tracker_addr=tracker, silent=silent)


def _check_free(host: str, port: int) -> None:
    """Refuse an address that TVM could not listen at; it would say so in a child process."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"cannot listen at {host}:{port}: {error}; choose another port"
        ) from error
