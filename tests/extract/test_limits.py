"""Which programs are beyond a GPU's limits, against TVM's own verdict after lowering."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from benchmarks.workloads import convolution, matrix, reduction
from benchmarks.workloads.tasks import Builder, ZooTask, sample_states
from tests.extract.records import record_of
from tests.extract.sampling import auto_scheduler, te, tvm
from tvm_cdmpp.devices.hardware import Hardware
from tvm_cdmpp.extract.dag import analyse
from tvm_cdmpp.extract.extractor import StepExtractor
from tvm_cdmpp.extract.handover import dump_records
from tvm_cdmpp.extract.limits import LIMITS, ExceededLimit

WIDE = 1 << 20  # bytes per vector: more than any program has
NONE = 2**31 - 1


@cache
def drawn(builder: Builder) -> tuple[Any, list[Any]]:
    task = ZooTask(builder, "cuda").make()
    return task, sample_states(task, 36)


@cache
def verdicts(
    builder: Builder, *, vector: int = WIDE, shared: int = 49152, local: int = NONE,
    threads: int = 1024, vthreads: int = 8,
) -> tuple[list[bool], dict[int, ExceededLimit]]:  # fmt: skip
    """Whether TVM refuses each program on a GPU of these limits, and what is found here."""
    task, states = drawn(builder)
    limits = auto_scheduler.HardwareParams(-1, vector, 64, shared, local, threads, vthreads, 32)
    limited = auto_scheduler.SearchTask(
        compute_dag=task.compute_dag, workload_key=task.workload_key, target=task.target,
        hardware_params=limits,
    )  # fmt: skip
    features = auto_scheduler.feature.get_per_store_features_from_states(states, limited)
    extractor = StepExtractor(analyse(task.compute_dag), Hardware.of(limits))
    _, errors, exceeded = extractor.extract_checked(dump_records(task, states))
    assert not errors
    # TVM has no features for what it refuses, and `XGBModel` gives it minus infinity.
    return [not np.any(rows) for rows in features], exceeded


@pytest.mark.parametrize(
    "builder",
    [
        matrix.matmul,
        convolution.conv2d_nchw,
        reduction.softmax,
    ],
    ids=lambda builder: builder.__name__,
)
@pytest.mark.parametrize(
    "limits",
    [{"threads": 64}, {"shared": 2048}, {"local": 64}, {"vthreads": 2}],
    ids=lambda limits: next(iter(limits)),
)
def test_the_verdict_on_every_program_is_that_of_tvm(
    builder: Builder, limits: dict[str, int]
) -> None:
    refused, exceeded = verdicts(builder, **limits)
    assert [number in exceeded for number in range(len(refused))] == refused


@pytest.mark.parametrize(
    ("limit", "place"),
    [
        ({"threads": 64}, 0), ({"shared": 2048}, 2), ({"local": 64}, 3), ({"vthreads": 2}, 4),
        ({"vector": 8}, 5),
    ],
)  # fmt: skip
def test_every_limit_is_exceeded_and_named(limit: dict[str, int], place: int) -> None:
    _, exceeded = verdicts(matrix.matmul, **limit)
    found = [excess for excess in exceeded.values() if excess.limit == LIMITS[place]]
    assert found
    for excess in found:
        assert excess.got > excess.allowed == next(iter(limit.values()))
        assert str(excess) == f"{excess.got} {LIMITS[place]}; {excess.allowed} are allowed"


def test_vectors_that_are_too_wide() -> None:
    """TVM takes apart some that its guards tell lanes of; which ones is followed almost always."""
    right = found = count = 0
    for builder in (matrix.matmul, convolution.conv2d_nchw):
        refused, exceeded = verdicts(builder, vector=4)
        right += sum((number in exceeded) == no for number, no in enumerate(refused))
        found += sum(excess.limit == LIMITS[5] for excess in exceeded.values())
        count += len(refused)
    assert found > 2
    assert right >= 0.97 * count


def test_loops_of_a_block_over_one_gpu_index_have_one_extent() -> None:
    a = te.placeholder((64, 64), name="A")
    b = te.compute((64, 64), lambda i, j: a[i, j] + 1, name="B")
    c = te.compute((64, 64), lambda i, j: b[i, j] * 2, name="C")
    graph = analyse(auto_scheduler.ComputeDAG([a, c]))
    bound = [["AN", 2, 0, 5], ["CA", 1, 2, 0], ["AN", 2, 1, 6]]
    steps = [*bound, ["SP", 1, 1, 64, [32], 1], ["AN", 1, 2, 6]]
    extractor = StepExtractor(graph, Hardware(threads=1024, shared_bytes=49152))
    _, errors, exceeded = extractor.extract_checked(record_of(steps) + record_of(bound))
    assert not errors
    assert exceeded == {0: ExceededLimit(LIMITS[1], 64, 32)}


def test_a_cpu_has_no_such_limits() -> None:
    task = ZooTask(matrix.matmul).make()
    states = sample_states(task, 8)
    extractor = StepExtractor(analyse(task.compute_dag), Hardware.of(task.hardware_params))
    assert extractor.extract_checked(dump_records(task, states))[2] == {}
    assert tvm.target.Target(task.target).kind.name == "llvm"


def test_programs_beyond_a_limit_have_their_leaves() -> None:
    task, states = drawn(matrix.matmul)
    graph, records = analyse(task.compute_dag), dump_records(task, states)
    free = StepExtractor(graph, Hardware(cores=-1, vector_bytes=WIDE)).extract(records)[0]
    limited = Hardware(cores=-1, vector_bytes=WIDE, threads=1)
    batch, _, exceeded = StepExtractor(graph, limited).extract_checked(records)
    assert len(exceeded) > 30
    np.testing.assert_array_equal(batch.positions, free.positions)
    np.testing.assert_array_equal(batch.offsets, free.offsets)
