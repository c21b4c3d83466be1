"""What `tvm-cdmpp adapt` is worth, on devices that the weights have not seen.

    python -m benchmarks.onboarding STORE --weights FILE

takes recorded programs of the devices that the weights' official split holds out (`devices` or
`vendor`, as in `tvm-cdmpp train STORE --split devices`), and writes one file for each device to
`results/onboarding`, or `results/onboarding-vendor`, after every step, so a stopped run goes on
where it was, and devices may be run side by side (`--devices`). As in `benchmarks.adaptation`, half
of a device's tasks, drawn by each seed, may be measured, and the error is that on the other half.

- adapt: batch by batch with sources, which ends by itself before the budget is spent or not;
- its choice, no sources: the programs that the whole budget buys by the same choice, learned from
  with an anchor;
- random: as many programs drawn at random, with sources;
- one network: all of the budget on programs of one network, with sources;
- from scratch: the same programs as `its choice`, learned by a network that knew nothing;
- meta-learned: these programs and the anchor, from weights that were prepared by Reptile (Nichol et
  al., 2018): again and again, a few steps on some programs of one source device, then a part of the
  way there.
"""

import argparse
import copy
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.adaptation import half_of_tasks, load_targets, score_parts
from benchmarks.adapting import FineTuning, Ints, Target
from benchmarks.choice_tables import onboarding_section
from benchmarks.provenance import RESULTS, provenance, resume, write_json
from tvm_cdmpp.data import RecordStore
from tvm_cdmpp.models import (
    AdditiveNetwork,
    Expert,
    TrainedPredictor,
    TrainingRows,
    load_weights,
    make_leaves,
)
from tvm_cdmpp.train import (
    FINETUNE_CONFIG,
    Learner,
    Onboarding,
    OnboardSettings,
    RecordedBench,
    TrainConfig,
    evaluate,
    finetune,
    select_programs,
)

