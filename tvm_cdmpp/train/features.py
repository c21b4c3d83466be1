"""Compact ASTs of all programs of a record store, extracted once and then memory-mapped.

They lie below the store, in `features/v<schema of the vectors>-<content hash of the store>/`, a few
arrays per part of the store; an extraction that was killed goes on with the next part. Once they
are there, reading needs no TVM. Those of stores that an import has replaced are removed when the
new ones are there.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import SCHEMA_VERSION, CompactASTBatch, concatenate
from tvm_cdmpp.data import FEATURES, RecordStore
from tvm_cdmpp.devices import Hardware
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.files import replacing

if TYPE_CHECKING:
    from tvm_cdmpp.extract import StepExtractor

_ARRAYS = ("vectors", "positions", "offsets")
_ROWS_AT_ONCE = 8192
_FOLDER = re.compile(r"v\d+-[0-9a-f]{16}")


@dataclass(frozen=True)
class StoredFeatures:
    """The compact ASTs of a record store.

    Attributes
    ----------
    folder
        Where the arrays lie.
    part_starts
        First row of each part of the store, and the number of records.
    num_failed
        Programs that have no leaves, because their steps do not fit their DAG.
    first_failure
        The first of these, and why; empty if there is none.
    """

    folder: Path
    part_starts: npt.NDArray[np.int64]
    num_failed: int
    first_failure: str

    def __len__(self) -> int:
        """Return the number of programs."""
        return int(self.part_starts[-1])

    @cached_property
    def leaf_counts(self) -> npt.NDArray[np.int64]:
        """Leaves of every program; 0 for those that failed."""
        counts = [part.leaf_counts for part in self._parts]
        return np.concatenate([np.zeros(0, np.int64), *counts])

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64] | range) -> CompactASTBatch:
        """Return the compact ASTs of some rows of the store, in the given order."""
        wanted = np.asarray(rows, np.int64)
        part = np.searchsorted(self.part_starts, wanted, side="right") - 1
        order = np.argsort(part, kind="stable")
        batches = [
            self._parts[number].take(wanted[part == number] - self.part_starts[number])
            for number in np.unique(part)
        ]
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        joined = concatenate(batches)
        return joined if (back[:-1] < back[1:]).all() else joined.take(back)

    @cached_property
    def _parts(self) -> list[CompactASTBatch]:
        parts = []
        for number in range(len(self.part_starts) - 1):
            try:
                arrays = [
                    np.load(self.folder / f"{number:05}.{name}.npy", mmap_mode="r")
                    for name in _ARRAYS
                ]
            except (OSError, ValueError) as error:
                raise RecordError(
                    f"features in {self.folder} cannot be read: {error}. Remove the folder; they "
                    "are extracted again."
                ) from error
            parts.append(CompactASTBatch(*arrays))
        return parts


def find_features(store: RecordStore) -> StoredFeatures | None:
    """Return the compact ASTs of a store's programs if all were extracted already."""
    folder = _folder(store)
    reports = [folder / f"{number:05}.json" for number in range(len(store.part_starts) - 1)]
    return load_features(store) if all(report.is_file() for report in reports) else None


def sample_leaf_counts(
    store: RecordStore, tasks: int = 200, per_task: int = 10
) -> npt.NDArray[np.int64]:
    """Extract a few programs of tasks spread over a store, and count their leaves.

    Parameters
    ----------
    store
        The records.
    tasks, per_task
        How many tasks at most, and programs of each, spread over its records.

    Returns
    -------
    leaf_counts
        One per program that could be extracted.
    """
    found = [task["rows"] for task in store.iter_tasks()]
    chosen = [
        np.linspace(found[place].start, found[place].stop - 1, per_task).astype(np.int64)
        for place in np.linspace(0, len(found) - 1, min(tasks, len(found))).astype(int)
    ]
    rows = np.unique(np.concatenate([np.zeros(0, np.int64), *chosen]))
    batch, _ = extract_rows(store, rows)
    return batch.leaf_counts[batch.leaf_counts > 0]


def extract_rows(
    store: RecordStore, rows: npt.NDArray[np.int64]
) -> tuple[CompactASTBatch, dict[int, RecordError]]:
    """Extract some programs of a store, and keep nothing of them.

    Parameters
    ----------
    store
        The records.
    rows
        Ascending, of shape (n,).

    Returns
    -------
    asts
        n compact ASTs; those that failed have no leaves.
    errors
        By place in `rows`.
    """
    batches: list[CompactASTBatch] = []
    errors: dict[int, RecordError] = {}
    for task in store.iter_tasks():
        begin, end = np.searchsorted(rows, [task["rows"].start, task["rows"].stop]).tolist()
        if begin < end:
            batch, found = _extractor(task).extract(store.records(rows[begin:end]))
            batches.append(batch)
            errors |= {begin + place: error for place, error in found.items()}
    return concatenate(batches), errors


