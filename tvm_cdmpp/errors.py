"""Every error this package raises on purpose: one root, a few leaves.

Each leaf also inherits the builtin a caller would expect, so `except ValueError` keeps working.
A message says what was expected, what was found, where, and what to do.
"""


class CDMPPError(Exception):
    """Root of all errors raised by `tvm_cdmpp`."""


class ConfigError(CDMPPError, ValueError):
    """A setting or an argument is out of its range."""


class RecordError(CDMPPError, ValueError):
    """A measure record, a log or a workload cannot be used."""


class SplitError(CDMPPError, ValueError):
    """A split has an empty part, or parts that overlap."""


class CheckpointError(CDMPPError, ValueError):
    """A saved predictor is unreadable or does not fit this version."""


class NetworkError(CDMPPError, ValueError):
    """A network is unknown, or its file cannot be read or compiled."""


class MeasureError(CDMPPError, RuntimeError):
    """Programs could not be built or run on the machine."""


class LoweringError(CDMPPError, RuntimeError):
    """TVM refuses to lower a state to a tensor program."""


class UnknownDeviceError(CDMPPError, LookupError):
    """A device is not in the registry and could not be detected."""


class MissingDependencyError(CDMPPError, ImportError):
    """TVM, a compiler or an optional package is missing or unfit."""


def install_command(extra: str) -> str:
    """Return what installs an optional part of this package, as a message writes it."""
    return f'`pip install -e ".[{extra}]"` in the checkout of tvm-cdmpp'
