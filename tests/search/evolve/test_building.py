"""What programs take to build: as long as what TVM makes of them, by their descriptions alone."""

import numpy as np
from scipy.stats import spearmanr

from tests.search.evolve.spaces import space, states, task
from tests.tiny_tasks import tvm
from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.search.evolve.building import log_build_cost


def test_programs_that_tvm_makes_more_statements_of_cost_more() -> None:
    made, programs = space("tiny")
    batch, usable = made.describe(programs)
    assert usable.all()
    lengths = []
    for state in states("tiny")[:16]:
        schedule, arguments = task("tiny").compute_dag.apply_steps_from_state(state)
        lengths.append(str(tvm.lower(schedule, arguments)).count("\n"))
    assert spearmanr(log_build_cost(batch)[:16], lengths).statistic > 0.8


def test_unrolling_costs() -> None:
    made, programs = space("conv2d")
    skeleton = int(programs.skeletons[0])
    columns = made.skeletons.families[made.skeletons.family[skeleton]].unrolls
    one = programs.take([0] * 3)
    one.numbers[:, list(columns)] = np.array([[0], [16], [512]])
    costs = log_build_cost(made.describe(one)[0])
    assert costs[0] <= costs[1] <= costs[2]
    assert costs[0] < costs[2]


def test_each_program_by_itself() -> None:
    made, programs = space("softmax")
    batch, _ = made.describe(programs)
    costs = log_build_cost(batch)
    assert np.isfinite(costs).all()
    places = [3, 0, 7]
    np.testing.assert_allclose(log_build_cost(batch.take(places)), costs[places])
    nothing: CompactASTBatch = batch.take([])
    assert len(log_build_cost(nothing)) == 0
