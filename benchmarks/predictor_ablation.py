"""What each part of the predictor and of its training is worth.

`python -m benchmarks.predictor_ablation STORE` trains the predictor on the programs that all models
of `benchmarks.accuracy` get, each time with one thing changed, and scores it on the test part of
the split. All are trained for fewer steps than the predictor of the other table, so compare rows
of this one with its own first. A part of the result, a change with one seed, is a file
`results/predictor-ablation/<change>-<seed>.json`; parts that are there are not made again.

`no positions` gives every leaf the position 0; `no device vector` leaves of it the clock alone,
which the network counts in. `cmd` and `mmd` look at the programs of the test part, not at their
latencies. All but `operators alike` let tasks of rare operators come more often. `distilled from
trees` learns labels that are half measured and half told (`benchmarks.distillation`).
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy import Model, Programs, Settings, make_part
from benchmarks.distillation import distil
from benchmarks.pretrained import Pretrained, Relabel
from benchmarks.provenance import RESULTS, write_json
from benchmarks.stored import StoredPrograms
from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.data import Noise, RecordStore
from tvm_cdmpp.devices import DEVICE_FIELDS, DeviceSpec
from tvm_cdmpp.models import AdditiveConfig, ASTSource, Ints, Machine, TrainingRows
from tvm_cdmpp.train import PretrainSettings, TrainConfig, choose_rows

OUT = RESULTS / "predictor-ablation"
SEEDS = 3
STEPS = 2000
_GROUPS = 24
"""`TrainConfig.groups_per_batch`; a quarter of the default."""
_RARE = 0.5
"""`TrainConfig.rare_exponent` of all but one; the default is what came of this comparison."""


@dataclass(frozen=True)
class WithoutPositions:
    """Programs whose leaves are all in the first place; an `ASTSource`."""

    asts: ASTSource

    def __len__(self) -> int:
        return len(self.asts)

    @property
    def leaf_counts(self) -> Ints:
        """Leaves per program."""
        return self.asts.leaf_counts

    def take(self, programs: Ints) -> CompactASTBatch:
        """Return the given programs, in the given order."""
        batch: CompactASTBatch = self.asts.take(programs)
        return replace(batch, positions=np.zeros_like(batch.positions))


class DeviceWithoutVector(DeviceSpec):
    """A device of which the network is told the clock alone; the analytic estimate knows all."""

    def vector(self) -> npt.NDArray[np.float32]:
        """Return the device vector of the reference device, with this one's clock."""
        known = super().vector()
        clock = DEVICE_FIELDS.index("clock_hz")
        return np.where(np.arange(len(known)) == clock, known, 0.0).astype(np.float32)


def without_positions(rows: TrainingRows) -> TrainingRows:
    """Give every leaf the position 0."""
    return replace(rows, asts=WithoutPositions(rows.asts))


def without_device_vector(rows: TrainingRows) -> TrainingRows:
    """Hide devices from the network."""
    machines = [
        Machine(
            DeviceWithoutVector(**{f.name: getattr(m.device, f.name) for f in fields(m.device)}),
            m.hardware,
        )
        for m in rows.machines
    ]
    return replace(rows, machines=tuple(machines))


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that is otherwise."""

    network: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `AdditiveConfig`."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrainConfig`."""
    rows: Callable[[TrainingRows], TrainingRows] = lambda rows: rows
    """What is done to programs, in training and in test."""
    relabel: Relabel | None = None
    """Gives the programs that are trained on other labels."""
    per_task: int | None = None
    """Training programs of a task at most."""


