"""Every line ends in one bin, nothing that is good is lost, whatever happens."""

import fcntl
import json
import lzma
import resource
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.logs import (
    Record,
    book,
    import_all,
    lines_of,
    log_file,
    records,
    steps_of,
    workload_entry,
    write_log,
)
from tests.extract import sampling
from tvm_cdmpp.data.importer import InputReport, Progress
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.data.workload_book import WorkloadBook
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.workloads.functions import rebuild_workload

Measurements = Counter[tuple[str, tuple[float, ...], int]]


def measurements(store: RecordStore) -> Measurements:
    """All measurements in a store: steps, costs and time of each."""
    table = store.columns("steps", "costs_s", "timestamps_s").to_pylist()
    return Counter(
        (row["steps"], tuple(costs), time)
        for row in table
        for costs, time in zip(row["costs_s"], row["timestamps_s"], strict=True)
    )


def expected(made: list[Record]) -> Measurements:
    return Counter((steps_of(r), () if r["r"][1] else tuple(r["r"][0]), r["r"][3]) for r in made)


def test_bins_of_a_log_with_everything(tmp_path: Path) -> None:
    made = records(8)
    made[1]["r"] = [[1e10], 4, 0.1, 9]
    again = json.loads(json.dumps(made[0]))
    again["r"] = [[5e-3], 0, 0.1, 77]
    failed_again = json.loads(json.dumps(made[2]))
    failed_again["r"] = [[1e10], 7, 0.1, 78]
    unknown = json.loads(json.dumps(made[3]))
    unknown["i"][0][0] = '["nobody knows", 1]'
    other_target = json.loads(json.dumps(made[4]))
    other_target["i"][0][1] = "cuda"
    impossible = json.loads(json.dumps(made[5]))
    impossible["r"][0] = [-1.0]
    # The same operator of another size.
    misfit = {**records(1, 80)[0], "r": made[0]["r"]}
    misfit["i"][0][0] = made[0]["i"][0][0]
    extra = [again, failed_again, unknown, other_target, impossible, misfit]
    path = tmp_path / "log.json"
    path.write_bytes(b"\n".join([*lines_of([*made, *extra]), b"# note", b'{"i": [[', b""]))
    (report,) = import_all(tmp_path / "store", path).inputs
    assert report.bins == {
        "kept": 7, "failed measurement": 1, "duplicate": 2, "unknown workload": 1,
        "wrong target": 1, "impossible cost": 1, "steps do not fit": 1, "comment": 1,
        "unreadable": 1,
    }  # fmt: skip
    assert sum(report.bins.values()) == report.lines == 16
    assert {name: int(text.split(":")[0]) for name, text in report.first.items()} == {
        "failed measurement": 2, "duplicate": 9, "unknown workload": 11, "wrong target": 12,
        "impossible cost": 13, "steps do not fit": 14, "comment": 15, "unreadable": 16,
    }  # fmt: skip
    assert report.unknown == {'["nobody knows", 1]': 1}
    store = RecordStore.open(tmp_path / "store")
    assert len(store) == 8
    assert measurements(store) == expected([*made, again, failed_again])
    first, second, third = store.columns("costs_s", "error_nos").to_pylist()[:3]
    assert first == {"costs_s": [[1e-3, 2e-3], [5e-3]], "error_nos": [0, 0]}
    assert second == {"costs_s": [[]], "error_nos": [4]}
    assert third == {"costs_s": [[3e-3, 2e-3], []], "error_nos": [0, 7]}


GOOD = records(12)


@st.composite
def damaged_lines(draw: st.DrawFn) -> tuple[list[bytes], list[Record]]:
    """Lines of a log, some of them damaged, and the records of the others."""
    lines, untouched = [], []
    for record, line in zip(GOOD, lines_of(GOOD), strict=True):
        kind = draw(st.sampled_from(["keep", "keep", "cut", "bytes", "value", "drop a quote"]))
        if kind == "keep":
            untouched.append(record)
            lines.append(line)
        elif kind == "cut":
            lines.append(line[: draw(st.integers(0, len(line) - 1))])
        elif kind == "bytes":
            begin = draw(st.integers(0, len(line)))
            end = draw(st.integers(begin, min(len(line), begin + 20)))
            lines.append(line[:begin] + draw(st.binary(max_size=20)) + line[end:])
        elif kind == "drop a quote":
            lines.append(line.replace(b'"', b"", draw(st.integers(1, 3))))
        else:
            lines.append(json.dumps(draw(changed(record))).encode())
    return lines, untouched


