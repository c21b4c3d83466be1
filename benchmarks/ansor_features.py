"""Ansor's 164 features of each store of a program, as TVM computes them, kept in files.

TVM lowers every program for them, which takes tens of milliseconds, so what was computed stays: a
file per task below a folder, for as many of its programs as were ever asked for. A stopped run
loses one task. TVM uses all cores by itself. `python -m benchmarks.ansor_features STORE FOLDER`
computes those of a split ahead.
"""

import argparse
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.data import RecordStore, official_split
from tvm_cdmpp.extract import load_dag
from tvm_cdmpp.files import write_atomically
from tvm_cdmpp.models import Ints
from tvm_cdmpp.train import sample_tasks

NUM_FEATURES = 164


@dataclass(frozen=True)
class AnsorFeatures:
    """Features of B programs, one program after the other."""

    stores: npt.NDArray[np.float32]
    """A row per store, (S, NUM_FEATURES); one of zeros for a program that TVM cannot lower."""
    counts: Ints
    """Stores of each program; (B,)."""

    @property
    def program(self) -> Ints:
        """Place of the program of each store; (S,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def is_lowered(self) -> npt.NDArray[np.bool_]:
        """Whether TVM could lower each program; (B,)."""
        lowered = np.zeros(len(self.counts), bool)
        np.logical_or.at(lowered, self.program, self.stores.any(axis=1))
        return lowered

    @staticmethod
    def join(parts: Sequence["AnsorFeatures"]) -> "AnsorFeatures":
        """Join features, in order."""
        return AnsorFeatures(
            np.concatenate([np.zeros((0, NUM_FEATURES), np.float32), *(p.stores for p in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(part.counts for part in parts)]),
        )

    def take(self, programs: Ints) -> "AnsorFeatures":
        """Return the given programs, in the given order."""
        firsts, counts = np.cumsum(self.counts) - self.counts, self.counts[programs]
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return AnsorFeatures(self.stores[np.repeat(firsts[programs], counts) + place], counts)


def read_features(store: RecordStore, rows: Ints, folder: Path) -> AnsorFeatures:
    """Return the features of programs of a store, computing those that are in no file yet."""
    tasks = list(store.iter_tasks())
    starts = np.array([task["rows"].start for task in tasks])
    task_of = np.searchsorted(starts, rows, side="right") - 1
    order = np.argsort(task_of, kind="stable")
    parts = []
    for number in np.unique(task_of).tolist():
        path = folder / store.content_hash[:16] / f"{number}.npz"
        wanted = rows[order][task_of[order] == number]
        parts.append(_of_task(store, tasks[number], wanted, path))
    back = np.empty(len(rows), np.int64)
    back[order] = np.arange(len(rows))
    return AnsorFeatures.join(parts).take(back)


def _of_task(store: RecordStore, task: dict[str, Any], rows: Ints, path: Path) -> AnsorFeatures:
    known, found = np.zeros(0, np.int64), AnsorFeatures.join([])
    if path.exists():
        with np.load(path) as file:
            known, found = file["rows"], AnsorFeatures(file["stores"], file["counts"])
    missing = np.setdiff1d(rows, known)
    if missing.size:
        known = np.concatenate([known, missing])
        found = AnsorFeatures.join([found, compute_features(store, task, missing)])
        content = io.BytesIO()
        np.savez(content, rows=known, stores=found.stores, counts=found.counts)
        write_atomically(path, content.getvalue())
    order = np.argsort(known)
    return found.take(order[np.searchsorted(known[order], rows)])


def compute_features(store: RecordStore, task: dict[str, Any], rows: Ints) -> AnsorFeatures:
    """Compute the features of programs of one task, a row of `RecordStore.iter_tasks`."""
    tvm = load_tvm()
    auto_scheduler = tvm.auto_scheduler
    dag = load_dag(task["dag"])
    search_task = auto_scheduler.SearchTask(
        compute_dag=dag,
        workload_key=task["workload_key"],
        target=tvm.target.Target(task["target"]),
        hardware_params=auto_scheduler.HardwareParams(*task["hardware_parameters"]),
        layout_rewrite_option=task["layout_rewrite_option"],
    )
    states = [
        dag.infer_bound_from_state(
            auto_scheduler.measure_record.load_record_from_string(line.decode())[0].state
        )
        for line in store.records(rows).splitlines()
    ]
    found = auto_scheduler.feature.get_per_store_features_from_states(states, search_task)
    stores = [np.asarray(program, np.float32) for program in found]
    return AnsorFeatures(np.concatenate(stores), np.array([len(program) for program in stores]))


def _groups(rows: Ints, size: int) -> Iterator[Ints]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of the record store")
    parser.add_argument("folder", type=Path, help="folder of the features")
    parser.add_argument("--split", default="networks")
    parser.add_argument("--per-task", type=int, default=20, help="training programs of a task")
    parser.add_argument("--test-per-task", type=int, default=100, help="test programs of a task")
    args = parser.parse_args(arguments)
    store = RecordStore.open(args.store)
    split = official_split(store, args.split)
    for rows, per_task in ((split.train, args.per_task), (split.test, args.test_per_task)):
        chosen, done = sample_tasks(store, rows, per_task), 0
        for some in _groups(chosen, 1000):
            read_features(store, some, args.folder)
            done += len(some)
            print(f"{done:,} of {len(chosen):,} programs", flush=True)


if __name__ == "__main__":
    main()
