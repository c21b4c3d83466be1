"""Whether edits of a schedule that are called good are good when they are measured.

    python -m benchmarks.network_latency --prepare --networks squeezenet,resnet-18 --batches 1
    python -m benchmarks.edits --networks squeezenet,resnet-18 --out benchmarks/results/edits.json

The first line makes small logs of the networks. Of each task one program is taken from the log, the
one with the median latency, as there is something left to gain; and edited: another unroll limit,
or a factor of one tile moved to another. Whether an edit is better is said by its prediction, and
by its explanation against the program, see `agreement`. Program and edits are measured side by
side, in passes, each of which begins with another one; medians count. Edits that change the
measured latency by less than 5 % tell nothing and are left out, and counted; an edit is called good
if it is said to save as much. `--weights shipped,FILE` asks several weights, such as those that
`tvm-cdmpp adapt` wrote for this machine.

Shares come with 90 % intervals, tasks being resampled. Beside them stands the share of all edits
that are good: what choosing at random would give. Each task is kept below `--folder` when it is
measured, so a run that was killed goes on.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.agreement import SAYINGS, said, shares
from benchmarks.network_latency import Case
from benchmarks.provenance import provenance, write_json
from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.bridge import (
    default_target,
    device_of,
    latency_s,
    load_tvm,
    read_records,
    task_names,
)
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.measure import MeasureOptions, MeasureSession
from tvm_cdmpp.models import TrainedPredictor, load_weights
from tvm_cdmpp.networks import extract_tasks
from tvm_cdmpp.search.evolve.mutation import UNROLL_LIMITS, NumberMutation
from tvm_cdmpp.search.evolve.programs import Programs
from tvm_cdmpp.search.evolve.space import ProgramSpace

auto_scheduler = load_tvm().auto_scheduler

_PASSES = 3
_DRAWS = 64


@dataclass(frozen=True)
class Edited:
    """A program, and edits of it; the program comes first in `batch` and `states`."""

    kinds: tuple[str, ...]
    """Of each edit: `unrolling` or `tile`."""
    batch: CompactASTBatch
    states: tuple[Any, ...]


def main() -> None:
    """Measure what is missing, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", required=True)
    parser.add_argument("--per-kind", type=int, default=2, help="edits of each kind and task")
    parser.add_argument("--folder", type=Path, default=Path("latency-runs"))
    parser.add_argument(
        "--weights", default="shipped", help="what explains: shipped, evaluation or files, A,B"
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    predictors = {Path(name).name: load_weights(name) for name in args.weights.split(",")}
    device = device_of(default_target())
    rows: list[dict[str, Any]] = []
    generator = np.random.default_rng(0)
    with MeasureSession():
        for name in args.networks.split(","):
            case = Case(name, 1, args.folder / f"{name}.b1")
            kept = case.folder / "edits.json"
            known = json.loads(kept.read_bytes()) if kept.exists() else {}
            for number, (task_name, task, state) in enumerate(medians(case)):
                edited = edits_of(task, state, args.per_kind, number)
                if len(known.get(task_name, ())) != len(edited.states):
                    known[task_name] = measure(edited, task)
                    write_json(kept, known)
                    print(f"{case.folder.name}: {task_name}", flush=True)
                for weights, predictor in predictors.items():
                    assert isinstance(predictor, TrainedPredictor)
                    for row in _judged(edited, known[task_name], predictor, device, generator):
                        rows.append({"weights": weights, "network": name, "task": task_name, **row})
    result = {
        **provenance("numpy", "torch"),
        "tasks": len({(row["network"], row["task"]) for row in rows}),
        "failed": sum(row["measured"] is None for row in rows) // len(predictors),
        "weights": {
            weights: {
                kind: {
                    by: shares(
                        [r for r in rows if r["weights"] == weights and kind in ("any", r["kind"])],
                        by,
                    )
                    for by in SAYINGS
                }
                for kind in ("unrolling", "tile", "any")
            }
            for weights in predictors
        },
        "rows": rows,
    }
    write_json(args.out, result)
    print(json.dumps(result["weights"], indent=1))


def medians(case: Case) -> Iterator[tuple[str, Any, Any]]:
    """Yield the names and tasks of a network, with the program of median latency in the log."""
    tasks, _ = extract_tasks(case.load(), default_target())
    found: dict[str, list[tuple[float, Any]]] = {}
    for measured, result in read_records(case.log)[0].values():
        try:
            one = (latency_s(result), measured.state)
        except RecordError:
            continue
        if np.isfinite(one[0]):
            found.setdefault(str(measured.task.workload_key), []).append(one)
    for name, task in zip(task_names(tasks), tasks, strict=True):
        programs = sorted(found.get(str(task.workload_key), []), key=lambda pair: pair[0])
        if programs:
            yield name, task, programs[len(programs) // 2][1]


def edits_of(task: Any, state: Any, per_kind: int, seed: int) -> Edited:
    """Edit a program; one seed gives the same edits, all of which TVM can apply."""
    space, generator = ProgramSpace(task), np.random.default_rng(seed)
    base = space.read_states([state])
    family = space.skeletons.families[space.skeletons.family[int(base.skeletons[0])]]
    mutation = NumberMutation(family, UNROLL_LIMITS[space.kind], generator)
    chosen, kinds, seen = [base], [], {int(base.keys()[0])}
    for kind, change in (("unrolling", mutation.change_unrolling), ("tile", mutation.move_factors)):
        drawn = base.take(np.zeros(_DRAWS, np.int64))
        drawn = drawn.take(change(drawn.numbers))
        drawn = drawn.take(space.describe(drawn)[1]) if len(drawn) else drawn
        taken = 0
        for place, key in enumerate(drawn.keys().tolist()):
            if taken < per_kind and key not in seen and space.states(drawn.take([place]))[0]:
                seen.add(key)
                chosen.append(drawn.take([place]))
                kinds.append(kind)
                taken += 1
    programs = Programs.join(chosen)
    batch, usable = space.describe(programs)
    assert usable.all(), "the program of the log cannot be described"
    return Edited(tuple(kinds), batch, tuple(space.states(programs)))


def measure(edited: Edited, task: Any) -> list[float | None]:
    """Measure a program and its edits; return medians in seconds, None for what does not run."""
    options = MeasureOptions()
    builder, runner = options.builder(), options.runner(on_cpu=True)
    samples: list[list[float]] = [[] for _ in edited.states]
    for number in range(_PASSES):
        order = np.roll(np.arange(len(edited.states)), -number).tolist()
        # What runs first after a build may take twice as long: it runs once more before the others.
        inputs = [
            auto_scheduler.MeasureInput(task, edited.states[place]) for place in (order[0], *order)
        ]
        _, *results = runner.run(inputs, builder.build(inputs, verbose=0), verbose=0)
        for place, result in zip(order, results, strict=True):
            if int(result.error_no) == 0:
                samples[place] += [float(cost.value) for cost in result.costs]
    return [float(np.median(found)) if found else None for found in samples]


def _judged(
    edited: Edited,
    latencies_s: Sequence[float | None],
    predictor: TrainedPredictor,
    device: DeviceSpec,
    generator: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    """Yield what is said of each edit of a program, and what was measured."""
    base_s, *edits_s = latencies_s
    for number, (kind, edit_s) in enumerate(zip(edited.kinds, edits_s, strict=True), start=1):
        change = None if base_s is None or edit_s is None else float(np.log(edit_s / base_s))
        yield {
            "kind": kind,
            **said(edited.batch.take([0, number]), predictor, device, generator),
            "measured": change,
        }


if __name__ == "__main__":
    main()