CHANGES: Mapping[str, Change] = {
    "nothing": Change(),
    "no relative error": Change(config={"relative_weight": 0.0}),
    "no ranking": Change(config={"ranking_weight": 0.0}),
    "ListMLE": Change(config={"ranking": "listmle"}),
    "ranking weighs more": Change(config={"ranking_weight": 2.0}),
    "label: square root": Change(config={"label_power": 0.5, "relative_weight": 0.0}),
    "label: latency": Change(config={"label_power": 1.0, "relative_weight": 0.0}),
    "no analytic base": Change(network={"analytic_base": False}),
    "label: square root, no base": Change(
        network={"analytic_base": False}, config={"label_power": 0.5, "relative_weight": 0.0}
    ),
    "no positions": Change(rows=without_positions),
    "no device vector": Change(rows=without_device_vector),
    "no noise on inputs": Change(network={"input_noise": 0.0}),
    "no dropout": Change(network={"dropout": 0.0}),
    "no weight decay": Change(config={"weight_decay": 0.0}),
    "no mean of weights": Change(config={"average": 0.0}),
    "operators alike": Change(config={"rare_exponent": 0.0}),
    "cmd": Change(config={"domain": "cmd"}),
    "mmd": Change(config={"domain": "mmd"}),
    "cmd on the encoder": Change(config={"domain": "cmd", "domain_layer": "encoder"}),
    "one layer": Change(network={"layers": 1}),
    "no layer": Change(network={"layers": 0}),
    "three layers": Change(network={"layers": 3}),
    "width 48": Change(network={"width": 48, "hidden": 48}),
    "width 192": Change(network={"width": 192, "hidden": 192}),
    "distilled from trees": Change(relabel=distil),
    "20 programs a task": Change(per_task=20),
    "60 programs a task": Change(per_task=60),
}


def make_ablation(
    name: str,
    settings: Settings,
    steps: int,
    train: StoredPrograms,
    test: StoredPrograms,
    noise: dict[str, Noise],
    torch_device: str = "cpu",
) -> dict[str, Any]:
    """Train with one change, and score on the test part; see `benchmarks.accuracy.make_part`."""
    change = CHANGES[name]
    usual = TrainConfig(steps=steps, groups_per_batch=_GROUPS, rare_exponent=_RARE)
    config = replace(usual, **change.config)
    how = PretrainSettings(network=replace(AdditiveConfig(), **change.network), config=config)
    options: dict[str, Any] = {"torch_device": torch_device, "relabel": change.relabel}
    if change.per_task is not None:
        kept = choose_rows(train.rows.groups, change.per_task, settings.seed)
        train = StoredPrograms(train.store, train.used[kept], train.rows.take(kept))
    train, test = (replace(part, rows=change.rows(part.rows)) for part in (train, test))
    if config.domain != "none":
        options["unlabelled"] = test.rows
    model = Model(lambda _: Pretrained(how), reads_store=True, fit_options=options)
    part = make_part(settings, model, train, test, noise)
    return part | {"change": name, "steps": steps}


def run(args: argparse.Namespace) -> None:
    """Make the parts that are missing."""
    args.out.mkdir(parents=True, exist_ok=True)
    store = RecordStore.open(args.store)
    programs = Programs(store, args.per_task, args.test_per_task)
    train, test = programs.of("networks")
    for name in args.changes:
        for seed in range(args.seeds):
            path = args.out / f"{'-'.join(re.findall('[A-Za-z0-9]+', name))}-{seed}.json"
            settings = Settings(
                store=store.content_hash,
                per_task=args.per_task,
                test_per_task=args.test_per_task,
                split="networks",
                model="cdmpp",
                seed=seed,
            )
            if path.exists():
                known = json.loads(path.read_text(encoding="utf-8"))
                if known["settings"] != asdict(settings) or known["steps"] != args.steps:
                    raise SystemExit(
                        f"{path} is of other settings; remove it, or use another --out"
                    )
                continue
            noise = programs.noise
            part = make_ablation(name, settings, args.steps, train, test, noise, args.torch_device)
            write_json(path, part)
            figures = part["all"]
            print(
                f"{path.stem}: MAPE {figures['mape']:.1f} %, tau {figures['tau']:.3f}", flush=True
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of the record store")
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=list(CHANGES))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--per-task", type=int, default=200, help="training programs of a task")
    parser.add_argument("--test-per-task", type=int, default=200, help="test programs of a task")
    parser.add_argument("--torch-device", default="cpu", help="where networks train, such as cuda")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the result files")
    run(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
