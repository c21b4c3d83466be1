"""Are explanations faithful? Attributions against the prediction, and against measurements.

    python -m benchmarks.faithfulness STORE --out benchmarks/results/faithfulness.json

On programs of the test part of the split `networks`, with the weights `evaluation`:

- removal: the ten fields with the largest attributions, set to those of the average leaf, must
  change the prediction more than ten others do: drawn at random, or those farthest from the average
  leaf by the spread of the training data. Only fields that some leaf has otherwise than the average
  leaf are drawn, as removing the rest changes nothing.
- edits: of two programs of a task with as many leaves, the most alike ones, one is an edit of the
  other. What the prediction and the explanation say of the edit, see `agreement`, against the
  measurements. Pairs whose measured latencies are within 5 % of each other tell nothing and are
  left out.

Shares come with 90 % intervals, tasks being resampled.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.agreement import SAYINGS, said, share_over_tasks, shares
from benchmarks.provenance import provenance, write_json
from tvm_cdmpp.ast import COLUMN, FIELDS, CompactASTBatch
from tvm_cdmpp.data import RecordStore, make_labels, official_split
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models import Leaves, TrainedPredictor, attribute, load_weights, make_leaves
from tvm_cdmpp.train import find_features, program_features, rows_of_store

_REMOVED = 10
_DRAWS = 10
_EDITED = {
    "unrolling": {"unroll_limit", "unrolled_body", "unroll_extent"},
    "any": {field.name for field in FIELDS},
}


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--per-task", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    predictor = load_weights("evaluation")
    assert isinstance(predictor, TrainedPredictor)
    generator = np.random.default_rng(0)
    removals: list[dict[str, float]] = []
    edits: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number, (batch, latencies_s, device) in enumerate(
        samples(args.store, args.tasks, args.per_task, generator)
    ):
        program = batch.take([int(generator.integers(len(batch)))])
        removals.append(remove(predictor, program, device, generator))
        for kind, edit in _edits(predictor, batch, latencies_s, device, generator):
            edits[kind].append({"task": number, **edit})
    result: dict[str, Any] = {
        **provenance("numpy", "torch"),
        "programs": len(removals),
        "fields_removed": _REMOVED,
        "change_of_ln_latency": {
            name: float(np.median([found[name] for found in removals])) for name in removals[0]
        },
        "changed_more_than": {
            name: share_over_tasks(
                range(len(removals)), [found["said"] > found[name] for found in removals]
            )
            for name in removals[0]
            if name != "said"
        },
        "edits": {kind: {by: shares(rows, by) for by in SAYINGS} for kind, rows in edits.items()},
    }
    write_json(args.out, result)
    print(json.dumps(result, indent=1))


def samples(
    path: Path, tasks: int, per_task: int, generator: np.random.Generator
) -> Iterator[tuple[CompactASTBatch, Any, DeviceSpec]]:
    """Yield programs of a task that ran, on one device, with their measured latencies."""
    store = RecordStore.open(path)
    features = find_features(store)
    if features is None:
        raise SystemExit("the store has no features yet: train or evaluate on it first")
    labels = make_labels(store)
    latency_s = labels.latency_s
    is_test = np.zeros(len(latency_s), bool)
    is_test[official_split(store, "networks").test] = True
    found = list(store.iter_tasks())
    yielded = 0
    for place in generator.permutation(len(found)):
        rows = np.arange(found[place]["rows"].start, found[place]["rows"].stop)
        rows = rows[is_test[rows] & np.isfinite(latency_s[rows]) & (features.leaf_counts[rows] > 0)]
        if len(rows) < _REMOVED:
            continue
        rows = np.sort(generator.choice(rows, min(per_task, len(rows)), replace=False))
        # The task's own machine: its target may use fewer cores, or narrower vectors.
        programs, _ = rows_of_store(store, features, rows, labels=labels)
        yield programs.batch(), latency_s[rows], programs.devices[0]
        yielded += 1
        if yielded == tasks:
            return


def remove(
    predictor: TrainedPredictor,
    program: CompactASTBatch,
    device: DeviceSpec,
    generator: np.random.Generator,
) -> dict[str, float]:
    """Return how ln latency changes without the fields that matter, and without others."""
    network, leaves = predictor.expert(device).network, make_leaves(program, device)
    said = [COLUMN[name] for name in list(attribute(predictor, program, device).fields)[:_REMOVED]]
    away = distances(leaves.inputs, network.input_mean, network.input_scale)
    others = np.setdiff1d(np.flatnonzero(away), said)

    def without(columns: Any) -> float:
        inputs = leaves.inputs.clone()
        inputs[:, columns] = network.input_mean[columns]
        changed = Leaves(inputs, leaves.positions, leaves.counts, leaves.device)
        return float(network(changed).log_latency[0])

    with torch.no_grad():
        whole = float(network(leaves).log_latency[0])
        drawn = [generator.choice(others, _REMOVED, replace=False) for _ in range(_DRAWS)]
        return {
            "said": abs(without(said) - whole),
            "random": float(np.mean([abs(without(columns) - whole) for columns in drawn])),
            "farthest": abs(without(np.argsort(-away)[:_REMOVED]) - whole),
        }


def distances(inputs: Tensor, mean: Tensor, scale: Tensor) -> npt.NDArray[np.float32]:
    """Return how far each field of a program is from the average leaf, in standard deviations.

    Parameters
    ----------
    inputs
        Of each leaf; (N, F).
    mean, scale
        Of the training data, the scale being one over the deviation; (F,).

    Returns
    -------
    distances
        Root mean square over the leaves, one per field; 0 where no leaf differs.
    """
    way = torch.where(torch.isclose(inputs, mean), 0.0, (inputs - mean) * scale)
    return way.square().mean(dim=0).sqrt().numpy()[: len(FIELDS)]


def _edits(
    predictor: TrainedPredictor,
    batch: CompactASTBatch,
    latencies_s: Any,
    device: DeviceSpec,
    generator: np.random.Generator,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Compare each of some programs with the one most like it."""
    features = program_features(batch).astype(np.float64)
    for first in range(0, len(batch), 8):
        alike = np.flatnonzero(batch.leaf_counts == batch.leaf_counts[first])
        alike = alike[alike != first]
        if not alike.size:
            continue
        second = alike[np.argmin(((features[alike] - features[first]) ** 2).sum(axis=1))]
        differ = (batch.vectors_of(first) != batch.vectors_of(second)).any(axis=0)
        names = {field.name for field, is_other in zip(FIELDS, differ, strict=True) if is_other}
        if not names:
            continue
        edit = {
            **said(batch.take([second, first]), predictor, device, generator),
            "measured": float(np.log(latencies_s[first] / latencies_s[second])),
        }
        for kind, fields in _EDITED.items():
            if names <= fields:
                yield kind, edit


if __name__ == "__main__":
    main()