def group_alike(
    store: RecordStore, on_rows: Callable[[int], None] = lambda _: None
) -> npt.NDArray[np.int64]:
    """Find the programs that a predictor cannot tell apart: compact ASTs are equal, to the bit.

    On GPUs nine in ten of these are the same program, written as other steps: an unroll limit that
    nothing comes up to, a factor that either of two levels may have where nothing is between them.
    On CPUs many are; others differ in what does not show, such as where constants lie.

    Parameters
    ----------
    store
        The records. Features that are there are used; otherwise programs are extracted, about a
        minute per million, and nothing is kept.
    on_rows
        Told how many rows are done.

    Returns
    -------
    alike
        For every program the first row of its task that is equal, of shape (records,); its own row
        where there is none before it, or the program could not be extracted.
    """
    features = find_features(store)
    alike = np.arange(len(store))
    for task in store.iter_tasks():
        rows = task["rows"]
        first_rows: dict[bytes, int] = {}
        if features is None:
            pieces = ((chunk, batch) for chunk, batch, _ in _extracted(store, task, rows))
        else:
            pieces = ((chunk, features.take(chunk)) for chunk in _chunks(rows))
        for chunk, batch in pieces:
            for row, digest in zip(chunk, _digests(batch), strict=True):
                alike[row] = first_rows.setdefault(digest, row) if digest else row
        on_rows(rows.stop)
    return alike


def load_features(
    store: RecordStore, on_rows: Callable[[int], None] = lambda _: None
) -> StoredFeatures:
    """Return the compact ASTs of a store's programs; extract those that are not there yet.

    Parameters
    ----------
    store
        The records.
    on_rows
        Told how many rows are done.

    Raises
    ------
    RecordError
        The disk is full; what was extracted before stays.
    """
    folder = _folder(store)
    starts = store.part_starts
    failures: list[tuple[int, str]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (begin, end) in enumerate(pairwise(starts.tolist())):
            report = folder / f"{number:05}.json"
            if not report.is_file():
                _extract_part(store, range(begin, end), folder / f"{number:05}", report)
            found = json.loads(report.read_text(encoding="utf-8"))
            failures.append((found["num_failed"], found["first_failure"]))
            on_rows(end)
    except (OSError, ValueError) as error:
        raise RecordError(
            f"features cannot be kept in {folder}: {error}. Free some space or remove the folder, "
            "and run again."
        ) from error
    _remove_replaced(store)
    first = next((text for count, text in failures if count), "")
    return StoredFeatures(folder, starts, sum(count for count, _ in failures), first)


def _remove_replaced(store: RecordStore) -> None:
    """Remove other features below a store, unless it has itself been replaced by now.

    A process that has them mapped keeps them until it ends.
    """
    folder = _folder(store)
    if RecordStore.open(store.path).content_hash == store.content_hash:
        for other in folder.parent.iterdir():
            if other != folder and _FOLDER.fullmatch(other.name):
                shutil.rmtree(other)


def _extract_part(store: RecordStore, rows: range, stem: Path, report: Path) -> None:
    """Extract consecutive rows; the report is written last, when the arrays are whole."""
    batches, num_failed, first_failure = [], 0, ""
    for task in store.iter_tasks():
        begin = max(rows.start, task["rows"].start)
        end = min(rows.stop, task["rows"].stop)
        if begin >= end:
            continue
        for chunk, batch, errors in _extracted(store, task, range(begin, end)):
            batches.append(batch)
            num_failed += len(errors)
            for place, error in errors.items():
                first_failure = first_failure or f"record {chunk.start + place}: {error}"
    joined = concatenate(batches)
    for name in _ARRAYS:
        array = stem.with_name(f"{stem.name}.{name}.npy")
        with replacing(array) as temporary, temporary.open("wb") as file:
            np.save(file, getattr(joined, name))
    with replacing(report) as temporary:
        found = {"num_failed": num_failed, "first_failure": first_failure}
        temporary.write_text(json.dumps(found), encoding="utf-8")


def _extracted(
    store: RecordStore, task: dict[str, Any], rows: range
) -> Iterator[tuple[range, CompactASTBatch, dict[int, RecordError]]]:
    """Extract some rows of a task, in pieces; yield each piece, and the errors by place in it."""
    from tvm_cdmpp.extract import records_of_steps

    extractor = _extractor(task)
    for chunk in _chunks(rows):
        yield chunk, *extractor.extract(records_of_steps(store.steps(chunk)))


def _chunks(rows: range) -> Iterator[range]:
    for first in range(rows.start, rows.stop, _ROWS_AT_ONCE):
        yield range(first, min(first + _ROWS_AT_ONCE, rows.stop))


def _digests(batch: CompactASTBatch) -> Iterator[bytes]:
    """Yield a hash of each compact AST; empty for programs without leaves."""
    for begin, end in pairwise(batch.offsets.tolist()):
        leaves = batch.vectors[begin:end].tobytes() + batch.positions[begin:end].tobytes()
        yield hashlib.blake2b(leaves, digest_size=16).digest() if leaves else b""


def _folder(store: RecordStore) -> Path:
    return store.path / FEATURES / f"v{SCHEMA_VERSION}-{store.content_hash[:16]}"


def _extractor(task: dict[str, Any]) -> "StepExtractor":
    """Return what extracts the programs of a row of `RecordStore.iter_tasks`."""
    # TVM is loaded for programs that are not extracted yet only.
    from tvm_cdmpp.extract import LayoutRewrite, StepExtractor, analyse, load_dag

    return StepExtractor(
        analyse(load_dag(task["dag"])),
        Hardware(*task["hardware_parameters"]),
        LayoutRewrite(task["layout_rewrite_option"]),
    )