@st.composite
def changed(draw: st.DrawFn, record: Record) -> Any:
    """A record with one value, anywhere in it, replaced."""
    copy: Any = json.loads(json.dumps(record))
    at = copy
    while True:
        places = list(at) if isinstance(at, dict) else list(range(len(at)))
        place = draw(st.sampled_from(places))
        inner = at[place]
        if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
            scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5)
            at[place] = draw(scalars | st.floats() | st.lists(scalars, max_size=3) | st.just({}))
            return copy
        at = inner


@settings(max_examples=60)
@given(damaged_lines())
def test_damage_costs_only_the_damaged_lines(case: tuple[list[bytes], list[Record]]) -> None:
    lines, untouched = case
    content = b"\n".join(lines)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.json"
        path.write_bytes(content)
        # The target is given: damage of the first line must not decide it.
        log = log_file(path, target="llvm")
        (report,) = import_all(Path(folder) / "store", log).inputs
        num_lines = content.count(b"\n") + (not content.endswith(b"\n") and content != b"")
        assert report.lines == num_lines == sum(report.bins.values())
        store = RecordStore.open(Path(folder) / "store")
        found = measurements(store)
        assert expected(untouched) <= found
        assert found.total() == report.recovered


@settings(max_examples=15)
@given(st.lists(st.integers(0, 11), min_size=1, max_size=30), st.integers(0, 30))
def test_one_import_or_several_give_the_same(numbers: list[int], cut: int) -> None:
    made = [
        {**GOOD[n], "r": [[1e-3 * (place + 1)], 0, 0.1, place]} for place, n in enumerate(numbers)
    ]
    parts = [part for part in (made[:cut], made[cut:]) if part]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        logs = [write_log(folder / f"{n}.json", part) for n, part in enumerate(parts)]
        import_all(folder / "once", *logs)
        for log in logs:
            import_all(folder / "several", log)
        once, several = (RecordStore.open(folder / name) for name in ("once", "several"))
        assert once.content_hash == several.content_hash
        assert measurements(once) == expected(made)
        assert len(once) == len(set(numbers))
        assert [log["bins"] for log in once.inputs] == [log["bins"] for log in several.inputs]


