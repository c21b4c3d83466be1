"""Calls of the C library in a program, which a CPU makes for one element at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tvm_cdmpp.bridge import load_tvm

tir = load_tvm().tir

LIBRARY_CYCLES = {
    "exp": 5.0, "exp2": 5.0, "exp10": 8.0, "sigmoid": 6.0, "log": 7.0, "log2": 7.0, "log10": 12.0,
    "log1p": 12.0, "pow": 12.0, "sin": 12.0, "cos": 12.0, "tan": 20.0, "asin": 20.0, "acos": 20.0,
    "atan": 20.0, "atan2": 25.0, "sinh": 20.0, "cosh": 20.0, "tanh": 12.0, "asinh": 25.0,
    "acosh": 25.0, "atanh": 25.0, "erf": 12.0, "fmod": 20.0,
}  # fmt: skip
"""Per call of the C library. `exp`, `log`, `pow`, `sin` and `tanh` were measured on 40 x 2560
elements: 2.0, 2.6, 4.2, 4.5 and 4.5 ns each; the others are like them. `erf` depends on its
argument: 12 cycles below 0.84, where those of most activations are, up to 40 beyond."""


def library_calls(program: Any) -> dict[str, list[str]]:
    """Return the calls of the C library per store, the longest of them, by its buffer."""
    found: dict[str, list[str]] = {}
    for store in _found(program.body, tir.BufferStore):
        calls = _found(store.value, tir.Call)
        names = [
            str(getattr(call.op, "name", "")).removeprefix("tir.")
            for call in calls
            if not _is_square(call)
        ]
        names = [name for name in names if name in LIBRARY_CYCLES]
        buffer = str(store.buffer.name)
        found[buffer] = max(found.get(buffer, []), names, key=cycles_of)
    return found


def cycles_of(calls: Iterable[str]) -> float:
    """Return the cycles of some calls, one after the other."""
    return sum(LIBRARY_CYCLES[name] for name in calls)


def _is_square(call: Any) -> bool:
    """Tell whether a call is a power of 2, of which LLVM makes a product."""
    if getattr(call.op, "name", "") != "tir.pow":
        return False
    exponent = call.args[1]
    return isinstance(exponent, tir.FloatImm) and float(exponent.value) == 2.0


def _found(tree: Any, kind: type) -> list[Any]:
    found: list[Any] = []
    tir.stmt_functor.post_order_visit(tree, lambda n: found.append(n) if type(n) is kind else None)
    return found
