"""Training, validation and test parts that share nothing they must not share.

What is held out is told by rules, in `splits.json`: patterns of networks and logs, and devices. A
workload is a compute DAG, whatever it is called (`workload_id`); one that occurs on both sides goes
to the held-out side. A log that does not state its network but has a workload of a held-out one may
be of that network, so that all its workloads are held out, and so are those of `mixed_logs`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.data.quality import make_labels
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.errors import SplitError

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Kind = Literal["networks", "devices", "workloads", "latencies"]

_FILE = Path(__file__).with_name("splits.json")
_PAPER_BLOCK = 5


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How a store is split; see `splits.json` for the official rules."""

    name: str
    kind: Kind
    note: str = ""
    """What the split is for, and what it must not be used for."""
    networks: tuple[str, ...] = ()
    """Patterns, without case, of the held-out networks' names."""
    mixed_logs: tuple[str, ...] = ()
    """Patterns of logs or sources that may be of a held-out network without saying so."""
    workloads: tuple[str, ...] = ()
    """Identities of workloads that are held out wherever they occur."""
    devices: tuple[str, ...] = ()
    """Names of the held-out devices, as the store has them."""
    shared_workloads: bool = False
    """Whether a workload of a held-out device may be in the training part, on other devices."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of a store, ascending, each in one part only."""

    name: str
    note: str
    train: Rows
    validation: Rows
    """Cut from the training part, by workload."""
    test: Rows
    left_out: Rows
    """In no part: other devices' programs of workloads that are held out, or, for the protocol of
    the paper, programs without a latency."""

    def sizes(self) -> dict[str, int]:
        """Return the number of records of each part."""
        parts = ("train", "validation", "test", "left_out")
        return {part: len(getattr(self, part)) for part in parts}


@cache
def official_rules() -> dict[str, SplitRule]:
    """Return the official splits' rules, by name."""
    entries: list[dict[str, Any]] = json.loads(_FILE.read_text(encoding="utf-8"))["splits"]
    rules = []
    for entry in entries:
        # JSON has lists where a rule has tuples.
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()
        }
        rules.append(SplitRule(**values))
    return {rule.name: rule for rule in rules}


def check_split_name(name: str) -> None:
    """Refuse what is no official split, before a store is read.

    Raises
    ------
    SplitError
        There is no such split.
    """
    rules = official_rules()
    if name not in rules:
        raise SplitError(f"no official split '{name}'; known are {', '.join(rules)}")


def official_split(
    store: RecordStore, name: str, *, validation_share: float = 0.1, seed: int = 0
) -> Split:
    """Split a store by one of the official rules.

    Raises
    ------
    SplitError
        There is no such split, or the store leaves a part of it empty.
    """
    check_split_name(name)
    rule = official_rules()[name]
    return split_store(store, rule, validation_share=validation_share, seed=seed)


def split_store(
    store: RecordStore, rule: SplitRule, *, validation_share: float = 0.1, seed: int = 0
) -> Split:
    """Split a store by a rule.

    Parameters
    ----------
    store
        The records; failed ones are split as well.
    rule
        What is held out.
    validation_share
        Of the training part's workloads, in (0, 1).
    seed
        Chooses the workloads for validation.

    Raises
    ------
    SplitError
        A part would be empty.
    """
    if not 0 < validation_share < 1:
        raise SplitError(f"validation_share must be between 0 and 1; got {validation_share}")
    task = store.columns("task")["task"].to_numpy()
    names, of_task = np.unique(store.tasks["workload_id"].to_pylist(), return_inverse=True)
    workload = of_task[task]
    left_out = np.zeros(len(task), bool)
    if rule.kind == "latencies":
        latencies_s = make_labels(store).latency_s
        left_out = np.isnan(latencies_s)
        _, device = np.unique(store.tasks["device"].to_pylist(), return_inverse=True)
        test = every_fifth(latencies_s, device[task])
    elif rule.kind == "devices":
        test = np.isin(np.array(store.tasks["device"].to_pylist(), str), rule.devices)[task]
        if not rule.shared_workloads:
            left_out = ~test & np.isin(workload, np.unique(workload[test]))
    else:
        test = np.isin(names, list(held_out_workloads(store, rule)))[workload]
    train = ~test & ~left_out
    validation = choose_validation(names, workload, train, validation_share, seed)
    split = Split(
        name=rule.name,
        note=rule.note,
        train=np.flatnonzero(train & ~validation),
        validation=np.flatnonzero(validation),
        test=np.flatnonzero(test),
        left_out=np.flatnonzero(left_out),
    )
    check_split(
        split, workload, workloads_may_be_shared=rule.kind == "latencies" or rule.shared_workloads
    )
    return split


