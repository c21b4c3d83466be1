"""A compiled network and its operators: timed inside of it, and each by itself.

- Inside: TVM's profiler runs the network and takes the time of each operator. Its weights were read
  one whole run ago, its input was written right before it, by cores that may share no cache. A
  network of some microseconds is shorter than what the profiler adds, and than waking the threads
  that sleep meanwhile. There an operator takes half of what two calls of it take longer than none.
  What one core fetches from another is saved by leaving out the writer as well as the reader, and
  a second call finds all that it reads: so either has half of it.
- Alone: an operator is run again and again, and finds all that it reads in the nearest cache.

The network as a whole is timed run by run, one that is shorter than waking a thread and reading a
clock some runs at once, as operators are. Medians of runs are compared.
"""

import functools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.bridge import load_tvm, off_worker_cores

tvm = load_tvm()

_RUNS_ALONE = 10
"""Timed at once: operators are often shorter than reading a clock."""
_AT_ONCE_S = 1e-4
"""Runs of a network that take less together are timed at once, as many as of an operator at most:
each of them by itself may have waited for threads that slept."""
_SHORT_S = 5e-4
"""A network that takes less is timed with none and with two of each call: what the profiler adds,
25 us and sometimes 70 on one machine, is too much of it."""
_RUNS_CHANGED = 20
"""The median of so many counts, as one of the two times that are subtracted."""
_NOTHING = "__nop"

_Graph = Mapping[str, Any]
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
    short_s
        A network that takes less is timed some runs at once, with none and with two of each call.

    Attributes
    ----------
    graph_json
        As TVM's graph executor takes it.
    parameters
        Names of the inputs of the graph that are constants.
    is_short
        Whether it takes less than `short_s`.
    """

    def __init__(
        self, factory: Any, inputs: Mapping[str, Array], *, short_s: float = _SHORT_S
    ) -> None:
        self._library, self._device = factory, tvm.cpu(0)
        self.graph_json = str(factory["get_graph_json"]())
        self.parameters = frozenset(map(str, factory["get_graph_params"]()))
        executor = factory["debug_create"]("default", self._device)
        for name, array in inputs.items():
            executor["set_input"](name, tvm.nd.array(array))
        evaluate = functools.partial(executor.time_evaluator, "run", self._device)
        least_s = min(_seconds(evaluate(number=1, repeat=5)))
        if least_s < _RUNS_ALONE * _AT_ONCE_S:
            least_s = min(_seconds(evaluate(number=_RUNS_ALONE, repeat=5)))
        self.is_short = least_s < short_s
        self._at_once = max(1, min(_RUNS_ALONE, math.ceil(_AT_ONCE_S / least_s)))
        self._run = functools.partial(evaluate, number=self._at_once)
        self._profile = functools.partial(executor["profile"], [])
        graph = json.loads(self.graph_json)
        self._operators = _operators_of(graph)
        self._values = _values_of(executor, graph)
        self._changed = (
            [
                [self._timer(change(graph, each.node), inputs) for change in (_without, _twice)]
                for each in self._operators
            ]
            if self.is_short
            else []
        )

    @property
    def functions(self) -> list[str]:
        """Functions that it calls, in the order of their first calls."""
        return list(dict.fromkeys(operator.function for operator in self._operators))

    def run_s(self, runs: int) -> Seconds:
        """Time some runs of the whole network, after one that does not count; (runs,)."""
        return _seconds(self._run(repeat=runs))

    def inside_s(self) -> dict[str, float]:
        """Time each function inside of the network, the mean of its calls."""
        return _means(zip(self._operators, self._calls_s(), strict=True))

    def _calls_s(self) -> list[float]:
        if self.is_short:
            medians_s = [
                [float(np.median(_seconds(run(repeat=_RUNS_CHANGED)))) for run in runs]
                for runs in self._changed
            ]
            return [max(0.0, (two_s - none_s) / 2) for none_s, two_s in medians_s]
        calls = [call for call in self._profile().calls if str(call["Name"]) != _NOTHING]
        return [1e-6 * float(call["Duration (us)"].microseconds) for call in calls]

    def _timer(self, graph: _Graph, inputs: Mapping[str, Array]) -> Callable[..., Any]:
        """Return a timer of another graph of the same functions and constants."""
        executor = tvm.contrib.graph_executor.create(json.dumps(graph), self._library, self._device)
        executor.set_input(**self._library["get_graph_params"](), **inputs)
        return functools.partial(
            executor.module.time_evaluator, "run", self._device, number=self._at_once
        )

    def alone_s(self, function: str, runs: int) -> Seconds:
        """Time some runs of an operator, after one that does not count; (runs,).

        Parameters
        ----------
        function
            One of `functions`; of several calls the one in the middle is taken.
        runs
            How many.
        """
        calls = [operator for operator in self._operators if operator.function == function]
        arguments = [self._values[entry] for entry in calls[len(calls) // 2].entries]
        timer = self._library.time_evaluator(
            function, self._device, number=_RUNS_ALONE, repeat=runs
        )
        return _seconds(timer, *arguments)


def _seconds(evaluate: Callable[..., Any], *arguments: Any) -> Seconds:
    """Return what a timer says of each run.

    The profiler starts TVM's threads anew and lets this one go where it likes, so the core of each
    timing is chosen for itself.
    """
    with off_worker_cores():
        return np.array(evaluate(*arguments).results)


def _means(pairs: Iterable[tuple[_Operator, float]]) -> dict[str, float]:
    """Return the mean seconds of each function."""
    found = defaultdict[str, list[float]](list)
    for operator, seconds in pairs:
        found[operator.function].append(seconds)
    return {function: float(np.mean(seconds)) for function, seconds in found.items()}


def _operators_of(graph: _Graph) -> list[_Operator]:
    """Return what a graph calls, in order."""
    starts = graph["node_row_ptr"]
    found = []
    for number, node in enumerate(graph["nodes"]):
        if node["op"] != "null" and node["attrs"]["func_name"] != _NOTHING:
            read = [starts[source] + output for source, output, *_ in node["inputs"]]
            written = range(starts[number], starts[number + 1])
            found.append(_Operator(number, str(node["attrs"]["func_name"]), (*read, *written)))
    return found


def _without(graph: _Graph, number: int) -> _Graph:
    """Return a graph without an operator, whose output is not written."""
    nodes = list(graph["nodes"])
    attrs = {**nodes[number]["attrs"], "func_name": _NOTHING}
    nodes[number] = {**nodes[number], "attrs": attrs}
    return {**graph, "nodes": nodes}


def _twice(graph: _Graph, number: int) -> _Graph:
    """Return a graph that calls an operator twice in a row, on the same memory."""

    def moved(source: list[int]) -> list[int]:
        return [source[0] + (source[0] > number), *source[1:]]

    nodes = [{**node, "inputs": list(map(moved, node["inputs"]))} for node in graph["nodes"]]
    nodes.insert(number, nodes[number])
    starts = graph["node_row_ptr"]
    begin, end = starts[number : number + 2]
    written = end - begin
    return {
        **graph,
        "nodes": nodes,
        "arg_nodes": [node + (node > number) for node in graph["arg_nodes"]],
        "heads": list(map(moved, graph["heads"])),
        "node_row_ptr": [*starts[: number + 1], *(start + written for start in starts[number:])],
        "attrs": {
            name: [kind, [*values[:end], *values[begin:]]]
            for name, (kind, values) in graph["attrs"].items()
        },
    }


def _values_of(executor: Any, graph: _Graph) -> list[Any]:
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
