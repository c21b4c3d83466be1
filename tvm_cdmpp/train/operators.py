"""The class of operator of each task of a record store, for figures by operator.

The store's own class goes by what a DAG's stages are called. Names may say too little: a matrix
product whose stage is called `C`, a grouped convolution that is called `conv2d`. There the axes of
the stage that reduces most tell. In a product of two loads, a **window** is a dimension of one load
that an axis of the result and a reduced axis both move through, where the axis of the result does
not move through the other load: the height or the width of a convolution's data. With windows:

- the loads share an axis of the result, and nothing but windows is reduced: depthwise;
- they share one, and channels are reduced as well: grouped;
- they share none: a convolution of as many dimensions as there are windows.

Without windows, a product whose loads share an axis of the result is batched; one that is called so
and has a batch of one is a plain product, which is how dense layers are searched. A single load
with windows is pooling. Axes of length 1 are not shared by anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from tvm_cdmpp.data import operator_class

if TYPE_CHECKING:
    from tvm_cdmpp.data import RecordStore

Nodes: TypeAlias = list[dict[str, Any]]
Variables: TypeAlias = frozenset[int]

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "depthwise_conv2d", "group_conv2d")
_BY_AXES = {
    "conv2d": ("depthwise_conv2d", "group_conv2d"),
    "matmul": ("batch_matmul",),
    "batch_matmul": ("matmul",),
    "reduction": (*_CONVOLUTIONS, "matmul", "batch_matmul", "pool"),
}
"""What the axes may turn a class by names into."""
_WITHOUT_OPERANDS = frozenset({"IntImm", "FloatImm", "tir.StringImm", "tir.Var", "Op"})
_NO_OPERANDS = frozenset({"dtype", "span", "value_index"})


def operator_of_tasks(store: RecordStore) -> list[str]:
    """Return the class of operator of each task of a store.

    Parameters
    ----------
    store
        The records; its workloads are looked at, TVM is not needed.

    Returns
    -------
    operators
        One per row of `store.tasks`, of the classes of the column `operator`: `conv1d`, `conv2d`,
        `conv3d`, `depthwise_conv2d`, `group_conv2d`, `conv2d_transpose`, `conv2d_winograd`,
        `matmul`, `batch_matmul`, `pool`, `softmax`, `reduction` and `elementwise`, which anything
        without a reduction is.
    """
    columns = (store.workloads[name].to_pylist() for name in ("operator", "dag"))
    classes = [_class(named, dag) for named, dag in zip(*columns, strict=True)]
    return [classes[workload] for workload in store.tasks["workload"].to_pylist()]


def operator_of_dag(dag: str) -> str:
    """Return the class of operator of a DAG, of the classes of `operator_of_tasks`.

    Parameters
    ----------
    dag
        As `tvm.ir.save_json` writes it.
    """
    return _class(operator_class(dag), dag)


def operator_by_axes(dag: str) -> str:
    """Return the class of operator that the axes of a DAG tell, whatever its stages are called.

    Parameters
    ----------
    dag
        As `tvm.ir.save_json` writes it.
    """
    heaviest = max(_reductions(orjson.loads(dag)["nodes"]), key=lambda r: r.work, default=None)
    if heaviest is None:
        return "elementwise"
    if len(heaviest.loads) == 1:
        return "pool" if heaviest.windows(heaviest.loads[0]) else "reduction"
    return _product(heaviest) if heaviest.is_product else "reduction"


def _class(named: str, dag: str) -> str:
    if named not in _BY_AXES:
        return named
    found = operator_by_axes(dag)
    return found if found in _BY_AXES[named] else named


@dataclass(frozen=True)
class _Load:
    """A read of a tensor: the variables that each of its dimensions depends on."""

    dimensions: tuple[Variables, ...]

    @property
    def variables(self) -> Variables:
        return frozenset().union(*self.dimensions)


@dataclass(frozen=True)
class _Reduction:
    """A stage that reduces; axes are given by their variables."""

    spatial: dict[int, int]
    """Extents of the axes of the result."""
    reduced: dict[int, int]
    loads: tuple[_Load, ...]
    """Different reads of the source."""
    is_product: bool
    """Whether the source is a product of two reads."""

    @property
    def work(self) -> int:
        return math.prod(self.spatial.values()) * math.prod(self.reduced.values())

    def windows(self, load: _Load, other: _Load | None = None) -> list[Variables]:
        """Return the dimensions of a load that are windows."""
        moving = self.spatial.keys() - (other.variables if other else frozenset())
        return [d for d in load.dimensions if d & moving and d & self.reduced.keys()]


def _product(reduction: _Reduction) -> str:
    """Return the class of a reduced product of two loads."""
    pairs = [reduction.loads, reduction.loads[::-1]]
    data, weight = max(pairs, key=lambda pair: len(reduction.windows(*pair)))
    windows = reduction.windows(data, weight)
    spatial = {axis for axis, extent in reduction.spatial.items() if extent > 1}
    shared = data.variables & weight.variables & spatial
    if not windows:
        if not (data.variables ^ weight.variables) & spatial:
            return "reduction"
        return "batch_matmul" if shared else "matmul"
    if shared and len(windows) == 2:
        reduced = {axis for axis, extent in reduction.reduced.items() if extent > 1}
        return "group_conv2d" if reduced.difference(*windows) else "depthwise_conv2d"
    return f"conv{len(windows)}d"


def _reductions(nodes: Nodes) -> Iterator[_Reduction]:
    for stage in nodes:
        if stage["type_key"] != "ComputeOp":
            continue
        attrs = stage["attrs"]
        for body in _items(nodes, attrs["body"]):
            reduce = nodes[body]
            if reduce["type_key"] == "tir.Reduce":
                source = _items(nodes, reduce["attrs"]["source"])
                loads = dict.fromkeys(load for value in source for load in _loads(nodes, value))
                yield _Reduction(
                    _extents(nodes, attrs["axis"]),
                    _extents(nodes, reduce["attrs"]["axis"]),
                    tuple(load for _, load in loads),
                    len(loads) == 2 and len(source) == 1 and _is_product(nodes, source[0]),
                )


def _is_product(nodes: Nodes, value: int) -> bool:
    node = nodes[value]
    while node["type_key"] == "tir.Cast":
        node = nodes[int(node["attrs"]["value"])]
    return bool(node["type_key"] == "tir.Mul")


def _extents(nodes: Nodes, axes: str) -> dict[int, int]:
    """Return the extent of each axis by its variable; 1 for one that is no constant."""
    found = {}
    for axis in _items(nodes, axes):
        attrs = nodes[axis]["attrs"]
        extent = nodes[int(nodes[int(attrs["dom"])]["attrs"]["extent"])]
        is_constant = extent["type_key"] == "IntImm"
        found[int(attrs["var"])] = int(extent["attrs"]["value"]) if is_constant else 1
    return found


def _loads(nodes: Nodes, value: int) -> Iterator[tuple[int, _Load]]:
    """Yield the loads of an expression, with what they are of."""
    for place in _walk(nodes, value):
        if nodes[place]["type_key"] == "tir.ProducerLoad":
            attrs = nodes[place]["attrs"]
            indices = _items(nodes, attrs["indices"])
            variables = (
                frozenset(n for n in _walk(nodes, i) if nodes[n]["type_key"] == "tir.Var")
                for i in indices
            )
            yield int(attrs["producer"]), _Load(tuple(variables))


def _walk(nodes: Nodes, value: int) -> Iterator[int]:
    """Yield the nodes of an expression once each; what is within the index of a load is not."""
    found: set[int] = set()
    waiting = [value]
    while waiting:
        place = waiting.pop()
        if place in found:
            continue
        found.add(place)
        yield place
        node = nodes[place]
        if node["type_key"] == "Array":
            waiting += node.get("data", [])
        elif node["type_key"] not in {*_WITHOUT_OPERANDS, "tir.ProducerLoad"}:
            operands = node.get("attrs", {}).items()
            waiting += [int(v) for k, v in operands if k not in _NO_OPERANDS and v.isdigit()]


def _items(nodes: Nodes, array: str) -> list[int]:
    items: list[int] = nodes[int(array)].get("data", [])
    return items
