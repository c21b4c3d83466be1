"""Logs are checked line by line; corrupt lines are moved, never lost; foreign logs are refused."""

import gzip
import json
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_tasks import TARGET, auto_scheduler, invent, matmul, read_log, tvm
from tvm_cdmpp.bridge.logs import append_records, check_log, prepare_log
from tvm_cdmpp.data.lines import are_well_formed
from tvm_cdmpp.errors import RecordError


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.json"
    append_records(path, *invent(matmul(16, 16, 16), [1e-3, 2e-3, 0, 4e-3]))
    return path


def test_a_program_that_was_measured_again_is_one(log: Path) -> None:
    append_records(log, *invent(matmul(16, 16, 16), [5e-3, 6e-3]))
    report = check_log(log, [matmul(16, 16, 16)], TARGET)
    assert (report.num_valid, report.num_programs) == (6, 4)


def test_round_trip(log: Path) -> None:
    report = prepare_log(log, [matmul(16, 16, 16)], TARGET)
    assert (report.num_valid, report.num_failed, report.corrupt) == (4, 1, ())
    assert report.num_programs == 4
    assert [r.costs[0].value for _, r in read_log(log)] == [1e-3, 2e-3, 1e10, 4e-3]


def test_missing_log_is_empty(tmp_path: Path) -> None:
    assert check_log(tmp_path / "none.json", [matmul(16, 16, 16)], TARGET).num_valid == 0


def test_corrupt_lines_are_named_and_moved(log: Path) -> None:
    good = log.read_bytes().splitlines(keepends=True)
    bad = [
        b"{}\n",  # TVM takes it for a record
        b"garbage \xff\xfe\n",
        good[1].replace(b'"SP"', b'"XX"', 1),
        good[2][: len(good[2]) // 2],  # the half line of a killed run; TVM takes it, too
    ]
    log.write_bytes(b"".join([good[0], b"\n", bad[0], *good[1:3], *bad[1:]]))
    report = prepare_log(log, [matmul(16, 16, 16)], TARGET)
    assert [line.number for line in report.corrupt] == [3, 6, 7, 8]
    assert "Invalid step format: XX" in report.corrupt[2].reason
    assert log.read_bytes() == b"".join(good[:3])
    moved = log.with_name("log.json.bad").read_bytes()
    assert moved == b"".join(bad[:-1]) + bad[-1] + b"\n"
    assert len(read_log(log)) == 3


@pytest.mark.parametrize("cost", ["0.0", "-1e-3", "NaN", "1e11"])
def test_impossible_costs_are_named_and_moved(log: Path, cost: str) -> None:
    """TVM would take the first two for the best programs there are."""
    good = log.read_bytes().splitlines(keepends=True)
    bad = good[0].replace(b"[0.001]", f"[{cost}]".encode())
    assert bad != good[0]
    log.write_bytes(b"".join([good[1], bad, *good[2:]]))
    report = prepare_log(log, [matmul(16, 16, 16)], TARGET)
    assert [line.number for line in report.corrupt] == [2]
    assert (report.num_valid, report.num_failed) == (3, 1)
    assert log.with_name("log.json.bad").read_bytes() == bad
    assert log.read_bytes() == b"".join(good[1:])


def test_tvm_reads_only_lines_that_are_not_its_own(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = auto_scheduler.measure_record.load_record_from_string

    def recording(line: str) -> Any:
        asked.append(line)
        return read(line)

    monkeypatch.setattr(auto_scheduler.measure_record, "load_record_from_string", recording)
    old = json.loads(log.read_bytes().splitlines()[0])
    old["v"] = "v0.5"
    with log.open("a") as file:
        file.write(json.dumps(old) + "\n")
    assert check_log(log, [matmul(16, 16, 16)], TARGET).num_valid == 5
    assert [json.loads(line) for line in asked] == [old]


RECORD = {
    "i": [["[]", "llvm", [1, 64, 64, 0, 0, 0, 0, 0], "", 0, []], [[], []]],
    "r": [[1e-3], 0, 0.5, 1000],
    "v": "v0.6",
}
VALUES = st.one_of(
    st.integers(-(2**40), 2**40), st.booleans(), st.none(), st.floats(allow_nan=False),
    st.text("ab$", max_size=3),
    st.lists(st.integers(-9, 2**35) | st.text("ab", max_size=2), max_size=3),
)  # fmt: skip
KINDS = ("AN", "FU", "PR", "RE", "SP", "FSP", "FFSP", "SA", "CA", "CI", "CR", "CHR", "CHW", "RF")


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.lists(VALUES, max_size=5)), max_size=3))
def test_tvm_reads_all_that_is_well_formed(made: list[tuple[str, list[Any]]]) -> None:
    steps = [[kind, *values] for kind, values in made]
    if are_well_formed(json.dumps(steps).encode()):
        record = json.loads(json.dumps(RECORD))
        record["i"][1][1] = steps
        auto_scheduler.measure_record.load_record_from_string(json.dumps(record))


