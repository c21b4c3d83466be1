"""What a device's first minute says: levels of invented machines, and a choice of programs."""

import math

import numpy as np
import pytest

from tests.tiny_tasks import TARGET
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.measure.first_minute import (
    FirstMinuteConfig,
    Sample,
    choose_programs,
    levels_of,
    undisturbed,
)
from tvm_cdmpp.models.trained import TrainedPredictor
from tvm_cdmpp.models.weights import load_weights

DEVICE = DeviceSpec(name="test", kind="cpu", cores=2)


def machine(factors: dict[str, float], per_operator: int = 4) -> list[tuple[Sample, float]]:
    """Programs that take so many times what is predicted, give or take a tenth."""
    generator = np.random.default_rng(0)
    found = []
    for task, (operator, factor) in enumerate(factors.items()):
        for predicted_s in generator.uniform(1e-4, 1e-2, per_operator):
            program = Sample(operator, task, operator, None, {"w": math.log(predicted_s)})
            found.append((program, predicted_s * factor * generator.uniform(0.9, 1.1)))
    return found


@pytest.mark.parametrize("factor", [0.01, 1.0, 3.0, 100.0])
def test_a_level_is_found_whatever_it_is(factor: float) -> None:
    found = levels_of(machine(dict.fromkeys("abcdefg", factor)), "w")
    assert abs(found.level - math.log(factor)) < 0.1 + 0.1 * abs(math.log(factor))
    for level in found.operators.values():
        assert level == pytest.approx(found.level, abs=0.2)


def test_operators_have_levels_of_their_own_but_drawn_together() -> None:
    found = levels_of(machine({**dict.fromkeys("abcdef", 1.0), "g": 2.0}), "w")
    assert abs(found.level) < 0.2
    assert 0.3 < found.operators["g"] < math.log(2.0)


def test_absurd_latencies_move_little() -> None:
    programs = machine(dict.fromkeys("abcdefg", 1.0))
    spoiled = [
        (program, measured_s * (1e4 if place % 4 == 0 else 1.0))
        for place, (program, measured_s) in enumerate(programs)
    ]
    assert abs(levels_of(spoiled, "w").level) < 0.4


def test_a_disturbance_is_taken_off_what_it_slowed_down() -> None:
    """Another program takes half of the machine from the third check on."""
    programs = [(program, 1.0) for program, _ in machine(dict.fromkeys("abcd", 1.0), 1)]
    checks_s, slowed = [1.0, 1.0, 2.0, 2.0, 1.0], [1.0, 1.5, 2.0, 1.5]
    timed = [
        (program, seconds * slower, place)
        for place, ((program, seconds), slower) in enumerate(
            zip(programs, slowed, strict=True), start=1
        )
    ]
    assert [seconds for _, seconds in undisturbed(timed, checks_s)] == pytest.approx([1.0] * 4)


def test_the_fastest_program_of_a_task_counts() -> None:
    programs = machine(dict.fromkeys("abcdefg", 1.0))
    disappointing = [(program, 50.0 * measured_s) for program, measured_s in programs]
    assert abs(levels_of([*programs, *disappointing], "w").level) < 0.1


def test_programs_are_the_same_every_time_and_spread() -> None:
    predictor = load_weights("evaluation")
    assert isinstance(predictor, TrainedPredictor)
    np.random.seed(5)  # noqa: NPY002 -- which TVM draws from
    before = np.random.get_state()[1].tolist()  # type: ignore[index] # noqa: NPY002
    first = choose_programs(DEVICE, TARGET, [predictor], FirstMinuteConfig())
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index] # noqa: NPY002
    again = choose_programs(DEVICE, TARGET, [predictor], FirstMinuteConfig())
    states = [str(sample.measured.state) for sample in first]
    assert states == [str(sample.measured.state) for sample in again]
    assert 25 <= len(states) == len(set(states)) <= 30
    assert {sample.operator for sample in first} == {
        "conv2d", "depthwise_conv2d", "matmul", "batch_matmul", "pool", "softmax", "reduction",
        "elementwise",
    }  # fmt: skip
    for task in {sample.task for sample in first}:
        own = [s.log_s[predictor.origin] for s in first if s.task == task]
        assert own == sorted(own)


def test_programs_are_counted() -> None:
    with pytest.raises(ConfigError, match="--programs must be 8 to 1000, got 7"):
        FirstMinuteConfig(programs=7)
