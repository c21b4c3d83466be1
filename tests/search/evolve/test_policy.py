"""The search of one task: what it asks to be measured, and what it makes of the results."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.search.evolve.spaces import task
from tests.tiny_tasks import auto_scheduler
from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.devices import detect_cpu, generic_gpu
from tvm_cdmpp.models import Prediction
from tvm_cdmpp.models.analytic import estimate_latency_s
from tvm_cdmpp.search.evolve import policy as policy_module
from tvm_cdmpp.search.evolve.building import log_build_cost
from tvm_cdmpp.search.evolve.choice import BRED, NEAR_MEASURED, ChoiceConfig, rung_shares
from tvm_cdmpp.search.evolve.evolution import Evolution, EvolutionConfig, around
from tvm_cdmpp.search.evolve.policy import EvolutionPolicy
from tvm_cdmpp.search.evolve.space import ProgramSpace

SMALL = EvolutionConfig(generations=1, children=96, parents=48, descents=1, sweeps=1)


class Analytic:
    """Predicts the analytic estimate, and counts what it was told."""

    def __init__(self) -> None:
        self.learned = 0

    def predict_asts(self, of: Any, batch: CompactASTBatch) -> Prediction:
        device = detect_cpu() if of.target.kind.name == "llvm" else generic_gpu("any")
        latency_s = estimate_latency_s(batch, device)
        return Prediction(latency_s, np.ones(len(batch)), np.full(len(batch), 0.1))

    def update(self, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        assert len(inputs) == len(results)
        self.learned += len(inputs)


class Unsure(Analytic):
    """Is the less sure of a program the faster it is, so that a cautious order is another one."""

    def predict_asts(self, of: Any, batch: CompactASTBatch) -> Prediction:
        said = super().predict_asts(of, batch)
        spread = np.clip(3.0 * np.log(1e-3 / said.latency_s), 0.0, 9.0)
        return Prediction(said.latency_s, said.runs_probability, spread)


class Pretending:
    """Gives every program the same latency, or a failure."""

    def __init__(self, latency_s: float = 1e-3) -> None:
        self.latency_s = latency_s
        self.batches: list[list[str]] = []

    def texts(self) -> list[str]:
        return [text for batch in self.batches for text in batch]

    def measure(self, _policy: Any, inputs: Sequence[Any]) -> list[Any]:
        self.batches.append([str(measured.state) for measured in inputs])
        good = np.isfinite(self.latency_s)
        result = auto_scheduler.MeasureResult(
            [self.latency_s if good else 1e10], 0 if good else 2, "", 0.1, 1.0
        )
        return [result] * len(inputs)


def policy(name: str, seed: int = 0, **choice: Any) -> tuple[EvolutionPolicy, Analytic]:
    model = Analytic()
    made = EvolutionPolicy(
        task(name), model, seed=seed, evolution=SMALL, choice=ChoiceConfig(**choice)
    )
    return made, model


@pytest.mark.parametrize("name", ["conv2d", "matmul"])
def test_no_program_is_measured_twice(name: str) -> None:
    search, model = policy(name, explored=0.25)
    measurer = Pretending()
    for _ in range(3):
        inputs, results = search.continue_search_one_round(8, measurer)
        assert len(inputs) == len(results) == 8
        assert 0.0 <= search.gain <= 1.0
    texts = measurer.texts()
    assert len(set(texts)) == len(texts) == model.learned == 24


def test_a_gain_is_estimated_when_somebody_asks() -> None:
    """What the model learns from the last batch of a search would be for nothing."""
    asked = []

    class Asked(Analytic):
        def predict_asts(self, task: Any, batch: CompactASTBatch) -> Prediction:
            asked.append(self.learned)
            return super().predict_asts(task, batch)

    found = []
    for asks in (True, False):
        search = EvolutionPolicy(task("conv2d"), Asked(), evolution=SMALL)
        measurer = Pretending()
        for _ in range(2):
            search.continue_search_one_round(4, measurer)
            assert set(asked) <= {0, 4}
            if asks:
                asked.clear()
                assert 0.0 < search.gain < 1.0
                assert len(asked) == 1
                assert search.gain and not search.is_done
                assert len(asked) == 1
                asked.clear()
        found.append((measurer.batches, search.gain))
        asked.clear()
    assert found[0] == found[1]


def test_what_the_model_is_less_sure_of_is_not_held_back() -> None:
    found = []
    for model in (Analytic(), Unsure()):
        search = EvolutionPolicy(task("conv2d"), model, evolution=SMALL)
        found.append([str(each.state) for each in search.find(8)])
    assert found[0] == found[1]


def test_later_rounds_breed_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    bred = []

    class Spied(Evolution):
        def breed(self) -> int:
            bred.append(self.config.children)
            return super().breed()

    monkeypatch.setattr(policy_module, "Evolution", Spied)
    search = EvolutionPolicy(task("conv2d"), Analytic(), evolution=SMALL)
    for _ in range(3):
        search.continue_search_one_round(4, Pretending())
    # One generation for a rung of its own, and that of the configuration.
    assert bred == [96, 96, 12, 12, 12, 12]


def test_what_builds_sooner_comes_sooner_and_rather() -> None:
    def costs(weight: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        search, _ = policy("conv2d", explored=0.0, build_weight=weight)
        inputs, _ = search.continue_search_one_round(8, Pretending())
        made = ProgramSpace(task("conv2d"))
        batch, _ = made.describe(made.read_states([each.state for each in inputs]))
        return log_build_cost(batch)

    any_cost, cheap = costs(0.0), costs(1.0)
    assert (np.diff(any_cost) >= 0.0).all()
    assert (np.diff(cheap) >= 0.0).all()
    assert cheap.mean() < any_cost.mean() - 0.2


def test_one_seed_one_search() -> None:
    def batches(seed: int) -> list[list[str]]:
        measurer = Pretending()
        search, _ = policy("tiny", seed)
        for _ in range(2):
            search.continue_search_one_round(4, measurer)
        return measurer.batches

    assert batches(1) == batches(1) != batches(2)


def test_what_was_measured_before_is_not_measured_again() -> None:
    first, _ = policy("tiny")
    before = Pretending()
    inputs, results = first.continue_search_one_round(8, before)
    second, _ = policy("tiny")
    second.preload(inputs, results)
    again = Pretending()
    second.continue_search_one_round(8, again)
    assert not set(before.batches[0]) & set(again.batches[0])


def test_a_task_without_more_programs_is_done() -> None:
    search, _ = policy("norm")
    measurer = Pretending()
    for _ in range(30):
        inputs, _ = search.continue_search_one_round(64, measurer)
        if not inputs:
            break
    assert not inputs
    assert search.is_done
    assert search.gain == 0.0
    texts = measurer.texts()
    assert len(set(texts)) == len(texts) > 5


def test_a_task_whose_programs_all_fail_goes_on() -> None:
    search, model = policy("tiny")
    for _ in range(4):  # each part of a batch has its turn
        search.continue_search_one_round(4, Pretending(float("inf")))
    assert model.learned == 16
    assert search.gain == 1.0
    assert not search.is_done


def test_a_task_that_gains_nothing_is_done() -> None:
    search, _ = policy("tiny")
    for _ in range(40):
        search.continue_search_one_round(4, Pretending())
        if search.is_done:
            break
    assert search.is_done
    assert search.gain < 0.01


def test_a_batch_is_divided_among_rungs() -> None:
    for count in range(40):
        for favourite in range(4):
            for round_number in range(4):
                shares = rung_shares(count, favourite, round_number)
                assert sum(shares) == count
                assert min(shares) >= 0
                if count > 4 and round_number:
                    assert min(shares) >= count // 5
                    assert shares[favourite] >= 2 * min(shares)
    assert rung_shares(15, BRED, 0) == [5, 5, 5, 0]
    assert rung_shares(15, NEAR_MEASURED, 1) == [3, 3, 3, 6]
    # Small batches take turns.
    turns = {tuple(rung_shares(2, BRED, n)) for n in range(1, 5)}
    assert turns == {(1, 0, 1, 0), (0, 1, 1, 0), (0, 0, 2, 0), (0, 0, 1, 1)}


def test_what_is_near_the_fastest_programs_is_measured() -> None:
    """As far as it is predicted well, whatever was predicted of them."""
    search, _ = policy("conv2d", explored=0.0)
    assert all(each.rung != NEAR_MEASURED for each in search.find(4))
    space = search._space

    class Surprising(Pretending):
        """The program of a batch that is thought slowest is the fastest."""

        def measure(self, _policy: Any, inputs: Sequence[Any]) -> list[Any]:
            results = super().measure(_policy, inputs)
            batch, _ = space.describe(space.read_states([each.state for each in inputs]))
            self.slowest = int(np.argmax(estimate_latency_s(batch, detect_cpu())))
            results[self.slowest] = auto_scheduler.MeasureResult([1e-5], 0, "", 0.1, 1.0)
            return results

    measurer = Surprising()
    inputs, _ = search.continue_search_one_round(10, measurer)
    near = around(space, space.read_states([inputs[measurer.slowest].state]))
    found = [each.program for each in search.find(10) if each.rung == NEAR_MEASURED]
    assert len(found) >= 2
    assert {int(each.keys()[0]) for each in found} <= set(near.keys().tolist())


def test_a_restored_search_knows_all() -> None:
    search, _ = policy("conv2d")
    for _ in range(2):
        search.continue_search_one_round(8, Pretending())
    assert search.gain > 0.0
    other, _ = policy("conv2d")
    other.restore(search.content())
    before, after = search.content(), other.content()
    assert before.settings == after.settings
    assert before.arrays.keys() == after.arrays.keys()
    for name, values in before.arrays.items():
        np.testing.assert_array_equal(values, after.arrays[name])
