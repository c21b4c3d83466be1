"""Importing logs into a record store.

Each log is spooled, segment by segment, so an import that was killed goes on with the segment it
was at; the store is then made anew from the spooled records and those of the store that is there,
and takes its place in one step.
"""

import fcntl
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tvm_cdmpp import __version__
from tvm_cdmpp.data.content import hash_file, hash_text, write_named_by_content
from tvm_cdmpp.data.inputs import LogFile
from tvm_cdmpp.data.lines import DUPLICATE, FAILED, KEPT
from tvm_cdmpp.data.merge import (
    Placement,
    Source,
    WorkloadMerger,
    place,
    task_table,
    workload_table,
    write_parts,
    write_table,
)
from tvm_cdmpp.data.schema import MANIFEST, SCHEMA_VERSION
from tvm_cdmpp.data.spool import Spooled, TaskKey, spool_log
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.data.workload_book import Inspector, Workload, WorkloadBook
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.files import replacing

_SCRATCH = ".import"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far an import is."""

    doing: str
    """Name of the log, or what is done to all of them."""
    done: int
    total: int
    """Of bytes of all logs, or of parts of the store."""


@dataclass(kw_only=True, slots=True)
class InputReport:
    """What became of one log's lines; the bins sum to `lines`."""

    name: str
    device: str
    source: str
    licence: str
    network: str
    sha256: str
    lines: int
    bins: dict[str, int]
    first: dict[str, str]
    """Line number and reason of the first line in a bin."""
    unknown: dict[str, int]
    """Lines by workload key whose meaning is not known."""

    @property
    def recovered(self) -> int:
        """Lines that are in the store."""
        return sum(self.bins.get(name, 0) for name in (KEPT, FAILED, DUPLICATE))


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportReport:
    """What an import did."""

    inputs: list[InputReport]
    """The logs that were read."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Logs that were not read, and why."""
    resumed: int = 0
    """Logs of `inputs` that an earlier import, which did not end, had read, wholly or in part."""
    num_records: int
    """Distinct programs in the store."""
    content_hash: str


