"""The program `tvm-cdmpp`: parses the command line, configures logging, turns errors into exits.

Exit codes: 0 done, 1 a check or a last step failed or nobody read the output to its end, 2 a clear
error or a wrong command line, 130 interrupted.
Command modules are light; each imports what it needs when it runs, so that `--help` is instant.
"""

import argparse
import contextlib
import difflib
import errno
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from tvm_cdmpp import __version__
from tvm_cdmpp.bridge import use_physical_cores
from tvm_cdmpp.cli import (
    adapt,
    autotune,
    compare,
    data,
    device,
    doctor,
    explain,
    finetune,
    predict,
    report,
    rpc,
    train,
    tune,
)
from tvm_cdmpp.cli import eval as evaluate
from tvm_cdmpp.cli.interrupt import EXIT_INTERRUPTED, note_interrupts
from tvm_cdmpp.cli.messages import ensure_streams
from tvm_cdmpp.errors import CDMPPError

_logger = logging.getLogger(__name__)

_COMMANDS = (
    tune, compare, predict, explain, report, data, train, finetune, adapt, autotune, evaluate,
    device, rpc, doctor,
)  # fmt: skip
_EXIT_ERROR = 2
_EXIT_UNREAD = 1  # as rich has it


class _CommandParser(argparse.ArgumentParser):
    """The parser of a command, or of a part of one: `-v` may stand at any of them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_argument(
            "-v",
            "--verbose",
            action="count",
            default=argparse.SUPPRESS,  # a part must not undo what its command was given
            help="more log messages; twice for all",
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse what is not known with the usage of this command, not that of the program."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            option = unknown[0].partition("=")[0]
            close = difflib.get_close_matches(option, self._option_string_actions, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found, unknown


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        Arguments without the program's name; those of the process when None.

    Returns
    -------
    exit_code
        For `sys.exit`.
    """
    ensure_streams()
    use_physical_cores()
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as error:
        sys.exit(_end(int(error.code or 0)))
    _configure_logging(args.verbose)
    with note_interrupts() as interrupts:
        try:
            return _end(int(args.func(args)))
        except KeyboardInterrupt:
            return _fail("interrupted", EXIT_INTERRUPTED)
        except BrokenPipeError:
            return _discard_output()
        except Exception as error:
            if interrupts.noted:
                return _fail("interrupted", EXIT_INTERRUPTED)
            if not isinstance(error, (CDMPPError, OSError)):
                raise
            _logger.debug("The error comes from here:", exc_info=True)
            full = isinstance(error, OSError) and error.errno == errno.ENOSPC
            advice = "; free some space and run the same command again" if full else ""
            return _fail(f"{error}{advice}")


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="tvm-cdmpp", description="TVM's auto-scheduler with the CDMPP predictor."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.set_defaults(verbose=0)
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=_CommandParser
    )
    for command in _COMMANDS:
        command.add_parser(subparsers)
    return parser


def _configure_logging(verbose: int) -> None:
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    logging.getLogger("tvm_cdmpp").setLevel(levels[min(verbose, 2)])


def _end(exit_code: int) -> int:
    """Write what is left, while an error can be caught."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _discard_output()
    return exit_code


def _discard_output() -> int:
    """Let what is still to be written go nowhere: Python would complain when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    return _EXIT_UNREAD


def _fail(message: str, exit_code: int = _EXIT_ERROR) -> int:
    try:
        print(f"tvm-cdmpp: {message}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        _discard_output()
    return exit_code
