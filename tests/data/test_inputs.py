"""Which files are logs, and what is known about them."""

import json
from pathlib import Path

import pytest

from tvm_cdmpp.data.inputs import find_inputs
from tvm_cdmpp.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("gpu-t4.a.json", "cpu.b.jsonl.xz", "notes.md", "workloads.jsonl.xz"):
        (tmp_path / name).touch()
    return tmp_path


def write_sources(path: Path, *files: dict[str, str], schema: int = 1) -> Path:
    path.write_text(json.dumps({"schema": schema, "files": files}))
    return path


def test_a_folder_with_sources(folder: Path) -> None:
    entry = {"pattern": "gpu-t4.*", "device": "nvidia-t4", "licence": "MIT", "target": "cuda"}
    write_sources(folder / "sources.json", entry)
    found = find_inputs([folder], "x86-8t")
    assert [(log.name, log.device, log.licence, log.target) for log in found.logs] == [
        ("cpu.b.jsonl.xz", "x86-8t", "", ""),
        ("gpu-t4.a.json", "nvidia-t4", "MIT", "cuda"),
    ]
    assert found.workloads == (folder / "workloads.jsonl.xz",)
    assert found.ignored == ("notes.md",)


def test_tenset_says_device_and_target_itself(tmp_path: Path) -> None:
    for device in ("t4", "epyc-7452"):
        (tmp_path / "measure_records" / device).mkdir(parents=True)
        name = f"([{'0b' * 16},1,480,14,14],{'cuda' if device == 't4' else 'llvm'}).json"
        (tmp_path / "measure_records" / device / name).touch()
    found = find_inputs([tmp_path])
    assert [(log.device, log.target) for log in found.logs] == [
        ("amd-epyc-7452", "llvm"),
        ("nvidia-t4", "cuda"),
    ]
    assert all(log.source == "TenSet" for log in found.logs)


def test_a_log_given_twice_is_one(folder: Path) -> None:
    assert len(find_inputs([folder, folder / "gpu-t4.a.json"], "x86-8t").logs) == 2


def test_any_name_that_is_given_is_a_log(folder: Path) -> None:
    assert [log.name for log in find_inputs([folder / "notes.md"], "x").logs] == ["notes.md"]


@pytest.mark.parametrize(
    ("device", "message"),
    [(None, "give --device NAME"), ("NVIDIA V100", "lower-case words"), ("a--b", "lower-case")],
)
def test_a_device_is_needed(folder: Path, device: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_inputs([folder], device)


def test_nothing_to_import(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no log"):
        find_inputs([tmp_path], "x")
    with pytest.raises(ConfigError, match="does not exist"):
        find_inputs([tmp_path / "none"], "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        pytest.param("[" * 100_000, "cannot be read: it is nested too deeply", id="deep"),
        ('{"schema": 2, "files": []}', "'schema': 1"),
        ('{"schema": 1}', "list 'files'"),
        ('{"schema": 1, "files": [{"device": "x"}]}', "entry 0"),
        ('{"schema": 1, "files": [{"pattern": "*", "colour": "red"}]}', "entry 0"),
    ],
)
def test_wrong_sources(folder: Path, content: str, message: str) -> None:
    (folder / "sources.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        find_inputs([folder], "x")
