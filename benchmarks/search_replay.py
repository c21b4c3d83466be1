"""Which programs of recorded pools a model would measure first, and what they are worth.

    python -m benchmarks.search_replay STORE

A pool is some of the measured programs of one task of a held-out network on one device; a model
picks from it in batches, and a pick's measurement is looked up. So nothing runs here, and devices
that are not at hand can be compared. What a search finds that no pool has is left out.

**Regret** after n picks is 1 - latency of the pool's best program / that of the best pick, in
[0, 1]: 0 when it was found, 1 while no pick runs. Figures are means over tasks of means over seeds,
each with another pool and other random numbers; intervals hold 95 % of the means of resampled
tasks.

- `cdmpp`: the weights `evaluation`, as they are; `cdmpp-online`: learning from each batch, as in a
  search. Devices of which the training part has no task are as new to these as the networks are.
- `trees`: XGBoost on our features, grown anew from all picks after each batch, the first of which
  is random. `trees-recorded`: grown on the training part, on all devices.
- `analytic`: the roofline estimate; `random`.

It goes on where it was killed: by device, and with the trees, which are kept in `--folder`.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from numpy.random import Generator

from benchmarks.provenance import RESULTS, provenance, resume, write_json
from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.data import RecordStore, make_labels, official_split
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models import CostPredictor, TrainingRows, load_weights
from tvm_cdmpp.models.baselines import RooflinePredictor, TreePredictor
from tvm_cdmpp.train import load_features, rows_of_store, sample_tasks

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

SPLIT = "networks"
PICKS = (1, 5, 10, 32, 64)
DEVICES = (
    "x86-24t",
    "x86-avx2-4t",
    "intel-xeon-silver-4210",
    "nvidia-a100",
    "nvidia-rtx2080ti",
    "amd-mi100",
)
_RESAMPLES = 1000
_INTERVAL = (2.5, 97.5)

Learn: TypeAlias = Callable[[CostPredictor | None, TrainingRows, int], CostPredictor]
"""Returns a model that knows the picks so far, given the one before and a seed."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is replayed."""

    store: str
    """Content hash."""
    tasks: int = 20
    """Of a device at most."""
    pool: int = 1000
    """Programs of a task at most."""
    least: int = 128
    """Programs of a task at least."""
    batch: int = 16
    seeds: int = 2
    recorded: int = 200
    """Training programs of a task for the recorded trees."""


@dataclass(frozen=True)
class Arm:
    """How programs are picked: by a model, or at random without one."""

    start: Callable[[], CostPredictor | None]
    learn: Learn | None = None


def known_arms(recorded: CostPredictor, weights: CostPredictor) -> Mapping[str, Arm]:
    """Return the arms by name, given trees of recorded programs and the weights."""

    def learn_on(model: CostPredictor | None, rows: TrainingRows, seed: int) -> CostPredictor:
        assert model is not None
        model.fit(rows, seed=seed)
        return model

    def grow_anew(_: CostPredictor | None, rows: TrainingRows, seed: int) -> CostPredictor:
        trees = TreePredictor()
        trees.fit(rows, seed=seed)
        return trees

    return {
        "cdmpp": Arm(lambda: weights),
        "cdmpp-online": Arm(lambda: copy.deepcopy(weights), learn_on),
        "trees-recorded": Arm(lambda: recorded),
        "trees": Arm(lambda: None, grow_anew),
        "analytic": Arm(RooflinePredictor),
        "random": Arm(lambda: None),
    }


def pick(arm: Arm, pool: TrainingRows, *, batch: int, count: int, seed: int) -> Ints:
    """Return the programs that an arm would measure, in order.

    Parameters
    ----------
    arm
        How it picks.
    pool
        Programs of one task on one machine, in a random order: equal ones are picked as they come.
    batch
        Programs to pick at once.
    count
        To pick in all; the pool may have fewer.
    seed
        Of all that is random.
    """
    generator = np.random.default_rng(seed)
    asts, device = pool.batch(), pool.devices[pool.machine_of[0]]
    model, picked = arm.start(), np.zeros(0, np.int64)
    scores = _scores(model, asts, device, generator)
    while len(picked) < min(count, len(pool)):
        order = np.argsort(-scores, kind="stable")
        rest = order[~np.isin(order, picked)]
        picked = np.concatenate([picked, rest[: min(batch, count - len(picked))]])
        if arm.learn is not None and len(picked) < count:
            model = arm.learn(model, pool.take(picked), seed + len(picked))
            scores = _scores(model, asts, device, generator)
    return picked


def regrets(latencies_s: Floats, picked: Ints, numbers: Sequence[int] = PICKS) -> Floats:
    """Return the regret after some numbers of picks; see the module."""
    best_s = np.minimum.accumulate(latencies_s[picked])
    places = np.minimum(numbers, len(picked)) - 1
    found: Floats = 1.0 - latencies_s.min() / best_s[places]
    return found


