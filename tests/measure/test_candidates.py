"""Programs that TVM samples of tiny operators, of which those predicted to be fast are taken."""

import numpy as np
import pytest

from tests.measure.test_collect import TASKS
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.measure import likely_fast
from tvm_cdmpp.measure.candidates import LikelyFast
from tvm_cdmpp.models import AdditiveConfig, TrainedPredictor

HERE = DeviceSpec(name="here", kind="cpu", cores=2)
FIRST, SECOND = (
    TrainedPredictor.untrained(AdditiveConfig(width=16, layers=1, hidden=16), n) for n in range(2)
)
FIRST.about, SECOND.about = {"seed": 0}, {"seed": 1}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.desc)
def test_the_fastest_quarter_comes_in_its_order(task: object) -> None:
    np.random.seed(3)  # noqa: NPY002
    before = np.random.rand()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    found = likely_fast(task, HERE, [FIRST, SECOND], 2, 5)
    every = likely_fast(task, HERE, [FIRST], 1000, 5)
    assert np.random.rand() == before  # noqa: NPY002
    said = found.log_s[FIRST.origin]
    assert set(found.log_s) == {FIRST.origin, SECOND.origin}
    assert len(found.states) == len(said) == len(found.log_s[SECOND.origin]) >= 2
    assert (np.diff(said) >= 0).all()
    # Where all are asked for, more are sampled, and all of them come.
    assert len(every.states) >= len(found.states)
    assert every.log_s[FIRST.origin].min() <= said.min() + 0.5
    assert len({str(state) for state in found.states}) == len(found.states)
    again = likely_fast(task, HERE, [FIRST, SECOND], 2, 5)
    assert [str(s) for s in again.states] == [str(s) for s in found.states]


def test_any_first_ones_that_are_drawn_stand_for_all() -> None:
    found = LikelyFast(list(range(40)), {})
    first = np.array([found.draw(3, seed) for seed in range(400)])
    assert first.mean() == pytest.approx(19.5, abs=1.5)  # not those that are predicted fastest
    assert all(len(set(drawn)) == 3 for drawn in first.tolist())
    assert sorted(found.draw(100, 1)) == list(range(40))
    assert found.draw(3, 7) == found.draw(3, 7) == found.draw(10, 7)[:3]
