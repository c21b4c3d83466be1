"""How well models predict programs that they have not seen, on the official splits.

`python -m benchmarks.accuracy STORE` fits every model on the same programs of a split's training
part, and scores it on the test part, by device. A part of the result, a model on a split with one
seed, is a file `results/accuracy/<split>-<model>-<seed>.json`; parts that are there are not made
again, so a stopped run goes on where it was.

- `cdmpp` is the predictor, trained ahead as `tvm-cdmpp train` does it, on the programs that the
  other models get; some of them it uses to validate with (`benchmarks.pretrained`).
- `cdmpp-evaluation` are the weights `evaluation` of the package, as they are: trained on the
  training part of `networks`, up to 1,000 programs of a task, so they have nothing to say on other
  splits.
- `cdmpp-untrained` is the small network that a search without weights starts with, fitted on the
  programs that the other models get.
- `tlp` and `mtl-tlp` read the primitives of schedules (`benchmarks.tlp`), `xgboost-ansor` and
  `xgboost-ansor-log` Ansor's features (`benchmarks.ansor_trees`). TVM takes hours to compute those
  of so many programs, so they are made only where `--models` names them.
- The others are the models of `tvm_cdmpp.models.baselines`.

Training samples per second are the programs that the optimiser saw, each as often as it did, over
the seconds of the whole fit. A tree sees the programs that it is grown on once. Both rates include
reading features. Bytes are those of the saved file, parameters the floating-point numbers in it.

The noise floor of a device is the error that a perfect predictor would have there against single
measurements (`tvm_cdmpp.data.noise`), in percent, with its basis; None where that is unknown.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pretrained import Pretrained
from benchmarks.provenance import RESULTS, provenance, write_json
from benchmarks.stored import StoredPrograms, StoreModel
from tvm_cdmpp.data import Noise, RecordStore, noise_by, official_split, read_measurements
from tvm_cdmpp.models import (
    CostPredictor,
    Ints,
    Predictor,
    PredictorConfig,
    TrainedPredictor,
    load_weights,
    read_checkpoint,
)
from tvm_cdmpp.models.baselines import BASELINES, NetworkPredictor
from tvm_cdmpp.train import (
    PretrainSettings,
    StoredFeatures,
    TrainConfig,
    bootstrap,
    evaluate,
    load_features,
    rows_of_store,
    sample_tasks,
    score,
)

OUT = RESULTS / "accuracy"
ANSOR_FEATURES = Path(tempfile.gettempdir()) / "ansor-features"
SPLITS = ("networks", "devices", "paper")
_SHORT = PretrainSettings(config=TrainConfig(steps=8000, groups_per_batch=24))
"""How `cdmpp` is trained: for a tenth of the programs of the shipped weights."""
SEEDS = 3


@dataclass(frozen=True)
class Model:
    """A model of the comparison."""

    make: Callable[[int], Any]
    """Makes it anew from a seed: a `CostPredictor`, or a `StoreModel`."""
    reads_store: bool = False
    """Whether it is a `StoreModel`."""
    is_fitted: bool = True
    """Whether it is fitted here; one that is not has one seed."""
    is_usual: bool = True
    """Whether it is compared without being named."""
    splits: tuple[str, ...] = SPLITS
    fit_options: Mapping[str, Any] = field(default_factory=dict)
    """What its `fit` takes besides the rows and the seed."""


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


def known_models(
    ansor_features: Path = ANSOR_FEATURES, torch_device: str = "cpu", weights: Path | None = None
) -> dict[str, Model]:
    """Return the models by name, those of this package first.

    Parameters
    ----------
    ansor_features
        Folder of the features of `benchmarks.ansor_features`.
    torch_device
        Where networks train.
    weights
        What `tvm-cdmpp train` made of the split.
    """
    on_device = {"torch_device": torch_device}
    models = {
        "cdmpp": Model(lambda _: Pretrained(_SHORT), reads_store=True, fit_options=on_device),
        "cdmpp-evaluation": Model(
            lambda _: load_weights("evaluation"), is_fitted=False, splits=("networks",)
        ),
        "cdmpp-own-vectors": Model(_by_own_vectors, is_fitted=False, splits=("networks",)),
        "cdmpp-weights": Model(partial(_read, weights), is_fitted=False, is_usual=False),
        "cdmpp-untrained": Model(lambda seed: Predictor.untrained(PredictorConfig(), seed)),
    }
    for name, baseline in BASELINES.items():
        is_network = issubclass(baseline.predictor, NetworkPredictor)
        models[name] = Model(baseline.make, fit_options=on_device if is_network else {})
    for name, setting, by_device in (
        ("tlp", "tuned", False),
        ("tlp-paper", "paper", False),
        ("mtl-tlp", "tuned", True),
        ("mtl-tlp-paper", "paper", True),
    ):
        make = partial(_make_tlp, setting, by_device)
        models[name] = Model(make, reads_store=True, fit_options=on_device)
    for name, label in (("xgboost-ansor", "throughput"), ("xgboost-ansor-log", "log")):
        make = partial(_make_ansor_trees, label, ansor_features)
        models[name] = Model(make, reads_store=True, is_usual=False)
    return models


def make_part(
    settings: Settings,
    model: Model,
    train: StoredPrograms,
    test: StoredPrograms,
    noise: dict[str, Noise],
) -> dict[str, Any]:
    """Fit a model and score it.

    Parameters
    ----------
    settings, model
        What is made.
    train, test
        Programs of the two parts.
    noise
        Noise of the store's measurements, by device.
    """
    predictor, rows = model.make(settings.seed), test.rows
    training: dict[str, Any] | None = None
    if model.is_fitted:
        begin = time.perf_counter()
        programs = train if model.reads_store else train.rows
        predictor.fit(programs, seed=settings.seed, **model.fit_options)
        seconds = time.perf_counter() - begin
        seen = programs_seen(predictor, len(train.rows))
        training = {
            "rows": len(train.rows),
            **_rate(seen, seconds, "programs_seen"),
            "torch_device": model.fit_options.get("torch_device", "cpu"),
        }
    begin = time.perf_counter()
    found = predictor.predict(test) if model.reads_store else evaluate(predictor, rows)
    inference = _rate(len(rows), time.perf_counter() - begin, "rows")
    devices = test.store.tasks["device"].to_pylist()
    names = np.array(devices)[rows.tasks]
    everything = np.ones(len(rows), bool)
    groups = {name: names == name for name in np.unique(names).tolist()} | {"all": everything}
    scores = {}
    for name, some in groups.items():
        if np.isfinite(rows.latencies_s[some]).any():
            compared = (rows.latencies_s[some], found.latency_s[some], rows.groups[some])
            spread = None if found.spread is None else found.spread[some]
            order_s = found.order_s[some]
            figures = score(*compared, spread=spread, order_s=order_s).to_json()
            scores[name] = figures | {
                "intervals": bootstrap(*compared, spread=spread, order_s=order_s)
            }
    for name, floor in noise.items():
        if name in scores:
            scores[name]["noise_floor"] = _floor(floor)
    return {
        **provenance("numpy", "torch", "scipy"),
        "settings": asdict(settings),
        "training": training,
        "inference": inference,
        **_size(predictor),
        "all": scores.pop("all"),
        "devices": scores,
    }


def programs_seen(model: CostPredictor | StoreModel, num_rows: int) -> int:
    """Return how many programs the optimiser saw in the last fit, each as often as it did."""
    if isinstance(model, Predictor):
        return model.fit_config.steps * min(model.fit_config.batch_size, num_rows)
    return int(getattr(model, "programs_seen", num_rows))


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


@dataclass
class Programs:
    """The programs of a store's splits; read when they are asked for."""

    store: RecordStore
    per_task: int
    """Training programs of a task at most."""
    test_per_task: int | None
    """Test programs of a task at most; None for all."""

    def of(self, split: str) -> tuple[StoredPrograms, StoredPrograms]:
        """Return the programs of a split to train on, and to test with."""
        chosen = official_split(self.store, split)
        train, test = sample_tasks(self.store, chosen.train, self.per_task), chosen.test
        if self.test_per_task is not None:
            test = sample_tasks(self.store, test, self.test_per_task)
        return self._read(train), self._read(test)

    def _read(self, rows: Ints) -> StoredPrograms:
        found, used = rows_of_store(self.store, self._features, rows)
        return StoredPrograms(self.store, used, found)

    @cached_property
    def _features(self) -> StoredFeatures:
        return load_features(self.store)

    @cached_property
    def noise(self) -> dict[str, Noise]:
        """Noise of the measurements, by device."""
        found = noise_by(self.store, read_measurements(self.store), "device")
        return {device: floor for (device,), floor in found.items()}


