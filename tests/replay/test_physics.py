"""Estimates of functions that are not tuned: real programs, and what must hold of their figures."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.devices import DeviceCalibration, DeviceSpec
from tvm_cdmpp.extract import leaves_of
from tvm_cdmpp.models import PROGRAM_START_S
from tvm_cdmpp.networks import (
    LIBRARY_LAYERS,
    PLAIN_LAYERS,
    OwnFunction,
    network_of_layers,
    plain_functions,
)
from tvm_cdmpp.replay.physics import Estimate, call_s, estimate_function, plain_s

tvm = load_tvm()
te = tvm.te

CPU = DeviceSpec(name="cpu", kind="cpu", cores=4)
SMALL, LARGE = 1e5, 1e9
"""Bytes of networks that stay in a core's cache, and that do not."""


def estimate(
    shape: tuple[int, ...],
    value: Callable[..., Any],
    device: DeviceSpec = CPU,
    *,
    network_bytes: float = SMALL,
    parallel: bool = True,
    vectors: int = 0,
) -> Estimate:
    """Estimate a function of one input of the same shape, written as one loop nest."""
    x = te.placeholder(shape, name="x")
    out = te.compute(shape, lambda *index: value(x, *index), name="out")
    schedule = te.create_schedule(out.op)
    axes = list(out.op.axis)
    if vectors:
        outer, lanes = schedule[out].split(axes[-1], factor=vectors)
        schedule[out].vectorize(lanes)
        axes[-1] = outer
    if parallel:
        schedule[out].parallel(axes[0])
    module = tvm.get_global_func("driver.schedule_to_module")(schedule, [x, out], "main", None)
    program = module["main"]
    return estimate_function(program, leaves_of(program, 0), device, network_bytes)


def copy(x: Any, *index: Any) -> Any:
    return x(*index)


def test_a_parallel_loop_over_elements_copies_lines_as_nested_loops_do() -> None:
    alone = estimate((1 << 20,), copy)
    nested = estimate((256, 4096), copy)
    assert alone.latency_s == pytest.approx(nested.latency_s, rel=0.1)
    moved_bytes = 2 * 4 * (1 << 20)
    assert moved_bytes / 1e12 < alone.latency_s < moved_bytes / 50e9


def test_iterations_share_the_lines_that_lie_side_by_side() -> None:
    shape = (64, 64)
    rows = estimate(shape, lambda x, i, j: x[i, j])
    columns = estimate(shape, lambda x, i, j: x[j, i])
    # Each iteration reads another column; 16 columns share their lines.
    assert columns.bounds_s["L2 cache"] <= 2 * rows.bounds_s["L2 cache"]


def test_calls_of_the_c_library_take_their_cycles_for_every_element() -> None:
    shape = (64, 1024)
    plain = estimate(shape, lambda x, i, j: x[i, j] + 1.0, vectors=8)
    erf = estimate(shape, lambda x, i, j: te.erf(x[i, j]), vectors=8)
    root = estimate(shape, lambda x, i, j: te.sqrt(x[i, j]), vectors=8)
    per_element = erf.bounds_s["compute"] * CPU.clock_hz * CPU.cores / (64 * 1024)
    assert 10 < per_element < 25
    assert erf.latency_s > 3 * root.latency_s > 3 * plain.latency_s
    assert max(erf.bounds_s, key=lambda name: erf.bounds_s[name]) == "compute"


def test_a_square_is_a_product_and_no_call() -> None:
    square, cube, product = (
        estimate((64, 256), value, vectors=16).latency_s
        for value in (
            lambda x, i, j: tvm.tir.power(x[i, j], 2.0),
            lambda x, i, j: tvm.tir.power(x[i, j], 3.0),
            lambda x, i, j: x[i, j] * x[i, j],
        )
    )
    assert square < 2 * product < cube / 2


def test_conditions_in_a_vectorized_loop_make_it_serial() -> None:
    def add(x: Any, i: Any, j: Any) -> Any:
        return x[i, j] + 1.0

    whole, cut = (estimate((64, n), add, vectors=8).bounds_s["compute"] for n in (1024, 1020))
    assert cut > 2 * whole


def test_only_parallel_functions_wake_threads_and_only_where_there_are_some() -> None:
    serial = estimate((16,), copy, parallel=False)
    parallel = estimate((16,), copy)
    one_core = estimate((16,), copy, replace(CPU, cores=1))
    assert serial.latency_s < 5e-8
    assert one_core.latency_s == pytest.approx(serial.latency_s, rel=0.2)
    assert 1e-6 < parallel.bounds_s["start-up"] < 3e-6
    many = estimate((16,), copy, replace(CPU, cores=64))
    assert many.bounds_s["start-up"] > parallel.bounds_s["start-up"]


