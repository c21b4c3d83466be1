"""What baselines are told: the right device for each leaf, and each program as it is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.models.baselines.examples import CPU
from tests.models.programs import random_batch
from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.ast.schema import NUM_FIELDS
from tvm_cdmpp.devices.spec import DEVICE_FIELDS, DeviceSpec
from tvm_cdmpp.models.analytic import estimate_latency_s, estimate_leaf_latency_s
from tvm_cdmpp.models.baselines.inputs import (
    NUM_INPUTS,
    TIME_INPUT,
    make_inputs,
    summarise,
    windows,
)
from tvm_cdmpp.models.rows import Ints, TrainingRows

SLOW = DeviceSpec(name="slow", kind="cpu", cores=1, clock_hz=1e9)


@dataclass
class Counting:
    """Compact ASTs that remember how many were taken at a time."""

    batch: CompactASTBatch
    taken: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def leaf_counts(self) -> Ints:
        return self.batch.leaf_counts

    def take(self, programs: Ints) -> CompactASTBatch:
        self.taken.append(len(programs))
        return self.batch.take(programs)


def test_each_program_is_described_on_its_own_device() -> None:
    batch = random_batch(20)
    device_of = np.arange(20) % 2
    mixed = make_inputs(batch, [CPU, SLOW], device_of)
    for place, device in enumerate((CPU, SLOW)):
        alone = make_inputs(batch, [device])
        here = np.repeat(device_of == place, batch.leaf_counts)
        np.testing.assert_array_equal(mixed.leaves[here], alone.leaves[here])
        np.testing.assert_array_equal(
            mixed.log_analytic_s[device_of == place], alone.log_analytic_s[device_of == place]
        )
        np.testing.assert_allclose(
            np.exp2(alone.leaves[:, TIME_INPUT]), estimate_leaf_latency_s(batch, device), rtol=1e-5
        )
        np.testing.assert_allclose(
            np.exp(alone.log_analytic_s), estimate_latency_s(batch, device), rtol=1e-9
        )
        assert (alone.leaves[:, -len(DEVICE_FIELDS) :] == device.vector()).all()


def test_leaf_counts_divide_programs() -> None:
    batch = random_batch(30)
    inputs = make_inputs(batch, [CPU])
    programs = np.array([4, 2, 29, 11, 2])
    seen = np.zeros(5, int)
    for places, leaves in inputs.by_leaf_count(programs):
        seen[places] += 1
        for place, of_program in zip(places, leaves, strict=True):
            expected = batch.vectors_of(programs[place])
            np.testing.assert_array_equal(of_program[:, :NUM_FIELDS], expected)
    assert (seen == 1).all()


def test_summary_of_a_program() -> None:
    batch = random_batch(20)
    inputs = make_inputs(batch, [CPU])
    summary = summarise(inputs)
    leaf_s = estimate_leaf_latency_s(batch, CPU)
    num = NUM_FIELDS + 1
    for program in (0, 7, 19):
        own = slice(*batch.offsets[[program, program + 1]])
        leaves = inputs.leaves[own]
        row = summary[program]
        np.testing.assert_array_equal(row[:NUM_INPUTS], leaves[leaf_s[own].argmax()])
        largest, total, analytic = np.split(row[NUM_INPUTS:], [num, 2 * num])
        np.testing.assert_array_equal(largest, leaves[:, :num].max(axis=0))
        np.testing.assert_allclose(total, leaves[:, :num].sum(axis=0), rtol=1e-5)
        assert analytic == pytest.approx(np.log2(estimate_latency_s(batch, CPU)[program]))


def test_windows_hold_no_more_than_asked_for() -> None:
    source = Counting(random_batch(25))
    rows = TrainingRows.on(CPU, source, np.ones(25), np.zeros(25, np.int64))
    chosen = np.arange(24, 0, -1)
    parts = list(windows(rows, chosen, size=10))
    assert source.taken == [10, 10, 4]
    np.testing.assert_array_equal(np.concatenate([part for part, _ in parts]), chosen)
    whole = make_inputs(source.batch.take(chosen), [CPU])
    np.testing.assert_array_equal(
        np.concatenate([found.leaves for _, found in parts]), whole.leaves
    )
