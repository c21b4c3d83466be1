"""Records made to take too long or too much memory: refused before the work, and alone."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.extract import sampling
from tests.extract.records import Steps, record_of
from tests.extract.sampling import auto_scheduler, te
from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.extract.dag import analyse
from tvm_cdmpp.extract.extractor import StepExtractor
from tvm_cdmpp.extract.handover import dump_records

GOOD = record_of([["SP", 1, 1, 65536, [8], 1], ["FU", 1, [0, 1]]])
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def extractor() -> StepExtractor:
    """Of a reduction over two axes."""
    a = te.placeholder((8, 65536, 30011), name="A")
    r, q = te.reduce_axis((0, 65536), "r"), te.reduce_axis((0, 30011), "q")
    c = te.compute((8,), lambda i: te.sum(a[i, r, q], axis=[r, q]), name="C")
    return StepExtractor(analyse(auto_scheduler.ComputeDAG([a, c])))


def factored(count: int) -> Steps:
    """Fuse the two reduction axes, split the loop and factor one part out, again and again."""
    steps: Steps = []
    for n in range(count):
        steps.append(["FU", 1, [1 + n, 2 + n]])
        steps.append(["SP", 1, 1 + n, 1, [1, (2, 3, 5, 7)[n % 4]], 1])
        steps.append(["RF", 1, 2 + n, 0])
    return steps


def chained(count: int, parts: int) -> Steps:
    """Fuse the reduction axes, then split the loop and fuse its parts in turns."""
    steps: Steps = [["FU", 1, [1, 2]]]
    for _ in range(count):
        steps.append(["SP", 1, 1, 1, [2] * (parts - 1), 1])
        steps.append(["FU", 1, list(range(1, 1 + parts))])
    return steps


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([["SP", 1, 0, 1, [1] * 500_000, 1]], "a list of 500000; at most 32"),
        ([["SP", 1, 0, 1, [1] * 30, 1]] * 20_000, "more than 512 loops"),
        ([["FU", 1, []]] * 20_000, "more than 512 loops"),
        (chained(3, 8), "fused from axes in more than 64 ways"),
        (chained(8, 30), "fused from axes in more than 64 ways"),
        (factored(40), "an index of more than 1024 terms"),
        ([["CHW", 1, "local"]] * 2_000, "more than 256 steps that change operations"),
        ([["CHR", 0, "local", [1] * 500_000]], "more readers than stages"),
        ([*factored(7), *([["RE", 1, list(range(10))]] * 5_000), ["XX"]], "unknown kind"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_would_take_too_long_is_refused_first(
    extractor: StepExtractor, steps: Steps, reason: str
) -> None:
    alone, _ = extractor.extract(GOOD)
    text = GOOD + record_of(steps) + GOOD
    begin = time.perf_counter()
    batch, errors = extractor.extract(text)
    assert time.perf_counter() - begin < 1
    assert list(errors) == [1]
    assert reason in str(errors[1])
    assert batch.leaf_counts.tolist() == [2, 0, 2]
    np.testing.assert_array_equal(batch.vectors, np.concatenate([alone.vectors] * 2))
    np.testing.assert_array_equal(batch.positions, np.concatenate([alone.positions] * 2))


def test_what_is_just_within_the_limits_is_quick(extractor: StepExtractor) -> None:
    steps = [*factored(7), *([["SP", 1, 1, 1, [2], 1], ["FU", 1, [1, 2]]] * 3)]
    begin = time.perf_counter()
    batch, errors = extractor.extract(record_of(steps))
    assert time.perf_counter() - begin < 1
    assert not errors
    assert np.isfinite(batch.vectors).all()


def test_inlining_that_doubles_the_reads() -> None:
    """Of a chain of 40 stages, each of which reads the last one in two places."""
    stages = [te.placeholder((2**20,), name="A")]

    def add(last: Any, shift: int) -> Any:
        return te.compute((1024,), lambda i: last[i % 512] + last[(i + shift) % 512])

    for n in range(40):
        stages.append(add(stages[-1], 3**n % 1009))
    extractor = StepExtractor(analyse(auto_scheduler.ComputeDAG([stages[0], stages[-1]])))
    begin = time.perf_counter()
    _, errors = extractor.extract(record_of([["CI", n] for n in range(39, 0, -1)]))
    assert time.perf_counter() - begin < 5
    assert "more than 1024" in str(errors[0])


def test_rewrites_that_fail_are_not_remembered(extractor: StepExtractor) -> None:
    """Nor does what comes before them change."""
    alone, _ = extractor.extract(GOOD)
    bad = [record_of([["SP", 1, 1, 1, [n], 1], ["RF", 1, 2, 9]]) for n in range(1, 400)]
    batch, errors = extractor.extract(b"".join([*bad, GOOD]))
    assert sorted(errors) == list(range(len(bad)))
    np.testing.assert_array_equal(batch.vectors, alone.vectors)


@cache
def real() -> tuple[StepExtractor, list[bytes], CompactASTBatch]:
    task = sampling.make_task(sampling.conv2d_nchw, "cuda")
    records = dump_records(task, sampling.sample_states(task, 12))
    extractor = StepExtractor(analyse(task.compute_dag))
    return extractor, records.splitlines(), extractor.extract(records)[0]


def damaged(line: bytes, generator: np.random.Generator) -> bytes:
    """Return a record with a few of its characters or whole steps changed."""
    changed = bytearray(line)
    for _ in range(generator.integers(1, 4)):
        at, end = sorted(generator.integers(len(changed), size=2))
        piece = [b"", b"0", b"9", b"-1", b"]", b",", b"4294967296", bytes(changed[at:end]) * 2]
        changed[at : at + int(generator.integers(1, 4))] = piece[generator.integers(len(piece))]
    return bytes(changed).replace(b"\n", b" ")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_damaged_records_do_not_change_those_around_them(seed: int) -> None:
    extractor, lines, expected = real()
    generator = np.random.default_rng(seed)
    mixed: list[bytes] = []
    places: list[int] = []
    for line in lines:
        mixed += [damaged(line, generator) for _ in range(generator.integers(0, 3))]
        places.append(len(mixed))
        mixed.append(line)
    batch, errors = extractor.extract(b"\n".join(mixed))
    assert len(batch) == len(mixed)
    assert not set(places) & set(errors)
    assert sorted(errors) == np.flatnonzero(batch.leaf_counts == 0).tolist()
    found = batch.take(places)
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    np.testing.assert_array_equal(found.positions, expected.positions)


def in_child(code: str) -> Any:
    """Run code in a process whose memory may grow by 360 MiB after `limit()`."""
    setting = """