@pytest.mark.parametrize("values", [
    ("AN", 0, 1, 2), ("FU", 0, [1, 2]), ("PR", 0, 1, "unroll"), ("RE", 0, [1, 0]),
    ("SP", 0, 1, 8, [2, 4], 1), ("FSP", 0, 1, 2, 3), ("FFSP", 0, 1, [2, 3], 1, 1),
    ("SA", 0, 1, 2, 3), ("CA", 0, 1, 2), ("CI", 0), ("CR", 0), ("CHR", 0, "shared", [1]),
    ("CHW", 0, "local"), ("RF", 0, 1, 2),
])  # fmt: skip
def test_steps_as_tvm_writes_them_are_well_formed(values: tuple[Any, ...]) -> None:
    assert are_well_formed(json.dumps([values]).encode())
    record = json.loads(json.dumps(RECORD))
    record["i"][1][1] = [values]
    auto_scheduler.measure_record.load_record_from_string(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (gzip.compress, "packed by gzip"),
        (lambda text: b"\xef\xbb\xbf" + text, "byte order mark"),
        (lambda text: text.decode().encode("utf-16"), "UTF-16"),
    ],
)
def test_what_tvm_cannot_continue_is_refused_and_kept(log: Path, change: Any, reason: str) -> None:
    content = change(log.read_bytes())
    log.write_bytes(content)
    with pytest.raises(RecordError, match=reason):
        prepare_log(log, [matmul(16, 16, 16)], TARGET)
    assert log.read_bytes() == content
    assert not log.with_name("log.json.bad").exists()


def test_bad_file_is_appended_to(log: Path) -> None:
    for text in ("first", "second"):
        with log.open("a") as file:
            file.write(text)
        prepare_log(log, [matmul(16, 16, 16)], TARGET)
    assert log.with_name("log.json.bad").read_text() == "first\nsecond\n"


def test_missing_last_newline_is_added(log: Path) -> None:
    log.write_bytes(log.read_bytes().rstrip(b"\n"))
    prepare_log(log, [matmul(16, 16, 16)], TARGET)
    append_records(log, *invent(matmul(16, 16, 16), [1e-3]))
    assert check_log(log, [matmul(16, 16, 16)], TARGET).num_valid == 5


def test_other_target_is_refused_and_kept(log: Path) -> None:
    target = tvm.target.Target("llvm -mcpu=core-avx2")
    append_records(log, *invent(matmul(16, 16, 16, target), [1e-3]))
    with log.open("a") as file:
        file.write("garbage")
    before = log.read_bytes()
    with pytest.raises(RecordError, match=r"another target: 1 for 'llvm .*core-avx2'"):
        prepare_log(log, [matmul(16, 16, 16)], TARGET)
    assert log.read_bytes() == before


def test_other_network_is_refused(log: Path) -> None:
    with pytest.raises(RecordError, match="4 records of 1 tasks, none of which"):
        prepare_log(log, [matmul(8, 8, 8)], TARGET)


@pytest.mark.parametrize("content", ["Notes\nabout a network\n", "{}\n"])
def test_a_file_that_is_no_log_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    file = tmp_path / "notes.md"
    file.write_text(content)
    with pytest.raises(RecordError, match=r"notes\.md is not an Ansor log: .*\(line 1: "):
        prepare_log(file, [matmul(8, 8, 8)], TARGET)
    assert file.read_text() == content
    assert list(tmp_path.iterdir()) == [file]


def test_a_log_that_cannot_be_written_is_known_before_the_search(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="cannot be written"):
        prepare_log(tmp_path / "file" / "log.json", [matmul(8, 8, 8)], TARGET)
    assert prepare_log(tmp_path / "new" / "log.json", [matmul(8, 8, 8)], TARGET).num_valid == 0
    assert (tmp_path / "new" / "log.json").read_bytes() == b""


def test_log_of_several_networks_is_accepted(log: Path) -> None:
    append_records(log, *invent(matmul(8, 8, 8), [1e-3]))
    report = prepare_log(log, [matmul(8, 8, 8)], TARGET)
    assert report.num_valid == 1
    assert list(report.other_workloads.values()) == [4]


def test_records_that_do_not_fit_leave_the_log_as_it_was(log: Path) -> None:
    before = log.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
    try:
        with pytest.raises(RecordError, match="could not be written"):
            append_records(log, *invent(matmul(16, 16, 16), [1e-3]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.read_bytes() == before


def test_full_disk_is_an_error() -> None:
    with pytest.raises(RecordError, match="No space left"):
        append_records(Path("/dev/full"), *invent(matmul(16, 16, 16), [1e-3]))


def test_blank_lines_are_nothing(tmp_path: Path) -> None:
    task, log = matmul(16, 16, 16), tmp_path / "log.json"
    append_records(log, *invent(task, [1e-3, 2e-3]))
    whole = log.read_bytes()
    log.write_bytes(b"\n" + whole.replace(b"\n", b"\n\n\r\n"))
    report = prepare_log(log, [task], task.target)
    assert (report.num_valid, report.corrupt) == (2, ())
    assert log.read_bytes() == whole
    assert not log.with_name("log.json.bad").exists()
