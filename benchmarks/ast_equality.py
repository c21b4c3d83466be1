"""The fast path against the exact one, leaf by leaf and field by field, over the whole zoo.

`python benchmarks/ast_equality.py` draws states of every task with Ansor's own sketch policy,
extracts each both ways, and writes `results/ast-equality.json`. No GPU is needed.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:  # started as a file, so that only its own folder is searched
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.provenance import RESULTS, provenance, write_json
from benchmarks.workloads.tasks import REFUSED, ZooTask, make_task, sample_states, zoo
from tvm_cdmpp.ast import Leaf
from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.devices import Hardware
from tvm_cdmpp.errors import LoweringError, RecordError
from tvm_cdmpp.extract import (
    Difference,
    LayoutRewrite,
    StepExtractor,
    analyse,
    describe,
    differences,
    dump_records,
    extract_exact,
    vector_differences,
)

tvm = load_tvm()

STATES_PER_TASK = 48
FAST_REFUSES = "refused by the fast path only"
EXACT_REFUSES = "refused by the exact path only"


@dataclass
class Agreement:
    """How far the two paths agree on one task."""

    task: str
    states: int = 0
    """Distinct states; simple tasks have few."""
    agreeing: int = 0
    """States with no difference in any leaf or computation vector."""
    refused: int = 0
    """Of these, states that both paths refuse."""
    leaves: int = 0
    opaque_reads: int = 0
    """Reads of the task whose index is data or not affine, which both paths bound."""
    causes: dict[str, int] = field(default_factory=dict)
    """Fields that differ, and in how many states."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first difference of each cause."""
    sampling_s: float = 0.0
    exact_s: float = 0.0
    fast_s: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print a table, write the result; 1 if any state differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states-per-task", type=int, default=STATES_PER_TASK, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="TEXT", help="tasks whose name has it")
    parser.add_argument("--out", type=Path, default=RESULTS / "ast-equality.json")
    options = parser.parse_args(arguments)
    tasks = [task for task in zoo() if options.only in task.name]
    origin = provenance()
    rows = []
    print(f"{'task':42} states agree leaves seconds  differences, in states")
    for task in tasks:
        row = compare_task(task, options.states_per_task, options.seed)
        rows.append(row)
        print(_line(row), flush=True)
    total = _total(rows)
    print(_line(total))
    result = {
        **origin,
        "states_per_task": options.states_per_task,
        "seed": options.seed,
        "refused_by_ansor": {builder.__name__: _refusal(builder) for builder in REFUSED},
        "total": {"tasks": len(rows), **_as_json(total)},
        "tasks": [_as_json(row) for row in rows],
    }
    write_json(options.out, result)
    return int(total.agreeing != total.states)


def compare_task(zoo_task: ZooTask, num_states: int, seed: int) -> Agreement:
    """Draw states of a task and extract each both ways."""
    begin = time.perf_counter()
    task = zoo_task.make()
    states = sample_states(task, num_states, seed)
    row = Agreement(zoo_task.name, len(states), sampling_s=time.perf_counter() - begin)

    begin = time.perf_counter()
    exact = [_exact(task, state) for state in states]
    row.exact_s = time.perf_counter() - begin

    begin = time.perf_counter()
    graph = analyse(task.compute_dag)
    row.opaque_reads = graph.num_opaque_reads
    hardware = Hardware.of(task.hardware_params)
    extractor = StepExtractor(graph, hardware, LayoutRewrite(int(task.layout_rewrite_option)))
    records = dump_records(task, states)
    fast = extractor.leaves(records)
    batch, _ = extractor.extract(records)
    vectors = np.split(batch.vectors, batch.offsets[1:-1])
    row.fast_s = time.perf_counter() - begin

    causes: Counter[str] = Counter()
    for number, (one, other) in enumerate(zip(fast, exact, strict=True)):
        described = None if isinstance(other, LoweringError) else describe(other, hardware)
        row.leaves += 0 if described is None else len(described)
        row.refused += isinstance(one, RecordError) and isinstance(other, LoweringError)
        found = list(_differences(one, other, vectors[number], described))
        row.agreeing += not found
        causes.update({difference.cause for difference in found})
        for difference in found:
            row.examples.setdefault(difference.cause, f"state {number}, {difference}")
    row.causes = dict(causes.most_common())
    return row


def _exact(task: Any, state: Any) -> list[Leaf] | LoweringError:
    try:
        return extract_exact(task, state)
    except LoweringError as error:
        return error


def _differences(
    fast: list[Leaf] | RecordError,
    exact: list[Leaf] | LoweringError,
    fast_vectors: Any,
    exact_vectors: Any,
) -> Iterator[Difference]:
    if isinstance(fast, RecordError) or isinstance(exact, LoweringError):
        if not isinstance(exact, LoweringError):
            yield Difference(FAST_REFUSES, -1, str(fast), f"{len(exact)} leaves")
        elif not isinstance(fast, RecordError):
            yield Difference(EXACT_REFUSES, -1, f"{len(fast)} leaves", str(exact))
        return
    # Vectors are made from the facts, so those of other facts say nothing new.
    facts = differences(fast, exact)
    yield from facts or vector_differences(fast_vectors, exact_vectors)


def _total(rows: Sequence[Agreement]) -> Agreement:
    causes: Counter[str] = Counter()
    for row in rows:
        causes.update(row.causes)
    total = Agreement(f"{len(rows)} tasks", causes=dict(causes.most_common()))
    for name in ("states", "agreeing", "refused", "leaves", "opaque_reads"):
        setattr(total, name, sum(getattr(row, name) for row in rows))
    for name in ("sampling_s", "exact_s", "fast_s"):
        setattr(total, name, sum(getattr(row, name) for row in rows))
    return total


def _refusal(builder: Any) -> str:
    """Return Ansor's own words; empty if it has learned the operator."""
    try:
        sample_states(make_task(builder), 1)
    except tvm.TVMError as error:
        return str(error).strip().splitlines()[-1].split("/")[-1]
    return ""


def _line(row: Agreement) -> str:
    seconds = row.sampling_s + row.exact_s + row.fast_s
    causes = ", ".join(f"{cause} {count}" for cause, count in row.causes.items()) or "-"
    return f"{row.task:42} {row.states:6} {row.agreeing:5} {row.leaves:6} {seconds:7.1f}  {causes}"


def _as_json(row: Agreement) -> dict[str, Any]:
    """Without what says nothing, as most rows have no differences."""
    values = {
        name: round(value, 2) if isinstance(value, float) else value
        for name, value in asdict(row).items()
    }
    return {name: value for name, value in values.items() if value or name == "agreeing"}


if __name__ == "__main__":
    sys.exit(main())