import resource, sys
import numpy as np
from tests.extract.records import record_of
from tests.extract.sampling import make_task, matmul
from tvm_cdmpp.extract.dag import analyse
from tvm_cdmpp.extract.extractor import StepExtractor
extractor = StepExtractor(analyse(make_task(matmul).compute_dag))
steps = [["SP", 2, 0, 32, [4], 1], ["SP", 2, 2, 32, [4], 1]]
good = record_of(steps)
alone, _ = extractor.extract(good)
def limit():
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 360 * 2**20,) * 2)
"""
    command = [sys.executable, "-c", setting + code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr[-500:]
    return run.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process")
def test_records_without_memory_are_named_and_leave_the_others_as_they_are() -> None:
    code = """
text = good * 120_000
limit()
batch, errors = extractor.extract(text)
counts = batch.leaf_counts
assert 0 < len(errors) < 120_000 and len(batch) == 120_000
assert set(map(str, errors.values())) == {"Out of memory."}
assert sorted(errors) == np.flatnonzero(counts == 0).tolist()
leaves = len(alone.vectors)
assert len(batch.vectors) == (120_000 - len(errors)) * leaves
for program in (0, 1, int(np.flatnonzero(counts)[-1])):
    assert (batch.vectors_of(program) == alone.vectors).all()
print("named")
"""
    assert in_child(code) == "named\n"


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process")
def test_no_memory_at_all_is_an_error_of_python() -> None:
    code = """
text = b"\\n" * 36_000_000
limit()
try:
    extractor.extract(text)
except MemoryError as error:
    print(error)
assert (extractor.extract(good)[0].vectors == alone.vectors).all()
"""
    assert in_child(code) == "no memory for the compact ASTs of 36000000 bytes of records\n"
