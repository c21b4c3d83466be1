"""A kill, wherever it comes, costs a segment at most, and changes nothing of what comes out."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.logs import Record, inspector, lines_of, log_file, records, workload_entry
from tvm_cdmpp.data import spool
from tvm_cdmpp.data.importer import import_logs
from tvm_cdmpp.data.reports import ImportReport
from tvm_cdmpp.data.workload_book import DagFacts, Workload, WorkloadBook
from tvm_cdmpp.files import replacing

NAMED = '["matmul", 37, 48, 64, "float32"]'
"""Means one of two DAGs, as the steps of its first record tell."""


FOREVER = 1 << 30
"""More calls than any import makes."""


class KilledError(BaseException):
    """Stands for the end of a process."""


class Life:
    """Ends after some calls; real TVM until then."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    @property
    def fingerprint(self) -> str:
        return inspector.fingerprint

    def spend(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise KilledError

    def describe(self, dag: str) -> DagFacts:
        self.spend()
        return inspector.describe(dag)

    def rebuild(self, key: str, target: str) -> list[Workload]:
        self.spend()
        return inspector.rebuild(key, target)

    def misfits(
        self, dag: str, hardware: Sequence[int], layout: int, steps: Sequence[bytes]
    ) -> dict[int, str]:
        self.spend()
        return inspector.misfits(dag, hardware, layout, steps)

    @contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        self.spend()
        with replacing(path) as temporary:
            yield temporary
        self.spend()


def _changed(record: Record, key: str = "", target: str = "", error: int = 0) -> Record:
    copy: Record = json.loads(json.dumps(record))
    copy["i"][0][0] = key or copy["i"][0][0]
    copy["i"][0][1] = target or copy["i"][0][1]
    copy["r"][1] = error
    return copy


def _pool() -> list[bytes]:
    """Lines for every bin, most of them several times over."""
    small, other = records(4), records(2, 80)
    made = [
        *small, *other,
        *(_changed(record, target="cuda") for record in small[:2]),
        *(_changed(record, key=NAMED) for record in (*small[:2], *other)),
        _changed(small[0], key='["nobody knows", 1]'), _changed(small[1], error=4),
        _changed(other[0], key=small[0]["i"][0][0]),
    ]  # fmt: skip
    return [*lines_of(made), b"# note", b'{"i": [[', b""]


POOL = _pool()


def _import(folder: Path, log: Path, life: Life) -> ImportReport:
    """Import as a new process would."""
    known = WorkloadBook("test")
    for size in (37, 80):
        known._add(workload_entry(size))
    return import_logs([log_file(log)], folder, known, life)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=40)
@given(
    lines=st.lists(st.sampled_from(POOL), min_size=1, max_size=20),
    segment_lines=st.integers(1, 8),
    batch_records=st.integers(1, 4),
    lives=st.lists(st.integers(0, 25), max_size=4),
)
def test_kills_change_nothing(
    lines: list[bytes], segment_lines: int, batch_records: int, lives: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as text, pytest.MonkeyPatch.context() as patch:
        folder = Path(text)
        log = folder / "log.json"
        log.write_bytes(b"\n".join(lines) + b"\n")
        whole = _import(folder / "whole", log, Life(FOREVER))
        patch.setattr(spool, "_SEGMENT_LINES", segment_lines)
        patch.setattr(spool, "_BATCH_RECORDS", batch_records)
        expected = _import(folder / "expected", log, Life(FOREVER))
        assert expected == whole
        done = 0
        for calls in (*lives, FOREVER):
            life = Life(calls)
            descriptions = list((folder / "killed" / ".import").glob("*.json"))
            before = done
            done = sum(spool.Spooled.load(path).lines for path in descriptions)
            assert done >= before
            patch.setattr(spool, "replacing", life.replacing)
            try:
                report = _import(folder / "killed", log, life)
            except KilledError:
                continue
            break
        assert report.resumed == (done > 0)
        assert replace(report, resumed=0) == expected
        assert _files(folder / "killed") == _files(folder / "expected")


def test_a_lost_segment_is_read_again(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    log.write_bytes(b"\n".join(lines_of(records(4))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "_SEGMENT_LINES", 1)
        life = Life(8)
        patch.setattr(spool, "replacing", life.replacing)
        with pytest.raises(KilledError):
            _import(tmp_path / "store", log, life)
    segments = sorted((tmp_path / "store" / ".import").glob("*-?.parquet"))
    segments[0].unlink()
    report = _import(tmp_path / "store", log, Life(FOREVER))
    assert (report.resumed, report.num_records) == (0, 4)
