"""How many programs a second each model learns from, and predicts, on one core or a GPU.

`python -m benchmarks.training_speed STORE` trains each model of `benchmarks.accuracy`, in its tuned
and its published setting, on the same programs, lets it predict others, and writes
`results/training-speed.json`. Models take turns, round after round, so that a machine that is slow
for a while is so for all of them. The file is written after every turn; a stopped run goes on where
it was, if it is on the same machine.

The rate is that of a training under way. A model is trained anew twice, for one window of programs
and for three; the rate is what the longer one saw more, over the seconds that it took more. So
reading features counts, as each window is read, and start-up does not. Neither do the looks at the
validation part, which are every 1,000 steps apart. A program counts as often as the optimiser saw
it; trees see the programs they are grown on once each, and have no windows: 20 trees stand for one.

With `--torch-device cuda --windows 13` networks learn on a GPU, where windows pass so fast that
more are needed. They predict on one core there as well.

A rate is the median over rounds, with the least and the largest.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.accuracy import Model, Programs, known_models, programs_seen
from benchmarks.pretrained import Pretrained
from benchmarks.provenance import RESULTS, provenance, resume, write_json
from benchmarks.stored import StoredPrograms
from benchmarks.tlp import TLP
from tvm_cdmpp.data import RecordStore
from tvm_cdmpp.models.baselines import NetworkPredictor, TreePredictor
from tvm_cdmpp.train import PretrainSettings, TrainConfig, evaluate

OUT = RESULTS / "training-speed.json"
OURS = "cdmpp"
MODELS = (
    OURS,
    "trees",
    "tenset-mlp",
    "tenset-mlp-paper",
    "habitat",
    "habitat-paper",
    "graph",
    "tiramisu-lstm",
    "tiramisu-lstm-paper",
    "tlp",
    "tlp-paper",
    "mtl-tlp",
    "mtl-tlp-paper",
)
_SHORT = 1
_TREES = 20


def shortened(model: Any, windows: int) -> Any:
    """Make a fresh model train for some windows only, otherwise as it would."""
    if isinstance(model, Pretrained):
        config = TrainConfig(steps=windows * TrainConfig().window_batches)
        return Pretrained(PretrainSettings(config=config))
    if isinstance(model, NetworkPredictor | TLP):
        steps = windows * (model.training.window // model.training.batch_size)
        model.training = replace(model.training, steps=steps)
    elif isinstance(model, TreePredictor):
        model.options = replace(model.options, rounds=windows * _TREES)
    return model


def train_for(known: Model, train: StoredPrograms, windows: int) -> tuple[Any, int, float]:
    """Train a fresh model; return it, the programs that it saw, and the seconds."""
    model = shortened(known.make(0), windows)
    begin = time.perf_counter()
    model.fit(train if known.reads_store else train.rows, seed=0, **known.fit_options)
    seconds = time.perf_counter() - begin
    return model, programs_seen(model, len(train.rows)), seconds


def measure(
    known: Model, train: StoredPrograms, test: StoredPrograms, windows: int = 3
) -> tuple[float, float]:
    """Return how many programs a second a model learns from, and predicts.

    `windows` are those of the longer training.
    """
    _, less_seen, less_s = train_for(known, train, _SHORT)
    model, seen, seconds = train_for(known, train, windows)
    begin = time.perf_counter()
    if known.reads_store:
        model.predict(test)
    else:
        evaluate(model, test.rows)
    predicted_s = time.perf_counter() - begin
    return (seen - less_seen) / (seconds - less_s), len(test.rows) / predicted_s


def summary(name: str, rates: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return what the result says of a model, given its rates in each round."""
    trained, predicted = zip(*rates, strict=True)
    return {
        "model": name,
        "trained_per_s": statistics.median(trained),
        "trained_per_s_range": [min(trained), max(trained)],
        "predicted_per_s": statistics.median(predicted),
        "predicted_per_s_range": [min(predicted), max(predicted)],
    }


def run(
    names: Sequence[str],
    settings: dict[str, Any],
    path: Path,
    measure_model: Callable[[str], tuple[float, float]],
) -> None:
    """Measure what is missing from the result file."""
    result = _resume(settings, path)
    turns: dict[str, list[tuple[float, float]]] = result["turns"]
    for number in range(settings["rounds"]):
        for name in names:
            of_model = turns.setdefault(name, [])
            if len(of_model) > number:
                continue
            learned, predicted = measure_model(name)
            of_model.append((learned, predicted))
            result["rates"] = [summary(it, turns[it]) for it in MODELS if turns.get(it)]
            write_json(path, result)
            print(f"round {number + 1}, {name}: {learned:,.0f}, {predicted:,.0f}", flush=True)


def _resume(settings: dict[str, Any], path: Path) -> dict[str, Any]:
    about = provenance("torch", "xgboost")
    fresh: dict[str, Any] = {**about, "settings": settings, "turns": {}, "rates": []}
    return resume(fresh, path, ("settings", "machine"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of the record store")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--rounds", type=int, default=3, help="times that each model is measured")
    parser.add_argument("--per-task", type=int, default=20, help="training programs of a task")
    parser.add_argument("--test-per-task", type=int, default=10, help="programs to predict")
    parser.add_argument("--torch-device", default="cpu", help="where networks train, such as cuda")
    parser.add_argument("--windows", type=int, default=3, help="windows of the longer training")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(arguments)
    store = RecordStore.open(args.store)
    train, test = Programs(store, args.per_task, args.test_per_task).of("networks")
    known = known_models(torch_device=args.torch_device)
    settings = {
        "store": store.content_hash,
        "rounds": args.rounds,
        "per_task": args.per_task,
        "test_per_task": args.test_per_task,
        "torch_device": args.torch_device,
        "windows": args.windows,
    }

    def measure_model(name: str) -> tuple[float, float]:
        return measure(known[name], train, test, args.windows)

    run(args.models, settings, args.out, measure_model)


if __name__ == "__main__":
    main()
