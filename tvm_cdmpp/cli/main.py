"""The program `tvm-cdmpp`: parses the command line, configures logging, turns errors into exits.

Exit codes: 0 done, 1 a check failed, 2 a clear error or a wrong command line, 130 interrupted.
Command modules are light; each imports what it needs when it runs, so that `--help` is instant.
"""

import argparse
import errno
import logging
import sys
from collections.abc import Sequence

from tvm_cdmpp import __version__
from tvm_cdmpp.cli import compare, data, doctor, tune
from tvm_cdmpp.errors import CDMPPError

_logger = logging.getLogger(__name__)

_COMMANDS = (tune, compare, data, doctor)
_EXIT_ERROR = 2
_EXIT_INTERRUPTED = 130


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
    args = build_parser().parse_args(argv)
    _configure_logging(args.verbose)
    try:
        return int(args.func(args))
    except KeyboardInterrupt:
        return _fail("interrupted", _EXIT_INTERRUPTED)
    except CDMPPError as error:
        _logger.debug("The error comes from here:", exc_info=True)
        return _fail(str(error))
    except OSError as error:
        _logger.debug("The error comes from here:", exc_info=True)
        full = error.errno == errno.ENOSPC
        advice = "; free some space and run the same command again" if full else ""
        return _fail(f"{error}{advice}")


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="tvm-cdmpp", description="TVM's auto-scheduler with the CDMPP predictor."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(subparsers)
    for subparser in subparsers.choices.values():
        subparser.add_argument(
            "-v", "--verbose", action="count", default=0, help="more log messages; twice for all"
        )
    return parser


def _configure_logging(verbose: int) -> None:
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    logging.getLogger("tvm_cdmpp").setLevel(levels[min(verbose, 2)])


def _fail(message: str, exit_code: int = _EXIT_ERROR) -> int:
    print(f"tvm-cdmpp: {message}", file=sys.stderr)
    return exit_code
