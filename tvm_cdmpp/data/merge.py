"""The second half of an import: spooled records and those of an old store become a new store.

A program that was measured several times becomes one row with all measurements, each of them once:
a log that has grown, or is a copy of others, has measurements that are there already. One is known
by its program, its costs or error, and its time.

What is in memory for every record is two digests and a few numbers, about 60 bytes, of which 10
stay once its row is known; the records themselves are dealt out to the parts of the store in one
pass, and each part is then sorted on its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tvm_cdmpp.data.content import write_named_by_content
from tvm_cdmpp.data.schema import (
    COMPRESSION,
    PLACED,
    RECORDS,
    ROWS_PER_GROUP,
    ROWS_PER_PART,
    TASKS,
    WORKLOADS,
)
from tvm_cdmpp.data.spool import TaskKey
from tvm_cdmpp.data.workload_book import Workload, operator_class

Ints = npt.NDArray[np.int64]

_MAX_PARTS = 500
"""All are open at once while records are dealt out."""
_BATCH_ROWS = 2048
_DIGEST_BYTES = 16
_MEASUREMENTS = ("costs_s", "error_nos", "timestamps_s", "inputs", "noisy")
_IPC = pa.ipc.IpcWriteOptions(compression="lz4")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Parquet files of records, and what the numbers in them mean.

    Attributes
    ----------
    tasks
        By the files' task numbers.
    inputs
        Number in the new store, by the files' numbers of inputs.
    """

    paths: Sequence[Path]
    tasks: Sequence[TaskKey]
    inputs: Sequence[int]

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read some columns, a batch at a time."""
        for path in self.paths:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                yield from file.iter_batches(_BATCH_ROWS, columns=list(columns), use_threads=False)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where every record of the sources goes.

    Attributes
    ----------
    rows
        Row in the new store, by source.
    is_first
        Whether the record is the first of its program, by source.
    is_copy
        Whether its measurement came before, by source.
    shared
        Pairs of inputs that have a successful measurement in common, the lower number first.
    tasks
        In the new order.
    num_rows
        By task.
    """

    rows: list[Ints]
    is_first: list[npt.NDArray[np.bool_]]
    is_copy: list[npt.NDArray[np.bool_]]
    shared: set[tuple[int, int]]
    tasks: list[TaskKey]
    num_rows: Ints


def place(sources: Sequence[Source]) -> Placement:
    """Find out which records are of the same program, and order the programs by task."""
    numbers: dict[TaskKey, int] = {}
    for source in sources:
        for task in source.tasks:
            numbers.setdefault(task, len(numbers))
    owner, digests, measured, ends = _digest(sources, numbers)
    counts = np.bincount(owner, minlength=len(numbers))
    by_task = np.split(np.argsort(owner, kind="stable"), np.cumsum(counts))
    rows, is_first = np.empty(len(owner), np.int64), np.empty(len(owner), bool)
    num_rows = np.zeros(len(numbers), np.int64)
    begin = 0
    # Task by task, since a dictionary of all programs would be several times larger than the rest.
    for number, places in enumerate(by_task[:-1]):
        found: dict[bytes, int] = {}
        keys = digests[places].tolist()
        row = np.array([found.setdefault(key, len(found)) for key in keys], np.int64)
        rows[places] = begin + row
        is_first[places] = np.diff(np.maximum.accumulate(row), prepend=-1) > 0
        num_rows[number] = len(found)
        begin += len(found)
    copies, shared = _find_copies(rows, measured)
    return Placement(
        np.split(rows, ends[:-1]), np.split(is_first, ends[:-1]), np.split(copies, ends[:-1]),
        shared, list(numbers), num_rows,
    )  # fmt: skip