def import_logs(
    logs: Sequence[LogFile],
    out: Path,
    book: WorkloadBook,
    inspector: Inspector,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> ImportReport:
    """Import logs into a store, a new one or one that is there.

    A log whose content is in the store already is not read again.

    Parameters
    ----------
    logs
        What to import.
    out
        Folder of the store.
    book, inspector
        What workload keys mean, and what TVM says about it.
    on_progress
        Told how far the import is, a few times per MiB.

    Raises
    ------
    RecordError
        Another import into the folder is running, the store that is there cannot be read, or the
        disk is full. Nothing that was in the store is lost, nor is what was read of the logs, but
        for the segment at hand.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _scratch(out) as scratch:
            return _Import(out, scratch, book, inspector, on_progress).run(logs)
    except OSError as error:
        raise RecordError(
            f"the import into {out} stopped: {error}. What was in the store is untouched; put that "
            "right (or free some space), and run the same command again to go on."
        ) from error


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """Give the folder for half-done work, and keep other imports out of it."""
    folder = out / _SCRATCH
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RecordError(
                f"another import into {out} is running; wait for it, or choose another folder"
            ) from error
        yield folder


@dataclass(frozen=True, slots=True)
class _Import:
    out: Path
    scratch: Path
    book: WorkloadBook
    inspector: Inspector
    on_progress: Callable[[Progress], None]

    def run(self, logs: Sequence[LogFile]) -> ImportReport:
        old = RecordStore.open(self.out) if (self.out / MANIFEST).exists() else None
        known = {entry["sha256"]: entry["name"] for entry in old.inputs} if old else {}
        sources = [_old_source(old)] if old else []
        merger = WorkloadMerger()
        for workload in _old_workloads(old) if old else []:
            merger.add(workload)
        reports: list[InputReport] = []
        skipped: dict[str, str] = {}
        resumed = begin = 0
        total = sum(log.path.stat().st_size for log in logs)
        for log in logs:
            sha256 = hash_file(log.path)
            if sha256 in known:
                skipped[log.name] = f"same content as {known[sha256]}, which is in the store"
            else:
                known[sha256] = log.name
                spooled, was_there = self._spool(log, sha256, begin, total)
                resumed += was_there
                paths = [self.scratch / name for name in spooled.segments]
                number = (len(old.inputs) if old else 0) + len(reports)
                sources.append(Source(paths=paths, tasks=spooled.tasks, inputs=[number]))
                reports.append(_report(log, sha256, spooled))
                for workload in spooled.workloads:
                    merger.add(workload, log.network)
            begin += log.path.stat().st_size
        if not reports and old is not None:
            return ImportReport(
                inputs=[], skipped=skipped, num_records=old.num_records,
                content_hash=old.content_hash,
            )  # fmt: skip
        manifest = self._merge(old, reports, sources, merger.workloads())
        shutil.rmtree(self.scratch)
        return ImportReport(
            inputs=reports, skipped=skipped, resumed=resumed,
            num_records=manifest["num_records"], content_hash=manifest["content_hash"],
        )  # fmt: skip

    def _spool(self, log: LogFile, sha256: str, begin: int, total: int) -> tuple[Spooled, bool]:
        """Read what an earlier import, under the same conditions, left of a log, if it began it."""
        conditions = [str(SCHEMA_VERSION), __version__, self.book.fingerprint, sha256, log.name]
        conditions += [log.device, log.target, self.inspector.fingerprint]
        description = self.scratch / f"{hash_text(*conditions)[:16]}.json"
        spooled = Spooled.load(description)
        was_there = spooled.lines > 0

        def on_read(count: int) -> None:
            self.on_progress(Progress(doing=log.name, done=begin + count, total=total))

        spool_log(log, spooled, description, self.book, self.inspector, on_read)
        return spooled, was_there

    def _merge(
        self,
        old: RecordStore | None,
        reports: list[InputReport],
        sources: Sequence[Source],
        workloads: Sequence[Workload],
    ) -> dict[str, Any]:
        """Write the new store, and return its manifest."""
        self.on_progress(Progress(doing="finding duplicates", done=0, total=1))
        placement = place(sources)
        new = slice(len(sources) - len(reports), None)
        for report, source, is_first in zip(
            reports, sources[new], placement.is_first[new], strict=True
        ):
            _count_duplicates(report, source, is_first)
        parts = write_parts(
            self.out, self.scratch, sources, placement,
            lambda done, total: self.on_progress(
                Progress(doing="writing the store", done=done, total=total)
            ),
        )  # fmt: skip
        inputs = [*(old.inputs if old else []), *map(_as_json, reports)]
        return self._finish(placement, workloads, parts, inputs)

    def _finish(
        self,
        placement: Placement,
        workloads: Sequence[Workload],
        parts: list[dict[str, Any]],
        inputs: list[dict[str, Any]],
    ) -> dict[str, Any]:
        tables = {
            "tasks": task_table(placement, workloads),
            "workloads": workload_table(workloads),
        }
        files: dict[str, dict[str, str]] = {}
        for stem, table in tables.items():
            name, sha256 = write_named_by_content(
                self.out, stem, ".parquet", partial(write_table, table)
            )
            files[stem] = {"file": name, "sha256": sha256}
        hashes = [entry["sha256"] for entry in (*parts, *files.values())]
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "package_version": __version__,
            "content_hash": hash_text(str(SCHEMA_VERSION), *hashes),
            "num_records": int(placement.num_rows.sum()),
            "parts": parts,
            **files,
            "inputs": inputs,
        }
        with replacing(self.out / MANIFEST) as temporary:
            temporary.write_text(json.dumps(manifest), encoding="utf-8")
        used = {entry["file"] for entry in (*parts, *files.values())}
        for path in self.out.glob("*.parquet*"):
            if path.name not in used:
                path.unlink()
        return manifest


def _report(log: LogFile, sha256: str, spooled: Spooled) -> InputReport:
    return InputReport(
        name=log.name, device=log.device, source=log.source, licence=log.licence,
        network=log.network, sha256=sha256, lines=spooled.lines, bins=dict(spooled.bins),
        first=dict(spooled.first), unknown=dict(spooled.unknown),
    )  # fmt: skip


def _as_json(report: InputReport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in InputReport.__slots__}


def _count_duplicates(report: InputReport, source: Source, is_first: Any) -> None:
    """Move the lines of programs that came before from kept and failed to duplicates."""
    if is_first.all():
        return
    counts: Counter[str] = Counter()
    lines: dict[str, int] = {}
    begin = 0
    for batch in source.batches(["line", "error_nos"]):
        failed = batch["error_nos"].flatten().to_numpy() != 0
        is_new = is_first[begin : begin + batch.num_rows]
        begin += batch.num_rows
        for name, chosen in (
            (KEPT, is_new & ~failed), (FAILED, is_new & failed), (DUPLICATE, ~is_new),
        ):  # fmt: skip
            places = np.flatnonzero(chosen)
            counts[name] += len(places)
            if len(places):
                lines.setdefault(name, batch["line"][int(places[0])].as_py())
    for name in (KEPT, FAILED, DUPLICATE):
        report.bins.pop(name, None)
        if name not in lines:
            report.first.pop(name, None)
            continue
        report.bins[name] = counts[name]
        if name != KEPT and report.first.get(name, "").split(":")[0] != str(lines[name]):
            report.first[name] = str(lines[name])


def _old_source(store: RecordStore) -> Source:
    tasks = [
        TaskKey(
            row["workload_id"], row["device"], row["target"], tuple(row["hardware_parameters"]),
            row["layout_rewrite_option"],
        )
        for row in store.tasks.to_pylist()
    ]  # fmt: skip
    paths = [store.path / part["file"] for part in store._files["parts"]]
    return Source(paths=paths, tasks=tasks, inputs=range(len(store.inputs)))


def _old_workloads(store: RecordStore) -> Iterator[Workload]:
    for row in store.workloads.to_pylist():
        networks = zip(row["networks"], row["network_weights"], strict=True)
        workload = Workload(
            row["workload_id"], tuple(row["names"]), row["dag"], row["derived_from"],
            tuple(networks),
        )  # fmt: skip
        yield replace(workload, workload_key=row["workload_key"], flops=row["flops"])
