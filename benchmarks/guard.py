"""What the guard of a search is worth when the weights that it starts with are wrong.

    python -m benchmarks.guard STORE

plays searches on recorded programs and writes `results/guard.json`. A pool is a thousand recorded
programs of a task, of a network that the weights `evaluation` have not seen. In each round sixteen
programs of each pool are measured, that is, looked up: those with the best scores, one of them at
random; then the search learns. The regret is what the best program so far takes longer than the
best of the pool, as a fraction.

The weights are taken as they are, and spoiled in three ways: the order within tasks reversed, all
latencies those of a device 30 times slower, and reversed for the tasks of one operator. An arm of
trees alone, which has no weights, is what a guarded search must not be worse than.
"""

import argparse
import copy
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.provenance import RESULTS, provenance, write_json
from tvm_cdmpp.ast import COLUMN
from tvm_cdmpp.data import RecordStore, make_labels, official_split
from tvm_cdmpp.models import (
    AdditiveNetwork,
    Leaves,
    Output,
    TrainedPredictor,
    TrainingRows,
    TreePredictor,
    load_weights,
)
from tvm_cdmpp.search import Guard, GuardConfig
from tvm_cdmpp.train import load_features, operator_of_tasks, rows_of_store

Floats = npt.NDArray[np.float64]

DEVICES = {
    "x86-24t": ("conv2d", "depthwise_conv2d"),
    "nvidia-a100": ("conv2d", "matmul"),
}
"""One task of each operator is searched."""
SPLIT = "networks"
WRONG = "conv2d"
PRIORS = ("intact", "reversed", "slower", "operator")
ARMS = ("guarded", "unguarded")
POOL, ROUNDS, PICKS, EXPLORED = 1000, 5, 16, 1
_SLOWER = float(np.log(30.0))
_MIDDLE = -9.0
"""ln seconds about which predictions are reversed."""


class SpoiledNetwork(AdditiveNetwork):
    """A network whose ln latencies are reversed, for all programs or for some, or shifted."""

    shift: float = 0.0
    reverses: bool = False
    only: tuple[float, ...] = ()
    """Executions of the longest loop nest, log2, of the tasks that are reversed; all if none."""

    def forward(self, leaves: Leaves) -> Output:
        """Spoil what the network says."""
        said: Output = super().forward(leaves)
        log_s = said.log_latency + self.shift
        if self.reverses:
            wrong = torch.ones(len(log_s), dtype=torch.bool)
            if self.only:
                wrong = torch.isin(_longest(leaves), torch.tensor(self.only))
            log_s = torch.where(wrong, 2.0 * _MIDDLE - log_s, log_s)
        return replace(said, log_latency=log_s)


def _longest(leaves: Leaves) -> torch.Tensor:
    """Return what tells tasks apart whatever the schedule: how often their longest nest runs."""
    of_leaf = leaves.inputs[:, COLUMN["executions"]]
    programs = torch.repeat_interleave(torch.arange(len(leaves.counts)), leaves.counts)
    longest = torch.zeros(len(leaves.counts)).scatter_reduce(0, programs, of_leaf, "amax")
    return (10.0 * longest).round()


@dataclass(frozen=True)
class Pool:
    """The programs of a task."""

    task: int
    operator: str
    rows: TrainingRows

    @property
    def longest(self) -> tuple[float, ...]:
        """What `SpoiledNetwork.only` knows this task by."""
        batch = self.rows.batch()
        leaves = np.maximum.reduceat(batch.vectors[:, COLUMN["executions"]], batch.offsets[:-1])
        return tuple(np.unique((10.0 * leaves).round()).tolist())


def spoil(predictor: TrainedPredictor, prior: str, pools: Sequence[Pool]) -> TrainedPredictor:
    """Return a copy, spoiled as named."""
    made = copy.deepcopy(predictor)
    for expert in made.experts.values():
        network = SpoiledNetwork(expert.network.config)
        network.load_weights(expert.network.state_dict())
        expert.network = network.eval()
        network.shift = _SLOWER if prior == "slower" else 0.0
        network.reverses = prior in ("reversed", "operator")
        if prior == "operator":
            network.only = sum((p.longest for p in pools if p.operator == WRONG), ())
    return made


class Search:
    """A search with a network, guarded or not."""

    def __init__(self, predictor: TrainedPredictor, pools: Sequence[Pool], guard: Guard | None):
        self._predictor, self._guard = predictor, guard
        self._operators = {pool.task: pool.operator for pool in pools}
        self._known = TrainingRows.join([])
        self._updates = 0

    def log_s(self, pool: Pool) -> Floats:
        """Return what programs of a pool are ordered by, as ln seconds."""
        batch, device = pool.rows.batch(), pool.rows.devices[0]
        if self._guard is None:
            return np.log(self._predictor.predict(batch, device).order_s)
        found = self._guard.predict(
            self._predictor, batch, device, task=pool.task, operator=pool.operator
        )
        return np.log(found.order_s)

    def learn(self, rows: TrainingRows) -> None:
        """Learn as a search does."""
        if self._guard is not None:
            self._guard.judge(self._predictor, rows, self._known, self._operators)
        self._known = TrainingRows.join([self._known, rows])
        self._updates += 1
        self._predictor.fit(self._known, seed=self._updates)
        if self._guard is not None:
            self._guard.learn(self._known)

    def weights(self) -> dict[str, Any]:
        """Return the guard's weights by operator."""
        if self._guard is None:
            return {}
        found = {o: self._guard.weights(o) for o in sorted(set(self._operators.values()))}
        return {o: {n: round(w, 3) for n, w in of.items()} for o, of in found.items()}