SPLITS = ("devices", "vendor")
BUDGETS = (200, 1000)
_BATCH = 64
_SCRATCH = TrainConfig(steps=600, groups_per_batch=12, window_batches=40, learning_rate=1e-3)
_ROUNDS = 40
"""Of Reptile."""
_STEP_SHARE = 0.3
"""Of the way to what a source device's programs taught."""
_PROGRAMS_PER_ROUND = 200
_INNER = replace(FINETUNE_CONFIG, steps=10, window_batches=10, average=0.0)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a result depends on, besides the commit."""

    store: str
    """Content hash."""
    split: str
    """Official, that the weights were trained for."""
    weights: str
    """SHA-256 of their file."""
    per_task: int
    seeds: int


@dataclass(frozen=True)
class Device:
    """A device to onboard."""

    store: RecordStore
    target: Target
    start: TrainedPredictor
    prepared: TrainedPredictor
    """By Reptile."""
    sources: TrainingRows
    networks: Mapping[int, frozenset[str]]
    """Of each task."""

    @property
    def kind(self) -> str:
        """Which expert predicts for it."""
        return "cpu" if self.target.rows.devices[0].kind == "cpu" else "gpu"


Learned = tuple[Ints, TrainedPredictor]
"""Rows that were measured, and what they taught."""
Strategy = Callable[[Device, Ints, int, int], Learned]
"""Of a device, the rows that may be measured, a budget and a seed."""


def by_adapt(device: Device, pool: Ints, budget: int, seed: int) -> Learned:
    """Measure and learn as the command does."""
    bench = RecordedBench(device.store, device.target.rows.take(pool), pool)
    learner = Learner(start=device.start, sources=device.sources, seed=seed)
    settings = OnboardSettings(budget=budget, batch=_BATCH, seed=seed)
    work = Onboarding(bench, learner, settings)
    for _ in work.steps():
        pass
    return pool[~bench.open], work.result().weights


def by_choice(device: Device, pool: Ints, budget: int, seed: int) -> Learned:
    """Measure what the whole budget buys, and learn without sources."""
    return _learn(device, _choose(device, pool, budget, seed), seed, sources=False)


def by_chance(device: Device, pool: Ints, budget: int, seed: int) -> Learned:
    """Measure programs drawn at random."""
    drawn = np.random.default_rng(seed).choice(pool, min(budget, len(pool)), replace=False)
    return _learn(device, np.sort(drawn), seed)


def by_network(device: Device, pool: Ints, budget: int, seed: int) -> Learned:
    """Measure programs of one network: one that has enough, or the one with the most."""
    tasks = device.target.rows.tasks[pool]
    names = sorted(set().union(*(device.networks[t] for t in np.unique(tasks).tolist())))
    programs = {name: pool[[name in device.networks[t] for t in tasks.tolist()]] for name in names}
    enough = [name for name in names if len(programs[name]) >= budget]
    generator = np.random.default_rng(seed)
    if enough:
        name = str(generator.choice(enough))
    else:
        name = max(names, key=lambda n: len(programs[n]), default="")
    of_network = programs.get(name, pool[:0])
    drawn = generator.choice(of_network, min(budget, len(of_network)), replace=False)
    return _learn(device, np.sort(drawn), seed)


def from_scratch(device: Device, pool: Ints, budget: int, seed: int) -> Learned:
    """Learn from nothing but the measured programs."""
    chosen = _choose(device, pool, budget, seed)
    rows = device.target.rows.take(chosen)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AdditiveNetwork(device.start.experts[device.kind].network.config)
    network.fit_inputs(make_leaves(rows.batch(), rows.devices[0]))
    found = finetune(Expert(network), rows, rows.take(np.zeros(0, np.int64)), config=_SCRATCH,
                     seed=seed)  # fmt: skip
    return chosen, TrainedPredictor({**device.start.experts, device.kind: found})


def by_meta_learning(device: Device, pool: Ints, budget: int, seed: int) -> Learned:
    """Learn from weights that were prepared for it."""
    chosen = _choose(device, pool, budget, seed)
    return _learn(replace(device, start=device.prepared), chosen, seed, sources=False)


STRATEGIES: Mapping[str, Strategy] = {
    "adapt": by_adapt,
    "its choice, no sources": by_choice,
    "random": by_chance,
    "one network": by_network,
    "from scratch": from_scratch,
    "meta-learned": by_meta_learning,
}


def _choose(device: Device, pool: Ints, budget: int, seed: int) -> Ints:
    features, tasks = device.target.features[pool], device.target.rows.tasks[pool]
    return pool[select_programs(features, tasks, budget, "kmeans", seed)]


def _learn(device: Device, chosen: Ints, seed: int, *, sources: bool = True) -> Learned:
    rows = device.target.rows
    learner = Learner(start=device.start, sources=device.sources if sources else None, seed=seed)
    others = rows.take(np.setdiff1d(np.arange(len(rows)), chosen))
    return chosen, learner.learn(rows.take(chosen), others).weights


def prepare(expert: Expert, sources: TrainingRows) -> Expert:
    """Return an expert from which few steps get far on any device of the sources: Reptile."""
    generator = np.random.default_rng(0)
    names = np.array([machine.device.name for machine in sources.machines])[sources.machine_of]
    none = sources.take(np.zeros(0, np.int64))
    network = copy.deepcopy(expert.network)
    for number in range(_ROUNDS):
        share = _STEP_SHARE * (1.0 - number / _ROUNDS)
        pool = np.flatnonzero(names == generator.choice(np.unique(names)))
        some = generator.choice(pool, min(_PROGRAMS_PER_ROUND, len(pool)), replace=False)
        rows = sources.take(np.sort(some))
        if not np.isfinite(rows.latencies_s).any():
            continue
        taught = finetune(Expert(network), rows, none, config=_INNER, seed=number).network
        with torch.no_grad():
            for weight, new in zip(network.parameters(), taught.parameters(), strict=True):
                weight.lerp_(new, share)
    return replace(expert, network=network)


def run(
    devices: Iterator[Device],
    settings: Settings,
    folder: Path,
    strategies: Mapping[str, Strategy] = STRATEGIES,
    budgets: Sequence[int] = BUDGETS,
) -> None:
    """Measure what is missing from the result files, one for each device."""
    keys = ("seed", "strategy", "budget")
    for device in devices:
        target = device.target
        path = folder / f"{target.device}.json"
        fresh = {**provenance("numpy", "torch", "scipy"), "settings": asdict(settings), "runs": []}
        result = resume(fresh, path) | {
            "device": target.device,
            "programs": len(target.rows),
            "tasks": len(np.unique(target.rows.tasks)),
        }
        done = {tuple(outcome[key] for key in keys) for outcome in result["runs"]}
        for seed in range(settings.seeds):
            closed = half_of_tasks(target.rows.tasks, seed)
            steps: list[tuple[str, int]] = [("none", 0)]
            steps += [(name, budget) for budget in budgets for name in strategies]
            for name, budget in steps:
                key = (seed, name, budget)
                if key in done:
                    continue
                begin = time.perf_counter()
                measured, log_predicted = np.zeros(0, np.int64), target.log_predicted
                if budget:
                    pool = np.flatnonzero(~closed)
                    measured, found = strategies[name](device, pool, budget, seed)
                    log_predicted = np.log(evaluate(found, target.rows).latency_s)
                outcome = dict(zip(keys, key, strict=True)) | {
                    "measured_programs": len(measured),
                    "measured_tasks": len(np.unique(target.rows.tasks[measured])),
                    "commit": fresh["commit"],
                    "took_s": round(time.perf_counter() - begin, 1),
                    "scores": score_parts(target, log_predicted, measured, closed),
                }
                result["runs"].append(outcome)
                write_json(path, result)
                print(f"{target.device} {_line(outcome)}", flush=True)


def _line(outcome: dict[str, Any]) -> str:
    never = outcome["scores"]["never"]
    return (
        f"seed {outcome['seed']} budget {outcome['budget']} {outcome['strategy']}: "
        f"{outcome['measured_programs']} programs, error "
        f"{100 * never['mape_by_task']:.1f} %, {outcome['took_s']:.0f} s"
    )


def load_devices(
    store: RecordStore,
    start: TrainedPredictor,
    per_task: int,
    names: Sequence[str],
    split: str = SPLITS[0],
) -> Iterator[Device]:
    """Yield the devices that a split holds out, or those named, with what they need."""
    sources = FineTuning.of_store(store, start, split).sources
    tasks = store.tasks["workload"].to_pylist()
    networks = [frozenset(found or ()) for found in store.workloads["networks"].to_pylist()]
    of_tasks = {task: networks[workload] for task, workload in enumerate(tasks)}
    prepared: dict[str, TrainedPredictor] = {}
    for target, _ in load_targets(store, start, per_task, names, split):
        kind = "cpu" if target.rows.devices[0].kind == "cpu" else "gpu"
        if kind not in prepared:
            expert = prepare(start.experts[kind], sources[kind])
            prepared[kind] = TrainedPredictor({**start.experts, kind: expert})
        yield Device(store, target, start, prepared[kind], sources[kind], of_tasks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of the record store")
    parser.add_argument("--weights", type=Path, required=True, help="file of trained weights")
    parser.add_argument("--devices", nargs="+", default=(), help="only these")
    parser.add_argument("--strategies", nargs="+", default=tuple(STRATEGIES), help="only these")
    parser.add_argument("--budgets", nargs="+", type=int, default=BUDGETS)
    parser.add_argument("--per-task", type=int, default=200, help="programs at most")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder of the result files")
    args = parser.parse_args(arguments)
    store, start = RecordStore.open(args.store), load_weights(args.weights)
    split = start.about.get("split") if isinstance(start, TrainedPredictor) else None
    if not isinstance(start, TrainedPredictor) or split not in SPLITS:
        parser.error(
            f"--weights must be those of `tvm-cdmpp train STORE --split {' or '.join(SPLITS)}`"
        )
    out = args.out or RESULTS / ("onboarding" if split == SPLITS[0] else f"onboarding-{split}")
    settings = Settings(
        store=store.content_hash,
        split=split,
        weights=hashlib.sha256(args.weights.read_bytes()).hexdigest(),
        per_task=args.per_task,
        seeds=args.seeds,
    )
    devices = load_devices(store, start, args.per_task, args.devices, split)
    chosen = {name: STRATEGIES[name] for name in args.strategies}
    run(devices, settings, out, chosen, args.budgets)
    print("\n".join(onboarding_section(out)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
