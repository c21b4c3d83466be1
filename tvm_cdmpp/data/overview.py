"""What is in a record store, as plain data: for tables, plots and result files."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.data.noise import compare_alike, noise_by
from tvm_cdmpp.data.quality import Ints, Labels, Measurements, make_labels, read_measurements
from tvm_cdmpp.data.splits import official_rules, split_store
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.devices import Registry, load_registry
from tvm_cdmpp.errors import SplitError

_FLAGS = ("contended", "noisy", "above_peak", "above_bandwidth")
LATENCY_EDGES_LOG10_S = tuple(np.linspace(-6.5, 1.5, 65).tolist())
"""Bins of the latency histograms: an eighth of a decade each."""


def describe_store(
    store: RecordStore, registry: Registry | None = None, alike: Ints | None = None
) -> dict[str, Any]:
    """Describe the records, their labels and the official splits.

    Parameters
    ----------
    store
        The records.
    registry
        Where peaks of devices come from.
    alike
        Which programs look alike, as `train.features.group_alike` finds them; without it, the
        devices' `alike` is None.

    Returns
    -------
    overview
        Totals; `devices`, `sources`, `operators`, `networks` and `splits`, a list of rows each.
        Latencies are in seconds, noise is relative.
    """
    registry = registry or load_registry()
    measured = read_measurements(store)
    labels = make_labels(store, measured, registry)
    return {
        "records": len(store),
        "tasks": store.tasks.num_rows,
        "workloads": store.workloads.num_rows,
        "failed": int(np.isnan(labels.latency_s).sum()),
        "measured_again": int((labels.measurements > 1).sum()),
        "devices": _devices(store, measured, labels, registry, alike),
        "sources": _sources(store, measured),
        "operators": _operators(store),
        "networks": _networks(store),
        "splits": _splits(store),
    }


def count_leaves(leaf_counts: npt.NDArray[np.int64], sampled: bool) -> dict[str, Any]:
    """Return how many programs have how many leaves; those without any are not counted."""
    counts = Counter(leaf_counts[leaf_counts > 0].tolist())
    return {"sampled": sampled, "programs": counts.total(), "counts": dict(sorted(counts.items()))}


def _devices(
    store: RecordStore,
    measured: Measurements,
    labels: Labels,
    registry: Registry,
    alike: Ints | None,
) -> list[dict[str, Any]]:
    noises = noise_by(store, measured, "device")
    rows: dict[str, list[Ints]] = {}
    gflops: dict[str, float] = {}
    for task in store.iter_tasks():
        device = task["device"]
        rows.setdefault(device, []).append(np.arange(task["rows"].start, task["rows"].stop))
        best_s = np.nanmin(np.append(labels.latency_s[rows[device][-1]], np.inf))
        gflops[device] = max(gflops.get(device, 0.0), (task["flops"] or 0.0) / best_s / 1e9)
    found = []
    for device, parts in rows.items():
        chosen = np.concatenate(parts)
        latency_s = labels.latency_s[chosen]
        known = latency_s[~np.isnan(latency_s)]
        spec = registry.match(device)
        logs = np.log10(known)
        edges = LATENCY_EDGES_LOG10_S
        quantiles = np.quantile(known, [0.01, 0.5, 0.99]).tolist() if len(known) else [None] * 3
        found.append(
            {
                "device": device,
                "registry": spec.name if spec else None,
                "tasks": len(parts),
                "records": len(chosen),
                "failed": int(np.isnan(latency_s).sum()),
                "latency_s": dict(zip(("p01", "p50", "p99"), quantiles, strict=True)),
                "histogram": np.histogram(logs.clip(edges[0], edges[-1]), edges)[0].tolist(),
                "best_gflops": gflops[device],
                "peak_gflops": spec.peak_flops / 1e9 if spec else None,
                "flags": {flag: int(getattr(labels, flag)[chosen].sum()) for flag in _FLAGS},
                "noise": noises[(device,)].to_json(),
                "alike": None if alike is None else _alike(measured, chosen, alike),
            }
        )
    return found


def _alike(measured: Measurements, rows: Ints, alike: Ints) -> dict[str, Any]:
    return compare_alike(measured, np.isin(measured.row, rows), alike).to_json()


def _sources(store: RecordStore, measured: Measurements) -> list[dict[str, Any]]:
    noises = noise_by(store, measured, "device", "source")
    return [
        {"device": device, "source": source, "noise": noise.to_json()}
        for (device, source), noise in noises.items()
    ]


def _operators(store: RecordStore) -> list[dict[str, Any]]:
    records: Counter[str] = Counter()
    for task in store.iter_tasks():
        records[task["operator"]] += task["num_records"]
    workloads = Counter(store.workloads["operator"].to_pylist())
    return [
        {"operator": operator, "workloads": workloads[operator], "records": count}
        for operator, count in records.most_common()
    ]


def _networks(store: RecordStore) -> list[dict[str, Any]]:
    """Count by the networks that workloads are known to occur in; one may be in several."""
    workloads: Counter[str] = Counter()
    records: Counter[str] = Counter()
    for names in store.workloads["networks"].to_pylist():
        workloads.update(names or ["not stated"])
    for task in store.iter_tasks():
        for name in task["networks"] or ["not stated"]:
            records[name] += task["num_records"]
    return [
        {"network": name, "workloads": workloads[name], "records": count}
        for name, count in records.most_common()
    ]


def _splits(store: RecordStore) -> list[dict[str, Any]]:
    """Make the official splits; one that this store cannot have says why."""
    rows = []
    for name, rule in official_rules().items():
        row: dict[str, Any] = {"name": name, "note": rule.note}
        try:
            row |= split_store(store, rule).sizes()
        except SplitError as error:
            row["error"] = str(error)
        rows.append(row)
    return rows
