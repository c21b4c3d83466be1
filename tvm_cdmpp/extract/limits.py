"""The limits of a GPU that a program may exceed, found without lowering it."""

from __future__ import annotations

from dataclasses import dataclass

LIMITS = (
    "threads per block",
    "threads of another loop of the block",
    "bytes of shared memory per block",
    "bytes of local memory per thread",
    "virtual threads",
    "bytes per vector",
)
"""What TVM's `VerifyGPUCode` checks, in the order of `native/limits.h`.

The second: loops of a block that are bound to the same GPU index must have the same extent.
"""


@dataclass(frozen=True)
class ExceededLimit:
    """The first limit that a program exceeds: TVM gives it no features, so it must not be built."""

    limit: str
    """One of `LIMITS`."""
    got: int
    allowed: int
    """From the task's hardware parameters."""

    def __str__(self) -> str:
        return f"{self.got} {self.limit}; {self.allowed} are allowed"
