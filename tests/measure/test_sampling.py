"""Programs are new, come in the mix that was asked for, and depend on the seed only."""

from collections import Counter

import pytest

from tests.tiny_tasks import auto_scheduler, matmul, shrink_search
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.measure.sampling import ProgramSampler, SampleMix
from tvm_cdmpp.search.cost_model import CDMPPModel

TASK = matmul(32, 32, 32)
MIX = SampleMix(population=64)


@pytest.fixture(autouse=True)
def small_search(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_search(monkeypatch)


def steps(state: object) -> str:
    return str(auto_scheduler.MeasureInput(TASK, state).serialize()[0])


def test_mix_and_novelty() -> None:
    sampler = ProgramSampler(TASK, CDMPPModel(seed=0), MIX, (0, 0))
    first, second = sampler.draw(10), sampler.draw(10)
    for drawn in (first, second):
        assert Counter(kind for kind, _ in drawn) == {"best": 3, "evolved": 3, "random": 4}
    assert len({str(state) for _, state in first + second}) == 20


def test_seed_decides() -> None:
    def draw(*seed: int) -> list[str]:
        sampler = ProgramSampler(TASK, CDMPPModel(seed=0), MIX, seed)
        return [steps(state) for _, state in sampler.draw(6)]

    first = draw(0, 1)
    assert draw(0, 1) == first
    assert draw(0, 2) != first
    assert draw(1, 1) != first


def test_best_are_the_models_choice() -> None:
    model = CDMPPModel(seed=0)
    sampler = ProgramSampler(TASK, model, MIX, (0, 0))
    drawn = sampler.draw(20)
    scores: dict[str, list[float]] = {"best": [], "evolved": [], "random": []}
    for (kind, _), score in zip(drawn, model.predict(TASK, [s for _, s in drawn]), strict=True):
        scores[kind].append(score)
    assert min(scores["best"]) >= max(scores["evolved"])


def test_noted_programs_do_not_come_again_until_all_are_drawn() -> None:
    # So small that it has few programs, all of which can be drawn.
    task = matmul(1, 2, 1)
    first = ProgramSampler(task, CDMPPModel(seed=0), MIX, (0, 0))
    drawn = []
    while batch := first.draw(64):
        drawn += [state for _, state in batch]
    assert len({str(state) for state in drawn}) == len(drawn) > 0
    second = ProgramSampler(task, CDMPPModel(seed=0), MIX, (0, 0))
    for number, state in enumerate(drawn):
        second.note(state, 1e-3 * (1 + number))
    assert not {str(state) for _, state in second.draw(64)} & {str(state) for state in drawn}


@pytest.mark.parametrize("wrong", [{"random": 1.1}, {"evolved": -0.1}, {"population": 0}])
def test_mix_is_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SampleMix(**wrong)  # type: ignore[arg-type]
