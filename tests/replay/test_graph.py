"""Reading graphs of TVM's graph executor."""

import json
from typing import Any

import pytest

from tvm_cdmpp.errors import NetworkError
from tvm_cdmpp.replay import read_graph


def graph_json(nodes: list[tuple[str, str, list[int]]], **attrs: Any) -> str:
    """A graph of nodes (name, function or "" for an input, inputs), each of ten float32."""
    content = {
        "nodes": [
            {
                "op": "tvm_op" if function else "null",
                "name": name,
                "inputs": [[i, 0, 0] for i in inputs],
                **({"attrs": {"func_name": function}} if function else {}),
            }
            for name, function, inputs in nodes
        ],
        "node_row_ptr": list(range(len(nodes) + 1)),
        "attrs": {
            "shape": ["list_shape", [[2, 5]] * len(nodes)],
            "dltype": ["list_str", ["float32"] * len(nodes)],
            "storage_id": ["list_int", list(range(len(nodes)))],
            **attrs,
        },
    }
    return json.dumps(content)


NODES = [
    ("data", "", []),
    ("weight", "", []),
    ("layout", "transform", [1]),
    ("a", "conv", [0, 2]),
    ("renamed", "__nop", [3]),
    ("b", "conv", [4, 2]),
    ("c", "__copy", [5, 3]),
]


def test_operators_wait_for_what_they_read_through_renamed_memory() -> None:
    graph = read_graph(graph_json(NODES))
    assert [(o.name, o.function, o.inputs) for o in graph.operators] == [
        ("layout", "transform", ()),
        ("a", "conv", (0,)),
        ("b", "conv", (0, 1)),
        ("c", "__copy", (1, 2)),
    ]
    assert graph.counts == {"transform": 1, "conv": 2, "__copy": 1}
    assert [o.kind for o in graph.operators] == ["compute"] * 3 + ["communication"]
    assert graph.operators[1].moved_bytes == 3 * 40


def test_what_depends_on_constants_alone_is_not_run_again() -> None:
    graph = read_graph(graph_json(NODES), parameters=["weight"])
    assert [o.name for o in graph.operators] == ["a", "b", "c"]
    assert graph.operators[0].inputs == ()


def test_memory_counts_shared_storage_once() -> None:
    shared = {"storage_id": ["list_int", [0, 1, 2, 3, 3, 0, 4]]}
    assert read_graph(graph_json(NODES)).peak_bytes == 7 * 40
    assert read_graph(graph_json(NODES, **shared)).peak_bytes == 5 * 40


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "Expected the JSON of TVM's graph executor"),
        ("[1", "Expected the JSON of TVM's graph executor"),
        (graph_json(NODES, shape=["list_shape", [["n"]] * 7]), "Expected the JSON"),
        (graph_json(NODES, shape=["list_shape", [[-2, 5]] * 7]), "a size of -2"),
        (graph_json(NODES, shape=["list_shape", [[10**200, 10**200]] * 7]), "OverflowError"),
        (graph_json(NODES, dltype=["list_str", ["odd"] * 7]), "unknown element type 'odd'"),
        (graph_json(NODES[:2]), "no operator"),
        (graph_json([("x", "", []), ("y", "__nop", [0])]), "no operator"),
    ],
)
def test_what_is_no_graph_is_refused(text: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        read_graph(text)
