"""Functions of a network that have schedules of TVM's own, as in a network that was not tuned.

What the predictors know is programs such as a search finds. One kind of TVM's own schedules is far
from these: where the right one of two matrices has its rows first, they walk down its columns. The
lines of a column then share few of the sets of a cache, the fewer the more powers of two the length
of a row has. What that costs is told by the device that such a function is predicted for.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.devices import DeviceSpec, Hardware
from tvm_cdmpp.extract import describe_programs, leaves_if_readable
from tvm_cdmpp.models import TERMS, combine_terms, leaf_terms_s
from tvm_cdmpp.networks.functions import (
    BY_COLUMNS,
    class_of,
    operator_of,
    own_operator_of,
    product_matrices,
    readable,
)
from tvm_cdmpp.networks.lowering import lower_network
from tvm_cdmpp.networks.network import Network

tvm = load_tvm()

_LINE_BYTES = 64
_SETS_BYTES = 4096
"""Addresses that are so far apart share a set of the first cache."""
_COLUMN_CYCLES, _FOLLOWED = 2.1, 0.74
"""Of one core per multiply-add down a column whose lines are in all sets; it grows with the square
root of the lines in a set. It is 2.4 times what products took on two CPUs (benchmarks/results,
rows-first.json): cycles by the shipped weights are those of their base to this power, over 2.4."""

_PLAIN = ("elementwise", "layout")
_WITHOUT_CHOICE = (*_PLAIN, "communication", "other")


@dataclass(frozen=True)
class OwnFunction:
    """A function of a network, with a schedule of TVM's own."""

    operator: str
    """Its class, as by `networks.own_operator_of`."""
    task_operator: str
    """The class that its task has, as by `networks.operator_of`."""
    name: str
    program: Any
    """`PrimFunc`."""
    leaves: Sequence[Any]
    """Of it, at least one, as from `extract.leaves_if_readable`."""
    calls: int = 1
    """How often the network calls it in one run."""

    @staticmethod
    def of(name: str, program: Any, leaves: Sequence[Any]) -> OwnFunction:
        """Describe a function by its name, its `PrimFunc` and the leaves of that."""
        operator = own_operator_of(name, program)
        return OwnFunction(operator, operator_of(name), _name(name, program), program, leaves)

    @cached_property
    def key(self) -> str:
        """What names the program, whatever network it is of; one of TVM's versions has one.

        Its class is not in it, as later versions may tell more of them apart.
        """
        program = self.program
        nameless = tvm.tir.PrimFunc(
            program.params, program.body, program.ret_type, program.buffer_map
        )
        return f"{int(tvm.ir.structural_hash(nameless)) % 2**64:016x}"

    def on(self, device: DeviceSpec) -> DeviceSpec:
        """Return a device as it is for this function."""
        known = device.for_operator(self.task_operator, own=self.operator)
        return replace(known, program_level=self._level(device))

    def _level(self, device: DeviceSpec) -> float:
        """Return ln of what it takes, over what the predictors make of their base."""
        if device.kind != "cpu" or self.operator != BY_COLUMNS:
            return 0.0
        matrices = product_matrices(self.program)
        if matrices is None:
            return 0.0
        (batch, rows, depth), (right_batch, _, columns) = (shape for shape, _ in matrices)
        row_bytes = columns * matrices[1][1]
        if row_bytes < _LINE_BYTES:
            return 0.0
        lines_in_set = min(depth, max(1, math.gcd(row_bytes, _SETS_BYTES) // _LINE_BYTES))
        terms_s = leaf_terms_s(describe_programs([self.leaves], Hardware()), device).copy()
        terms_s[TERMS.index("start")] = 0.0
        multiply_adds = max(batch, right_batch) * rows * depth * columns
        per_second = device.clock_hz * device.cores
        base_cycles = float(combine_terms(terms_s).sum()) * per_second / multiply_adds
        cycles = _COLUMN_CYCLES * math.sqrt(lines_in_set)
        return math.log(cycles) - _FOLLOWED * math.log(base_cycles)


def own_functions(network: Network, target: Any, cores: int) -> list[OwnFunction]:
    """Return the functions of a network whose schedules matter, with TVM's own.

    Parameters
    ----------
    network
        Of which.
    target
        What to build for.
    cores
        Of the hardware that they are generated for.

    Raises
    ------
    NetworkError
        TVM cannot compile it for this target.
    """
    return _functions(network, target, cores, lambda name: class_of(name) not in _WITHOUT_CHOICE)


def plain_functions(network: Network, target: Any, cores: int) -> list[OwnFunction]:
    """Return the functions that only move data, or do the same to each element.

    Parameters and errors are those of `own_functions`.
    """
    return _functions(network, target, cores, lambda name: class_of(name) in _PLAIN)


def _functions(
    network: Network, target: Any, cores: int, is_meant: Callable[[str], bool]
) -> list[OwnFunction]:
    lowered = lower_network(network, target, None)
    nodes = json.loads(lowered.graph_json)["nodes"]
    calls = Counter(node["attrs"]["func_name"] for node in nodes if node["op"] != "null")
    functions = (
        replace(
            OwnFunction.of(name, program, leaves_if_readable(program, cores)), calls=calls[name]
        )
        for name, program in lowered.programs.items()
        if is_meant(name)
    )
    return [function for function in functions if function.leaves]


def _name(function: str, program: Any) -> str:
    """Return a name with the sizes of what the function reads first, as tasks have it."""
    buffers = [program.buffer_map[parameter] for parameter in program.params[:2]]
    sizes = ("x".join(str(int(size)) for size in buffer.shape) for buffer in buffers)
    return f"{re.sub(r'_[0-9]+$', '', readable(function))} {','.join(sizes)} {buffers[0].dtype}"