def write_parts(
    folder: Path,
    scratch: Path,
    sources: Sequence[Source],
    placement: Placement,
    on_part: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[dict[str, Any]]:
    """Write the records in their new order.

    Parameters
    ----------
    folder, scratch
        Of the store, and for files that are removed again.
    sources, placement
        The records, and where they go.
    on_part
        Told how many parts are written, and how many there will be.

    Returns
    -------
    parts
        Name, hash and number of rows of each file.
    """
    total = int(placement.num_rows.sum())
    rows_per_part = max(ROWS_PER_PART, -(-total // _MAX_PARTS))
    dealt = [scratch / f"dealt-{n}.arrow" for n in range(-(-total // rows_per_part))]
    _deal(sources, placement, dealt, rows_per_part)
    parts = []
    for number, path in enumerate(dealt):
        # What Arrow has freed, it would otherwise keep, and more of it with every part.
        pa.default_memory_pool().release_unused()
        parts.append(_write_part(folder, scratch, path))
        path.unlink()
        on_part(number + 1, len(dealt))
    return parts


def task_table(placement: Placement, workloads: Sequence[Workload]) -> pa.Table:
    """Return the task table of a store."""
    tasks = placement.tasks
    rows = {workload.workload_id: row for row, workload in enumerate(workloads)}
    firsts = np.cumsum(placement.num_rows) - placement.num_rows
    columns = [
        [rows[task.workload_id] for task in tasks],
        *(
            [getattr(task, name) for task in tasks]
            for name in ("workload_id", "device", "target", "hardware_parameters")
        ),
        [task.layout_rewrite_option for task in tasks],
        firsts,
        placement.num_rows,
    ]
    return pa.Table.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, TASKS, strict=True)], schema=TASKS
    )


def workload_table(workloads: Sequence[Workload]) -> pa.Table:
    """Return the workload table of a store."""
    rows = [
        {
            "workload_id": workload.workload_id,
            "workload_key": workload.workload_key,
            "names": list(workload.names),
            "dag": workload.dag,
            "operator": operator_class(workload.dag),
            "flops": workload.flops,
            "networks": [name for name, _ in workload.networks],
            "network_weights": [weight for _, weight in workload.networks],
            "derived_from": workload.derived_from,
        }
        for workload in workloads
    ]
    return pa.Table.from_pylist(rows, schema=WORKLOADS)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as all files of a store are written."""
    pq.write_table(
        table, path, row_group_size=ROWS_PER_GROUP, use_dictionary=["task"],
        write_page_checksum=True, **COMPRESSION,
    )  # fmt: skip


@dataclass(slots=True)
class WorkloadMerger:
    """One entry per DAG, with all that is known about it."""

    _found: dict[str, Workload] = field(default_factory=dict)

    def add(self, workload: Workload, network: str = "") -> None:
        """Join an entry with an earlier one of the same DAG."""
        old = self._found.get(workload.workload_id, workload)
        weights = {**dict(workload.networks), **dict(old.networks)}
        if network:
            weights.setdefault(network, None)
        self._found[workload.workload_id] = Workload(
            old.workload_id,
            tuple(dict.fromkeys((*old.names, *workload.names))),
            old.dag,
            old.derived_from,
            tuple(weights.items()),
            old.workload_key,
            old.flops,
        )

    def workloads(self) -> list[Workload]:
        """Return the entries in the order in which they came."""
        return list(self._found.values())


@dataclass(frozen=True, slots=True)
class _Measured:
    """What tells measurements apart, in the order of the records; arrays of one shape.

    Attributes
    ----------
    record
        Place of the record it is of.
    digest
        Of costs, error and time.
    log
        Number of the input.
    worked
        Whether there are costs.
    """

    record: Ints
    digest: Ints
    log: npt.NDArray[np.int32]
    worked: npt.NDArray[np.bool_]


def _digest(
    sources: Sequence[Source], numbers: Mapping[TaskKey, int]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.void], _Measured, list[int]]:
    """Return each record's task, a digest of its steps, its measurements, and the sources' ends."""
    digests, marks = bytearray(), bytearray()
    owners, counts = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    logs, worked = [np.zeros(0, np.int32)], [np.zeros(0, bool)]
    ends = []
    for source in sources:
        mapped = np.array([numbers[task] for task in source.tasks], np.int32)
        inputs = np.array(source.inputs, np.int32)
        for batch in source.batches(["task", "steps", *_MEASUREMENTS]):
            owners.append(mapped[batch["task"].to_numpy()])
            for steps in _bytes_of(batch["steps"]):
                digests += blake2b(steps, digest_size=_DIGEST_BYTES).digest()
            for mark in _marks_of(batch):
                marks += mark
            counts.append(batch["inputs"].value_lengths().to_numpy())
            logs.append(inputs[batch["inputs"].flatten().to_numpy()])
            repeats = batch["costs_s"].flatten().value_lengths().to_numpy()
            worked.append(repeats > 0)
        ends.append(len(digests) // _DIGEST_BYTES)
    count = np.concatenate(counts)
    measured = _Measured(
        np.repeat(np.arange(len(count)), count), np.frombuffer(marks, np.int64),
        np.concatenate(logs), np.concatenate(worked),
    )  # fmt: skip
    owner = np.concatenate(owners)
    return owner, np.frombuffer(digests, f"V{_DIGEST_BYTES}"), measured, ends


def _marks_of(batch: pa.RecordBatch) -> Iterator[bytes]:
    """Yield a digest of each measurement, its program apart."""
    measurements = batch["costs_s"].flatten()
    costs = measurements.flatten().to_numpy().tobytes()
    ends = 8 * np.cumsum(measurements.value_lengths().to_numpy())
    times = (
        batch["timestamps_s"].flatten().to_numpy() * 256 + batch["error_nos"].flatten().to_numpy()
    )
    begin = 0
    for end, time in zip(ends.tolist(), times.tolist(), strict=True):
        text = costs[begin:end] + time.to_bytes(8, "little", signed=True)
        yield blake2b(text, digest_size=8).digest()
        begin = end


def _find_copies(
    rows: Ints, measured: _Measured
) -> tuple[npt.NDArray[np.bool_], set[tuple[int, int]]]:
    """Return which records have a measurement that came before, and which inputs share some."""
    is_copy = np.zeros(len(rows), bool)
    row = rows[measured.record]
    again = np.flatnonzero(np.bincount(row)[row] > 1) if len(row) else row
    # Equal ones side by side, in the order in which they came.
    order = again[np.lexsort((measured.digest[again], row[again]))]
    equal = (np.diff(row[order]) == 0) & (np.diff(measured.digest[order]) == 0)
    is_copy[measured.record[order[1:][equal]]] = True
    equal &= measured.worked[order[1:]] if len(order) else equal
    pairs = np.sort(np.stack([measured.log[order[:-1]], measured.log[order[1:]]]), axis=0)
    found = np.unique(pairs[:, equal & (pairs[0] < pairs[1])], axis=1)
    return is_copy, set(zip(*found.tolist(), strict=True))


def _bytes_of(steps: pa.StringArray) -> list[bytes]:
    values: list[bytes] = steps.cast(pa.binary()).to_pylist()
    return values


def _deal(
    sources: Sequence[Source], placement: Placement, dealt: Sequence[Path], rows_per_part: int
) -> None:
    """Append every record to the file of the part it goes to."""
    with ExitStack() as stack:
        writers = [
            stack.enter_context(pa.ipc.new_stream(str(path), PLACED, options=_IPC))
            for path in dealt
        ]
        places = {task: number for number, task in enumerate(placement.tasks)}
        for source, rows, copies in zip(sources, placement.rows, placement.is_copy, strict=True):
            begin = 0
            inputs = pa.array(source.inputs, pa.int32())
            numbers = pa.array([places[task] for task in source.tasks], pa.int32())
            for batch in source.batches(RECORDS.names):
                row = rows[begin : begin + batch.num_rows]
                is_new = ~copies[begin : begin + batch.num_rows]
                begin += batch.num_rows
                if not is_new.all():
                    batch, row = batch.filter(pa.array(is_new)), row[is_new]
                mapped = _mapped(batch, row, numbers, inputs)
                part = row // rows_per_part
                for number in np.unique(part).tolist():
                    writers[number].write_batch(mapped.filter(pa.array(part == number)))


def _write_part(folder: Path, scratch: Path, dealt: Path) -> dict[str, Any]:
    with pa.memory_map(str(dealt)) as file, pa.ipc.open_stream(file) as stream:
        table = _merged(stream.read_all())
    name, sha256 = write_named_by_content(
        folder, scratch, "records", ".parquet", partial(write_table, table)
    )
    return {"file": name, "sha256": sha256, "rows": table.num_rows}


def _mapped(batch: pa.RecordBatch, row: Ints, tasks: pa.Array, inputs: pa.Array) -> pa.RecordBatch:
    """Give a batch the new store's numbers."""
    old = batch["inputs"]
    new = pa.ListArray.from_arrays(
        pa.array(np.cumsum([0, *old.value_lengths().to_pylist()]), pa.int32()),
        inputs.take(old.flatten()),
    )
    columns = [
        pa.array(row), tasks.take(batch["task"]), batch["steps"], batch["costs_s"],
        batch["error_nos"], batch["timestamps_s"], new, batch["noisy"],
    ]  # fmt: skip
    return pa.RecordBatch.from_arrays(columns, schema=PLACED)


def _merged(table: pa.Table) -> pa.Table:
    """Sort records by row, and join those of the same row."""
    row = table["row"].to_numpy()
    order = np.argsort(row, kind="stable")
    table = table.take(pa.array(order)).drop_columns(["row"]).combine_chunks()
    starts = np.flatnonzero(np.diff(row[order], prepend=-1))
    columns = []
    for name in RECORDS.names:
        column = table[name].chunk(0)
        if name not in _MEASUREMENTS:
            columns.append(column.take(pa.array(starts)))
            continue
        offsets = np.concatenate([[0], np.cumsum(column.value_lengths().to_numpy())])
        ends = pa.array(offsets[[*starts, len(row)]], pa.int32())
        columns.append(pa.ListArray.from_arrays(ends, column.flatten()))
    return pa.Table.from_arrays(columns, schema=RECORDS)
