"""Training rows: each keeps its machine, and what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.programs import random_batch
from tvm_cdmpp.devices.hardware import Hardware
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.models.rows import Machine, TrainingRows

A = Machine(DeviceSpec(name="a", kind="cpu"), Hardware(cores=2))
B = Machine(DeviceSpec(name="a", kind="cpu"), Hardware(cores=64))
C = Machine(DeviceSpec(name="c", kind="gpu"))


def rows_on(machine: Machine, count: int, seed: int = 0) -> TrainingRows:
    latencies_s = np.arange(1, count + 1) * 1e-3
    tasks = np.zeros(count, np.int64)
    return TrainingRows.on(machine, random_batch(count, seed=seed), latencies_s, tasks)


def test_joined_rows_keep_their_machines() -> None:
    parts = [rows_on(A, 3), rows_on(B, 2, seed=1), rows_on(A, 4, seed=2), rows_on(C, 1)]
    joined = TrainingRows.join(parts)
    assert joined.machines == (A, B, C)
    assert joined.machine_of.tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0, 2]
    np.testing.assert_array_equal(joined.latencies_s[5:9], parts[2].latencies_s)
    np.testing.assert_array_equal(joined.asts.take(np.arange(3, 5)).vectors,
                                  parts[1].asts.take(np.arange(2)).vectors)  # fmt: skip
    taken = joined.take(np.array([9, 0]))
    assert [taken.machines[place] for place in taken.machine_of] == [C, A]
    # One task on two machines is two groups: their latencies are not compared.
    assert len(set(joined.groups.tolist())) == 3


def test_nothing_to_join() -> None:
    assert len(TrainingRows.join([])) == 0


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_latencies_that_are_none(bad: float) -> None:
    latencies_s = np.array([1.0, bad, 1.0])
    with pytest.raises(RecordError, match=rf"got {bad} in row 1"):
        TrainingRows.on(A, random_batch(3), latencies_s, np.zeros(3, np.int64))


def test_arrays_that_do_not_fit() -> None:
    with pytest.raises(RecordError, match="got 3 programs, 2 latencies, 3 tasks and 2 machines"):
        TrainingRows.on(A, random_batch(3), np.ones(2), np.zeros(3, np.int64))
    with pytest.raises(RecordError, match="places among 1 machines"):
        rows = rows_on(A, 3)
        TrainingRows(rows.asts, rows.latencies_s, rows.tasks, (A,), np.array([0, 0, 1]))
