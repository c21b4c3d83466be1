"""How good measured latencies are: one label per program, and its flags.

**The label** of a program is the median, over its measurements, of the mean of the repeats in each.
The mean within a measurement, since that is what Ansor ranks programs by; the median between them,
since what disturbs a measurement as a whole (another process, a clock that throttles) makes all its
repeats slow. Measurements of contended times, and those that a calibration marked as noisy, count
only where a program has no other; a label that is left with these only is flagged.

**A contended time** is an hour of one log whose programs took, in the median, at least
`CONTENDED_RATIO` times as long as in other hours or logs, over at least `LEAST_SHARED` programs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson

from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.devices import DeviceSpec, Registry, load_registry

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

CONTENDED_RATIO = 1.10
LEAST_SHARED = 20
"""Programs that a comparison of two runs needs."""
PEAK_MARGIN = {"cpu": 2.0, "gpu": 1.25, "accelerator": 1.25}
"""How far above the registry's peaks a true program may be: clocks rise above the base clock of
CPUs (the registry has those), and above the boost clock of GPUs by less."""
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Successful measurements, in the order of their programs; arrays of one shape (m,)."""

    row: Ints
    """The program: a row of the store."""
    log: Ints
    """Place in `RecordStore.inputs`; logs that share measurements are one log, the first of them:
    what differs between logs does not differ between these."""
    hour: Ints
    """Unix time in hours."""
    mean_s: Floats
    """Mean of the repeats."""
    variation: Floats
    """Coefficient of variation of the repeats (sample deviation); NaN for a single one."""
    repeats: Ints
    noisy: Mask
    """Whether a calibration right after it found the machine noisy."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """One latency per program of a store, and what is wrong with it; arrays of shape (records,)."""

    latency_s: Floats
    """NaN where all measurements failed."""
    measurements: Ints
    """Successful measurements that the label is the median of."""
    contended: Mask
    """Only measured while the machine was busy, by a contended time at least."""
    noisy: Mask
    """Only measured while the machine was busy, by a calibration at least."""
    above_peak: Mask
    """Faster than the device's arithmetic allows, margin included."""
    above_bandwidth: Mask
    """Faster than the device can write the result, margin and last-level cache included."""

    @property
    def impossible(self) -> Mask:
        """Labels that cannot be true."""
        return self.above_peak | self.above_bandwidth


def read_measurements(store: RecordStore) -> Measurements:
    """Read all successful measurements of a store."""
    table = store.columns("costs_s", "inputs", "timestamps_s", "noisy")
    costs, inputs, times, noisy = (table[name].combine_chunks() for name in table.column_names)
    per_row = costs.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    row = np.repeat(np.arange(len(per_row)), per_row)
    repeats = costs.flatten().value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    values = costs.flatten().flatten().to_numpy(zero_copy_only=False)
    done = repeats > 0
    counts = repeats[done]
    starts = np.cumsum(counts) - counts
    sums = np.add.reduceat(values, starts) if len(counts) else np.zeros(0)
    mean_s = sums / counts
    squares = (values - np.repeat(mean_s, counts)) ** 2
    total = np.add.reduceat(squares, starts) if len(counts) else np.zeros(0)
    variation = np.full(len(counts), np.nan)
    several = counts > 1
    variation[several] = np.sqrt(total[several] / (counts[several] - 1)) / mean_s[several]
    return Measurements(
        row=row[done],
        log=_runs(store)[inputs.flatten().to_numpy()[done]],
        hour=times.flatten().to_numpy()[done] // _SECONDS_PER_HOUR,
        mean_s=mean_s,
        variation=variation,
        repeats=counts,
        noisy=noisy.flatten().to_numpy(zero_copy_only=False)[done],
    )


def make_labels(
    store: RecordStore, measured: Measurements | None = None, registry: Registry | None = None
) -> Labels:
    """Merge the measurements of each program into one latency, and flag what is wrong with it.

    Nothing is removed: a reader decides what to do with flagged labels.

    Parameters
    ----------
    store
        The records.
    measured
        Its measurements, where they were read already.
    registry
        Where peaks of devices come from; devices that it does not have are not checked.
    """
    measured = read_measurements(store) if measured is None else measured
    slow = contended(measured)
    busy = slow | measured.noisy
    count = len(store)
    calm = _any_of(measured.row[~busy], count)
    used = ~busy | ~calm[measured.row]
    latency_s = np.full(count, np.nan)
    row, medians, counts = _medians(measured.row[used], measured.mean_s[used])
    latency_s[row] = medians
    number = np.zeros(count, np.int64)
    number[row] = counts
    above_peak, above_bandwidth = _impossible(store, latency_s, registry or load_registry())
    return Labels(
        latency_s=latency_s,
        measurements=number,
        contended=_any_of(measured.row[slow], count) & ~calm,
        noisy=_any_of(measured.row[measured.noisy], count) & ~calm,
        above_peak=above_peak,
        above_bandwidth=above_bandwidth,
    )