def replay_device(
    pools: Iterator[list[TrainingRows]], arms: Mapping[str, Arm], batch: int
) -> dict[str, Any]:
    """Replay all tasks of a device.

    Parameters
    ----------
    pools
        Of each task, a pool for each seed.
    arms, batch
        How programs are picked.

    Returns
    -------
    figures
        How many tasks there were, and by arm and number of picks, mean and interval.
    """
    found: dict[str, list[Floats]] = {name: [] for name in arms}
    for of_task in pools:
        for name, arm in arms.items():
            of_seeds = [
                regrets(pool.latencies_s, pick(arm, pool, batch=batch, count=max(PICKS), seed=seed))
                for seed, pool in enumerate(of_task)
            ]
            found[name].append(np.mean(of_seeds, axis=0))
    figures = {name: _with_intervals(np.array(of_arm)) for name, of_arm in found.items()}
    return {"tasks": len(next(iter(found.values()))), "arms": figures}


def run(
    store: RecordStore, settings: Settings, devices: Sequence[str], folder: Path, path: Path
) -> dict[str, Any]:
    """Replay the devices that the file of results does not have yet, and return its content."""
    result = resume(_fresh(settings), path)
    missing = [device for device in devices if device not in result["devices"]]
    if not missing:
        return result
    split, labels = official_split(store, SPLIT), make_labels(store)
    usable = ~(labels.impossible | labels.contended | labels.noisy)
    features = load_features(store)

    def rows_of(part: Ints) -> TrainingRows:
        return rows_of_store(store, features, part, labels=labels)[0]

    train = split.train[usable[split.train]]
    trees = _recorded_trees(
        folder / f"trees-{store.content_hash[:16]}-{settings.recorded}.safetensors",
        lambda: rows_of(sample_tasks(store, train, settings.recorded)),
    )
    arms = known_arms(trees, load_weights("evaluation"))
    rows = rows_of(split.test[usable[split.test]])
    device_of = np.array(store.tasks["device"].to_pylist())
    trained = device_of[np.unique(store.columns("task")["task"].to_numpy()[train])]
    for device in missing:
        of_device = np.flatnonzero((device_of == device)[rows.tasks])
        pools = _pools(store, rows, of_device, settings)
        found = replay_device(pools, arms, settings.batch)
        trained_tasks = int(np.count_nonzero(trained == device))
        result["devices"][device] = {"trained_tasks": trained_tasks, **found}
        write_json(path, result)
        print(f"{device}: {found['tasks']} tasks", flush=True)
    return result


def _scores(
    model: CostPredictor | None, asts: CompactASTBatch, device: DeviceSpec, draw: Generator
) -> Floats:
    if model is None:
        return draw.random(len(asts))
    found = model.predict(asts, device)
    scores: Floats = found.runs_probability / found.order_s
    return scores


def _pools(
    store: RecordStore, rows: TrainingRows, of_device: Ints, settings: Settings
) -> Iterator[list[TrainingRows]]:
    """Yield pools of tasks drawn at random, always the same ones, of those with enough programs."""
    ran = of_device[np.isfinite(rows.latencies_s[of_device])]
    tasks, counts = np.unique(rows.tasks[ran], return_counts=True)
    large = tasks[counts >= settings.least].tolist()
    workloads = store.tasks["workload_id"].to_pylist()
    large.sort(key=lambda task: hashlib.sha256(str(workloads[task]).encode()).hexdigest())
    for task in large[: settings.tasks]:
        programs = of_device[rows.tasks[of_device] == task]
        yield [
            rows.take(np.random.default_rng((seed, task)).permutation(programs)[: settings.pool])
            for seed in range(settings.seeds)
        ]


def _recorded_trees(path: Path, recorded: Callable[[], TrainingRows]) -> TreePredictor:
    """Grow trees, or read those that were grown before."""
    if not path.exists():
        rows = recorded()
        print(f"growing trees on {len(rows):,} recorded programs", flush=True)
        trees = TreePredictor()
        trees.fit(rows, seed=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        trees.save(path)
    return TreePredictor.load(path)


def _with_intervals(regret: Floats) -> dict[str, Any]:
    """Return mean and interval by number of picks; `regret` has a row per task."""
    if not len(regret):
        return {}
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(regret), size=(_RESAMPLES, len(regret)))
    low, high = np.percentile(regret[drawn].mean(axis=1), _INTERVAL, axis=0)
    return {
        str(number): {"mean": float(mean), "low": float(a), "high": float(b)}
        for number, mean, a, b in zip(PICKS, regret.mean(axis=0), low, high, strict=True)
    }


def _fresh(settings: Settings) -> dict[str, Any]:
    return {
        **provenance("numpy", "torch", "xgboost"),
        "settings": asdict(settings),
        "split": SPLIT,
        "devices": {},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, help="folder of the record store")
    parser.add_argument("--devices", nargs="+", default=list(DEVICES), help="as the store has them")
    parser.add_argument("--tasks", type=int, default=Settings.tasks, help="of a device")
    parser.add_argument("--seeds", type=int, default=Settings.seeds, help="pools of a task")
    parser.add_argument("--recorded", type=int, default=Settings.recorded, help="of a task")
    parser.add_argument("--folder", type=Path, default=Path("search-replay"), help="of the trees")
    parser.add_argument("--out", type=Path, default=RESULTS / "search-replay.json")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    store = RecordStore.open(args.store)
    settings = Settings(
        store=store.content_hash, tasks=args.tasks, seeds=args.seeds, recorded=args.recorded
    )
    run(store, settings, args.devices, args.folder, args.out)


if __name__ == "__main__":
    main()
