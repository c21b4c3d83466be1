"""Plain functions, built and run for real."""

import math
from typing import Any

from tests.tiny_tasks import TARGET
from tvm_cdmpp.measure.plain import plain_level
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession
from tvm_cdmpp.networks import (
    LAYERS,
    PLAIN_LAYERS,
    OwnFunction,
    network_of_layers,
    own_functions,
    plain_functions,
)


def test_layers_are_of_either_kind() -> None:
    plain, own = network_of_layers(PLAIN_LAYERS), network_of_layers(LAYERS[1:2])
    assert len(plain_functions(plain, TARGET, 2)) >= len(PLAIN_LAYERS)
    assert own_functions(plain, TARGET, 2) == []
    assert len(own_functions(own, TARGET, 2)) == 1


def test_the_level_is_how_much_more_the_work_takes() -> None:
    options, asked = MeasureOptions(repeat=3), list[OwnFunction]()

    def estimate(function: OwnFunction, wake_s: float | None) -> tuple[float, float]:
        assert wake_s == 2e-6
        asked.append(function)
        return 1e-9, 1e-3

    with MeasureSession():
        level = plain_level(options, TARGET, 2e-6, estimate)
    assert level is not None
    assert 1e-6 < 1e-3 * math.exp(level) < 1e-2
    assert len(asked) >= len(PLAIN_LAYERS)


def test_nothing_is_said_of_functions_that_do_not_run_or_take_no_time() -> None:
    with MeasureSession():
        for start_s in (1.0, 1e-9):
            options: Any = MeasureOptions(repeat=2)
            if start_s < 1:
                options = MeasureOptions(repeat=2, run_timeout_s=0)
            assert plain_level(options, TARGET, None, lambda *_, s=start_s: (s, 1.0)) is None