def contended(measured: Measurements) -> Mask:
    """Mark the measurements of contended times; see the module for what these are."""
    hours = np.stack([measured.log, measured.hour], axis=1)
    _, time = np.unique(hours, axis=0, return_inverse=True)
    time = time.reshape(-1)
    # Against the mean of the program's measurements at other times.
    keys, inverse, counts = np.unique(
        measured.row * (int(time.max(initial=0)) + 1) + time,
        return_inverse=True,
        return_counts=True,
    )
    logs = np.log(measured.mean_s)
    here = np.bincount(inverse, logs, len(keys))[inverse]
    num_here = counts[inverse]
    size = int(measured.row.max(initial=-1)) + 1
    everywhere = np.bincount(measured.row, logs, size)[measured.row]
    num_elsewhere = np.bincount(measured.row, minlength=size)[measured.row] - num_here
    shared = num_elsewhere > 0
    ratio = np.zeros(len(logs))
    elsewhere = (everywhere - here)[shared] / num_elsewhere[shared]
    ratio[shared] = logs[shared] - elsewhere
    slow, medians, numbers = _medians(time[shared], ratio[shared])
    is_slow = np.zeros(int(time.max(initial=-1)) + 1, bool)
    is_slow[slow] = (medians >= np.log(CONTENDED_RATIO)) & (numbers >= LEAST_SHARED)
    return is_slow[time]


def output_bytes(dag: str) -> int:
    """Return the size of the tensor that a DAG, as `tvm.ir.save_json` writes it, computes.

    That is the last one of its list; a DAG's inputs may be read in part, its result is written.
    """
    saved = orjson.loads(dag)
    nodes = saved["nodes"]
    tensor = nodes[nodes[saved["root"]]["data"][-1]]["attrs"]
    shape = nodes[int(tensor["shape"])].get("data", [])
    elements = np.prod([int(nodes[n]["attrs"]["value"]) for n in shape], dtype=np.float64)
    bits = int("".join(filter(str.isdigit, tensor["dtype"])) or 8)
    return int(elements) * bits // 8


def least_seconds(
    spec: DeviceSpec, flops: float | None, written_bytes: int, dag: str = ""
) -> tuple[float, float]:
    """Return the least time of a program's arithmetic, and of writing its result.

    Parameters
    ----------
    spec
        The device; its peaks are taken `PEAK_MARGIN` times as high.
    flops, written_bytes
        Of the program; the last-level cache may keep as much of the result as it holds.
    dag
        Where it has other element types than float32, the device's highest peak counts.
    """
    peaks = [spec.peak_flops]
    if any(f'"{name}' in dag for name in ("float16", "bfloat16", "int8", "uint8")):
        peaks += [spec.float16_flops or np.inf, spec.int8_ops or np.inf]
    margin = PEAK_MARGIN[spec.kind]
    cached = max(spec.l2_bytes * (spec.cores if spec.kind == "cpu" else 1), spec.l3_bytes)
    return (
        (flops or 0.0) / (max(peaks) * margin),
        max(0.0, written_bytes - cached) / (spec.bandwidth_bytes_per_s * margin),
    )


def _any_of(rows: Ints, count: int) -> Mask:
    found = np.zeros(count, bool)
    found[rows] = True
    return found


def _runs(store: RecordStore) -> Ints:
    """Return, by input, the first of the inputs that share measurements with it, or with those."""
    runs = np.arange(len(store.inputs))
    for place, log in enumerate(store.inputs):
        for other in log["shares"]:
            first, second = sorted((runs[place], runs[other]))
            runs[runs == second] = first
    return runs


def _impossible(store: RecordStore, latency_s: Floats, registry: Registry) -> tuple[Mask, Mask]:
    above_peak, above_bandwidth = np.zeros((2, len(store)), bool)
    for task in store.iter_tasks():
        spec = registry.match(task["device"])
        if spec is None:
            continue
        rows = slice(task["rows"].start, task["rows"].stop)
        bounds = least_seconds(spec, task["flops"], output_bytes(task["dag"]), task["dag"])
        above_peak[rows] = latency_s[rows] < bounds[0]
        above_bandwidth[rows] = latency_s[rows] < bounds[1]
    return above_peak, above_bandwidth


def _medians(group: Ints, values: Floats) -> tuple[Ints, Floats, Ints]:
    """Return each group once, the median of its values, and how many there are."""
    order = np.lexsort((values, group))
    found, start, count = np.unique(group[order], return_index=True, return_counts=True)
    ordered = values[order]
    low, high = ordered[start + (count - 1) // 2], ordered[start + count // 2]
    return found, (low + high) / 2, count
