"""What each group of fields of the computation vector buys in error.

`python -m benchmarks.ablation cpu STORE` (or `gpu`) trains the package's own predictor on published
measurements in a record store, once with all fields and once without each group, and writes
`results/ablation-<device>.json` after every training, so a stopped run goes on where it was.

- Only what the official split `networks` has for training and validation is used. Of that, whole
  workloads are held out, drawn by a hash of workload and seed; each seed draws its own, and a
  group's difference is taken to all fields with the same seed, that is on the same split.
- A removed group's inputs are set to their training mean, which standardisation maps to zero, in
  training and in test. The rest of training is `tvm_cdmpp.train.loop.fit`, unchanged.
- The predictor corrects an analytic estimate that is computed from many fields, so with it a
  removed group still speaks. Everything is therefore trained twice: with the estimate, as the
  package works ("with estimate"), and with neither the estimate as base nor as an input ("fields
  alone"), which shows what the fields themselves carry.
"""

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import kendalltau
from torch import Tensor

from benchmarks.provenance import RESULTS, provenance, write_json
from tvm_cdmpp.ast import FIELDS, GROUPS, SCHEMA_VERSION
from tvm_cdmpp.data import RecordStore, make_labels, official_split
from tvm_cdmpp.devices import DeviceSpec, generic_gpu
from tvm_cdmpp.models import FitConfig, Inputs, Network, Predictor, PredictorConfig, TrainingRows
from tvm_cdmpp.train import extract_rows

