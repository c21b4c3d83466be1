"""How far the programs of a network are off together: what the intervals of `predict` rest on.

    python -m benchmarks.network_intervals STORE --out benchmarks/results/network-intervals.json

On tasks of the test part of the split `networks`, with the weights `evaluation`: the median of
ln(predicted / measured) over the eight fastest of at most forty programs of a task, which are what
a tuned network runs.

- factor: by how much the predicted spread, level and all, must be widened so that 90 % of these
  lie within 1.645 of it, by kind of device and by whether the weights know it;
- level: of devices that the weights do not know, by kind, the root mean square of the mean error,
  devices of fewer than five tasks left out;
- correlation: of the errors of two tasks on one device that the weights know: the mean product of
  two over the mean square, as the mean over devices and over all pairs.
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.faithfulness import samples
from benchmarks.provenance import provenance, write_json
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models import load_weights

_FASTEST = 8
_SIGMAS_90 = 1.645
_LEAST_TASKS = 5

Floats = npt.NDArray[np.float64]


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--tasks", type=int, default=700)
    parser.add_argument("--per-task", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    predictor = load_weights("evaluation")
    errors = defaultdict[DeviceSpec, list[float]](list)
    scaled = defaultdict[str, list[float]](list)
    generator = np.random.default_rng(0)
    for batch, latencies_s, device in samples(args.store, args.tasks, args.per_task, generator):
        fastest = np.argsort(latencies_s)[:_FASTEST]
        found = predictor.predict(batch.take(fastest), device)
        assert found.spread is not None
        error = float(np.median(np.log(found.latency_s / latencies_s[fastest])))
        errors[device].append(error)
        spread = math.hypot(float(np.median(found.spread)), predictor.level_spread(device))
        is_known = predictor.level_spread(device) == 0.0
        scaled[f"{device.kind}, {'known' if is_known else 'unknown'}"].append(abs(error) / spread)
    known = {device: predictor.level_spread(device) == 0.0 for device in errors}
    enough = {d: np.array(found) for d, found in errors.items() if len(found) >= _LEAST_TASKS}
    unknown = {device: float(found.mean()) for device, found in enough.items() if not known[device]}
    result = {
        **provenance("numpy", "torch"),
        "kinds": {
            name: {
                "tasks": len(found),
                "within_90_percent_interval": float(np.mean(np.array(found) < _SIGMAS_90)),
                "factor": float(np.quantile(found, 0.9) / _SIGMAS_90),
            }
            for name, found in scaled.items()
        },
        "levels": {
            kind: _root_mean_square([mean for d, mean in unknown.items() if d.kind == kind])
            for kind in sorted({device.kind for device in unknown})
        },
        "devices": {
            device.name: {
                "known": known[device],
                "tasks": len(found),
                "mean": float(np.mean(found)),
                "std": float(np.std(found)),
            }
            for device, found in errors.items()
        },
        "correlation": _correlation([found for device, found in enough.items() if known[device]]),
    }
    write_json(args.out, result)
    print(json.dumps(result, indent=1))


def _root_mean_square(means: Sequence[float]) -> float:
    return math.sqrt(sum(mean**2 for mean in means) / len(means))


def _correlation(devices: Sequence[Floats]) -> dict[str, float]:
    pairs = [len(found) * (len(found) - 1) for found in devices]
    products = [float(found.sum() ** 2 - (found**2).sum()) for found in devices]
    own = [p / n / float((f**2).mean()) for p, n, f in zip(products, pairs, devices, strict=True)]
    square = float((np.concatenate(devices) ** 2).mean())
    return {"mean_over_devices": float(np.mean(own)), "pooled": sum(products) / sum(pairs) / square}


if __name__ == "__main__":
    main()
