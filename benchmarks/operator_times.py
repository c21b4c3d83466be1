"""A compiled network and its operators, each of these timed by itself.

A program that is run again and again finds all that it reads in the nearest cache. Inside of a
network its weights were read one whole run of the network ago, and its input was written right
before it. So before each timed run of an operator the memory of the network is read as the other
operators move it between two runs of this one, by a loop in TVM's own threads: those are then
awake, too, as inside of the network. What an operator reads and writes is what it has there.
Where the whole network fits into the caches of the cores nothing is read in between.

The network as a whole, and each operator, is timed run by run. Medians of runs are compared.
"""

import functools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.bridge import load_tvm

tvm = load_tvm()

MOST_READ_BYTES = 128 << 20
"""Of the network's memory before a run; several times the last cache of a large server."""
KEPT_BYTES = 1 << 20
"""A core's second cache: a network that is smaller than those of all cores stays there."""
_LINE_BYTES = 64
_RUNS_ALONE = 10
"""Timed at once where nothing is read in between: these are often shorter than reading a clock."""
_NOTHING = "__nop"
_PREPARE = "benchmarks.prepare_operator"

Array = npt.NDArray[Any]
Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Operator:
    """A call of a function: entries of the graph that it reads, then those that it writes."""

    node: int
    function: str
    entries: tuple[int, ...]


class TimedNetwork:
    """A compiled network, ready to be timed on this machine's CPU.

    Parameters
    ----------
    factory
        What `relay.build` returned, or an exported library that was loaded again.
    inputs
        One array per input.

    Attributes
    ----------
    graph_json
        As TVM's graph executor takes it.
    parameters
        Names of the inputs of the graph that are constants.
    """

    def __init__(self, factory: Any, inputs: Mapping[str, Array]) -> None:
        self._library, self._device = factory, tvm.cpu(0)
        self.graph_json = str(factory["get_graph_json"]())
        self.parameters = frozenset(map(str, factory["get_graph_params"]()))
        executor = factory["debug_create"]("default", self._device)
        for name, array in inputs.items():
            executor["set_input"](name, tvm.nd.array(array))
        self._run = functools.partial(executor.time_evaluator, "run", self._device, number=1)
        graph = json.loads(self.graph_json)
        self._storages: list[int] = graph["attrs"]["storage_id"][1]
        self._operators = _operators_of(graph)
        self._values = _values_of(executor, graph)
        self._memory = self._stand_ins()

    @property
    def functions(self) -> list[str]:
        """Functions that it calls, in the order of their first calls."""
        return list(dict.fromkeys(operator.function for operator in self._operators))

    def run_s(self, runs: int) -> Seconds:
        """Time some runs of the whole network, after one that does not count; (runs,)."""
        return np.array(self._run(repeat=runs)().results)

    def operator_s(self, function: str, runs: int, *, alone: bool = False) -> Seconds:
        """Time some runs of an operator, after one that does not count; (runs,).

        Parameters
        ----------
        function
            One of `functions`; of several calls the one in the middle is taken.
        runs
            How many.
        alone
            Run it again and again, with nothing read in between.
        """
        calls = [n for n, operator in enumerate(self._operators) if operator.function == function]
        number = calls[len(calls) // 2]
        arguments = [self._values[entry] for entry in self._operators[number].entries]
        kept = KEPT_BYTES * tvm.runtime.num_threads()
        is_kept = sum(map(_num_bytes, self._memory.values())) < kept
        reads = [] if alone or is_kept else list(self._reads_before(number))

        def prepare(*_: Any) -> None:
            for array in reads:
                _reader(str(array.dtype))(array, _SINK)

        tvm.register_func(_PREPARE, prepare, override=True)
        timer = self._library.time_evaluator(
            function, self._device, number=1 if reads else _RUNS_ALONE, repeat=runs,
            f_preproc=_PREPARE,
        )  # fmt: skip
        return np.array(timer(*arguments).results)

    def _stand_ins(self) -> dict[int, Any]:
        """Return memory as large as each storage of the graph."""
        sizes: dict[int, int] = {}
        for storage, value in zip(self._storages, self._values, strict=True):
            sizes[storage] = max(sizes.get(storage, 0), _num_bytes(value))
        return {
            storage: tvm.nd.array(np.zeros(-(-size // 4), np.float32), self._device)
            for storage, size in sizes.items()
        }

    def _reads_before(self, number: int) -> Iterator[Any]:
        """Yield flat arrays to read, in order: what operators move from this one to the next run.

        What the operator itself reads and writes stands for the storage that it has in the graph.
        """
        own = {self._storages[e]: self._values[e] for e in self._operators[number].entries}
        memory = {**self._memory, **own}
        others = [*self._operators[number + 1 :], *self._operators[:number]]
        moved = [self._storages[entry] for operator in others for entry in operator.entries]
        kept, left = 0, MOST_READ_BYTES
        while kept < len(moved) and left > 0:
            kept += 1
            left -= _num_bytes(memory[moved[-kept]])
        for storage in moved[len(moved) - kept :]:
            array = memory[storage]
            yield array._create_view((math.prod(array.shape),))


def _operators_of(graph: Mapping[str, Any]) -> list[_Operator]:
    """Return what a graph calls, in order."""
    starts = graph["node_row_ptr"]
    found = []
    for number, node in enumerate(graph["nodes"]):
        if node["op"] != "null" and node["attrs"]["func_name"] != _NOTHING:
            read = [starts[source] + output for source, output, *_ in node["inputs"]]
            written = range(starts[number], starts[number + 1])
            function = str(node["attrs"]["func_name"])
            found.append(_Operator(number, function, (*read, *written)))
    return found


def _values_of(executor: Any, graph: Mapping[str, Any]) -> list[Any]:
    """Run a network node by node; return a copy of each entry of its graph."""
    starts = graph["node_row_ptr"]
    values = []
    for number in range(len(graph["nodes"])):
        executor["execute_node"](number)
        values += [
            executor["get_node_output"](number, output)
            for output in range(starts[number + 1] - starts[number])
        ]
    return values


def _num_bytes(array: Any) -> int:
    return int(math.prod(array.shape) * -(-tvm.DataType(array.dtype).bits // 8))


_PARTS = 64
_SINK = tvm.nd.array(np.zeros(_PARTS, np.float32))


@functools.cache
def _reader(dtype: str) -> Any:
    """Return a function that reads one element of each cache line of a flat array, in parallel."""
    te = tvm.te
    each = _LINE_BYTES * 8 // tvm.DataType(dtype).bits
    size = te.var("size")
    array = te.placeholder((size,), dtype, name="array")
    lines = te.reduce_axis((0, te.indexdiv(size, each * _PARTS)), name="line")
    length = te.indexdiv(size, each * _PARTS)
    total = te.compute(
        (_PARTS,),
        lambda part: te.sum(array[(part * length + lines) * each].astype("float32"), axis=lines),
        name="total",
    )
    schedule = te.create_schedule(total.op)
    schedule[total].parallel(total.op.axis[0])
    return tvm.build(schedule, [array, total], "llvm")
