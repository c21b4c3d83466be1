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
class Value:
    """What an operator reads or writes."""

    storage: int
    """Where it is; later values may be written to the same place."""
    num_elements: int
    num_bytes: float


@dataclass(frozen=True, slots=True)
class Operator:
    """One call of a compiled function."""

    name: str
    function: str
    """What is called; operators that compute the same share it."""
    inputs: tuple[int, ...]
    """Operators that it waits for, by their place in the order of execution; ascending."""
    values: tuple[Value, ...] = ()
    """All that it reads and writes, each once."""

    @property
    def moved_bytes(self) -> float:
        """Bytes of all that it reads and writes."""
        return sum(value.num_bytes for value in self.values)

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
        values = _values(content["attrs"])
        graph = _Reader(nodes, starts, values, frozenset(parameters)).operators()
        peak_bytes = _peak_bytes(values)
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
        values: list[Value],
        parameters: frozenset[str],
    ) -> None:
        self._nodes, self._starts, self._values = nodes, starts, values
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
                    order = tuple(sorted(waits_for))
                    waits_for = frozenset([len(found)])
                    values = self._values_of(number, inputs)
                    found.append(Operator(str(node["name"]), function, order, values))
            self._waits_for.append(waits_for)
        return found

    def _values_of(self, number: int, inputs: list[list[int]]) -> tuple[Value, ...]:
        read = [self._starts[node] + output for node, output, *_ in inputs]
        written = range(self._starts[number], self._starts[number + 1])
        return tuple(self._values[entry] for entry in dict.fromkeys([*read, *written]))


def _values(attrs: dict[str, Any]) -> list[Value]:
    shapes, types, storages = (attrs[name][1] for name in ("shape", "dltype", "storage_id"))
    numbers = [math.prod(map(_size, shape)) for shape in shapes]
    return [
        Value(storage, number, float(number) * _element_bytes(str(dtype)))
        for storage, number, dtype in zip(storages, numbers, types, strict=True)
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


def _peak_bytes(values: list[Value]) -> float:
    largest: dict[int, float] = {}
    for value in values:
        largest[value.storage] = max(value.num_bytes, largest.get(value.storage, 0.0))
    return sum(largest.values())
