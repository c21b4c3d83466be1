"""Lines out of packed and damaged files, and records out of lines."""

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.logs import lines_of, records, steps_of
from tvm_cdmpp.data import lines as module
from tvm_cdmpp.data.lines import COMMENT, IMPOSSIBLE, UNREADABLE, LineError, parse_line, read_lines


def read(path: Path) -> list[tuple[bytes, str]]:
    return list(read_lines(path, lambda _: None))


def test_a_line_of_tvm_is_read_whole() -> None:
    (record,) = records(1)
    found = parse_line(lines_of([record])[0])
    assert found.workload_key == record["i"][0][0]
    assert found.target == record["i"][0][1]
    assert list(found.hardware_parameters) == record["i"][0][2]
    assert found.steps.decode() == steps_of(record)
    assert (found.costs_s, found.error_no, found.timestamp_s) == ([1e-3, 2e-3], 0, 1000)


@pytest.mark.parametrize(
    ("version", "length", "layout"),
    [("v0.3", 2, 0), ("v0.4", 3, 0), ("v0.5", 5, 2), ("v0.6", 6, 2)],
)
def test_older_versions_have_shorter_tasks(version: str, length: int, layout: int) -> None:
    (record,) = records(1)
    record["v"] = version
    record["i"][0][4] = 2
    record["i"][0] = record["i"][0][:length]
    found = parse_line(lines_of([record])[0])
    assert found.layout_rewrite_option == layout
    assert len(found.hardware_parameters) == (8 if length > 2 else 0)


def test_a_failed_measurement_has_no_costs() -> None:
    (record,) = records(1)
    record["r"] = [[1e10], 4, 0.1, 5]
    found = parse_line(lines_of([record])[0])
    assert (found.costs_s, found.error_no) == ([], 4)


@pytest.mark.parametrize("costs", [[-1.0], [0.0], [1e10], [0.1, -0.1]])
def test_impossible_costs(costs: list[float]) -> None:
    (record,) = records(1)
    record["r"][0] = costs
    with pytest.raises(LineError, match="expected seconds") as info:
        parse_line(lines_of([record])[0])
    assert info.value.bin == IMPOSSIBLE


def test_what_is_no_text_is_called_so() -> None:
    with pytest.raises(LineError, match=r"^not JSON: it is no text$"):
        parse_line(b"\xff\xfe{\x00")


def _set(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(record: Any) -> None:
        for part in path[:-1]:
            record = record[part]
        record[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set("r", 0, value=[float("nan")]), "not JSON"),
        (_set("r", 0, value=[float("inf")]), "not JSON"),
        (_set("r", 0, value=["fast"]), "costs"),
        (_set("r", 0, value=[]), "costs"),
        (_set("r", 0, value=[True]), "costs"),
        (_set("r", 1, value="0"), "error number"),
        (_set("r", 1, value=-1), "error number"),
        (_set("r", 3, value=2**60), "time"),
        (_set("r", value=7), "expected i, r and v"),
        (_set("i", 0, 0, value=None), "workload key"),
        (_set("i", 0, 1, value=" "), "target"),
        (_set("i", 0, 2, value=[1.5]), "hardware"),
        (_set("i", 0, 4, value=9), "layout"),
        (_set("i", 1, 1, value=[7]), "transform steps"),
        (_set("i", 1, 1, value={}), "transform steps"),
        (_set("i", 1, value=[]), "expected i, r and v"),
        (_set("v", value="v0.9"), "expected version"),
        (_set("v", value=[]), "expected version"),
    ],
)
def test_wrong_types_are_named(change: Callable[[Any], None], reason: str) -> None:
    (record,) = records(1)
    change(record)
    with pytest.raises(LineError, match=reason) as info:
        parse_line(json.dumps(record).encode())
    assert info.value.bin == UNREADABLE


@pytest.mark.parametrize(
    ("line", "bin_"),
    [(b"", COMMENT), (b"# note", COMMENT), (b"[]", UNREADABLE), (b"\xff\xfe", UNREADABLE)],
)
def test_lines_that_are_no_records(line: bytes, bin_: str) -> None:
    with pytest.raises(LineError) as info:
        parse_line(line)
    assert info.value.bin == bin_


@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b" ")), max_size=8))
def test_packing_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("packed")
    content = b"".join(line + b"\n" for line in lines)
    (folder / "plain").write_bytes(content)
    (folder / "gz").write_bytes(gzip.compress(content))
    (folder / "xz").write_bytes(lzma.compress(content))
    for name in ("gz", "xz"):
        assert read(folder / name) == [(line, "") for line in lines]
    if not content.startswith((b"\x1f\x8b", b"\xfd7zXZ")):
        assert read(folder / "plain") == [(line, "") for line in lines]


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_a_cut_file_gives_what_came_before(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    # Random digits, so that the cut leaves a part that can be unpacked.
    lines = [str(hash((n, "x"))).encode() * 9 for n in range(20_000)]
    packed = compress(b"\n".join(lines))
    path = tmp_path / "cut"
    path.write_bytes(packed[: len(packed) // 2])
    *whole, (rest, defect) = read(path)
    assert len(whole) > 1000
    assert whole == [(line, "") for line in lines[: len(whole)]]
    assert lines[len(whole)].startswith(rest)
    assert "cut off or damaged" in defect


def test_overlong_lines_are_cut_and_the_next_ones_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / "log"
    path.write_bytes(b"a\n" + b"x" * (3 << 20) + b"\nb\n" + b"y" * 900_000 + b"\nlast")
    found = read(path)
    assert [defect for _, defect in found] == ["", "longer than 1 MiB", "", "", ""]
    assert [line for line, _ in found[::2]] == [b"a", b"b", b"last"]
    assert len(found[3][0]) == 900_000


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_marked_text_is_read(
    tmp_path: Path, encoding: str, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a block ends within a character."""
    monkeypatch.setattr(module, "_BLOCK_BYTES", 7)
    mark = "\ufeff" if encoding[-2:] in ("le", "be") else ""
    path = tmp_path / "log"
    path.write_bytes(pack((mark + "één\n{}\n\U0001f600").encode(encoding)))
    assert [line.decode() for line, _ in read(path)] == ["één", "{}", "\U0001f600"]
    assert not any(defect for _, defect in read(path))


def test_a_cut_utf_16_file_gives_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes("a\nb\nc".encode("utf-16")[:-1])
    lines = read(path)
    assert lines[:2] == [(b"a", ""), (b"b", "")]
    assert "cut off or damaged" in lines[2][1]


@pytest.mark.parametrize("version", ["v0.1", "v0.2", "v0.7", 6])
def test_other_versions_are_named(version: Any) -> None:
    (record,) = records(1)
    record["v"] = version
    with pytest.raises(LineError, match=r"expected version v0\.3 or .* got"):
        parse_line(lines_of([record])[0])
