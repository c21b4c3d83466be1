"""Small spaces of programs, and what TVM says of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.workloads import convolution, matrix, reduction
from benchmarks.workloads.tasks import ZooTask
from tests.tiny_tasks import auto_scheduler, matmul
from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.search.evolve.evolution import Evolution, EvolutionConfig
from tvm_cdmpp.search.evolve.programs import Programs
from tvm_cdmpp.search.evolve.space import ProgramSpace, fingerprints

CPU_TASKS: dict[str, Any] = {
    "tiny": lambda: matmul(16, 16, 16),
    "conv2d": ZooTask(convolution.conv2d_nhwc).make,
    "depthwise": ZooTask(convolution.depthwise).make,
    "softmax": ZooTask(reduction.softmax).make,
    "pool": ZooTask(reduction.average_pool).make,
    "attention": ZooTask(matrix.attention, layout=0).make,
}
GPU_TASKS: dict[str, Any] = {
    "matmul": ZooTask(matrix.matmul, "cuda").make,
    "grouped": ZooTask(convolution.conv2d_grouped, "cuda").make,
    "norm": ZooTask(reduction.layer_norm, "cuda").make,
    "metal": ZooTask(convolution.conv2d_1x1, "metal").make,
}
TASKS = CPU_TASKS | GPU_TASKS


@cache
def task(name: str) -> Any:
    return TASKS[name]()


@cache
def states(name: str) -> Any:
    population = 48 if name in CPU_TASKS else 8
    params = {
        "evolutionary_search_population": population,
        "sample_init_min_population": population // 2,
    }
    policy = auto_scheduler.SketchPolicy(task(name), params=params, seed=1, verbose=0)
    return policy.sample_initial_population()


def space(name: str) -> tuple[ProgramSpace, Programs]:
    made = ProgramSpace(task(name))
    return made, made.read_states(states(name))


def any_score(batch: CompactASTBatch) -> npt.NDArray[np.float64]:
    """Distinct scores without any sense, so that evolution goes everywhere."""
    return np.asarray(1.0 + (fingerprints(batch) >> np.uint64(11)), np.float64)


@cache
def wandered(name: str) -> tuple[ProgramSpace, Evolution]:
    """A space, and what some generations without a direction made in it."""
    made, start = space(name)
    config = EvolutionConfig(children=96, parents=512, pressure=1.0, looks=4, descents=2, sweeps=1)
    evolution = Evolution(made, any_score, start, config, seed=0)
    for _ in range(5):
        evolution.breed()
    evolution.descend()
    return made, evolution


def some(programs: Programs, count: int) -> Programs:
    order = np.random.default_rng(0).permutation(len(programs))[:count]
    return programs.take(np.sort(order))
