"""The loader of published logs: what it keeps, and what it counts."""

import json
import lzma
from pathlib import Path

import pytest

from benchmarks.records import Skipped, sample_records
from tests.extract import sampling

KEY, OTHER, RESERVED, UNKNOWN = '["a"]', '["other meaning"]', '["reserved"]', '["unknown"]'
LOG = "cpu.some_net.jsonl.xz"
PARAMETERS = [4, 64, 64, 0, 0, 0, 0, 0]


def line(key: str, costs_s: list[float], error_no: int = 0) -> str:
    target = "llvm -keys=cpu -link-params=0 -mcpu=core-avx2"
    record = {"i": [[key, target, PARAMETERS, "", 2, []], [[], []]], "v": "v0.6"}
    return json.dumps({**record, "r": [costs_s, error_no, 0.1, 0]})


def write(path: Path, lines: list[str]) -> None:
    with lzma.open(path, "wt") as file:
        file.write("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dag = sampling.tvm.ir.save_json(sampling.make_task(sampling.matmul).compute_dag.tensors)
    workloads = [
        {"workload_key": KEY, "files": "*", "derived_from": "some_net", "dag": dag},
        {"workload_key": RESERVED, "files": "*", "derived_from": "some_net", "dag": dag},
        {"workload_key": OTHER, "files": ["gpu.jsonl.xz"], "derived_from": "f", "dag": dag},
    ]
    write(tmp_path / "workloads.jsonl.xz", [json.dumps(workload) for workload in workloads])
    write(tmp_path / "cpu.resnet_50.jsonl.xz", [line(RESERVED, [1.0])])
    write(
        tmp_path / LOG,
        [
            *(line(KEY, [0.001 * n, 0.003 * n]) for n in range(1, 11)),
            line(KEY, [1e10], error_no=2),
            "{not a record",
            line(RESERVED, [1.0]),
            line(OTHER, [1.0]),
            line(UNKNOWN, [1.0]),
            line(KEY, [0.0]),
        ],
    )
    return tmp_path


def test_keeps_a_sample_and_counts_the_rest(folder: Path) -> None:
    skipped = Skipped()
    (task,) = sample_records(folder, ["cpu.*"], 4, 0, skipped)
    assert (task.key, task.target, task.layout_rewrite_option) == (
        KEY,
        "llvm -keys=cpu -mcpu=core-avx2",
        2,
    )
    assert len(task.lines) == len(set(task.lines)) == 4
    for kept, latency_s in zip(task.lines, task.latencies_s, strict=True):
        costs_s = json.loads(kept)["r"][0]
        assert latency_s == pytest.approx(sum(costs_s) / 2)
    assert skipped.counts == {
        "not drawn": 6,
        "measurement failed": 1,
        "not a measure record": 1,
        "workload of a reserved network": 1,
        "workload without a DAG": 2,
        "latency not positive": 1,
    }
    assert skipped.first["measurement failed"].startswith(f"{LOG}:11")
    assert len(task.compute_dag().tensors) == 3


def test_one_seed_one_sample(folder: Path) -> None:
    samples = [sample_records(folder, ["cpu.*"], 4, seed, Skipped())[0].lines for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2]


def test_logs_that_are_not_there(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no log that fits gpu"):
        sample_records(folder, ["gpu.*"], 4, 0, Skipped())
