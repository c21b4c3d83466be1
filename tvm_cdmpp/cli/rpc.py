"""`tvm-cdmpp rpc`: TVM's own RPC tracker and server, with the TVM that was found.

A tracker knows devices; each of them runs a server. `python -m tvm.exec.rpc_server` does the same
where `tvm` can be imported, which the bundled one cannot.
"""

import argparse
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tvm_cdmpp.errors import ConfigError, MeasureError


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "rpc",
        help="run TVM's RPC tracker or server",
        description="Measure on other devices: one tracker, and a server on each device. Both run "
        "until Ctrl-C. Whoever reaches them can run programs there: use trusted networks only.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    tracker = actions.add_parser(
        "tracker",
        help="know which devices there are",
        description="Run a tracker, which servers report to and `data collect --rpc` asks.",
    )
    _add_address(tracker, 9190)
    tracker.set_defaults(func=run_tracker)

    server = actions.add_parser(
        "server",
        help="offer this machine's devices",
        description="Run a server, which runs the programs that come with a tracker's consent.",
    )
    server.add_argument(
        "--tracker", required=True, metavar="HOST:PORT", help="the tracker to report to"
    )
    server.add_argument("--key", required=True, metavar="K", help="name for this kind of device")
    _add_address(server, 9090)
    server.set_defaults(func=run_server)


def run_tracker(args: argparse.Namespace) -> int:
    """Run a tracker until it is interrupted."""
    from tvm_cdmpp.bridge import start_tracker

    with _quiet_children():
        tracker = start_tracker(args.host, args.port, silent=not args.verbose)
    return _serve(tracker, f"tracker at {args.host}:{args.port}")


def run_server(args: argparse.Namespace) -> int:
    """Run a server until it is interrupted."""
    tracker = parse_address(args.tracker, "--tracker")
    from tvm_cdmpp.bridge import start_server

    with _quiet_children():
        server = start_server(
            args.host, args.port, tracker=tracker, key=args.key, silent=not args.verbose
        )
    return _serve(server, f"server for the key {args.key} at {args.host}:{args.port}")


def parse_address(text: str, option: str) -> tuple[str, int]:
    """Read `HOST:PORT`.

    Raises
    ------
    ConfigError
        The text has another form.
    """
    match = re.fullmatch(r"(.+):(\d{1,5})", text)
    if match is None or not 0 < int(match[2]) < 1 << 16:
        raise ConfigError(f"{option} takes HOST:PORT, as in 192.168.0.7:9190; got {text!r}")
    return match[1], int(match[2])


def _add_address(parser: argparse.ArgumentParser, port: int) -> None:
    parser.add_argument(
        "--host", default="0.0.0.0", metavar="H", help="address to listen at (default: all)"
    )
    parser.add_argument(
        "--port", type=int, default=port, metavar="N", help=f"port to listen at (default: {port})"
    )


@contextmanager
def _quiet_children() -> Iterator[None]:
    """Keep Ctrl-C from processes that are started meanwhile: it is this one that ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(service: Any, what: str) -> int:
    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, end)
    print(f"{what}; Ctrl-C ends it", flush=True)
    try:
        service.proc.join()
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, previous)
        service.proc.kill()
    raise MeasureError(f"the {what} has ended by itself")
