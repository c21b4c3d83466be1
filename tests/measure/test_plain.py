"""Plain functions, built and run for real."""

import math

import pytest

from tests.tiny_tasks import TARGET
from tvm_cdmpp.measure import plain
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
    others, own = network_of_layers(PLAIN_LAYERS), network_of_layers(LAYERS[1:2])
    assert len(plain_functions(others, TARGET, 2)) >= len(PLAIN_LAYERS)
    assert own_functions(others, TARGET, 2) == []
    assert len(own_functions(own, TARGET, 2)) == 1


def test_the_level_is_how_much_more_the_work_takes() -> None:
    options, asked = MeasureOptions(repeat=3), list[OwnFunction]()

    def estimate(function: OwnFunction, wake_s: float | None) -> tuple[float, float]:
        assert wake_s == 2e-6
        asked.append(function)
        return 1e-9, 1e-5

    with MeasureSession():
        level = plain_level(options, TARGET, 2e-6, estimate)
    assert level is None or 1e-7 < 1e-5 * math.exp(level) < 8e-5  # None where the machine is busy
    assert len(asked) >= len(PLAIN_LAYERS)


def test_nothing_is_said_of_functions_that_do_not_run_or_take_no_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with MeasureSession():
        options = MeasureOptions(repeat=2)
        assert plain_level(options, TARGET, None, lambda *_: (1.0, 1.0)) is None
        # What takes a million times as long has waited.
        assert plain_level(options, TARGET, None, lambda *_: (1e-9, 1e-12)) is None
        monkeypatch.setattr(plain, "failed", lambda _: True)
        assert plain_level(options, TARGET, None, lambda *_: (1e-9, 1e-5)) is None
