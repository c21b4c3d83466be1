"""What devices count as."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tvm_cdmpp.devices import DEVICE_FIELDS, DeviceCalibration, Levels, find_device
from tvm_cdmpp.models import AdditiveConfig, TrainedPredictor, load_weights, stack_devices
from tvm_cdmpp.models.known_devices import as_known, in_cycles, own_direction


def vectors(*names: str) -> torch.Tensor:
    return in_cycles(stack_devices([find_device(name) for name in names]))


def test_rates_are_per_cycle() -> None:
    told = stack_devices([find_device("x86-24t")])
    clock = DEVICE_FIELDS.index("clock_hz")
    found, changed = in_cycles(told), in_cycles(told + 0.0)
    assert found[0, clock] == 0.0
    torch.testing.assert_close(found, changed)
    faster = told.clone()
    for name in ("clock_hz", "peak_flops", "bandwidth_bytes_per_s"):
        faster[:, DEVICE_FIELDS.index(name)] += 1.0
    torch.testing.assert_close(in_cycles(faster), found)


def test_every_device_is_itself_where_nothing_is_known() -> None:
    devices, none = vectors("x86-24t", "nvidia-a100"), torch.empty(0, len(DEVICE_FIELDS))
    assert as_known(devices, none, none) is devices


def test_gpus_count_as_one_with_warps_as_wide() -> None:
    references = vectors("amd-mi50", "nvidia-v100", "nvidia-k80")
    found = as_known(vectors("amd-mi100", "nvidia-gtx1650", "nvidia-v100"), references, references)
    torch.testing.assert_close(found, vectors("amd-mi50", "nvidia-k80", "nvidia-v100"))


@pytest.mark.parametrize("names", [["nvidia-v100"], ["nvidia-v100", "nvidia-k80", "nvidia-a100"]])
def test_a_map_can_be_changed_for_one_device_and_no_reference(names: list[str]) -> None:
    references, device = vectors(*names), vectors("nvidia-gtx1650")[0]
    direction = own_direction(device, references)
    assert direction is not None
    along = (torch.cat([references, device[None]]) - references[0]) @ direction
    expected = torch.zeros(len(names) + 1)
    expected[-1] = 1.0
    torch.testing.assert_close(along, expected, atol=1e-4, rtol=0.0)


def test_a_mix_of_references_has_no_direction_of_its_own() -> None:
    references = vectors("nvidia-v100", "nvidia-k80", "nvidia-a100")
    mixed = references[0] + 0.25 * (references[1] - references[0])
    assert own_direction(mixed, references) is None


@pytest.mark.parametrize(
    ("name", "reference"),
    [("x86-24t", None), ("nvidia-a100", None), ("cortex-a72", "x86-24t"), ("h100", "a100-40gb")],
)
def test_a_device_that_the_weights_do_not_know_is_named(name: str, reference: str | None) -> None:
    predictor = load_weights("evaluation")
    assert isinstance(predictor, TrainedPredictor)
    device = find_device(name)
    said = predictor.remark_on(device)
    if reference is None:
        assert said is None
        return
    assert said is not None
    assert f"not trained on {device.name}: they take it for {reference}, the device most" in said
    assert "measured" not in said
    levels = (Levels(weights=predictor.origin, level=0.5),)
    measured = predictor.remark_on(replace(device, calibration=DeviceCalibration(levels=levels)))
    corrected = f"what they predict is corrected by what was measured on {device.name}"
    assert measured == f"{said}; {corrected}"


def test_untrained_weights_know_nothing_to_count_as() -> None:
    predictor = TrainedPredictor.untrained(AdditiveConfig(), 0)
    device = find_device("cortex-a72")
    assert predictor.remark_on(device) is None
    predictor.about = {"device": device.name, "records": 32}
    assert predictor.remark_on(device) == f"the weights learned from 32 records of {device.name}"
    assert "none of x86-24t" in str(predictor.remark_on(find_device("x86-24t")))


def test_weights_that_learned_on_top_of_a_calibration_miss_it() -> None:
    predictor = TrainedPredictor.untrained(AdditiveConfig(), 0)
    device = find_device("cortex-a72")
    predictor.about = {"device": device.name, "records": 32, "calibrated": True}
    assert "a calibration that is not known here" in str(predictor.remark_on(device))
    levels = (Levels(weights=predictor.origin, level=0.5),)
    known = replace(device, calibration=DeviceCalibration(levels=levels))
    assert predictor.remark_on(known) == f"the weights learned from 32 records of {device.name}"
