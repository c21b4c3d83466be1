"""What a device's first minute says: levels of invented machines, and a choice of programs."""

import math
from collections import Counter
from dataclasses import replace
from itertools import chain
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from tests.tiny_tasks import TARGET
from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.measure import first_minute, small_programs, waking
from tvm_cdmpp.measure.first_minute import (
    calibrate_device,
    disturbances,
    levels_of,
)
from tvm_cdmpp.measure.small_programs import (
    FirstMinuteConfig,
    Sample,
    choose_programs,
    own_samples,
)
from tvm_cdmpp.models.trained import TrainedPredictor
from tvm_cdmpp.models.weights import load_weights
from tvm_cdmpp.networks.untuned import OwnFunction
from tvm_cdmpp.workloads.samples import sample_tasks

MeasureResult = load_tvm().auto_scheduler.MeasureResult

DEVICE = DeviceSpec(name="test", kind="cpu", cores=2)
FUNCTION = OwnFunction("conv2d", "conv2d", "conv2d", None, ())


def machine(factors: dict[str, float], per_operator: int = 4) -> list[tuple[Sample, float]]:
    """Programs that take so many times what is predicted, give or take a tenth."""
    generator = np.random.default_rng(0)
    found = []
    for task, (operator, factor) in enumerate(factors.items()):
        for predicted_s in generator.uniform(1e-4, 1e-2, per_operator):
            program = Sample(operator, task, operator, None, {"w": math.log(predicted_s)})
            found.append((program, predicted_s * factor * generator.uniform(0.9, 1.1)))
    return found


