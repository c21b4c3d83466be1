"""How the error on networks that a predictor has not seen falls with their programs measured.

    python -m benchmarks.target_network STORE --out benchmarks/results/target-network.json

takes the test part of the official split `networks` on one device that the training knew, and the
`evaluation` weights. Programs are chosen at random or by `select_programs`, and each adaptation of
`benchmarks.adapting` turns their latencies into predictions for all others, which are scored. Those
that failed, or whose latency cannot be true, are left out. "perfect levels" knows the median of all
programs of each task, and tells what levels can bring at most.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adaptation import load_targets, score_parts
from benchmarks.adapting import (
    CLOSED_FORM,
    Adaptation,
    Adapting,
    FineTuning,
    Target,
    with_perfect_levels,
)
from benchmarks.provenance import provenance, write_json
from tvm_cdmpp.data import RecordStore
from tvm_cdmpp.models import TrainedPredictor, load_weights
from tvm_cdmpp.train import SelectionMethod, select_programs

_SPLIT = "networks"
_METHODS: tuple[SelectionMethod, ...] = ("random", "kmeans")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of the record store")
    parser.add_argument("--device", default="x86-24t")
    parser.add_argument("--per-task", type=int, default=200, help="programs at most")
    parser.add_argument("--budgets", default="50,200,1000")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("target-network.json"))
    args = parser.parse_args(arguments)
    store, predictor = RecordStore.open(args.store), load_weights("evaluation")
    assert isinstance(predictor, TrainedPredictor)
    ((target, not_used),) = load_targets(store, predictor, args.per_task, [args.device], _SPLIT)
    adaptations: dict[str, Adaptation] = {
        **CLOSED_FORM,
        "perfect levels": with_perfect_levels,
        "adapt": Adapting(predictor),
        "fine-tuned": FineTuning.of_store(store, predictor, _SPLIT),
    }
    budgets = [int(budget) for budget in args.budgets.split(",")]
    runs = [
        outcome
        for seed in range(args.seeds)
        for budget in budgets
        for outcome in _compare(target, adaptations, budget, seed)
    ]
    content = {
        **provenance("numpy", "torch", "scipy"),
        "store": store.content_hash,
        "device": target.device,
        "programs": len(target.rows),
        "tasks": len(np.unique(target.rows.tasks)),
        "not_used": not_used,
        "runs": runs,
    }
    write_json(args.out, content)
    return 0


def _compare(
    target: Target, adaptations: Mapping[str, Adaptation], budget: int, seed: int
) -> list[dict[str, Any]]:
    found = []
    for method in _METHODS:
        measured = select_programs(target.features, target.rows.tasks, budget, method, seed)
        for name, adaptation in adaptations.items():
            begin = time.perf_counter()
            log_predicted, _ = adaptation(target, measured)
            scores = score_parts(target, log_predicted, measured, np.ones(len(target.rows), bool))
            outcome = {"seed": seed, "budget": budget, "method": method, "adaptation": name}
            seconds = round(time.perf_counter() - begin, 3)
            found.append({**outcome, "seconds": seconds, "scores": scores["all"]})
            print(outcome, scores["all"], flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
