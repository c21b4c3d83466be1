"""Matrix products under many schedules, made without TVM."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.ast.leaf import OP_CLASSES
from tvm_cdmpp.extract.extractor import StepExtractor
from tvm_cdmpp.extract.index import axis_index
from tvm_cdmpp.extract.stage import Read, StageSpec, TaskGraph
from tvm_cdmpp.models.contract import FloatArray, Prediction

Steps = list[Any]


def matmul_graph(n: int = 256, m: int = 256, k: int = 256) -> TaskGraph:
    """C = A x B, then relu: stages A, B, C and D."""
    i, j, reduced = axis_index(0), axis_index(1), axis_index(2)
    counts = dict.fromkeys(OP_CLASSES, 0)
    multiply, add, compare = (
        tuple((counts | {name: 1}).values()) for name in ("float_mul", "float_add", "float_compare")
    )
    product = (Read(0, (i, reduced)), Read(1, (reduced, j)))
    return TaskGraph(
        (
            StageSpec("A", (n, k), 4, 2, (n, k), is_placeholder=True),
            StageSpec("B", (k, m), 4, 2, (k, m), is_placeholder=True),
            StageSpec("C", (n, m), 4, 2, (n, m, k), product, multiply, add),
            StageSpec("D", (n, m), 4, 2, (n, m), (Read(2, (i, j)),), compare, is_output=True),
        )
    )


def parallel_rows(rows: int) -> Steps:
    """Blocks of `rows` rows in parallel, columns innermost and vectorized."""
    return [
        ["SP", 2, 0, 0, [rows], 1],
        ["SP", 2, 2, 0, [16], 1],
        ["RE", 2, [0, 1, 2, 4, 3]],
        ["AN", 2, 0, 3],
        ["AN", 2, 4, 2],
    ]


def random_steps(generator: np.random.Generator) -> Steps:
    """Tile, order, annotate, unroll; sometimes a cache stage, which adds a leaf."""
    steps: Steps = []
    stage = 2
    if generator.random() < 0.5:
        steps.append(["CHW", 2, "global"])
    factors = [int(f) for f in 2 ** generator.integers(0, 7, 3)]
    steps += [
        ["SP", stage, 2, 0, [factors[2]], 1],
        ["SP", stage, 1, 0, [factors[1]], 1],
        ["SP", stage, 0, 0, [factors[0]], 1],
    ]
    inner = [1, 3, 5] if generator.random() < 0.5 else [5, 1, 3]
    steps.append(["RE", stage, [0, 2, 4, *inner]])
    if generator.random() < 0.7:
        steps.append(["AN", stage, 0, 3])
    if inner[-1] == 3 and generator.random() < 0.7:
        steps.append(["AN", stage, 5, 2])
    steps.append(["PR", stage, 0, f"auto_unroll_max_step${generator.choice([0, 16, 64, 512])}"])
    return steps


def log_lines(programs: Sequence[Steps]) -> bytes:
    """The lines of an Ansor log; all but the steps is left empty."""
    records = [
        {"i": [["", "", [], "", 0, []], [[], steps]], "r": [[0], 0, 0, 0], "v": "v0.6"}
        for steps in programs
    ]
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def extract(programs: Sequence[Steps], graph: TaskGraph | None = None) -> CompactASTBatch:
    batch, errors = StepExtractor(graph or matmul_graph()).extract(log_lines(programs))
    assert errors == {}
    return batch


def random_batch(num_programs: int, seed: int = 0) -> CompactASTBatch:
    """Programs of three or four leaves."""
    generator = np.random.default_rng(seed)
    return extract([random_steps(generator) for _ in range(num_programs)])


def both(prediction: Prediction) -> tuple[FloatArray, FloatArray]:
    """Latencies, and probabilities that programs run."""
    return prediction.latency_s, prediction.runs_probability
