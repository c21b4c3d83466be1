"""What is known of TVM's own schedules beyond their leaves: what columns of a matrix cost."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.provenance import RESULTS
from tests.tiny_tasks import TARGET, tvm
from tvm_cdmpp.bridge import parse_target
from tvm_cdmpp.devices import DeviceSpec, Hardware, find_device
from tvm_cdmpp.devices.calibration import DeviceCalibration, Levels
from tvm_cdmpp.extract import describe_programs
from tvm_cdmpp.models import load_weights
from tvm_cdmpp.networks import LAYERS, network_of_layers, network_of_relay
from tvm_cdmpp.networks.functions import BY_COLUMNS, product_matrices
from tvm_cdmpp.networks.untuned import OwnFunction, own_functions

relay = tvm.relay
CPU = replace(find_device("epyc-7452"), cores=2)


def products(columns: list[int], *, rows_first: bool = True, depth: int = 128) -> list[OwnFunction]:
    """Return functions of 8 x 64 x depth times 8 x depth x columns."""

    def layer(number: int) -> Any:
        right = (8, depth, number) if rows_first else (8, number, depth)
        return lambda data: relay.nn.batch_matmul(
            data(8, 64, depth), data(*right), transpose_b=not rows_first
        )

    functions = own_functions(network_of_layers(list(map(layer, columns))), TARGET, 2)
    assert len(functions) == len(columns)
    return functions


def test_columns_of_rows_of_a_power_of_two_cost_more() -> None:
    odd, *even = (f.on(CPU).program_level for f in products([528, 512, 1024]))
    # 528 values are 33 lines of a cache; lines 2048 bytes apart are 32 to a set, and so on.
    assert [level - odd for level in even] == pytest.approx(
        [math.log(math.sqrt(32)), math.log(math.sqrt(64))], abs=0.1
    )


def test_no_more_lines_are_in_a_set_than_a_column_has() -> None:
    odd, even = (f.on(CPU).program_level for f in products([1040, 1024], depth=4))
    assert even - odd == pytest.approx(math.log(math.sqrt(4)), abs=0.1)


@pytest.mark.parametrize("batch", [1, 8])
def test_what_else_a_function_reads_does_not_matter(batch: int) -> None:
    """TVM gives the function of each of these the other parameter first."""
    (plain,) = products([512])
    for form in ("mask", "scalar"):
        x, y = relay.var("x", shape=(batch, 64, 128)), relay.var("y", shape=(8, 128, 512))
        other = relay.var("other", shape=(1, 1, 512) if form == "mask" else ())
        product = relay.nn.batch_matmul(x, y, transpose_b=False)
        value = relay.add(relay.exp(other), product)
        module = tvm.IRModule.from_expr(relay.Function([other, x, y], value))
        functions = own_functions(network_of_relay(form, module, {}), TARGET, 2)
        (function,) = (each for each in functions if each.operator == BY_COLUMNS)
        shapes = [list(map(int, b.shape)) for b in function.program.buffer_map.values()]
        assert len(shapes) >= 3
        assert [shape for shape, _ in product_matrices(function.program) or ()] == [
            (batch, 64, 128), (8, 128, 512)
        ]  # fmt: skip
        level = function.on(CPU).program_level
        assert level == pytest.approx(plain.on(CPU).program_level, abs=0.1)


def test_products_take_what_was_measured() -> None:
    """On the machine of the published result, by the shipped weights."""
    result = json.loads((RESULTS / "rows-first.json").read_text())
    epyc = DeviceSpec(
        name="epyc", kind="cpu", cores=result["settings"]["cores"], simd_bytes=64,
        clock_hz=result["settings"]["clock_hz"], fused_multiply_adds_per_cycle=1,
    )  # fmt: skip
    weights, off = load_weights("shipped"), []
    target = parse_target("llvm -mcpu=icelake-server")
    for row in result["rows"][:12]:
        batch, rows, depth, columns = row["sizes"]
        x, y = (
            relay.var("x", shape=(batch, rows, depth)),
            relay.var("y", shape=(batch, depth, columns)),
        )
        value = relay.nn.batch_matmul(x, y, transpose_b=False)
        module = tvm.IRModule.from_expr(relay.Function([x, y], value))
        (function,) = own_functions(network_of_relay("product", module, {}), target, 2)
        described = describe_programs([function.leaves], Hardware())
        predicted_s = weights.predict(described, function.on(epyc)).latency_s[0]
        off.append(math.log(predicted_s / row["measured_s"]))
    assert abs(np.mean(off)) < 0.4
    assert np.std(off) < 0.5


def test_other_functions_and_gpus_have_no_level_of_their_own() -> None:
    (columns,) = products([512])
    assert columns.operator == BY_COLUMNS
    assert columns.on(find_device("t4")).program_level == 0.0
    others = products([512], rows_first=False) + own_functions(
        network_of_layers(LAYERS[:6]), TARGET, 2
    )
    assert {function.on(CPU).program_level for function in others} == {0.0}


def test_the_level_comes_on_top_of_that_of_the_class() -> None:
    (columns,) = products([512])
    levels = Levels(weights="w", level=0.1, own_level=0.2, own_operators={BY_COLUMNS: 0.5})
    known = columns.on(replace(CPU, calibration=DeviceCalibration(levels=(levels,))))
    assert known.program_level == columns.on(CPU).program_level != 0.0
    assert known.level("w") == pytest.approx(0.5 + known.program_level)
    assert known.level("others") == known.program_level
