"""How many programs a second each model learns from, and predicts, on one core.

`python -m benchmarks.training_speed STORE` trains each model of `benchmarks.accuracy` for a short
while on the same programs, lets it predict others, and writes `results/training-speed.json`. Times
include reading features. A program counts as often as the optimiser saw it; a tree sees the
programs it is grown on once.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.accuracy import Programs, known_models, programs_seen
from benchmarks.pretrained import Pretrained
from benchmarks.provenance import RESULTS, provenance, write_json
from benchmarks.stored import StoredPrograms
from benchmarks.tlp import TLP
from tvm_cdmpp.data import RecordStore
from tvm_cdmpp.models.baselines import NetworkPredictor, TreePredictor
from tvm_cdmpp.train import PretrainSettings, TrainConfig, evaluate

OUT = RESULTS / "training-speed.json"
MODELS = ("cdmpp", "trees", "tenset-mlp", "habitat", "graph", "tiramisu-lstm", "tlp", "mtl-tlp")
_STEPS, _ROUNDS = 160, 20


def shortened(model: Any, steps: int) -> Any:
    """Return a fresh model that trains for fewer steps, otherwise as it would."""
    if isinstance(model, Pretrained):
        return Pretrained(PretrainSettings(config=replace(TrainConfig(), steps=steps)))
    if isinstance(model, NetworkPredictor | TLP):
        model.training = replace(model.training, steps=steps)
    elif isinstance(model, TreePredictor):
        model.options = replace(model.options, rounds=_ROUNDS)
    return model


def measure(name: str, train: StoredPrograms, test: StoredPrograms, steps: int) -> dict[str, Any]:
    """Return what a model does in a second."""
    known = known_models()[name]
    model = shortened(known.make(0), steps)
    begin = time.perf_counter()
    model.fit(train if known.reads_store else train.rows, seed=0)
    trained_s = time.perf_counter() - begin
    begin = time.perf_counter()
    if known.reads_store:
        model.predict(test)
    else:
        evaluate(model, test.rows)
    predicted_s = time.perf_counter() - begin
    seen = programs_seen(model, len(train.rows))
    return {
        "model": name,
        "programs_seen": seen,
        "trained_per_s": seen / trained_s,
        "predicted_per_s": len(test.rows) / predicted_s,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of the record store")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--steps", type=int, default=_STEPS)
    parser.add_argument("--per-task", type=int, default=20, help="training programs of a task")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(arguments)
    programs = Programs(RecordStore.open(args.store), args.per_task, 10)
    train, test = programs.of("networks")
    rates = []
    for name in args.models:
        rates.append(measure(name, train, test, args.steps))
        print(rates[-1], flush=True)
    write_json(args.out, {**provenance("torch", "xgboost"), "rates": rates})


if __name__ == "__main__":
    main()
