"""What caches keep of programs: real programs, and shares that were measured for such."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tvm_cdmpp.ast import Leaf
from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.devices import DeviceSpec, Hardware
from tvm_cdmpp.extract import describe_programs, leaves_of
from tvm_cdmpp.models import leaf_terms_s
from tvm_cdmpp.replay import kept as module
from tvm_cdmpp.replay.kept import Kept, kept_work

tvm = load_tvm()
te = tvm.te

CPU = DeviceSpec(name="cpu", kind="cpu", cores=2, clock_hz=2.5e9)
SMALL = 1e5
"""Bytes of a network that stays in a core's cache."""


def leaves_of_schedule(schedule: Any, *arguments: Any) -> list[Leaf]:
    make = tvm.get_global_func("driver.schedule_to_module")
    return leaves_of(make(schedule, arguments, "main", None)["main"], 0)


def vector_product_leaves() -> list[Leaf]:
    """Return the leaves of a matrix times a vector."""
    x, y = te.placeholder((256, 256), name="x"), te.placeholder((256,), name="y")
    k = te.reduce_axis((0, 256), name="k")
    out = te.compute((256,), lambda i: te.sum(x[i, k] * y[k], axis=k), name="out")
    schedule = te.create_schedule(out.op)
    schedule[out].parallel(out.op.axis[0])
    return leaves_of_schedule(schedule, x, y, out)


def packed_product_leaves(rows: int, width: int = 1024, lanes: int = 16) -> list[Leaf]:
    """Return the leaves of a product as TVM's own schedules have it: a tile of rows at a time."""
    x = te.placeholder((rows, width), name="x")
    packed = te.placeholder((width // lanes, width, lanes), name="packed")
    k = te.reduce_axis((0, width), name="k")
    out = te.compute(
        (rows, width),
        lambda i, j: te.sum(x[i, k] * packed[j // lanes, k, j % lanes], axis=k),
        name="out",
    )
    schedule = te.create_schedule(out.op)
    summed = schedule.cache_write(out, "global")
    i, j = schedule[out].op.axis
    row_tile, column_tile, row, column = schedule[out].tile(i, j, min(rows, 8), lanes)
    around = schedule[out].fuse(row_tile, column_tile)
    schedule[out].vectorize(column)
    schedule[out].parallel(around)
    schedule[summed].compute_at(schedule[out], around)
    row, column = schedule[summed].op.axis
    (k,) = schedule[summed].op.reduce_axis
    schedule[summed].reorder(k, row, column)
    schedule[summed].vectorize(column)
    schedule[summed].unroll(row)
    return leaves_of_schedule(schedule, x, packed, out)


def pool_leaves() -> list[Leaf]:
    x = te.placeholder((64, 56, 56), name="x")
    dy, dx = te.reduce_axis((0, 2), name="dy"), te.reduce_axis((0, 2), name="dx")
    out = te.compute(
        (64, 28, 28),
        lambda c, y, z: te.max(x[c, 2 * y + dy, 2 * z + dx], axis=[dy, dx]),
        name="out",
    )
    return leaves_of_schedule(te.create_schedule(out.op), x, out)


def kept(network_bytes: float, device: DeviceSpec = CPU, compute_s: float = 1e-7) -> float:
    """Return what is left of the time that a matrix times a vector takes alone."""
    leaves = vector_product_leaves()
    return kept_work(leaves, np.full((2, len(leaves)), compute_s), device, network_bytes).share


def kept_of(leaves: list[Leaf], network_bytes: float, device: DeviceSpec = CPU) -> float:
    """Return the same of a program with the arithmetic of the predictors' base."""
    terms_s = leaf_terms_s(describe_programs([leaves], Hardware(cores=2)), device)
    return kept_work(leaves, terms_s[:2], device, network_bytes).share


def test_a_program_takes_less_in_a_network_that_fits_into_caches() -> None:
    last = CPU.cores * 4 * 2**20  # of which cores have 4 MB each
    sizes = (SMALL, CPU.cores * CPU.l2_bytes, last, 4 * last, 1e4 * last)
    shares = [kept(size) for size in sizes]
    assert shares == sorted(shares)
    assert shares[0] < 0.3 and shares[2] < 0.6
    assert shares[-1] == pytest.approx(1.0, abs=0.01)


def test_each_core_keeps_its_part_of_a_network() -> None:
    size = 4 * CPU.l2_bytes
    two, eight = (replace(CPU, cores=cores) for cores in (2, 8))
    assert kept(size, eight) == pytest.approx(kept(SMALL, eight), rel=0.01)
    assert kept(size, two) > 1.1 * kept(SMALL, two)


def test_a_program_that_computes_for_long_takes_as_long_in_a_network() -> None:
    """What it waits for memory is little beside that."""
    assert kept(SMALL, compute_s=1.0) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("rows", "share"), [(1, 0.44), (4, 0.41), (16, 0.94)])
def test_products_keep_what_was_measured(rows: int, share: float) -> None:
    """4 MB of weights, on a device like the one that was measured."""
    assert abs(math.log(kept_of(packed_product_leaves(rows), 4.5e6) / share)) < 0.25


def test_what_reads_one_input_takes_the_same() -> None:
    assert kept_of(pool_leaves(), SMALL) == 1.0
    assert kept_of(packed_product_leaves(1), SMALL) < 1.0


def test_a_tile_that_registers_do_not_hold_is_as_the_base_says() -> None:
    """Its sums go through the first cache with each weight, so that memory matters less."""
    small = replace(CPU, simd_bytes=16)
    assert kept_of(packed_product_leaves(4), 4.5e6, small) > 1.5 * kept_of(
        packed_product_leaves(4), 4.5e6
    )


def test_wide_vectors_have_more_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile of 16 vectors of 64 bytes stays in them."""
    leaves, wide = packed_product_leaves(8, lanes=32), replace(CPU, simd_bytes=64)
    found = kept_of(leaves, 4.5e6, wide)
    monkeypatch.setattr(module, "sum_registers", lambda _: 12.0)
    assert found < kept_of(leaves, 4.5e6, wide)


def test_what_the_estimate_is_off_by_counts_for_what_stays() -> None:
    """All of it where no wait is gone; little where most are."""
    assert Kept(2e-6, 2e-6).work_s(6e-6) == pytest.approx(6e-6)
    assert Kept(1e-6, 1e-5).work_s(1e-5) == pytest.approx(1e-6)
    assert 1.2e-6 < Kept(1e-6, 1e-5).work_s(3e-5) < 1.6e-6
    assert Kept(9e-6, 1e-5).work_s(1e-7) == 1e-7  # which it cannot exceed


def test_a_core_counts_on_its_part_of_the_last_cache() -> None:
    """A rented machine of two cores shows the cache of a whole chip."""
    leaves, large = packed_product_leaves(4, width=2048), replace(CPU, l3_bytes=2**30)
    size = 2.2e7  # with weights of 17 MB
    assert kept_of(leaves, size, large) == pytest.approx(kept_of(leaves, size), rel=1e-6)
    assert kept_of(leaves, size, replace(large, cores=16)) < 0.8 * kept_of(leaves, size, large)


def test_a_measured_level_counts_for_what_is_gone() -> None:
    kept = Kept(1e-6, 1e-5)
    before = kept.work_s(1e-5)
    assert math.log(kept.work_s(1e-5, -0.5) / before) == pytest.approx(-0.5 * 0.9)
    assert Kept(2e-6, 2e-6).work_s(2e-6, -0.5) == 2e-6  # nothing is gone
    assert kept.work_s(1e-5, 20.0) == 1e-5  # nothing takes longer than alone
