"""What is estimated of functions with full caches, and that a network is priced by the same."""

import math
from dataclasses import replace

import pytest

from tests.tiny_tasks import TARGET
from tvm_cdmpp.devices import DeviceCalibration, DeviceSpec, Hardware
from tvm_cdmpp.networks import (
    KEPT_LAYERS,
    PLAIN_LAYERS,
    OwnFunction,
    network_of_layers,
    own_functions,
    plain_functions,
)
from tvm_cdmpp.replay import WarmEstimates

CALIBRATED = DeviceCalibration(levels=(), wake_s=9e-6, plain_level=1.0, kept_level=1.0)
CPU = DeviceSpec(name="cpu", kind="cpu", cores=2, clock_hz=2.5e9, calibration=CALIBRATED)
ESTIMATES = WarmEstimates(CPU, Hardware(cores=2))
BARE = WarmEstimates(replace(CPU, calibration=None), Hardware(cores=2))


@pytest.fixture(scope="module")
def product() -> OwnFunction:
    return own_functions(network_of_layers(KEPT_LAYERS[:1]), TARGET, 2)[0]


def test_plain_functions_are_estimated_without_the_calibration_that_there_is() -> None:
    function = plain_functions(network_of_layers(PLAIN_LAYERS[:1]), TARGET, 2)[0]
    found = ESTIMATES.plain(function, 5e-6)
    assert found.start_s == pytest.approx(5e-6, rel=0.1)
    assert found.work_s == pytest.approx(BARE.plain(function, None).work_s)
    assert found.work_s > 0
    assert found.gone == 1


def test_a_product_takes_less_where_its_weights_stay(product: OwnFunction) -> None:
    found = ESTIMATES.kept(product, 2e-6, 3e-5)
    assert found == BARE.kept(product, 2e-6, 3e-5)  # the calibration that there is does not count
    assert 2e-6 < found.start_s < 2.2e-6 < found.work_s < 2e-5
    assert 0.2 < found.gone < 1
    slower = ESTIMATES.kept(product, 2e-6, 6e-5)
    assert 1 < slower.work_s / found.work_s < 2
    assert math.isclose(slower.gone, found.gone)


def test_a_measured_wake_takes_the_place_of_what_was_learned_of_starts(
    product: OwnFunction,
) -> None:
    """By itself a program wakes threads that sleep, and inside of a network such that do not."""
    fast, slow = (ESTIMATES.kept(product, wake_s, 3e-5).start_s for wake_s in (1e-6, 4e-6))
    assert slow - fast == pytest.approx(3e-6)
    assert fast < 1.2e-6
    usual = ESTIMATES.kept(product, None, 3e-5).start_s
    assert usual > 2 * slow
