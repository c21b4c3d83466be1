"""Every line ends in one bin, nothing that is good is lost, whatever happens."""

import json
import lzma
import os
import resource
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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
from tvm_cdmpp.data.importer import Progress
from tvm_cdmpp.data.inputs import find_inputs
from tvm_cdmpp.data.noise import estimate_noise
from tvm_cdmpp.data.quality import make_labels, read_measurements
from tvm_cdmpp.data.reports import InputReport
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.data.workload_book import WorkloadBook
from tvm_cdmpp.devices.registry import Registry
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.workloads.functions import rebuild_workload
from tvm_cdmpp.workloads.inspector import TvmInspector

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


def test_two_imports_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any moment of the first, its end included, where it has removed its scratch folder."""
    first, second = (write_log(tmp_path / f"{n}.json", records(n + 1)) for n in range(2))
    refused: list[str] = []
    rmtree = shutil.rmtree

    def intrude(_: object) -> None:
        with pytest.raises(RecordError, match=r"an import into .* is going on already"):
            import_all(tmp_path / "store", second)
        refused.append("")

    def remove(path: Path) -> None:
        rmtree(path)
        intrude(path)

    monkeypatch.setattr(shutil, "rmtree", remove)
    import_all(tmp_path / "store", first, on_progress=intrude)
    assert len(refused) > 3
    monkeypatch.undo()
    assert import_all(tmp_path / "store", second).num_records == 2


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


@pytest.mark.parametrize("name", ["notes.txt", "table.parquet", "records.parquet", "store"])
def test_a_folder_with_foreign_files_is_refused(tmp_path: Path, name: str) -> None:
    out = tmp_path / "results"
    out.mkdir()
    (out / name).write_bytes(b"mine")
    log = write_log(tmp_path / "a.json", records(1))
    with pytest.raises(RecordError, match=rf"no record store and holds other files \({name}\)"):
        import_all(out, log)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {name: b"mine"}


def test_a_folder_with_a_foreign_manifest_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "shop"
    out.mkdir()
    (out / "store.json").write_text('{"name": "a shop"}')
    log = write_log(tmp_path / "a.json", records(1))
    with pytest.raises(RecordError, match=r"store\.json cannot be read"):
        import_all(out, log)
    assert [path.name for path in out.iterdir()] == ["store.json"]


def test_nothing_foreign_in_a_store_is_removed(tmp_path: Path) -> None:
    logs = [write_log(tmp_path / f"{n}.json", records(n + 1)) for n in range(2)]
    out = tmp_path / "store"
    import_all(out, logs[0])
    foreign = ["page.png", "mine.parquet", "records.parquet", f"records-{'0' * 16}.parquet"]
    for name in foreign:
        (out / name).write_bytes(b"mine")
    replaced = next(out.glob("tasks-*"))
    import_all(out, logs[1])
    assert [(out / name).read_bytes() for name in foreign] == [b"mine"] * 4
    assert not replaced.exists()


def test_what_killed_imports_left_is_removed_at_the_start(tmp_path: Path) -> None:
    made = records(4)
    out, log = tmp_path / "store", write_log(tmp_path / "a.json", made)
    left: list[set[Path]] = []

    def stop(progress: Progress) -> None:
        if progress.doing == "writing the store":
            raise KeyboardInterrupt

    def look(progress: Progress) -> None:
        left.append(set(out.rglob("*")))

    for count in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            import_all(out, write_log(log, made[:count]), on_progress=stop)
        (out / ".import" / f".x.json.{count}.tmp").touch()
    assert len(list(out.glob("records-*"))) == 1
    import_all(out, write_log(log, made), on_progress=look)
    while_reading = left[1]
    assert {path.name for path in while_reading if path.is_file()} <= {".lock"} | {
        path.name for path in while_reading if path.name.endswith(".tmp")
    }
    assert len([path for path in while_reading if path.suffix == ".tmp"]) == 1


def copies_of(made: list[Record], times: int = 2) -> list[Record]:
    """Every program measured so often, each time a second later and a little slower."""
    return [
        {**record, "r": [[1e-3 * (number + 1) * 1.02**turn], 0, 0.5, 1000 * turn + number]}
        for turn in range(times)
        for number, record in enumerate(made)
    ]


def noise_floor(out: Path) -> tuple[float | None, str, int]:
    store = RecordStore.open(out)
    measured = read_measurements(store)
    noise = estimate_noise(measured, np.full(len(measured.row), True))
    return noise.floor_mape, noise.basis, len(measured.row)


@pytest.mark.parametrize("cuts", [[30, 60], [10, 30, 45, 60], [0, 60], [60, 60]])
def test_a_log_that_grew_counts_once(tmp_path: Path, cuts: list[int]) -> None:
    """However often it was imported on its way, and under whatever name."""
    made = copies_of(records(30))
    log = tmp_path / "log.json"
    for place, cut in enumerate(cuts):
        path = log if place % 2 else tmp_path / f"other-{place}.json"
        import_all(tmp_path / "grown", write_log(path, made[:cut]))
    import_all(tmp_path / "once", log)
    assert noise_floor(tmp_path / "grown") == noise_floor(tmp_path / "once")
    grown, once = (RecordStore.open(tmp_path / name) for name in ("grown", "once"))
    assert measurements(grown) == measurements(once) == expected(made)
    bins = grown.inputs[-1]["bins"]
    if cuts[-2] < 60:
        assert bins.get("copy", 0) == cuts[-2]
    assert sum(bins.values()) == grown.inputs[-1]["lines"]


def test_a_concatenated_log_counts_once(tmp_path: Path) -> None:
    """Two logs and their concatenation, in any order, and one copied within itself."""
    made = copies_of(records(30))
    parts = {"a": made[:30], "b": made[30:], "both": made, "twice": made[:30] * 2}
    logs = {name: write_log(tmp_path / f"{name}.json", part) for name, part in parts.items()}
    for order in (["both", "a", "b"], ["a", "both", "b"], ["a", "b", "both"], ["twice", "both"]):
        out = tmp_path / "-".join(order)
        import_all(out, *(logs[name] for name in order))
        assert measurements(RecordStore.open(out)) == expected(made)
        assert noise_floor(out)[1:] == ("within a log", 60)
    import_all(tmp_path / "apart", logs["a"], logs["b"])
    assert noise_floor(tmp_path / "apart")[1:] == ("between logs", 60)


def test_lines_of_unknown_workloads_are_read_again_when_more_is_known(tmp_path: Path) -> None:
    made = [*records(3), *records(3, 80), *records(1)]
    made[6]["r"][3] = 5
    unknown = json.loads(json.dumps(made[0]))
    unknown["i"][0][0] = '["nobody knows", 1]'
    log = tmp_path / "a.json"
    log.write_bytes(b"\n".join([*lines_of([*made, unknown]), b"junk"]))
    for name, steps in (("several", [book(37), book(37), book(80), book(80)]), ("once", [])):
        out = tmp_path / name
        for known in steps:
            import_all(out, log, known=known)
        report = import_all(out, log, known=both_known())
        assert report.read_again == ([] if name == "once" else ["a.json"])
        assert report.inputs[0].bins == {
            "kept": 6, "duplicate": 1, "unknown workload": 1, "unreadable": 1,
        }  # fmt: skip
        assert report.inputs[0].unknown == {'["nobody knows", 1]': 1}
        assert report.inputs[0].first["unreadable"].startswith("9:")
        again = import_all(out, log, known=both_known())
        assert list(again.skipped) == ["a.json"]
    stores = [RecordStore.open(tmp_path / name) for name in ("once", "several")]
    assert [len(store.inputs) for store in stores] == [1, 1]
    assert measurements(stores[0]) == measurements(stores[1]) == expected(made)


def both_known() -> WorkloadBook:
    """What `book(37, 80)` knows, as a file that was read later would."""
    return replace(book(37, 80), fingerprint="later")


def test_noisy_batches_are_flagged(tmp_path: Path) -> None:
    """A label is of quiet measurements where there are any, and flagged where there are none."""
    made = copies_of(records(4))[:6]
    log = write_log(tmp_path / "a.json", made)
    row = {"run": 1.0, "time": 2.0, "latency_s": 1.0, "best_latency_s": 1.0, "bound": 0.1}
    rows = [
        {**row, "noisy": False, "first_line": 0, "num_lines": 2},
        {**row, "noisy": True, "first_line": 2, "num_lines": 1},
        {**row, "noisy": True, "first_line": 3, "num_lines": 1, "latency_s": 1.0},
        {**row, "noisy": False, "first_line": 3, "num_lines": 1},
        # Not marked, as the lowest calibration came later.
        {**row, "noisy": False, "first_line": 4, "num_lines": 2, "latency_s": 1.2},
    ]
    sidecar = tmp_path / "a.json.calibration.jsonl"
    sidecar.write_text("\n".join(map(json.dumps, rows)) + '\n{"run": 1.0, "ti')
    import_all(tmp_path / "store", log)
    store = RecordStore.open(tmp_path / "store")
    noisy = store.columns("noisy")["noisy"].to_pylist()
    assert noisy == [[False, True], [False, True], [True], [False]]
    labels = make_labels(store, registry=Registry(()))
    np.testing.assert_allclose(labels.latency_s, [1e-3, 2e-3, 3e-3, 4e-3])
    assert labels.noisy.tolist() == [False, False, True, False]
    assert labels.measurements.tolist() == [1, 1, 1, 1]
    assert not labels.contended.any()
    sidecar.write_text("[]\n")
    with pytest.raises(RecordError, match=r"calibration\.jsonl:1 is no calibration"):
        import_all(tmp_path / "other", log)


def test_one_bad_workload_does_not_stop_the_rest(tmp_path: Path) -> None:
    """A workload of size 0, ten hardware parameters, and a name that is not UTF-8."""
    made = records(4)
    te = sampling.tvm.te
    empty = te.placeholder((0, 8), name="A")
    tensors = [empty, te.compute((0, 8), lambda i, j: empty[i, j] + 1.0, name="B")]
    made[1]["i"][0][0] = '["empty", 0]'
    made[2]["i"][0][2] = [1] * 10
    known = WorkloadBook("with an empty one")
    known._add(workload_entry())
    dag = sampling.tvm.ir.save_json(tensors)
    known._add({"workload_key": '["empty", 0]', "files": "*", "dag": dag})
    path = tmp_path / os.fsdecode(b"caf\xe9.json")
    write_log(path, made)
    (log,) = find_inputs([path], "test-cpu").logs
    (report,) = import_all(tmp_path / "store", log, known=known).inputs
    assert report.name == "caf\\xe9.json"
    assert report.bins == {"kept": 2, "unknown workload": 1, "unreadable": 1}
    assert "size of 0" in report.first["unknown workload"]
    assert "up to 8 whole numbers" in report.first["unreadable"]


def test_failures_are_named(tmp_path: Path) -> None:
    made = records(1)
    made[0]["r"] = [[1e10], 6, 0.1, 9]
    (report,) = import_all(tmp_path / "store", write_log(tmp_path / "a.json", made)).inputs
    assert report.first == {"failed measurement": "1: build timeout"}


def test_a_log_that_cannot_be_read_does_not_stop_the_rest(tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.json", records(1))
    report = import_all(tmp_path / "store", tmp_path / "gone.json", log)
    assert report.num_records == 1
    assert report.skipped == {"gone.json": "it cannot be read: No such file or directory"}


def test_a_workload_that_cannot_be_replayed_does_not_stop_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    misfits = TvmInspector.misfits
    refused = workload_entry(80)["dag"]

    def refuse(self: TvmInspector, dag: str, *arguments: Any) -> dict[int, str]:
        # Single programs are how the meaning of a key is chosen.
        if dag == refused and len(arguments[-1]) > 1:
            raise RecordError("no loop nest")
        return misfits(self, dag, *arguments)

    monkeypatch.setattr(TvmInspector, "misfits", refuse)
    log = write_log(tmp_path / "a.json", [*records(3), *records(2, 80)])
    (report,) = import_all(tmp_path / "store", log, known=book(37, 80)).inputs
    assert report.bins == {"kept": 3, "steps do not fit": 2}
    assert report.first["steps do not fit"] == "4: no loop nest"
