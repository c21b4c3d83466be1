"""How well models predict programs that they have not seen, on the official splits.

`python -m benchmarks.accuracy STORE` fits every model on the same programs of a split's training
part, and scores it on the test part, by device. A part of the result, a model on a split with one
seed, is a file `results/accuracy/<split>-<model>-<seed>.json`; parts that are there are not made
again, so a stopped run goes on where it was.

- `cdmpp` is the predictor with the weights `evaluation`, as they are: trained on the training part
  of `networks`, up to 1,000 programs of a task, so they have nothing to say on other splits.
- `cdmpp-untrained` is the small network that a search without weights starts with, fitted on the
  programs that the other models get.
- The others are the models of `tvm_cdmpp.models.baselines`.

Training samples per second are the rows of the training set over the seconds of the whole fit,
whatever passes it makes; both rates include reading features. Bytes are those of the saved file,
parameters the floating-point numbers in it.
"""

import argparse
import importlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.provenance import RESULTS, provenance, write_json
from tvm_cdmpp.data import RecordStore, official_split
from tvm_cdmpp.models import (
    CostPredictor,
    Predictor,
    PredictorConfig,
    TrainingRows,
    load_weights,
    read_checkpoint,
)
from tvm_cdmpp.train import (
    bootstrap,
    evaluate,
    load_features,
    rows_of_store,
    sample_tasks,
    score,
)

OUT = RESULTS / "accuracy"
SPLITS = ("networks", "devices", "paper")
SEEDS = 3


@dataclass(frozen=True)
class Model:
    """A model of the comparison."""

    make: Callable[[int], CostPredictor]
    """Makes it anew from a seed."""
    is_fitted: bool = True
    """Whether it is fitted here; one that is not has one seed."""
    splits: tuple[str, ...] = SPLITS


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a part depends on, besides the commit."""

    store: str
    """Content hash."""
    per_task: int
    """Training programs of a task at most."""
    test_per_task: int | None
    """Test programs of a task at most; None for all."""
    split: str
    model: str
    seed: int


def known_models() -> dict[str, Model]:
    """Return the models by name, those of this package first."""
    models = {
        "cdmpp": Model(lambda _: load_weights("evaluation"), is_fitted=False, splits=("networks",)),
        "cdmpp-untrained": Model(lambda seed: Predictor.untrained(PredictorConfig(), seed)),
    }
    try:
        baselines = importlib.import_module("tvm_cdmpp.models.baselines").BASELINES
    except ModuleNotFoundError:
        baselines = {}
    return models | {name: Model(baseline.make) for name, baseline in baselines.items()}


def make_part(
    settings: Settings, model: Model, train: TrainingRows, test: TrainingRows, devices: list[str]
) -> dict[str, Any]:
    """Fit a model and score it.

    Parameters
    ----------
    settings, model
        What is made.
    train, test
        Rows of the two parts.
    devices
        Names of the devices of the store's tasks.
    """
    predictor = model.make(settings.seed)
    training: dict[str, Any] | None = None
    if model.is_fitted:
        begin = time.perf_counter()
        predictor.fit(train, seed=settings.seed)
        training = _rate(len(train), time.perf_counter() - begin)
    begin = time.perf_counter()
    found = evaluate(predictor, test)
    inference = _rate(len(test), time.perf_counter() - begin)
    names = np.array(devices)[test.tasks]
    everything = np.ones(len(test), bool)
    groups = {name: names == name for name in np.unique(names).tolist()} | {"all": everything}
    scores = {}
    for name, some in groups.items():
        if np.isfinite(test.latencies_s[some]).any():
            compared = (test.latencies_s[some], found.latency_s[some], test.groups[some])
            spread = None if found.spread is None else found.spread[some]
            figures = score(*compared, spread=spread).to_json()
            scores[name] = figures | {"intervals": bootstrap(*compared, spread=spread)}
    return {
        **provenance("numpy", "torch", "scipy"),
        "settings": asdict(settings),
        "training": training,
        "inference": inference,
        **_size(predictor),
        "all": scores.pop("all"),
        "devices": scores,
    }


def parts(
    models: Sequence[str], splits: Sequence[str], seeds: int
) -> Iterator[tuple[str, str, int]]:
    """Yield what is to be made: split, model and seed."""
    known = known_models()
    for split in splits:
        for name in models:
            if split in known[name].splits:
                for seed in range(seeds if known[name].is_fitted else 1):
                    yield split, name, seed


def run(args: argparse.Namespace) -> None:
    """Make the parts that are missing."""
    store = RecordStore.open(args.store)
    features = load_features(store)
    devices = store.tasks["device"].to_pylist()
    known = known_models()
    args.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, tuple[TrainingRows, TrainingRows]] = {}
    for split, name, seed in parts(args.models, args.splits, args.seeds):
        path = args.out / f"{split}-{name}-{seed}.json"
        settings = Settings(
            store=store.content_hash,
            per_task=args.per_task,
            test_per_task=args.test_per_task,
            split=split,
            model=name,
            seed=seed,
        )
        if path.exists():
            if json.loads(path.read_text(encoding="utf-8"))["settings"] != asdict(settings):
                raise SystemExit(f"{path} is of other settings; remove it, or use another --out")
            continue
        if split not in rows:
            chosen = official_split(store, split)
            train, test = sample_tasks(store, chosen.train, args.per_task), chosen.test
            if args.test_per_task is not None:
                test = sample_tasks(store, test, args.test_per_task)
            rows[split] = (
                rows_of_store(store, features, train)[0],
                rows_of_store(store, features, test)[0],
            )
        part = make_part(settings, known[name], *rows[split], devices)
        write_json(path, part)
        figures = part["all"]
        print(f"{path.stem}: MAPE {figures['mape']:.1f} %, tau {figures['tau']:.3f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of the record store")
    parser.add_argument("--models", nargs="+", choices=known_models(), default=[*known_models()])
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--per-task", type=int, default=200, help="training programs of a task")
    parser.add_argument("--test-per-task", type=int, help="test programs of a task (default: all)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the result files")
    run(parser.parse_args(arguments))


def _rate(rows: int, seconds: float) -> dict[str, float]:
    return {"rows": rows, "seconds": seconds, "rows_per_s": rows / seconds}


def _size(predictor: CostPredictor) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        predictor.save(path)
        arrays = read_checkpoint(path).arrays.values()
        parameters = sum(array.size for array in arrays if array.dtype.kind == "f")
        return {"parameters": parameters, "bytes": path.stat().st_size}


if __name__ == "__main__":
    main()