def held_out_workloads(store: RecordStore, rule: SplitRule) -> frozenset[str]:
    """Return the identities of the workloads that a rule by networks or workloads holds out."""
    networks = _any_of(rule.networks)
    held = set(rule.workloads)
    for workload in store.workloads.select(["workload_id", "networks", "derived_from"]).to_pylist():
        named = [*(workload["networks"] or ()), workload["derived_from"] or ""]
        if any(map(networks.search, named)):
            held.add(workload["workload_id"])
    by_log = _workloads_by_log(store)
    mixed = _any_of(rule.mixed_logs)
    certain = set(held)
    for log, workloads in zip(store.inputs, by_log, strict=True):
        stated = log["network"]
        is_of_network = networks.search(stated or log["name"])
        may_be = not stated and not certain.isdisjoint(workloads)
        if is_of_network or may_be or mixed.search(f"{log['source']} {log['name']}"):
            held |= workloads
    return frozenset(held)


def every_fifth(latencies_s: npt.NDArray[np.float64], devices: npt.NDArray[np.str_]) -> Mask:
    """Mark every fifth program by latency, per device: the original's 80/20 split.

    NaN is never marked. The original drops the last, incomplete block; here it stays in training.
    """
    marked = np.zeros(len(latencies_s), bool)
    for device in np.unique(devices):
        rows = np.flatnonzero((devices == device) & ~np.isnan(latencies_s))
        order = rows[np.argsort(latencies_s[rows], kind="stable")]
        marked[order[_PAPER_BLOCK - 1 :: _PAPER_BLOCK]] = True
    return marked


def choose_validation(
    names: npt.NDArray[np.str_], workloads: Rows, train: Mask, share: float, seed: int
) -> Mask:
    """Mark the rows of a share of the training part's workloads, at least one.

    `workloads` has a place in `names` per row.
    """
    # The lowest hashes, so that most workloads keep their side when a store grows.
    found = np.unique(workloads[train]).tolist()
    found.sort(key=lambda number: _rank(str(names[number]), seed))
    chosen = found[: max(1, round(share * len(found)))]
    return train & np.isin(workloads, chosen)


def check_split(split: Split, workloads: Rows, *, workloads_may_be_shared: bool = False) -> None:
    """Check that no part is empty and that no two overlap, in rows or in workloads.

    Raises
    ------
    SplitError
        They do.
    """
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    for part, rows in parts.items():
        if not len(rows):
            raise SplitError(
                f"the {part} part of the split '{split.name}' is empty: this store has no records "
                "for it. Import logs that have some, or do without a split: `train`, `finetune` "
                "and `autotune` take all records with --split none, `eval` without --split"
            )
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        _must_differ(split.name, first, second, "rows", parts[first], parts[second])
        if second == "test" and workloads_may_be_shared:
            continue
        shared = [workloads[parts[part]] for part in (first, second)]
        _must_differ(split.name, first, second, "workloads", *shared)


def _must_differ(
    name: str, first: str, second: str, what: str, a: npt.NDArray[Any], b: npt.NDArray[Any]
) -> None:
    shared = np.intersect1d(a, b)
    if len(shared):
        raise SplitError(
            f"{first} and {second} of split '{name}' must have no {what} in common; they have "
            f"{len(shared):,}, such as {shared[0]}"
        )


def _workloads_by_log(store: RecordStore) -> list[set[str]]:
    """Return the workloads of each log's records."""
    inputs = store.columns("task", "inputs")
    lists = inputs["inputs"].combine_chunks()
    counts = lists.value_lengths().to_numpy(zero_copy_only=False)
    task = np.repeat(inputs["task"].to_numpy(), counts)
    num_logs = max(1, len(store.inputs))
    pairs = np.unique(task.astype(np.int64) * num_logs + lists.flatten().to_numpy())
    ids = store.tasks["workload_id"].to_pylist()
    found: list[set[str]] = [set() for _ in store.inputs]
    for pair in pairs.tolist():
        found[pair % num_logs].add(ids[pair // num_logs])
    return found


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    # Nothing matches (?!).
    return re.compile("|".join(patterns) or "(?!)", re.IGNORECASE)


def _rank(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()
