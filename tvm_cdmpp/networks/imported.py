"""What an import of a network gives, and how it fails."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tvm_cdmpp.bridge import reason_of
from tvm_cdmpp.errors import NetworkError
from tvm_cdmpp.networks.inputs import InputSpecs

IRModule: TypeAlias = Any
NDArray: TypeAlias = Any
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# What the importers and torch's loaders raise on a file or a graph they cannot take.
IMPORT_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Reference:
    """The network as the framework that it comes from runs it."""

    name: str
    """Of the framework, with its version."""
    run: Callable[[Mapping[str, Array]], list[Array]]
    """Takes an array per input, and returns the outputs. Raises RuntimeError, TypeError or
    ValueError where the framework is not installed, or cannot run the network."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A network as TVM's importers return it."""

    mod: IRModule
    params: dict[str, NDArray]
    inputs: InputSpecs
    reference: Reference | None = None


def one_line(error: Exception) -> str:
    """Return all that an error says, as one line."""
    return " ".join(str(error).split())


def refusal(path: Path, inputs: InputSpecs, error: Exception, hint: str = "") -> NetworkError:
    """Return the error to raise when TVM does not take a file: its reason, and what may help."""
    lines = [line.strip() for line in str(error).splitlines()]
    unsupported = [line for line in lines if "not supported" in line or "not implemented" in line]
    reason = unsupported[0] if unsupported else reason_of(error)
    given = ", ".join(f"{name} {shape} {dtype}" for name, (shape, dtype) in inputs.items())
    return NetworkError(
        f"TVM cannot import {path} with the inputs {given}: {reason.rstrip('.')}.{hint}"
    )
