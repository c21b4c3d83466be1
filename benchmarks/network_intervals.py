"""How far the programs of a network are off together: what the intervals of `predict` rest on.

    python -m benchmarks.network_intervals STORE --out benchmarks/results/network-intervals.json

On tasks of the test part of the split `networks`, with the weights `evaluation`: the median of
ln(predicted / measured) over the eight fastest of at most forty programs of a task, which are what
a tuned network runs.

- factor: by how much the predicted spread must be widened so that 90 % of these lie within 1.645
  of it, by kind of device, of devices that the weights know;
- level: of those that they do not know, what the spread must be joined with for that: a factor that
  all programs of such a device are off by; and the root mean square of the devices' mean errors,
  those of fewer than five tasks left out;
- held: the share of each that lies within the intervals of `predict`;
- correlation: of the errors of two tasks on one device that the weights know: the mean product of
  two over the mean square, as the mean over devices and over all pairs.
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.faithfulness import samples
from benchmarks.provenance import provenance, write_json
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models import SIGMAS_90, load_weights

_FASTEST = 8
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
    spreads = defaultdict[DeviceSpec, list[float]](list)
    generator = np.random.default_rng(0)
    for batch, latencies_s, device in samples(args.store, args.tasks, args.per_task, generator):
        fastest = np.argsort(latencies_s)[:_FASTEST]
        found = predictor.predict(batch.take(fastest), device)
        assert found.spread is not None
        errors[device].append(float(np.median(np.log(found.latency_s / latencies_s[fastest]))))
        spreads[device].append(float(np.median(found.spread)))
    levels = {device: predictor.level_spread(device) for device in errors}
    groups = defaultdict[tuple[str, bool], list[DeviceSpec]](list)
    for device in errors:
        groups[device.kind, levels[device] == 0.0].append(device)
    result = {
        **provenance("numpy", "torch"),
        "kinds": {
            f"{kind}, {'known' if is_known else 'unknown'}": _judge(
                [np.array(errors[device]) for device in devices],
                [np.array(spreads[device]) for device in devices],
                levels[devices[0]],
            )
            for (kind, is_known), devices in groups.items()
        },
        "devices": {
            device.name: {
                "known": levels[device] == 0.0,
                "tasks": len(found),
                "mean": float(np.mean(found)),
                "std": float(np.std(found)),
            }
            for device, found in errors.items()
        },
        "correlation": _correlation(
            [
                np.array(found)
                for device, found in errors.items()
                if levels[device] == 0.0 and len(found) >= _LEAST_TASKS
            ]
        ),
    }
    write_json(args.out, result)
    print(json.dumps(result, indent=1))


def _judge(errors: Sequence[Floats], spreads: Sequence[Floats], level: float) -> dict[str, Any]:
    """Return what is said of the tasks of some devices, which are predicted with one level."""
    error, spread = np.abs(np.concatenate(errors)), np.concatenate(spreads)
    missing = float(np.quantile((error / SIGMAS_90) ** 2 - spread**2, 0.9))
    means = [float(found.mean()) for found in errors if len(found) >= _LEAST_TASKS]
    return {
        "tasks": len(error),
        "held": float(np.mean(error < SIGMAS_90 * np.hypot(spread, level))),
        "factor": float(np.quantile(error / spread, 0.9) / SIGMAS_90),
        "level": math.sqrt(max(0.0, missing)),
        "root_mean_square": math.sqrt(float(np.mean(np.square(means)))) if means else None,
    }


def _correlation(devices: Sequence[Floats]) -> dict[str, float]:
    pairs = [len(found) * (len(found) - 1) for found in devices]
    products = [float(found.sum() ** 2 - (found**2).sum()) for found in devices]
    own = [p / n / float((f**2).mean()) for p, n, f in zip(products, pairs, devices, strict=True)]
    square = float((np.concatenate(devices) ** 2).mean())
    return {"mean_over_devices": float(np.mean(own)), "pooled": sum(products) / sum(pairs) / square}


if __name__ == "__main__":
    main()
