"""A network as its executor runs it: operators in order, what each waits for, their memory.

Read from the JSON of TVM's graph executor. Choices:

- Operators that read nothing but constants, directly or through others like them, run once when a
  library is loaded, not with every input; TVM folds most of them, and the others are left out.
- `__nop` costs nothing: TVM writes it where a reshape only renames memory. What waits for it waits
  for what it renames.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from tvm_cdmpp.errors import NetworkError
from tvm_cdmpp.files import parse_json

Kind: TypeAlias = Literal["compute", "communication"]

_NOTHING = "__nop"
_COMMUNICATION = re.compile(
    r"^__copy|device_copy|all_?reduce|all_?gather|reduce_scatter|all_?to_?all"
)
_TYPE = re.compile(r"[a-z]+?(\d+)(?:x(\d+))?")


@dataclass(frozen=True, slots=True)
class Operator:
    """One call of a compiled function."""

    name: str
    function: str
    """What is called; operators that compute the same share it."""
    inputs: tuple[int, ...]
    """Operators that it waits for, by their place in the order of execution; ascending."""
    moved_bytes: float
    """Of all that it reads and writes."""

    @property
    def kind(self) -> Kind:
        """Whether it computes, or moves data between devices."""
        return "communication" if _COMMUNICATION.search(self.function) else "compute"


@dataclass(frozen=True, slots=True)
class OperatorGraph:
    """The operators of a network in the order of execution."""

    operators: tuple[Operator, ...]
    peak_bytes: float
    """Memory of all values: inputs, weights, results; those that share storage count once."""

    @property
    def counts(self) -> Counter[str]:
        """How often each function is called, in the order of its first call."""
        return Counter(operator.function for operator in self.operators)


def read_graph(
    text: str, parameters: Collection[str] = (), network: str = "The network"
) -> OperatorGraph:
    """Read the JSON of TVM's graph executor.

    Parameters
    ----------
    text
        What `relay.build(...).get_graph_json()` gives.
    parameters
        Names of the inputs that are constants, as of `relay.build(...).get_params()`.
    network
        What errors call it.

    Raises
    ------
    NetworkError
        It has another form, a size that is known only when it runs, or no operator.
    """
    try:
        content = parse_json(text)
        nodes, starts = content["nodes"], content["node_row_ptr"]
        sizes = _sizes_bytes(content["attrs"])
        graph = _Reader(nodes, starts, sizes, frozenset(parameters)).operators()
        peak_bytes = _peak_bytes(content["attrs"], sizes)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise NetworkError(
            "Expected the JSON of TVM's graph executor, with nodes, node_row_ptr and attrs; "
            f"got something else ({type(error).__name__}: {error})."
        ) from error
    if not graph:
        raise NetworkError(f"{network} has no operator: it computes nothing that could be timed.")
    return OperatorGraph(tuple(graph), peak_bytes)


class _Reader:
    """Turns the nodes of a graph into operators."""

    def __init__(
        self,
        nodes: list[dict[str, Any]],
        starts: list[int],
        sizes: list[float],
        parameters: frozenset[str],
    ) -> None:
        self._nodes, self._starts, self._sizes = nodes, starts, sizes
        self._is_constant = [node["op"] == "null" and node["name"] in parameters for node in nodes]
        self._waits_for: list[frozenset[int]] = []

    def operators(self) -> list[Operator]:
        found: list[Operator] = []
        for number, node in enumerate(self._nodes):
            inputs = node["inputs"]
            waits_for = frozenset[int]().union(*(self._waits_for[i[0]] for i in inputs))
            if node["op"] != "null":
                function = str(node["attrs"]["func_name"])
                self._is_constant[number] = bool(inputs) and all(
                    self._is_constant[i[0]] for i in inputs
                )
                if function != _NOTHING and not self._is_constant[number]:
                    moved_bytes = self._moved_bytes(number, inputs)
                    order = tuple(sorted(waits_for))
                    waits_for = frozenset([len(found)])
                    found.append(Operator(str(node["name"]), function, order, moved_bytes))
            self._waits_for.append(waits_for)
        return found

    def _moved_bytes(self, number: int, inputs: list[list[int]]) -> float:
        entries = {self._starts[node] + output for node, output, *_ in inputs}
        entries |= set(range(self._starts[number], self._starts[number + 1]))
        return sum(self._sizes[entry] for entry in entries)


def _sizes_bytes(attrs: dict[str, Any]) -> list[float]:
    shapes, types = attrs["shape"][1], attrs["dltype"][1]
    return [
        float(math.prod(map(_size, shape))) * _element_bytes(str(dtype))
        for shape, dtype in zip(shapes, types, strict=True)
    ]


def _size(size: Any) -> int:
    if int(size) < 0:
        raise ValueError(f"a size of {size}")
    return int(size)


def _element_bytes(dtype: str) -> float:
    if dtype == "bool":
        return 1.0
    match = _TYPE.fullmatch(dtype)
    if match is None:
        raise ValueError(f"unknown element type {dtype!r}")
    return int(match[1]) * int(match[2] or 1) / 8


def _peak_bytes(attrs: dict[str, Any], sizes: list[float]) -> float:
    largest: dict[int, float] = {}
    for storage, size in zip(attrs["storage_id"][1], sizes, strict=True):
        largest[storage] = max(size, largest.get(storage, 0.0))
    return sum(largest.values())