def run(args: argparse.Namespace) -> None:
    """Make the parts that are missing."""
    store = RecordStore.open(args.store)
    programs = Programs(store, args.per_task, args.test_per_task)
    known = known_models(args.ansor_features, args.torch_device, args.weights)
    args.out.mkdir(parents=True, exist_ok=True)
    by_split: dict[str, tuple[StoredPrograms, StoredPrograms]] = {}
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
        if name == "cdmpp-weights":
            _check_split(known[name].make(0), split)
        if split not in by_split:
            by_split[split] = programs.of(split)
        part = make_part(settings, known[name], *by_split[split], programs.noise)
        write_json(path, part)
        figures = part["all"]
        print(f"{path.stem}: MAPE {figures['mape']:.1f} %, tau {figures['tau']:.3f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of the record store")
    known = known_models()
    usual = [name for name, model in known.items() if model.is_usual]
    parser.add_argument("--models", nargs="+", choices=known, default=usual)
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--per-task", type=int, default=200, help="training programs of a task")
    parser.add_argument("--test-per-task", type=int, help="test programs of a task (default: all)")
    parser.add_argument(
        "--ansor-features",
        type=Path,
        default=ANSOR_FEATURES,
        help="folder where Ansor's features are kept",
    )
    parser.add_argument("--torch-device", default="cpu", help="where networks train, such as cuda")
    parser.add_argument(
        "--weights", type=Path, help="what `tvm-cdmpp train` made of the split, for cdmpp-weights"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the result files")
    run(parser.parse_args(arguments))


def _read(weights: Path | None, _: int) -> TrainedPredictor:
    if weights is None:
        raise SystemExit("cdmpp-weights needs --weights FILE, made by `tvm-cdmpp train STORE`")
    return TrainedPredictor.load(weights)


def _by_own_vectors(_: int) -> TrainedPredictor:
    """Return the weights `evaluation`, to which all devices count as themselves."""
    predictor = load_weights("evaluation")
    assert isinstance(predictor, TrainedPredictor)
    for expert in predictor.experts.values():
        expert.network.references = expert.network.references[:0]
    return predictor


def _check_split(predictor: TrainedPredictor, split: str) -> None:
    trained_on = predictor.about.get("split")
    if trained_on != split:
        raise SystemExit(f"the weights must be of the split '{split}'; got '{trained_on}'")


def _make_tlp(setting: str, by_device: bool, _: int) -> StoreModel:
    from benchmarks.tlp import TLP

    return TLP.untrained(setting, by_device=by_device)


def _make_ansor_trees(label: Any, folder: Path, _: int) -> StoreModel:
    # Imported here because it needs XGBoost, and TVM.
    from benchmarks.ansor_trees import AnsorTrees

    return AnsorTrees(label, folder)


def _rate(rows: int, seconds: float, of: str) -> dict[str, float]:
    return {of: rows, "seconds": seconds, "rows_per_s": rows / seconds}


def _floor(noise: Noise) -> dict[str, Any]:
    figures = {"mape": noise.floor_mape, "median_ape": noise.floor_median_ape}
    percent = {name: None if it is None else 100.0 * it for name, it in figures.items()}
    return {**percent, "basis": noise.basis}


def _size(predictor: CostPredictor | StoreModel) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        predictor.save(path)
        arrays = read_checkpoint(path).arrays.values()
        parameters = sum(array.size for array in arrays if array.dtype.kind == "f")
        return {"parameters": parameters, "bytes": path.stat().st_size}


if __name__ == "__main__":
    main()