ALL = "all fields"
MIN_FOR_TAU = 5
"""Records a held-out workload needs for a rank correlation."""
METRICS = {
    "median_ape": "median absolute percentage error",
    "mape": "mean absolute percentage error",
    "kendall_tau": "Kendall's tau within a workload, mean over held-out workloads",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """The measurements of one device."""

    device: str
    """As the store calls it."""
    spec: DeviceSpec
    """What the analytic estimate assumes of it."""


SPLIT = "networks"
SOURCES = {
    # The target of these logs is generic x86-64: vectors of 16 bytes, whatever the CPU has.
    "cpu": Source(
        device="x86-24t",
        spec=DeviceSpec(name="x86-64, 24 threads", kind="cpu", cores=24, simd_bytes=16),
    ),
    "gpu": Source(device="nvidia-v100", spec=generic_gpu("V100")),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a result depends on, besides the commit."""

    device: str
    records_per_workload: int
    seeds: int
    test_share: float
    steps: int
    batch_size: int
    schema_version: int = SCHEMA_VERSION

    def fit_config(self) -> FitConfig:
        """Return how each predictor is trained: every row weighs the same."""
        return FitConfig(steps=self.steps, batch_size=self.batch_size, fast_exponent=0.0)


@dataclass(frozen=True)
class Configuration:
    """One variant of the inputs."""

    fields: str
    """"all fields" or "without <group>"."""
    groups: frozenset[str]
    """Groups that stay."""
    with_estimate: bool

    @property
    def name(self) -> str:
        """Name in the result file."""
        return f"{self.fields}, {'with estimate' if self.with_estimate else 'fields alone'}"


class MaskedNetwork(Network):
    """The network, blind to some of its inputs.

    Parameters
    ----------
    config
        Size of the network.
    keep
        One per field that stays, else zero; the last entry is the estimate.
    """

    def __init__(self, config: PredictorConfig, keep: Tensor) -> None:
        super().__init__(config)
        self.keep = keep

    def forward(self, inputs: Inputs, base: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels and logits, as the network does."""
        # At its mean, an input is zero after standardisation.
        leaves = inputs.leaves * self.keep + self.input_mean * (1.0 - self.keep)
        # Labels have zero mean, so that is the base of those who know nothing.
        return super().forward(replace(inputs, leaves=leaves), base * self.keep[-1])


def configurations() -> list[Configuration]:
    """Return what is trained; what matters most comes first."""
    everything = frozenset(GROUPS)
    found = []
    for with_estimate in (False, True):
        found.append(Configuration(ALL, everything, with_estimate))
        found += [
            Configuration(f"without {group}", everything - {group}, with_estimate)
            for group in GROUPS
        ]
    return found


def is_held_out(key: str, seed: int, test_share: float) -> bool:
    """Draw whether a workload is held out."""
    digest = hashlib.sha256(f"{seed} {key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < test_share * 2**64


def sample(
    store: RecordStore, device: str, spec: DeviceSpec, per_workload: int
) -> tuple[TrainingRows, npt.NDArray[np.str_], dict[str, int]]:
    """Draw programs of a device that are not held out by the official split.

    Returns
    -------
    rows
        The programs; their task numbers count workloads.
    workloads
        Identities, by task number.
    not_used
        Records of the device that are not among the rows, by reason.
    """
    split = official_split(store, SPLIT)
    allowed = np.zeros(len(store), bool)
    allowed[split.train] = allowed[split.validation] = True
    latency_s = make_labels(store).latency_s
    by_workload: dict[str, list[npt.NDArray[np.int64]]] = {}
    not_used = dict.fromkeys(("held out by the split", "failed", "not drawn", "not analysed"), 0)
    for task in store.iter_tasks():
        if task["device"] != device:
            continue
        rows = np.arange(task["rows"].start, task["rows"].stop)
        not_used["held out by the split"] += int((~allowed[rows]).sum())
        rows = rows[allowed[rows]]
        not_used["failed"] += int(np.isnan(latency_s[rows]).sum())
        by_workload.setdefault(task["workload_id"], []).append(rows[~np.isnan(latency_s[rows])])
    generator = np.random.default_rng(0)
    chosen, numbers = [], []
    found = {name: np.concatenate(parts) for name, parts in by_workload.items()}
    workloads = [name for name, rows in found.items() if len(rows)]
    for number, name in enumerate(workloads):
        drawn = min(per_workload, len(found[name]))
        not_used["not drawn"] += len(found[name]) - drawn
        chosen.append(generator.choice(found[name], drawn, replace=False))
        numbers.append(np.full(drawn, number))
    rows, number_of = np.concatenate(chosen), np.concatenate(numbers)
    order = np.argsort(rows)
    rows, number_of = rows[order], number_of[order]
    asts, _ = extract_rows(store, rows)
    usable = np.flatnonzero(asts.leaf_counts > 0)
    not_used["not analysed"] = len(rows) - len(usable)
    return (
        TrainingRows.on(spec, asts.take(usable), latency_s[rows[usable]], number_of[usable]),
        np.array(workloads),
        not_used,
    )


def train_and_test(
    configuration: Configuration,
    rows: TrainingRows,
    held_out: npt.NDArray[np.bool_],
    settings: Settings,
    seed: int,
) -> dict[str, Any]:
    """Train one predictor on the rows that are not held out, and test it on the others."""
    begin = time.perf_counter()
    keep = [field.group in configuration.groups for field in FIELDS]
    mask = torch.tensor([*keep, configuration.with_estimate], dtype=torch.float32)
    device = SOURCES[settings.device].spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        predictor = Predictor(MaskedNetwork(PredictorConfig(), mask))
    predictor.fit_config = settings.fit_config()
    predictor.fit(rows.take(np.flatnonzero(~held_out)), seed=seed)
    test = rows.take(np.flatnonzero(held_out))
    predicted_s = predictor.predict(test.batch(), device).latency_s
    ape = np.abs(predicted_s - test.latencies_s) / test.latencies_s
    taus = [
        kendalltau(predicted_s[of_task], test.latencies_s[of_task]).statistic
        for of_task in (test.tasks == task for task in np.unique(test.tasks))
        if of_task.sum() >= MIN_FOR_TAU
    ]
    # Tau does not exist where all predictions are equal; such a model ranks nothing.
    taus = [tau if np.isfinite(tau) else 0.0 for tau in taus]
    return {
        "configuration": configuration.name,
        "seed": seed,
        "median_ape": float(np.median(ape)),
        "mape": float(ape.mean()),
        "kendall_tau": statistics.fmean(taus),
        "rows": {"training": int((~held_out).sum()), "test": len(ape)},
        "test_workloads": len(np.unique(test.tasks)),
        "seconds": time.perf_counter() - begin,
    }


def run(settings: Settings, store: Path, path: Path) -> dict[str, Any]:
    """Train and test what is missing from the result file, and return its content."""
    result = _resume(settings, path)
    done = {(r["configuration"], r["seed"]) for r in result["runs"]}
    todo = [
        (configuration, seed)
        for configuration in configurations()
        for seed in range(settings.seeds)
        if (configuration.name, seed) not in done
    ]
    if not todo:
        return result
    opened = RecordStore.open(store)
    rows, keys, not_used = sample(
        opened,
        SOURCES[settings.device].device,
        SOURCES[settings.device].spec,
        settings.records_per_workload,
    )
    result["data"] = {
        "store": opened.content_hash,
        "split": SPLIT,
        "workloads": len(keys),
        "records": len(rows.latencies_s),
        "leaves": len(rows.batch().vectors),
        "constant_fields": [
            FIELDS[n].name for n in np.flatnonzero(np.ptp(rows.batch().vectors, 0) == 0)
        ],
        "not_used": not_used,
    }
    print(f"{len(rows.latencies_s)} records of {len(keys)} workloads", flush=True)
    for number, (configuration, seed) in enumerate(todo, start=1):
        held_out = np.array([is_held_out(key, seed, settings.test_share) for key in keys])
        outcome = train_and_test(configuration, rows, held_out[rows.tasks], settings, seed)
        result["runs"].append(outcome)
        result["summary"] = summarise(result)
        write_json(path, result)
        print(
            f"{number}/{len(todo)} {configuration.name}, seed {seed}: median APE "
            f"{outcome['median_ape']:.1%}, MAPE {outcome['mape']:.1%}, tau "
            f"{outcome['kendall_tau']:.3f}, {outcome['seconds']:.0f} s",
            flush=True,
        )
    return result


def summarise(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return mean and spread of each configuration, and of its difference to all fields."""
    by_name: dict[str, dict[int, dict[str, Any]]] = {}
    for outcome in result["runs"]:
        by_name.setdefault(outcome["configuration"], {})[outcome["seed"]] = outcome
    rows = []
    for name, outcomes in by_name.items():
        full = by_name[f"{ALL}, {name.rsplit(', ', 1)[1]}"]
        row: dict[str, Any] = {"configuration": name, "seeds": len(outcomes)}
        for metric in METRICS:
            row[metric] = _mean_and_spread([outcome[metric] for outcome in outcomes.values()])
            row[f"{metric}_difference"] = _mean_and_spread(
                [outcomes[s][metric] - full[s][metric] for s in outcomes if s in full]
            )
        rows.append(row)
    return rows


def table(result: dict[str, Any]) -> Iterator[str]:
    """Lay the summary out as lines of text."""
    data, device = result["data"], result["settings"]["device"]
    yield f"{device}: {data['records']} records of {data['workloads']} workloads"
    yield f"{'':52}{'median APE':>22}{'MAPE':>22}{'tau':>20}    (difference to all fields)"
    for row in result["summary"]:
        cells = [f"{row['configuration']:52}"]
        for metric, scale in (("median_ape", 100.0), ("mape", 100.0), ("kendall_tau", 1.0)):
            digits = 1 if scale > 1 else 3
            mean, spread = (scale * row[metric][part] for part in ("mean", "spread"))
            difference = scale * row[f"{metric}_difference"]["mean"]
            cells.append(f"{mean:8.{digits}f} ±{spread:.{digits}f} ({difference:+.{digits}f})")
        yield "  ".join(cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("device", choices=SOURCES)
    parser.add_argument("store", type=Path, help="folder of the record store")
    parser.add_argument("--records", type=int, default=None, help="per workload")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    args = parser.parse_args(arguments)
    settings = Settings(
        device=args.device,
        # The GPU's log has a third of the workloads.
        records_per_workload=args.records or {"cpu": 40, "gpu": 80}[args.device],
        seeds=args.seeds,
        test_share=0.22,
        steps=args.steps,
        batch_size=args.batch_size,
    )
    result = run(settings, args.store, args.out / f"ablation-{args.device}.json")
    print("\n".join(table(result)))
    return 0


def _resume(settings: Settings, path: Path) -> dict[str, Any]:
    """Return the content of the result file, or a new one if it has other settings or code."""
    fresh = {
        **provenance("numpy", "torch", "scipy"),
        "settings": asdict(settings),
        "groups": {
            group: [field.name for field in FIELDS if field.group == group] for group in GROUPS
        },
        "metrics": METRICS,
        "runs": [],
    }
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        same = all(found.get(name) == fresh[name] for name in ("settings", "groups"))
        # Writing the file itself makes the checkout dirty.
        if same and _clean(found["commit"]) == _clean(fresh["commit"]):
            print(f"going on after {len(found['runs'])} trainings", flush=True)
            return found
        print(f"{path.name} is of other settings or another commit; starting anew", flush=True)
    return fresh


def _clean(commit: str | None) -> str | None:
    return commit.removesuffix("-dirty") if commit else None


def _mean_and_spread(values: Sequence[float]) -> dict[str, float]:
    """Return the mean and the standard deviation over seeds."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "spread": spread}


if __name__ == "__main__":
    sys.exit(main())
