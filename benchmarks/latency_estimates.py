"""What `benchmarks.network_latency` holds against measured networks: predictions and simpler ways.

- predicted: the whole, nothing measured; also after `device calibrate`, if this machine keeps one,
  and with weights that `adapt` wrote for it;
- rooflines: each operator at its peak or at the memory's bandwidth, whichever is slower;
- FLOPs: all operations at the rate that one matrix product was measured at;
- scaled: what the operators took on another device, scaled as Habitat scales kernels (Yu et al.,
  ATC 2021, wave scaling). Operators that were not measured there take as long as the rooflines say,
  and are counted.
"""

import json
import timeit
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tvm_cdmpp.devices import DeviceSpec, find_device, read_device_file
from tvm_cdmpp.replay import NetworkForecast, NetworkPrediction

_MATRIX = 512


def estimates(
    forecast: NetworkForecast, here: DeviceSpec, rate: float, adapted: Path | None
) -> dict[str, Any]:
    """Return all estimates of a network that need no measurement of it.

    Parameters
    ----------
    forecast
        Of what was compiled.
    here
        This machine, with its calibration if there is one.
    rate
        What `matrix_flops_per_s` gave here.
    adapted
        Weights for this machine.
    """
    found = forecast.on(replace(here, calibration=None))
    moved = {operator.function: operator.moved_bytes for operator in found.timeline.graph.operators}
    functions = {
        task.function: {
            "count": task.count, "flops": task.flops, "moved_bytes": moved[task.function]
        }
        for task in found.tasks
    }  # fmt: skip
    estimated: dict[str, Any] = {
        **_said(found, "predicted"),
        "predicted_operators_s": {task.function: task.latency_s for task in found.tasks},
        "rooflines_s": sum(f["count"] * roofline_s(f, here) for f in functions.values()),
        "flops_s": sum(f["count"] * f["flops"] for f in functions.values()) / rate,
        "functions": functions,
        "without_record": found.num_tasks_without_record,
    }
    if here.calibration is not None:
        estimated |= _said(forecast.on(here), "calibrated")
    if adapted is not None:
        estimated |= _said(forecast.with_weights(str(adapted)).on(here), "adapted")
    return estimated


def _said(found: NetworkPrediction, name: str) -> dict[str, Any]:
    return {f"{name}_s": found.latency_s, f"{name}_interval_s": found.interval_s}


@dataclass(frozen=True)
class Source:
    """What was measured on another device."""

    device: DeviceSpec
    rows: Mapping[tuple[str, int, str], dict[str, Any]]
    """By network, batch and schedules."""

    @staticmethod
    def read(file: Path, device: str) -> "Source":
        """Read a result file of `benchmarks.network_latency`.

        Parameters
        ----------
        file
            Of that device.
        device
            Its name, or a file with its figures.
        """
        rows = json.loads(file.read_bytes())["rows"]
        found = {(row["network"], row["batch"], row["schedules"]): row for row in rows}
        is_file = device.endswith(".json")
        spec = read_device_file(Path(device))[0] if is_file else find_device(device)
        return Source(spec, found)

    def scale(self, row: dict[str, Any], here: DeviceSpec) -> dict[str, Any]:
        """Return the estimate for a network, and how many operators it lacked; none without it."""
        there = self.rows.get((row["network"], row["batch"], row["schedules"]))
        if there is None:
            return {}
        total_s, missing = 0.0, 0
        for function, figures in row["functions"].items():
            measured_s = there["operators_s"].get(function)
            if measured_s is None:
                missing += 1
                one_s = roofline_s(figures, here)
            else:
                one_s = measured_s * wave_scaling(figures, self.device, here)
            total_s += figures["count"] * one_s
        return {"scaled_s": total_s, "scaled_without_source": missing}


def roofline_s(figures: Mapping[str, float], device: DeviceSpec) -> float:
    """Return the least that an operator can take on a device."""
    return max(
        figures["flops"] / device.peak_flops,
        figures["moved_bytes"] / device.bandwidth_bytes_per_s,
    )


def wave_scaling(figures: Mapping[str, float], there: DeviceSpec, here: DeviceSpec) -> float:
    """Return by what an operator's latency changes from one device to another.

    Habitat's equations 2 and 3: the ratio of bandwidths to the power of g, times that of what all
    cores do at a time (width and clock, together the peak) to the power of 1 - g. With x the
    operations per byte and R those at which the device's peak and its bandwidth are in balance,
    g = 1 - x / (2 R) where x < R, else R / (2 x).
    """
    intensity = figures["flops"] / max(figures["moved_bytes"], 1.0)
    balance = here.peak_flops / here.bandwidth_bytes_per_s
    memory = 1.0 - intensity / (2 * balance) if intensity < balance else balance / (2 * intensity)
    bandwidth = there.bandwidth_bytes_per_s / here.bandwidth_bytes_per_s
    peak = there.peak_flops / here.peak_flops
    return float(bandwidth**memory * peak ** (1.0 - memory))


def matrix_flops_per_s() -> float:
    """Return the rate of one large matrix product in NumPy's library, with all its threads."""
    a = np.ones((_MATRIX, _MATRIX), np.float32)
    best_s = min(timeit.repeat(lambda: a @ a, number=5, repeat=5)) / 5
    return float(2 * _MATRIX**3 / best_s)