def test_functions_with_tvms_own_schedules_are_measured_three_times() -> None:
    programs = [program for program, _ in machine(dict.fromkeys("abcd", 1.0), 12)]
    own = [replace(program, own=FUNCTION) for program in programs[:20]]
    batches = first_minute._batches([*programs, *own], seed=0)
    assert Counter(chain(*batches)) == Counter([*range(48), *range(48, 68)] + 2 * [*range(48, 68)])
    assert {len(batch) for batch in batches[:-1]} == {16}
    # Programs of all operators are in each.
    assert all(len({place // 12 for place in batch if place < 48}) >= 3 for batch in batches[:-1])


@pytest.mark.parametrize("factor", [0.01, 1.0, 3.0, 100.0])
def test_a_level_is_found_whatever_it_is(factor: float) -> None:
    found = levels_of(machine(dict.fromkeys("abcdefg", factor)), "w")
    assert abs(found.level - math.log(factor)) < 0.1 + 0.1 * abs(math.log(factor))
    for level in found.operators.values():
        assert abs(level - math.log(factor)) < 0.1 + 0.1 * abs(math.log(factor))


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


def test_a_machine_is_disturbed_between_two_slow_checks() -> None:
    assert disturbances([1.0, 1.0, 2.0, 3.0, 1.0, 1.0, 1.0]) == [1, 1, 1, 2, 1, 1, 1]


def test_one_disturbed_check_says_nothing() -> None:
    assert disturbances([1.0, 1.0, 10.0, 1.0, 1.0]) == [1.0] * 5


def test_a_quiet_machine_is_hardly_disturbed() -> None:
    generator = np.random.default_rng(0)
    found = [disturbances(np.exp(generator.normal(0.0, 0.05, 10)).tolist()) for _ in range(200)]
    assert 0.0 <= np.log(found).mean() < 0.03


@pytest.mark.parametrize("copies", [1, 2])
def test_programs_beside_other_work_do_not_move_the_level(
    monkeypatch: pytest.MonkeyPatch, copies: int
) -> None:
    """Another program takes half of the machine, from before the fifth batch to after the sixth."""
    programs = [
        replace(program, measured=place)
        for place, (program, _) in enumerate(machine(dict.fromkeys("abcdefgh", 1.0), 1))
    ]
    order: list[int] = []

    def run(places: list[int], _: list[int], verbose: int) -> list[Any]:
        order.extend(places)
        slower = 2.0 if len(order) in (5, 6) else 1.0
        took_s = [slower * math.exp(programs[place].log_s["w"]) for place in places]
        return [MeasureResult([seconds], 0, "", 0.0, 0.0) for seconds in took_s]

    checks_s = iter([9.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 1.0, 1.0])
    monkeypatch.setattr(first_minute, "_TOGETHER", 1)
    monkeypatch.setattr(first_minute, "choose_programs", lambda *_: programs)
    monkeypatch.setattr(first_minute, "matmul_timer", lambda *_, **__: lambda: next(checks_s))
    wakes_s = iter([9e-6, None, 1e-6, 2e-6])
    monkeypatch.setattr(waking, "wake_timer", lambda *_, **__: lambda: next(wakes_s))
    monkeypatch.setattr(first_minute, "_WAKES_EVERY", 2)
    options = Mock()
    options.builder.return_value.build = lambda places, verbose: places
    options.runner.return_value.run = run
    options.remote.count.return_value = copies
    found = calibrate_device(DEVICE, TARGET, [Mock(origin="w")], Mock(), options)
    assert sorted(order) == list(range(8)) != order
    disturbed = [math.log(2.0) * (place in order[4:6]) for place in range(8)]
    for place, program in enumerate(found.programs):
        took_s = math.exp(programs[place].log_s["w"] + disturbed[place])
        assert program.measured_s == pytest.approx(took_s)
    # Which of several devices was slow is not known.
    ratios = [program.log_ratio for program in found.programs]
    assert ratios == pytest.approx([0.0] * 8 if copies == 1 else disturbed)
    assert found.disturbed
    assert found.wake_s == pytest.approx(4e-6)  # the mean of those that ran


def test_the_middle_of_three_runs_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of functions with a schedule of TVM's own, of which none is left out as slow."""
    own = [
        replace(program, measured=place, own=FUNCTION)
        for place, (program, _) in enumerate(machine(dict.fromkeys("abcdefgh", 1.0), 1))
    ]
    left = {place: [1.5, 0.5, 1.1] for place in range(8)}

    def run(places: list[int], _: list[int], verbose: int) -> list[Any]:
        took_s = [left[place].pop() * math.exp(own[place].log_s["w"]) for place in places]
        return [MeasureResult([seconds], 0, "", 0.0, 0.0) for seconds in took_s]

    monkeypatch.setattr(first_minute, "choose_programs", lambda *_: own)
    monkeypatch.setattr(first_minute, "build_all", lambda *_: [])
    monkeypatch.setattr(first_minute, "matmul_timer", lambda *_, **__: lambda: 1.0)
    monkeypatch.setattr(waking, "wake_timer", lambda *_, **__: lambda: None)
    options = Mock(remote=None)
    options.runner.return_value.run = run
    found = calibrate_device(DEVICE, TARGET, [Mock(origin="w")], Mock(), options)
    ratios = [program.log_ratio for program in found.programs]
    assert ratios == pytest.approx([math.log(1.1)] * 8)
    assert found.wake_s is None


def test_the_fastest_programs_of_a_task_count() -> None:
    programs = machine(dict.fromkeys("abcdefg", 1.0))
    disappointing = [(program, 500.0 * measured_s) for program, measured_s in programs]
    assert abs(levels_of([*programs, *disappointing, *disappointing], "w").level) < 0.1


def test_the_very_fastest_by_chance_is_not_all_that_counts() -> None:
    programs = machine(dict.fromkeys("abcdefg", 1.0), 12)
    lucky = [
        (program, 0.3 * measured_s if place % 12 == 0 else measured_s)
        for place, (program, measured_s) in enumerate(programs)
    ]
    assert abs(levels_of(lucky, "w").level) < 0.4


def test_tvms_own_schedules_have_levels_of_their_own() -> None:
    programs = machine(dict.fromkeys("abcdefg", 1.0))
    own = [
        (replace(program, own=FUNCTION, task=100 + place), measured_s)
        for place, (program, measured_s) in enumerate(machine({"a": 3.0, "b": 1.5, "c": 2.0}))
    ]
    found, without = levels_of([*programs, *own], "w"), levels_of(programs, "w")
    assert (found.level, found.operators) == (without.level, without.operators)
    assert (without.own_level, without.own_operators) == (None, {})
    assert found.own_level == pytest.approx(math.log(2.1), abs=0.2)
    for name, factor in (("a", 3.0), ("b", 1.5), ("c", 2.0)):
        assert found.own_operators[name] == pytest.approx(math.log(factor), abs=0.1)


def test_programs_are_the_same_every_time_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_programs, "_SAMPLED", small_programs._SAMPLED // 3)  # it is slow
    predictor = load_weights("evaluation")
    assert isinstance(predictor, TrainedPredictor)
    np.random.seed(5)  # noqa: NPY002 -- which TVM draws from
    before = np.random.get_state()[1].tolist()  # type: ignore[index] # noqa: NPY002
    first = choose_programs(DEVICE, TARGET, [predictor], FirstMinuteConfig())
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index] # noqa: NPY002
    again = choose_programs(DEVICE, TARGET, [predictor], FirstMinuteConfig())
    assert [s.log_s for s in first] == [s.log_s for s in again]
    searched = [sample for sample in first if sample.own is None]
    states = [str(sample.measured.state) for sample in searched]
    assert states == [str(s.measured.state) for s in again if s.own is None]
    assert 100 <= len(states) == len(set(states)) <= 126
    assert {sample.operator for sample in searched} == {
        "conv2d", "conv2d_winograd", "depthwise_conv2d", "matmul", "batch_matmul", "pool",
        "softmax", "reduction", "elementwise",
    }  # fmt: skip
    for task in {sample.task for sample in searched}:
        said = [s.log_s[predictor.origin] for s in searched if s.task == task]
        assert said == sorted(said)
    own = [sample for sample in first if sample.own is not None]
    assert 30 <= len(own) == len({sample.name for sample in own}) <= 46
    assert {sample.operator for sample in own} == {
        "conv2d", "conv2d_1x1", "conv2d_transpose", "depthwise_conv2d", "matmul", "batch_matmul",
        "batch_matmul_by_columns", "max_pool",
        "avg_pool", "global_avg_pool", "softmax", "reduction",
    }  # fmt: skip


def test_programs_are_of_the_quarter_that_is_predicted_to_be_the_fastest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = load_weights("evaluation")
    assert isinstance(predictor, TrainedPredictor)
    tasks = sample_tasks(TARGET)[:1]
    monkeypatch.setattr(small_programs, "sample_tasks", lambda _: tasks)
    monkeypatch.setattr(small_programs, "own_samples", lambda *_: [])

    def said(programs: int) -> list[float]:
        config = FirstMinuteConfig(programs=programs)
        chosen = choose_programs(DEVICE, TARGET, [predictor], config)
        return [sample.log_s[predictor.origin] for sample in chosen]

    found = said(10)
    monkeypatch.setattr(small_programs, "_SLOWEST", 1.0)
    all_of_them = said(1000)
    assert found[0] == all_of_them[0]
    assert found[-1] == pytest.approx(np.quantile(all_of_them, 0.25), abs=0.1)
    assert found[-1] < np.median(all_of_them) - 0.1


def test_levels_are_beside_what_is_known_of_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = load_weights("evaluation")
    assert isinstance(predictor, TrainedPredictor)

    def said() -> list[float]:
        samples = own_samples(4, DEVICE, TARGET, [predictor])
        return [sample.log_s[predictor.origin] for sample in samples]

    before = said()
    monkeypatch.setattr(OwnFunction, "_level", lambda self, device: 0.7)
    assert said() == pytest.approx([log_s + 0.7 for log_s in before], abs=1e-5)


def test_programs_are_counted() -> None:
    with pytest.raises(ConfigError, match="--programs must be 8 to 1000, got 7"):
        FirstMinuteConfig(programs=7)