def test_what_is_there_is_not_read_again(tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.json", records(3))
    copy = write_log(tmp_path / "b.json", records(3))
    report = import_all(tmp_path / "store", log, copy)
    assert report.skipped == {"b.json": "same content as a.json, which is in the store"}
    again = import_all(tmp_path / "store", log)
    assert (again.inputs, again.num_records) == ([], 3)
    assert again.content_hash == report.content_hash


def test_an_import_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    made = records(9)
    logs = [write_log(tmp_path / f"{n}.json", made[3 * n : 3 * n + 3]) for n in range(3)]

    def stop(progress: Progress) -> None:
        if progress.doing == "2.json":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_all(tmp_path / "store", *logs, on_progress=stop)
    with pytest.raises(RecordError, match="holds no record store"):
        RecordStore.open(tmp_path / "store")
    read: set[str] = set()
    report = import_all(tmp_path / "store", *logs, on_progress=lambda p: read.add(p.doing))
    assert report.resumed == 2
    assert not read & {"0.json", "1.json"}
    assert measurements(RecordStore.open(tmp_path / "store")) == expected(made)
    assert not (tmp_path / "store" / ".import").exists()


def test_a_cut_xz_gives_its_whole_lines(tmp_path: Path) -> None:
    made = records(12)
    packed = lzma.compress(b"\n".join(lines_of(made)))
    path = tmp_path / "log.jsonl.xz"
    path.write_bytes(packed[: len(packed) * 3 // 4])
    (report,) = import_all(tmp_path / "store", path).inputs
    assert report.bins["unreadable"] == 1
    assert "cut off or damaged" in report.first["unreadable"]
    assert report.bins["kept"] == report.lines - 1 > 2
    found = measurements(RecordStore.open(tmp_path / "store"))
    assert found == expected(made[: report.lines - 1])


@pytest.mark.parametrize("limit_bytes", [0, 300, 2000])
def test_a_full_disk_loses_nothing(tmp_path: Path, limit_bytes: int) -> None:
    made = records(12)
    first = write_log(tmp_path / "a.json", made[:6])
    second = write_log(tmp_path / "b.json", made[6:])
    import_all(tmp_path / "store", first)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        with pytest.raises(RecordError, match=r"stopped: .*run the same command again"):
            import_all(tmp_path / "store", second)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store = RecordStore.open(tmp_path / "store")
    store.verify()
    assert measurements(store) == expected(made[:6])
    import_all(tmp_path / "store", second)
    assert measurements(RecordStore.open(tmp_path / "store")) == expected(made)


def test_two_imports_at_once_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "store" / ".import"
    folder.mkdir(parents=True)
    log = write_log(tmp_path / "a.json", records(1))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RecordError, match="another import"):
            import_all(tmp_path / "store", log)


def test_devices_and_meanings_stay_apart(tmp_path: Path) -> None:
    made = records(2)
    logs = [write_log(tmp_path / "a.json", made), write_log(tmp_path / "b.json", made)]
    logs[1].write_bytes(b"# b\n" + logs[1].read_bytes())
    files = [log_file(logs[0], "one", network="net"), log_file(logs[1], "two")]
    report = import_all(tmp_path / "store", *files)
    assert report.num_records == 4
    store = RecordStore.open(tmp_path / "store")
    assert store.columns("device")["device"].to_pylist() == ["one", "one", "two", "two"]
    assert store.workloads.num_rows == 1
    assert store.workloads["networks"].to_pylist() == [["net"]]

    key = '["product", 37]'
    for record in made:
        record["i"][0][0] = key
    logs[0].write_bytes(write_log(tmp_path / "c.json", made).read_bytes())
    logs[1].write_bytes(b"# b\n" + logs[0].read_bytes())
    meanings = WorkloadBook("two meanings")
    for size, name in ((37, "a.json"), (80, "b.json")):
        meanings._add({**workload_entry(size, [name]), "workload_key": key})
    report = import_all(tmp_path / "other", *files, known=meanings)
    assert report.inputs[0].bins == {"kept": 2}
    assert report.inputs[1].bins == {"steps do not fit": 2, "comment": 1}


def test_a_name_means_what_the_steps_fit(tmp_path: Path) -> None:
    """The arguments of `matmul` come in two orders; here the book has the wrong one."""
    key = '["matmul", 37, 48, 64, "float32"]'
    made = records(6)
    for record in made:
        record["i"][0][0] = key
    wrong = WorkloadBook("wrong order")
    wrong._add({"workload_key": key, "files": "*", "dag": rebuild_workload(key)[0]})
    log = write_log(tmp_path / "a.json", made)
    (report,) = import_all(tmp_path / "store", log, known=wrong).inputs
    assert report.bins == {"kept": 6}
    (workload,) = RecordStore.open(tmp_path / "store").workloads.to_pylist()
    assert workload["dag"] == rebuild_workload(key)[1]


def test_tvm_reads_the_records_of_a_store(tmp_path: Path) -> None:
    made = records(5)
    import_all(tmp_path / "store", write_log(tmp_path / "a.json", made))
    store = RecordStore.open(tmp_path / "store")
    (workload,) = store.workloads.to_pylist()
    tensors = list(sampling.tvm.ir.load_json(workload["dag"]))
    sampling.auto_scheduler.workload_registry.register_workload_tensors(
        workload["workload_key"], tensors
    )
    path = tmp_path / "again.json"
    path.write_bytes(store.records(range(5)))
    reader = sampling.auto_scheduler.RecordReader(str(path))
    assert [[c.value for c in r.costs] for _, r in reader] == [r["r"][0] for r in made]


def test_the_bins_are_a_report() -> None:
    report = InputReport(
        name="a", device="d", source="", licence="", network="", sha256="", lines=3,
        bins={"kept": 1, "duplicate": 1, "unreadable": 1}, first={}, unknown={},
    )  # fmt: skip
    assert report.recovered == 2
    assert len(book()) == 1
