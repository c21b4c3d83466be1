"""Reading a record store. Needs no TVM, and only what is asked for is read.

>>> store = RecordStore.open("store")                              # doctest: +SKIP
>>> store.tasks.to_pandas()                                        # doctest: +SKIP
>>> table = store.columns("device", "operator", "timestamps_s")    # doctest: +SKIP
>>> lines = store.records(store.rows_of(task))                     # doctest: +SKIP

The latency of a program is its label: see `tvm_cdmpp.data.quality.make_labels`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tvm_cdmpp.data.content import hash_file
from tvm_cdmpp.data.schema import MANIFEST, RECORDS, SCHEMA_VERSION, TASKS, WORKLOADS
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.files import parse_json

_FAILED_COST_S = 1e10
_WORKLOAD_COLUMNS = tuple(name for name in WORKLOADS.names if name != "workload_id")


@dataclass(frozen=True)
class RecordStore:
    """Measure records of many programs; see `tvm_cdmpp.data.schema` for the columns.

    Safe to use from several processes. An import into the same folder replaces the files; a store
    that was opened before must then be opened again.

    Attributes
    ----------
    path
        The folder.
    content_hash
        Equal for equal content.
    num_records
        Distinct programs on a device.
    inputs
        The imported logs, as `tvm_cdmpp.data.reports.InputReport` has them: name, device, source,
        licence, lines, lines by bin.
    """

    path: Path
    content_hash: str
    num_records: int
    inputs: list[dict[str, Any]]
    _files: dict[str, Any]

    @staticmethod
    def open(path: Path | str) -> "RecordStore":
        """Open a store; takes milliseconds, whatever its size.

        Raises
        ------
        RecordError
            There is none, it was made by a newer version, or a file of it is missing.
        """
        folder = Path(path)
        try:
            manifest = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))
            version = manifest["schema_version"]
        except FileNotFoundError as error:
            raise RecordError(
                f"{folder} holds no record store (no {MANIFEST}); make one with `tvm-cdmpp data "
                f"import LOG... --out {folder}`"
            ) from error
        except NotADirectoryError as error:
            raise RecordError(
                f"expected the folder of a record store; got {folder}, which is a file. Of an "
                f"Ansor log, `tvm-cdmpp data import {folder} --out DIR` makes one"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{folder / MANIFEST} cannot be read: {error}") from error
        if version != SCHEMA_VERSION:
            advice = "install that version" if version > SCHEMA_VERSION else "import the logs again"
            raise RecordError(
                f"the record store {folder} has schema {version}, of tvm_cdmpp "
                f"{manifest.get('package_version', 'unknown')}; this version reads schema "
                f"{SCHEMA_VERSION}: {advice}"
            )
        files = {name: manifest[name] for name in ("parts", "tasks", "workloads")}
        store = RecordStore(
            folder, manifest["content_hash"], manifest["num_records"], manifest["inputs"], files
        )
        for name in store.file_hashes:
            if not (folder / name).is_file():
                raise RecordError(
                    f"{folder / name} is missing; the store is incomplete: import the logs again"
                )
        return store

    def __len__(self) -> int:
        """Return the number of records."""
        return self.num_records

    @property
    def file_hashes(self) -> dict[str, str]:
        """SHA-256 of every file but the manifest, by name."""
        entries = [*self._files["parts"], self._files["tasks"], self._files["workloads"]]
        return {entry["file"]: entry["sha256"] for entry in entries}

    def verify(self) -> None:
        """Read all files and compare their hashes.

        Raises
        ------
        RecordError
            A file is not what was written.
        """
        damaged = [
            n for n, sha256 in self.file_hashes.items() if hash_file(self.path / n) != sha256
        ]
        if damaged:
            raise RecordError(
                f"files of the record store {self.path} are damaged: {', '.join(damaged)}. "
                "Restore them, or import the logs into another folder."
            )

    @cached_property
    def tasks(self) -> pa.Table:
        """The task table."""
        return self._read(self._files["tasks"]["file"])

    @cached_property
    def workloads(self) -> pa.Table:
        """The workload table."""
        return self._read(self._files["workloads"]["file"])

    @cached_property
    def part_starts(self) -> npt.NDArray[np.int64]:
        """First row of each part, and the number of records; of shape (parts + 1,)."""
        counts = [part["rows"] for part in self._files["parts"]]
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def rows_of(self, task: int) -> range:
        """Return the rows of a task's records."""
        first = self.tasks["first_record"][task].as_py()
        return range(first, first + self.tasks["num_records"][task].as_py())

    def columns(self, *names: str, rows: range | None = None) -> pa.Table:
        """Read columns of the records.

        Parameters
        ----------
        names
            Of the record, task or workload table; those of tasks and workloads come as dictionary
            arrays, a value per task.
        rows
            Consecutive rows to read; all by default.

        Returns
        -------
        table
            One row per record, in order; `table[name].to_numpy()` gives an array.

        Raises
        ------
        RecordError
            There is no such column, or a file is damaged.
        """
        rows = range(self.num_records) if rows is None else rows
        if rows.step != 1 or rows.start < 0 or rows.stop > self.num_records:
            raise RecordError(f"rows must be a range within {self.num_records} records; got {rows}")
        own = [name for name in names if name in RECORDS.names]
        for name in set(names) - set(own) - set(TASKS.names) - set(_WORKLOAD_COLUMNS):
            raise RecordError(
                f"no column '{name}'; known are "
                f"{', '.join(dict.fromkeys((*RECORDS.names, *TASKS.names, *_WORKLOAD_COLUMNS)))}"
            )
        table = self._read_rows(rows, list(dict.fromkeys(["task", *own])))
        found = []
        for name in names:
            if name in own:
                found.append(table[name])
            else:
                found.append(self._of_tasks(name, table["task"]))
        return pa.Table.from_arrays(found, names=list(names))

    def steps(self, rows: range | None = None) -> list[bytes]:
        """Return the transform steps of programs, as JSON."""
        column = self.columns("steps", rows=rows)["steps"]
        values: list[bytes] = column.cast(pa.binary()).to_pylist()
        return values

    def records(self, rows: Sequence[int] | npt.NDArray[np.int64] | range) -> bytes:
        """Return records as lines of an Ansor log, version v0.6.

        `StepExtractor.extract` takes them; so does TVM, for workloads that are registered under the
        key in the workload table. All successful measurements of a program are one list of costs,
        of which the label is no mean: see `tvm_cdmpp.data.quality`.

        Parameters
        ----------
        rows
            In any order.
        """
        return b"".join(self._lines(np.asarray(rows, np.int64)))

    def iter_tasks(self) -> Iterator[dict[str, Any]]:
        """Yield each row of the task table, with its `rows` and its workload's columns."""
        workloads = self.workloads.to_pylist()
        for row in self.tasks.to_pylist():
            first, count = row["first_record"], row["num_records"]
            yield {**workloads[row["workload"]], **row, "rows": range(first, first + count)}

    def _lines(self, rows: npt.NDArray[np.int64]) -> list[bytes]:
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.num_records:
            raise RecordError(f"rows must be within {self.num_records} records")
        names = ["task", "steps", "costs_s", "error_nos", "timestamps_s"]
        lines: list[bytes] = [b""] * len(rows)
        for block, places in self._blocks(rows):
            table = self._read_rows(block, names)
            table = table.take(pa.array(rows[places] - block.start))
            for place, record in zip(places.tolist(), table.to_pylist(), strict=True):
                lines[place] = self._heads[record["task"]] + _tail(record)
        return lines

    def _blocks(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[range, npt.NDArray[np.int64]]]:
        """Yield the row groups that hold some rows, and the places of those rows."""
        starts = self._group_starts
        groups = np.searchsorted(starts, rows, side="right") - 1
        order = np.argsort(groups, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
            if len(places):
                group = groups[places[0]]
                yield range(int(starts[group]), int(starts[group + 1])), places

    @cached_property
    def _group_starts(self) -> npt.NDArray[np.int64]:
        counts = [0]
        for number in range(len(self._files["parts"])):
            meta = self._part(number).metadata
            counts += [meta.row_group(n).num_rows for n in range(meta.num_row_groups)]
        return np.cumsum(counts)

    @cached_property
    def _heads(self) -> list[bytes]:
        """What the lines of each task begin with."""
        keys = self.workloads["workload_key"].to_pylist()
        heads = []
        for task in self.tasks.to_pylist():
            described = [keys[task["workload"]], task["target"], task["hardware_parameters"]]
            described += ["", task["layout_rewrite_option"], []]
            heads.append(b'{"i":[' + orjson.dumps(described) + b",[[],")
        return heads

    def _of_tasks(self, name: str, task: pa.ChunkedArray) -> pa.ChunkedArray:
        if name in TASKS.names:
            values = self.tasks[name]
        else:
            values = self.workloads[name].take(self.tasks["workload"])
        values = values.combine_chunks()
        return pa.chunked_array(
            [pa.DictionaryArray.from_arrays(chunk, values) for chunk in task.chunks],
            type=pa.dictionary(pa.int32(), values.type),
        )

    def _read_rows(self, rows: range, names: list[str]) -> pa.Table:
        tables = [RECORDS.empty_table().select(names)]
        for number, begin in enumerate(self.part_starts[:-1].tolist()):
            end = int(self.part_starts[number + 1])
            if begin >= rows.stop or end <= rows.start:
                continue
            try:
                file = self._part(number)
                groups, first, at = [], None, begin
                for group in range(file.metadata.num_row_groups):
                    count = file.metadata.row_group(group).num_rows
                    if at < rows.stop and at + count > rows.start:
                        groups.append(group)
                        first = at if first is None else first
                    at += count
                table = file.read_row_groups(groups, columns=names, use_threads=False)
            except (OSError, pa.ArrowException) as error:
                raise self._damaged(self._files["parts"][number]["file"], error) from error
            skip = max(0, rows.start - (first or begin))
            length = min(rows.stop, end) - max(rows.start, begin)
            tables.append(table.slice(skip, length).select(names))
        return pa.concat_tables(tables)

    def _part(self, number: int) -> pq.ParquetFile:
        path = self.path / self._files["parts"][number]["file"]
        try:
            return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(path.name, error) from error

    def _read(self, name: str) -> pa.Table:
        try:
            return pq.read_table(self.path / name, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(name, error) from error

    def _damaged(self, name: str, error: Exception) -> RecordError:
        return RecordError(
            f"{self.path / name} cannot be read: {error}. If an import has replaced it, open the "
            "store again; if it is damaged, restore it or import the logs into another folder."
        )


def _tail(record: dict[str, Any]) -> bytes:
    costs_s = [cost for measured in record["costs_s"] for cost in measured]
    error_no = 0 if costs_s else record["error_nos"][0]
    result = [costs_s or [_FAILED_COST_S], error_no, 0, record["timestamps_s"][0]]
    steps: str = record["steps"]
    return steps.encode() + b']],"r":' + orjson.dumps(result) + b',"v":"v0.6"}\n'
