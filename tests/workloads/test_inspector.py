"""DAGs of named functions, and steps that are those of another workload."""

import json
from typing import Any

import pytest

from benchmarks.workloads import edges
from tests.data.logs import records, steps_of, workload_entry
from tests.tiny_tasks import matmul, tvm
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract.dag import load_dag
from tvm_cdmpp.workloads.functions import rebuild_workload
from tvm_cdmpp.workloads.inspector import TvmInspector

# What the programs of the logs' authors give, by TVM 0.17.
KEYS = [
    (["matmul", 1000, 800, 700, "float32"], [[1000, 800], [800, 700], [1000, 700]], 1_120_000_000),
    (["matmul_layer", 1, 1024, 512], [[1, 1024], [1024, 512], [1, 512]], 2 * 1024 * 512),
    (["conv2d", 1, 14, 14, 8, 4, 3, 3, [1, 1], [1, 1]],
     [[1, 4, 14, 14], [8, 4, 3, 3], [1, 8, 14, 14]], 2 * 14 * 14 * 8 * 4 * 9),
    (["conv2d_layer", 2, 4, 28, 28, 8, 3, 3, 1, "SAME"],
     [[2, 4, 28, 28], [8, 4, 3, 3], [2, 8, 28, 28]], 2 * 2 * 28 * 28 * 8 * 4 * 9),
    (["conv2d_layer", 1, 7, 7, 512, 512, 3, 3, [1, 1], [1, 1]],
     [[1, 512, 7, 7], [512, 512, 3, 3], [1, 512, 1, 1], [1, 512, 7, 7]], 231_261_184),
    (["depthwise_conv2d_layer", 2, 4, 9, 9, 3, 3, 2, "SAME"],
     [[2, 4, 9, 9], [4, 1, 3, 3], [2, 4, 5, 5]], 2 * 2 * 4 * 25 * 9),
    (["pool_layer", "max", 2, 4, 12, 12, 3, 3, 2, "VALID"], [[2, 4, 12, 12], [2, 4, 5, 5]], None),
    (["relu_layer", 6, 7], [[6, 7], [6, 7]], None),
    (["reduction_layer", [3, 4, 5], 2, False], [[3, 4, 5], [3, 4]], None),
    (["batch_matmul_layer", 2, 3, 8, 4, 5], [[6, 8, 4], [6, 4, 5], [6, 8, 5]], 2 * 6 * 8 * 4 * 5),
    (["conv3d_ansor", [1, 3, 3, 6, 6], [4, 3, 3, 3, 3]],
     [[1, 3, 3, 6, 6], [4, 3, 3, 3, 3], [1, 4, 3, 6, 6]], None),
]  # fmt: skip


@pytest.mark.parametrize(("key", "shapes", "flops"), KEYS)
def test_functions_that_logs_name(key: list[Any], shapes: list[Any], flops: float | None) -> None:
    dag = rebuild_workload(json.dumps(key))[0]
    facts = TvmInspector().describe(dag)
    assert json.loads(facts.workload_key)[1:] == shapes
    assert flops in (None, facts.flops)


def test_functions_that_are_registered_in_tvm() -> None:
    task = matmul(16, 24, 32)
    (dag,) = rebuild_workload(task.workload_key)
    assert load_dag(dag).workload_key() == task.compute_dag.workload_key()


@pytest.mark.parametrize(
    "key", ["", "[]", '["nobody knows", 1]', '["matmul", "x"]', "7", '[["a"]]', "[{}, 1]"]
)
def test_other_keys_are_not_guessed(key: str) -> None:
    assert rebuild_workload(key) == []


def test_steps_of_another_workload() -> None:
    inspector = TvmInspector()
    fits = [steps_of(record).encode() for record in records(6)]
    others = [steps_of(record).encode() for record in records(6, 80)]
    unreadable = b'[["SP",7,0,8,[1],1]]'
    found = inspector.misfits(workload_entry()["dag"], (), 0, [*fits, *others, unreadable])
    assert sorted(found) == list(range(6, 13))
    assert found[6] == "a loop of 37 iterations is split as one of 80"


def test_no_dag() -> None:
    with pytest.raises(RecordError, match="TVM cannot read the DAG"):
        TvmInspector().describe("{}")


def test_a_workload_that_computes_nothing_is_refused() -> None:
    """Before its records are looked at; an import puts them into a bin of their own."""
    with pytest.raises(RecordError, match="has a size of 0"):
        TvmInspector().describe(tvm.ir.save_json(edges.empty_rows()))
