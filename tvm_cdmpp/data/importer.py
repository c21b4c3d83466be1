"""Importing logs into a record store.

Each log is spooled, segment by segment, so an import that was killed goes on with the segment it
was at; the store is then made anew from the spooled records and those of the store that is there,
and takes its place in one step.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tvm_cdmpp import __version__
from tvm_cdmpp.data.content import hash_file, hash_text, write_named_by_content
from tvm_cdmpp.data.folder import LOCK, SCRATCH, check_folder, remove_replaced, sweep_scratch
from tvm_cdmpp.data.inputs import LogFile
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
from tvm_cdmpp.data.reports import ImportReport, InputReport, add_lines, report_log
from tvm_cdmpp.data.schema import MANIFEST, SCHEMA_VERSION
from tvm_cdmpp.data.sidecars import read_noisy_lines
from tvm_cdmpp.data.spool import Spooled, TaskKey, spool_log
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.data.workload_book import Inspector, Workload, WorkloadBook
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.files import locked, replacing


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far an import is."""

    doing: str
    """Name of the log, or what is done to all of them."""
    done: int
    total: int
    """Of bytes of all logs, or of parts of the store."""


def import_logs(
    logs: Sequence[LogFile],
    out: Path,
    book: WorkloadBook,
    inspector: Inspector,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> ImportReport:
    """Import logs into a store, a new one or one that is there.

    A log whose content is in the store already is not read again, but for lines of workloads that
    were unknown then and may be known now. A measurement counts once, however many logs have it.

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
        Another import into the folder is running, it holds other files than a store's, the store
        that is there cannot be read, or the disk is full. Nothing that was in the store is lost,
        nor is what was read of the logs, but for the segment at hand.
    """
    check_folder(out)
    scratch = out / SCRATCH
    try:
        out.mkdir(parents=True, exist_ok=True)
        with locked(out / LOCK, f"an import into {out}"):
            scratch.mkdir(exist_ok=True)
            return _Import(out, scratch, book, inspector, on_progress).run(logs)
    except OSError as error:
        raise RecordError(
            f"the import into {out} stopped: {error}. What was in the store is untouched; put that "
            "right (or free some space), and run the same command again to go on."
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """A log to read."""

    log: LogFile
    sha256: str
    begin: int
    """Bytes of the logs before it."""
    number: int
    """Its place in the store."""
    noisy_lines: frozenset[int]
    only: frozenset[str] | None
    """The workload keys to read lines of, where the log is in the store; all otherwise."""
    description: Path
    """Where it is told how much of it was read."""


@dataclass(frozen=True, slots=True)
class _Import:
    out: Path
    scratch: Path
    book: WorkloadBook
    inspector: Inspector
    on_progress: Callable[[Progress], None]

    def run(self, logs: Sequence[LogFile]) -> ImportReport:
        old = RecordStore.open(self.out) if (self.out / MANIFEST).exists() else None
        old_inputs = [] if old is None else old.inputs  # a store of no records counts as false
        plans, skipped, total = self._plan(logs, old_inputs)
        sweep_scratch(self.scratch, {plan.description.stem for plan in plans})
        remove_replaced(self.out, () if old is None else old.file_hashes)
        if not plans and old is not None:
            shutil.rmtree(self.scratch)
            return ImportReport(
                inputs=[], skipped=skipped, num_records=old.num_records,
                content_hash=old.content_hash,
            )  # fmt: skip
        sources = [] if old is None else [_old_source(old)]
        merger = WorkloadMerger()
        for workload in [] if old is None else _old_workloads(old):
            merger.add(workload)
        read: list[Spooled] = []
        resumed = 0
        for plan in plans:
            spooled, was_there = self._spool(plan, total)
            resumed += was_there
            read.append(spooled)
            paths = [self.scratch / name for name in spooled.segments]
            sources.append(Source(paths=paths, tasks=spooled.tasks, inputs=[plan.number]))
            for workload in spooled.workloads:
                merger.add(workload, plan.log.network)
        self.on_progress(Progress(doing="finding duplicates", done=0, total=1))
        placement = place(sources)
        inputs = self._inputs(old_inputs, plans, read, sources, placement)
        manifest = self._write(sources, placement, merger.workloads(), inputs)
        shutil.rmtree(self.scratch)
        return ImportReport(
            inputs=[inputs[plan.number] for plan in plans], skipped=skipped, resumed=resumed,
            read_again=[plan.log.name for plan in plans if plan.only is not None],
            num_records=manifest["num_records"], content_hash=manifest["content_hash"],
        )  # fmt: skip

    @property
    def _knowledge(self) -> str:
        return hash_text(__version__, self.book.fingerprint, self.inspector.fingerprint)

    def _plan(
        self, logs: Sequence[LogFile], inputs: Sequence[dict[str, Any]]
    ) -> tuple[list[_Plan], dict[str, str], int]:
        """Return what to read, why the other logs are not read, and the bytes of all."""
        places = {entry["sha256"]: number for number, entry in enumerate(inputs)}
        names = {entry["sha256"]: entry["name"] for entry in inputs}
        plans: list[_Plan] = []
        skipped: dict[str, str] = {}
        begin, number = 0, len(inputs)
        for log in logs:
            self.on_progress(Progress(doing=f"looking at {log.name}", done=0, total=1))
            try:
                sha256 = hash_file(log.path)
            except OSError as error:
                skipped[log.name] = f"it cannot be read: {error.strerror}"
                continue
            place, only = None, None
            if sha256 in names:
                place = places.pop(sha256, None)
                only = frozenset() if place is None else self._worth_reading(inputs[place])
                if place is None or not only:
                    skipped[log.name] = f"same content as {names[sha256]}, which is in the store"
                    continue
                log = replace(log, device=inputs[place]["device"])
            names[sha256] = log.name
            noisy_lines = read_noisy_lines(log.path)
            conditions = [
                str(SCHEMA_VERSION), self._knowledge, sha256, log.name, log.device, log.target,
                str(sorted(noisy_lines)), str(sorted(only or ())),
            ]  # fmt: skip
            plans.append(
                _Plan(
                    log=log, sha256=sha256, begin=begin, noisy_lines=noisy_lines, only=only,
                    number=number if place is None else place,
                    description=self.scratch / f"{hash_text(*conditions)[:16]}.json",
                )
            )  # fmt: skip
            begin += log.path.stat().st_size
            number += place is None
        return plans, skipped, begin

    def _worth_reading(self, entry: dict[str, Any]) -> frozenset[str]:
        """Return the keys that a log in the store has lines of, and that may be known by now."""
        return frozenset(() if entry["knowledge"] == self._knowledge else entry["unknown"])

    def _spool(self, plan: _Plan, total: int) -> tuple[Spooled, bool]:
        """Read what an earlier import, under the same conditions, left of a log, if it began it."""
        spooled = Spooled.load(plan.description)
        was_there = spooled.lines > 0

        def on_read(count: int) -> None:
            self.on_progress(Progress(doing=plan.log.name, done=plan.begin + count, total=total))

        spool_log(
            plan.log, spooled, plan.description, self.book, self.inspector, on_read,
            noisy_lines=plan.noisy_lines, only=plan.only,
        )  # fmt: skip
        return spooled, was_there

    def _inputs(
        self,
        old: Sequence[dict[str, Any]],
        plans: Sequence[_Plan],
        read: Sequence[Spooled],
        sources: Sequence[Source],
        placement: Placement,
    ) -> list[InputReport]:
        """Return what the store is to say of each log."""
        inputs = [InputReport(**entry) for entry in old]
        new = slice(len(sources) - len(plans), None)
        for plan, spooled, source, is_first, is_copy in zip(
            plans, read, sources[new], placement.is_first[new], placement.is_copy[new], strict=True
        ):
            report = report_log(
                plan.log, plan.sha256, self._knowledge, spooled, source, is_first, is_copy
            )
            if plan.only is None:
                inputs.append(report)
            else:
                inputs[plan.number] = add_lines(asdict(inputs[plan.number]), report)
        for first, second in placement.shared:
            inputs[second].shares = sorted({*inputs[second].shares, first})
        return inputs

    def _write(
        self,
        sources: Sequence[Source],
        placement: Placement,
        workloads: Sequence[Workload],
        inputs: Sequence[InputReport],
    ) -> dict[str, Any]:
        """Write the new store, and return its manifest."""
        parts = write_parts(
            self.out, self.scratch, sources, placement,
            lambda done, total: self.on_progress(
                Progress(doing="writing the store", done=done, total=total)
            ),
        )  # fmt: skip
        tables = {
            "tasks": task_table(placement, workloads),
            "workloads": workload_table(workloads),
        }
        files: dict[str, dict[str, str]] = {}
        for stem, table in tables.items():
            name, sha256 = write_named_by_content(
                self.out, self.scratch, stem, ".parquet", partial(write_table, table)
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
            "inputs": [asdict(report) for report in inputs],
        }
        with replacing(self.out / MANIFEST) as temporary:
            temporary.write_text(json.dumps(manifest), encoding="utf-8")
        remove_replaced(self.out, {entry["file"] for entry in (*parts, *files.values())})
        return manifest


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
