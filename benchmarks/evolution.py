"""Candidates per second of evolution without TVM, and how good what it finds is.

`python -m benchmarks.evolution` writes `results/evolution.json`.

- Everything is on one core, in the process's own CPU time, so that a busy machine costs little.
- Both searches start from programs that TVM samples, ask the same model with the same weights, and
  get the same seconds, sampling left out; TVM's is `SketchPolicy.evolutionary_search`, as many
  times as there is time for, with the whole of each run counted.
- Quality is what the model says of the best program found: lower is better. Nothing is measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

if not __package__:  # started as a file, so that only its own folder is searched
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.provenance import RESULTS, provenance, write_json
from benchmarks.workloads.tasks import throughput_tasks
from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.search import CDMPPModel
from tvm_cdmpp.search.evolve.evolution import Evolution
from tvm_cdmpp.search.evolve.space import ProgramSpace

auto_scheduler = load_tvm().auto_scheduler
REQUIRED_PER_SECOND = 20_000


class Stopwatch:
    """CPU seconds spent in a function."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed."""

        def timed(*args: Any, **keywords: Any) -> Any:
            begin = time.process_time()
            try:
                return function(*args, **keywords)
            finally:
                self.seconds += time.process_time() - begin

        return timed


def policy_of(task: Any, model: Any, seed: int, **params: int) -> Any:
    """Return TVM's search of a task."""
    defaults = auto_scheduler.SketchPolicy.DEFAULT_PARAMS
    return auto_scheduler.SketchPolicy(
        task, model, params={**defaults, **params}, seed=1 + seed, verbose=0
    )


def sample(task: Any, seed: int) -> Any:
    """Return the programs that both searches start from."""
    sizes = {"evolutionary_search_population": 64, "sample_init_min_population": 48}
    return policy_of(task, auto_scheduler.RandomModel(), seed, **sizes).sample_initial_population()


def evolve(task: Any, start: Any, seconds: float, seed: int) -> dict[str, Any]:
    """Breed for some seconds, then descend, and say where the time went."""
    model, space = CDMPPModel(), ProgramSpace(task)
    describing, scoring, bred = Stopwatch(), Stopwatch(), 0
    space.describe = describing.around(space.describe)  # type: ignore[method-assign]

    def score(batch: Any) -> Any:
        found = model.predict_asts(task, batch)
        return found.runs_probability / found.latency_s

    timed_score = scoring.around(score)
    begin = time.process_time()
    evolution = Evolution(space, timed_score, space.read_states(start), seed=seed)
    descent_s = 0.0
    while time.process_time() - begin + descent_s < seconds:
        if not evolution.breed():
            break
        bred += evolution.config.children
        descent_s = 0.1 * (time.process_time() - begin)
    breeding_s = time.process_time() - begin
    scored = evolution.num_scored
    split = {
        "describe": describing.seconds,
        "score": scoring.seconds,
        "breed": breeding_s - describing.seconds - scoring.seconds,
    }
    evolution.descend()
    return {
        "bred_per_second": bred / breeding_s,
        "scored_per_second": scored / breeding_s,
        "scored": evolution.num_scored,
        "seconds": time.process_time() - begin,
        "microseconds": {part: 1e6 * spent / max(1, scored) for part, spent in split.items()},
        "best_ms": 1e3 / float(evolution.scores[0]),
    }


def evolve_by_tvm(task: Any, start: Any, seconds: float, seed: int) -> dict[str, Any]:
    """Let TVM evolve, run after run, each from the best of all before, for some seconds."""
    model = CDMPPModel()
    known: dict[str, float] = {}
    asked = 0
    predict = model.predict

    def counted(of: Any, states: Any) -> Any:
        nonlocal asked
        asked += len(states)
        return predict(of, states)

    model.predict = counted  # type: ignore[method-assign]
    population, best, begin, run = start, 0.0, time.process_time(), 0
    while True:
        policy = policy_of(task, model, 1000 * (seed + 1) + run)
        found = list(policy.evolutionary_search(population, 128))
        scores = predict(task, found)
        best, run = max(best, *scores), run + 1
        population = [*start, *found]
        known |= {str(state): score for state, score in zip(found, scores, strict=True)}
        spent = time.process_time() - begin
        if spent + spent / run > seconds:
            break
    return {
        "asked_per_second": asked / spent,
        "runs": run,
        "seconds": spent,
        "best_ms": 1e3 / best,
    }


def compare(seconds: float, seeds: int, names: list[str]) -> list[dict[str, Any]]:
    """Run both on every task."""
    rows = []
    for zoo_task in throughput_tasks():
        if names and not any(name in zoo_task.name for name in names):
            continue
        task = zoo_task.make()
        for seed in range(seeds):
            start = sample(task, seed)
            # TVM's run cannot be cut short, so it sets how long both take.
            tvm = evolve_by_tvm(task, start, seconds, seed)
            ours = evolve(task, start, tvm["seconds"], seed)
            rows.append({"task": zoo_task.name, "seed": seed, "evolution": ours, "tvm": tvm})
            ratio = tvm["best_ms"] / ours["best_ms"]
            print(
                f"{zoo_task.name} seed {seed}: {ours['scored_per_second']:.0f} scored/s of "
                f"{ours['bred_per_second']:.0f} bred/s, TVM {tvm['asked_per_second']:.0f} asked/s; "
                f"best {ours['best_ms']:.4g} ms, TVM's {tvm['best_ms']:.4g} ms in "
                f"{tvm['seconds']:.1f} s: {ratio:.2f} times; microseconds "
                + ", ".join(f"{part} {spent:.1f}" for part, spent in ours["microseconds"].items()),
                flush=True,
            )
    return rows


def main() -> None:
    """Compare, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of CPU for each search")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="*", default=[], help="parts of names")
    parser.add_argument("--out", type=Path, default=RESULTS / "evolution.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = compare(arguments.seconds, arguments.seeds, arguments.tasks)
    ratios = [row["tvm"]["best_ms"] / row["evolution"]["best_ms"] for row in rows]
    rates = [row["evolution"]["scored_per_second"] for row in rows]
    summary = {
        "geometric_mean_ratio": float(np.exp(np.mean(np.log(ratios)))),
        "smallest_ratio": min(ratios),
        "scored_per_second": {"median": float(np.median(rates)), "least": min(rates)},
        "required_per_second": REQUIRED_PER_SECOND,
    }
    print(summary)
    write_json(arguments.out, provenance("numpy", "torch") | {"summary": summary, "rows": rows})


if __name__ == "__main__":
    main()