class TreeSearch:
    """A search with trees alone, or with chance in the first round."""

    def __init__(self, seed: int, *, random: bool) -> None:
        self._trees, self._known = TreePredictor(GuardConfig().trees), TrainingRows.join([])
        self._generator = np.random.default_rng(seed) if random else None

    def log_s(self, pool: Pool) -> Floats:
        """Return what programs of a pool are ordered by, as ln seconds."""
        if self._generator is not None and not (self._known.tasks == pool.task).any():
            return self._generator.random(len(pool.rows))
        return np.log(self._trees.predict(pool.rows.batch(), pool.rows.devices[0]).order_s)

    def learn(self, rows: TrainingRows) -> None:
        """Grow trees anew."""
        self._known = TrainingRows.join([self._known, rows])
        self._trees = TreePredictor(GuardConfig().trees)
        self._trees.fit(self._known, seed=0)

    def weights(self) -> dict[str, Any]:
        """There are none."""
        return {}


def play(search: Search | TreeSearch, pools: Sequence[Pool], seed: int) -> list[list[float]]:
    """Play a search, and return the regret of each pool after each round."""
    generator = np.random.default_rng(seed)
    left = [np.ones(len(pool.rows), bool) for pool in pools]
    regrets = []
    for _ in range(ROUNDS):
        for pool, open_ in zip(pools, left, strict=True):
            order = np.argsort(search.log_s(pool), kind="stable")
            chosen = order[open_[order]][: PICKS - EXPLORED]
            open_[chosen] = False
            drawn = generator.permutation(np.flatnonzero(open_))[:EXPLORED]
            open_[drawn] = False
            search.learn(pool.rows.take(np.concatenate([chosen, drawn])))
        regrets.append(
            [
                float(p.rows.latencies_s[~o].min() / p.rows.latencies_s.min() - 1.0)
                for p, o in zip(pools, left, strict=True)
            ]
        )
    return regrets


def load_pools(store: RecordStore, part: str, seed: int) -> Iterator[tuple[str, list[Pool]]]:
    """Draw a task of each operator, and programs of it."""
    labels, features = make_labels(store), load_features(store)
    usable = np.isfinite(labels.latency_s) & (features.leaf_counts > 0)
    usable &= ~(labels.impossible | labels.contended | labels.noisy)
    rows = getattr(official_split(store, SPLIT), part)
    rows = rows[usable[rows]]
    tasks = store.columns("task")["task"].to_numpy()[rows]
    counts = np.bincount(tasks, minlength=len(store.tasks))
    operators = np.array(operator_of_tasks(store), str)
    devices = np.array(store.tasks["device"].to_pylist(), str)
    generator = np.random.default_rng(seed)
    for device, wanted in DEVICES.items():
        pools = []
        for operator in wanted:
            fit = np.flatnonzero((devices == device) & (operators == operator) & (counts >= POOL))
            if fit.size:
                task = int(generator.choice(fit))
                chosen = np.sort(generator.permutation(rows[tasks == task])[:POOL])
                found, _ = rows_of_store(store, features, chosen, labels=labels)
                pools.append(Pool(task, operator, found.take(np.arange(len(found)))))
        yield device, pools


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of the record store")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", default="test", help="of the split; test is what is reported")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    args = parser.parse_args(arguments)
    store, weights = RecordStore.open(args.store), load_weights("evaluation")
    assert isinstance(weights, TrainedPredictor)
    args.out.mkdir(parents=True, exist_ok=True)
    begin, runs = time.perf_counter(), list[dict[str, Any]]()
    result: dict[str, Any] = {
        **provenance("numpy", "torch", "xgboost-cpu"),
        "settings": {
            "store": store.content_hash, "weights": "evaluation", "split": SPLIT,
            "part": args.part, "pool": POOL, "rounds": ROUNDS, "picks": PICKS,
        },
    }  # fmt: skip
    for seed in range(args.seeds):
        for device, pools in load_pools(store, args.part, seed):
            for prior, arm, search in _searches(weights, pools, seed):
                regrets = play(search, pools, seed)
                runs.append(
                    {
                        "device": device, "seed": seed, "prior": prior, "arm": arm,
                        "operators": [pool.operator for pool in pools],
                        "regret": [[round(r, 4) for r in of_round] for of_round in regrets],
                        "weights": search.weights(),
                    }
                )  # fmt: skip
                means = [round(float(np.mean(r)), 3) for r in regrets]
                spent = f"{time.perf_counter() - begin:5.0f} s"
                print(spent, seed, device, prior, arm, means, flush=True)
        result |= {"summary": summarise(runs), "runs": runs}
        write_json(args.out / "guard.json", result)
    for row in result["summary"]:
        print(row)
    return 0


def _searches(
    weights: TrainedPredictor, pools: Sequence[Pool], seed: int
) -> Iterator[tuple[str, str, Search | TreeSearch]]:
    yield "none", "trees", TreeSearch(seed, random=False)
    yield "none", "trees after chance", TreeSearch(seed, random=True)
    for prior in PRIORS:
        for arm in ARMS:
            predictor = spoil(weights, prior, pools)
            guard = Guard(predictor, seed) if arm == "guarded" else None
            yield prior, arm, Search(predictor, pools, guard)


def summarise(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean regret over devices, seeds and tasks after each round, with its error."""
    rows = []
    for prior, arm in dict.fromkeys((run["prior"], run["arm"]) for run in runs):
        of_arm = [run["regret"] for run in runs if (run["prior"], run["arm"]) == (prior, arm)]
        found = np.concatenate([np.array(regret).T for regret in of_arm])
        error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
        rows.append(
            {
                "prior": prior, "arm": arm, "tasks": len(found),
                "regret": found.mean(axis=0).round(4).tolist(),
                "standard_error": error.round(4).tolist(),
            }
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    sys.exit(main())
