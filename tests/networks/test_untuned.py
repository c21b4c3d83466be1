"""What is known of TVM's own schedules beyond their leaves: what columns of a matrix cost."""

import math
from dataclasses import replace
from typing import Any

import pytest

from tests.tiny_tasks import TARGET, tvm
from tvm_cdmpp.devices import find_device
from tvm_cdmpp.devices.calibration import DeviceCalibration, Levels
from tvm_cdmpp.networks import LAYERS, network_of_layers
from tvm_cdmpp.networks.functions import ROWS_FIRST
from tvm_cdmpp.networks.untuned import OwnFunction, own_functions

relay = tvm.relay
CPU = replace(find_device("epyc-7452"), cores=2)


def products(columns: list[int], *, rows_first: bool = True) -> list[OwnFunction]:
    """Return functions of 8 x 64 x 128 times 8 x 128 x columns."""

    def layer(number: int) -> Any:
        right = (8, 128, number) if rows_first else (8, number, 128)
        return lambda data: relay.nn.batch_matmul(
            data(8, 64, 128), data(*right), transpose_b=not rows_first
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


def test_other_functions_and_gpus_have_no_level_of_their_own() -> None:
    (columns,) = products([512])
    assert columns.operator == ROWS_FIRST
    assert columns.on(find_device("t4")).program_level == 0.0
    others = products([512], rows_first=False) + own_functions(
        network_of_layers(LAYERS[:6]), TARGET, 2
    )
    assert {function.on(CPU).program_level for function in others} == {0.0}


def test_the_level_comes_on_top_of_that_of_the_class() -> None:
    (columns,) = products([512])
    levels = Levels(weights="w", level=0.1, own_level=0.2, own_operators={ROWS_FIRST: 0.5})
    known = columns.on(replace(CPU, calibration=DeviceCalibration(levels=(levels,))))
    assert known.program_level == columns.on(CPU).program_level != 0.0
    assert known.level("w") == pytest.approx(0.5 + known.program_level)
    assert known.level("others") == known.program_level
