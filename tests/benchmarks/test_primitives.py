"""Schedule primitives as numbers."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.primitives import KINDS, NUM_NUMBERS, Primitives, numbers_of, read_primitives
from tests.data.logs import import_all, log_file, records, write_log
from tvm_cdmpp.data.store import RecordStore


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (["SP", 4, 3, 128, [1, 2], 1], [4, 3, 128, 1, 2, 1]),
        (["PR", 1, 0, "auto_unroll_max_step$0"], [1, 0, 1]),
        (["PR", 1, 0, "auto_unroll_max_step$512"], [1, 0, 11]),
        (["CHR", 3, "shared", [4]], [3, 2, 4]),
        (["RE", 2, list(range(20))], [2, *range(10)]),
        (["SP", 0, 0, 300_000_000, [1], 1], [0, 0, 4096, 1, 1]),
    ],
)
def test_arguments(step: list[object], expected: list[int]) -> None:
    found = numbers_of(step)
    assert len(found) == NUM_NUMBERS
    assert found == (expected + [0] * NUM_NUMBERS)[:NUM_NUMBERS]


def test_padding_and_taking() -> None:
    kinds = np.array([4, 0, 2, 4, 5], np.uint8)
    numbers = np.arange(5 * NUM_NUMBERS, dtype=np.int32).reshape(5, NUM_NUMBERS)
    three = Primitives(kinds, numbers, np.array([0, 1, 1, 5]))
    steps = three.padded(np.array([2, 1, 0]), 3, 2)
    assert steps.shape == (3, 3, len(KINDS) + 2)
    assert steps[0, :, : len(KINDS)].argmax(axis=1).tolist() == [0, 2, 4]
    assert steps[0, :, len(KINDS) :].tolist() == numbers[1:4, :2].tolist()
    assert not steps[1].any()
    assert not steps[2, 1:].any()
    taken = three.take(np.array([2, 0]))
    np.testing.assert_array_equal(taken.padded(np.array([0, 1]), 3, 2), steps[[0, 2]])


def test_programs_of_a_store(tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.json", records(6))
    import_all(tmp_path / "store", log_file(log, "x86-24t"))
    store = RecordStore.open(tmp_path / "store")
    rows = np.array([3, 0])
    found = read_primitives(store, rows)
    assert len(found) == 2
    for program, row in enumerate(rows.tolist()):
        text = store.steps(range(row, row + 1))[0].decode()
        own = found.kinds[found.offsets[program] : found.offsets[program + 1]]
        assert text.count('["') == len(own)
        assert text.startswith(f'[["{KINDS[own[0]]}"')
