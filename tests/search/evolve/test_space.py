"""The same space as TVM's: it applies and lowers what evolution makes, as described here."""

from typing import Any

import numpy as np
import pytest

from tests.extract.sampling import auto_scheduler
from tests.search.evolve.spaces import (
    CPU_TASKS,
    TASKS,
    any_score,
    some,
    space,
    states,
    task,
    wandered,
)
from tvm_cdmpp.devices import Hardware
from tvm_cdmpp.extract import LayoutRewrite, StepExtractor, analyse, dump_records
from tvm_cdmpp.search.evolve.evolution import Evolution
from tvm_cdmpp.search.evolve.programs import Programs
from tvm_cdmpp.search.evolve.space import fingerprints


def with_dag(name: str, found: list[Any]) -> list[Any]:
    return [auto_scheduler.loop_state.State(state, task(name).compute_dag) for state in found]


@pytest.mark.parametrize("name", TASKS)
def test_tvm_applies_and_lowers_what_was_bred(name: str) -> None:
    made, evolution = wandered(name)
    programs = some(evolution.programs, 32)
    found = made.states(programs)
    assert all(state is not None for state in found)  # TVM cannot compare one with None
    # TVM lowers each, and has no features for what it refuses, such as what exceeds a GPU's limits.
    features = auto_scheduler.feature.get_per_store_features_from_states(
        with_dag(name, found), task(name)
    )
    assert all(np.any(rows) for rows in features)


@pytest.mark.parametrize("name", TASKS)
def test_there_is_more_than_was_sampled(name: str) -> None:
    made, evolution = wandered(name)
    assert evolution.num_scored > 2 * len(states(name)) or name == "norm"
    sampled = space(name)[1]
    if name in ("conv2d", "depthwise", "pool", "attention"):
        assert len(made.skeletons) > len(np.unique(sampled.skeletons))


@pytest.mark.parametrize("name", ["conv2d", "softmax", "grouped"])
def test_descriptions_are_those_of_the_records(name: str) -> None:
    made, evolution = wandered(name)
    programs = some(evolution.programs, 32)
    batch, usable = made.describe(programs)
    assert usable.all()
    records = dump_records(task(name), made.states(programs))
    extractor = StepExtractor(
        analyse(task(name).compute_dag),
        Hardware.of(task(name).hardware_params),
        LayoutRewrite(int(task(name).layout_rewrite_option)),
    )
    expected, errors = extractor.extract(records)
    assert not errors
    np.testing.assert_array_equal(batch.vectors, expected.vectors)
    np.testing.assert_array_equal(batch.positions, expected.positions)
    np.testing.assert_array_equal(batch.offsets, expected.offsets)


def test_programs_beyond_limits_are_found() -> None:
    made, programs = space("matmul")
    wide = programs.take(slice(1))
    (steps,) = made.steps(wide)
    family = made.skeletons.families[0]
    threads = wide.numbers.copy()
    for split in family.splits[:2]:  # all of both axes in threads
        extent = threads[0, split.first]
        threads[0, split.first + 1 : split.first + 1 + split.parts] = [1, extent, 1, 1]
    mixed = Programs.join([Programs(wide.skeletons, threads), wide])
    batch, usable = made.describe(mixed)
    assert usable.tolist() == [False, True]
    alone, _ = made.describe(wide)
    np.testing.assert_array_equal(batch.vectors, alone.vectors)
    np.testing.assert_array_equal(batch.offsets, alone.offsets)
    assert made.steps(wide) == [steps]


def test_fingerprints_tell_programs_apart_and_not_batches() -> None:
    made, programs = space("conv2d")
    batch, usable = made.describe(programs)
    assert usable.all()
    found = fingerprints(batch)
    texts = [str(state) for state in made.states(programs)]
    assert len(np.unique(found)) == len(set(texts)) == len(texts)
    order = np.arange(len(programs))[::-1]
    np.testing.assert_array_equal(
        fingerprints(made.describe(programs.take(order))[0]), found[order]
    )
    assert len(fingerprints(batch.take([]))) == 0


@pytest.mark.parametrize("name", ["tiny", *(n for n in CPU_TASKS if n != "tiny")][:3])
def test_one_seed_one_sequence(name: str) -> None:
    def bred(seed: int) -> Programs:
        made, start = space(name)
        evolution = Evolution(made, any_score, start, seed=seed)
        evolution.breed()
        return evolution.programs

    first, again, other = bred(1), bred(1), bred(2)
    np.testing.assert_array_equal(first.numbers, again.numbers)
    np.testing.assert_array_equal(first.skeletons, again.skeletons)
    assert first.keys().tolist() != other.keys().tolist()
