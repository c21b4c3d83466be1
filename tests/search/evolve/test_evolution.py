"""Evolution finds what it is asked for, scores nothing twice, and ends at a local optimum."""

import numpy as np
import numpy.typing as npt
import pytest

from tests.search.evolve.spaces import any_score, space
from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.devices import detect_cpu
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models.analytic import estimate_latency_s
from tvm_cdmpp.search.evolve.evolution import Evolution, EvolutionConfig, around, moves
from tvm_cdmpp.search.evolve.space import fingerprints

SMALL = EvolutionConfig(generations=4, children=256, parents=64, descents=4)


def analytic_score(batch: CompactASTBatch) -> npt.NDArray[np.float64]:
    return np.asarray(1.0 / estimate_latency_s(batch, detect_cpu()), np.float64)


def test_better_than_what_it_started_from() -> None:
    made, start = space("conv2d")
    evolution = Evolution(made, analytic_score, start, SMALL)
    first = evolution.scores[0]
    bests = [first]
    for _ in range(4):
        evolution.breed()
        bests.append(evolution.scores[0])
    assert bests == sorted(bests)
    assert evolution.scores[0] > first
    assert (np.diff(evolution.scores) <= 0).all()
    np.testing.assert_array_equal(
        analytic_score(made.describe(evolution.programs)[0]), evolution.scores
    )


def test_no_program_is_scored_twice() -> None:
    made, start = space("tiny")
    seen: list[int] = []

    def score(batch: CompactASTBatch) -> npt.NDArray[np.float64]:
        seen.extend(fingerprints(batch).tolist())
        return any_score(batch)

    evolution = Evolution(made, score, start, SMALL)
    evolution.run()
    assert len(seen) == len(set(seen)) == evolution.num_scored > 300


def test_the_descent_ends_where_no_move_helps() -> None:
    made, start = space("tiny")
    config = EvolutionConfig(descents=2, sweeps=40)
    evolution = Evolution(made, analytic_score, start, config)
    evolution.descend()
    best = evolution.scores[0]
    near = moves(made, evolution.programs.take(slice(1)))
    assert len(near) > 20
    batch, _ = made.describe(near)
    assert analytic_score(batch).max() <= best


def test_what_is_around_programs_comes_once() -> None:
    made, start = space("tiny")
    one, other = (set(moves(made, start.take([n])).keys().tolist()) for n in (0, 1))
    near = around(made, start.take([0, 1, 0]))
    assert len(near) == len(one | other)
    assert set(near.keys().tolist()) == one | other
    assert not len(around(made, start.take(slice(0))))


def test_a_task_with_few_programs_is_exhausted() -> None:
    made, start = space("norm")
    evolution = Evolution(made, any_score, start, EvolutionConfig(children=512, parents=4096))
    while evolution.breed():
        pass
    evolution.descend()
    assert evolution.num_scored == len(evolution.programs) < 2000


def test_nothing_to_start_from() -> None:
    made, start = space("tiny")
    evolution = Evolution(made, any_score, start.take(slice(0)))
    evolution.run()
    assert evolution.num_scored == len(evolution.programs) == 0


@pytest.mark.parametrize("wrong", [{"children": 0}, {"generations": -1}, {"later": 0.0}])
def test_wrong_settings(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        EvolutionConfig(**wrong)