def test_threads_wake_as_they_were_measured_to() -> None:
    measured = DeviceCalibration(levels=(), wake_s=5e-6)
    before, after, of_two = (
        estimate((extent,), copy, device).bounds_s["start-up"]
        for extent, device in ((16, CPU), (16, replace(CPU, calibration=measured)),
                               (2, replace(CPU, calibration=measured)))
    )  # fmt: skip
    assert before < 3e-6
    assert after == pytest.approx(5e-6, rel=0.02)
    assert 4e-6 < of_two < after  # fewer threads
    unmeasured = replace(CPU, calibration=DeviceCalibration(levels=()))
    assert estimate((16,), copy, unmeasured).bounds_s["start-up"] == before
    one_core = replace(CPU, cores=1, calibration=measured)
    assert estimate((16,), copy, one_core).latency_s < 1e-7


def test_work_takes_so_much_longer_as_it_was_measured_to_and_starts_do_not() -> None:
    slower = DeviceCalibration(levels=(), plain_level=math.log(3.0))
    for parallel in (False, True):
        before, after = (
            estimate((64, 4096), copy, device, parallel=parallel)
            for device in (CPU, replace(CPU, calibration=slower))
        )
        start_s = before.bounds_s["start-up"]
        assert after.bounds_s["start-up"] == start_s
        assert after.latency_s - start_s == pytest.approx(3 * (before.latency_s - start_s))


def test_calls_of_the_library_have_a_level_of_their_own_where_it_was_measured() -> None:
    plain, library = (
        plain_functions(network_of_layers(layers[:1]), tvm.target.Target("llvm"), CPU.cores)[0]
        for layers in (PLAIN_LAYERS, LIBRARY_LAYERS)
    )

    def slower(function: OwnFunction, plain: float | None, library: float | None) -> float:
        known = DeviceCalibration(levels=(), plain_level=plain, library_level=library)
        work_s = plain_s(function, replace(CPU, calibration=known))[1]
        return math.log(work_s / plain_s(function, CPU)[1])

    for function, found in ((plain, 0.5), (library, -0.25)):
        assert slower(function, 0.5, -0.25) == pytest.approx(found)
    assert slower(library, 0.5, None) == pytest.approx(0.5)
    assert slower(plain, None, -0.25) == 0


def test_the_more_a_network_uses_the_less_of_it_is_in_a_cache() -> None:
    found = [
        estimate((4096,), copy, parallel=False, network_bytes=size).latency_s
        for size in (CPU.cores * CPU.l2_bytes, 2 * CPU.cores * CPU.l2_bytes, LARGE)
    ]
    assert found[0] < found[1] < found[2]
    assert call_s(CPU, SMALL) < 5e-8
    assert call_s(CPU, LARGE) == pytest.approx(PROGRAM_START_S, rel=0.01)


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        ({"cores": 8}, (512, 4096)),
        ({"clock_hz": 4e9}, (64, 1024)),
        ({"bandwidth_bytes_per_s": 100e9}, (4096, 8192)),
    ],
)
def test_a_better_device_is_faster(change: dict[str, Any], shape: tuple[int, int]) -> None:
    before, after = (estimate(shape, copy, device) for device in (CPU, replace(CPU, **change)))
    assert after.latency_s < before.latency_s


def test_without_a_third_cache_the_second_is_filled_from_memory() -> None:
    found = estimate((512, 4096), copy, replace(CPU, l3_bytes=0.0))
    assert "L3 cache" not in found.bounds_s
    assert found.bounds_s["memory"] > found.bounds_s["L2 cache"]


def test_without_a_third_cache_what_was_just_written_is_in_the_second_as_far_as_it_fits() -> None:
    device = replace(CPU, l2_bytes=1 << 20, l3_bytes=0.0)
    kept = estimate((64, 256), copy, device, network_bytes=LARGE)
    assert kept.bounds_s["memory"] == 0.0
    assert estimate((1024, 4096), copy, device, network_bytes=LARGE).bounds_s["memory"] > 0.0


def test_rows_that_the_data_chooses_are_as_many_as_are_asked_for() -> None:
    rows, width = 128, 768
    table = te.placeholder((30522, width), name="table")
    chosen = te.placeholder((rows,), "int32", name="chosen")
    out = te.compute((rows, width), lambda i, j: table[chosen[i], j], name="out")
    schedule = te.create_schedule(out.op)
    make = tvm.get_global_func("driver.schedule_to_module")
    program = make(schedule, [table, chosen, out], "main", None)["main"]
    device = replace(CPU, l2_bytes=1 << 14)
    moved_bytes = 2 * 4 * rows * width
    found = estimate_function(program, leaves_of(program, 0), device, SMALL).bounds_s["L3 cache"]
    assert found < 3 * moved_bytes / (32 * device.clock_hz)
