"""What the networks among the baselines minimise."""

import numpy as np
import pytest
import torch

from tvm_cdmpp.models.baselines.losses import latency_loss, ranking_loss

GROUPS = np.zeros(3, np.int64)
GAINS = np.array([1.0, 0.5, 0.1])


def logs(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_percentage_error() -> None:
    measured = np.log([1.0, 1.0, 4.0])
    predicted = np.log([1.5, 0.5, 2.0])
    found = latency_loss(torch.from_numpy(predicted), torch.from_numpy(measured), "mape")
    assert float(found) == pytest.approx(0.5)
    far, farther = (latency_loss(logs(value), logs(0.0), "mape") for value in (6.0, 60.0))
    assert float(far) < float(farther) < 1e5


def test_huber_is_linear_for_large_errors() -> None:
    one, two, three = (float(latency_loss(logs(x), logs(0.0), "huber")) for x in (1.0, 2.0, 3.0))
    assert two - one == pytest.approx(three - two) == pytest.approx(1.0)
    assert float(latency_loss(logs(0.1), logs(0.0), "huber")) < 0.05


def test_ranking_wants_the_faster_first() -> None:
    right = ranking_loss(logs(1.0, 2.0, 3.0), GAINS, GROUPS)
    wrong = ranking_loss(logs(3.0, 2.0, 1.0), GAINS, GROUPS)
    tied = ranking_loss(logs(2.0, 2.0, 2.0), GAINS, GROUPS)
    assert float(right) < 0.01 < float(tied) < float(wrong)


def test_ranking_cares_most_for_the_best() -> None:
    """Exchanging the first two places costs more than exchanging the last two."""
    gains = np.array([1.0, 0.8, 0.6, 0.4, 0.2])
    groups = np.zeros(5, np.int64)
    first = ranking_loss(logs(2.0, 1.0, 3.0, 4.0, 5.0), gains, groups)
    last = ranking_loss(logs(1.0, 2.0, 3.0, 5.0, 4.0), gains, groups)
    assert float(first) > 1.5 * float(last)


def test_ranking_compares_within_groups_only() -> None:
    predicted = logs(3.0, 2.0, 1.0).requires_grad_()
    loss = ranking_loss(predicted, GAINS, np.array([0, 1, 2]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert predicted.grad is not None
    assert (predicted.grad == 0).all()
    # Groups do not change each other's places.
    both = ranking_loss(
        logs(1.0, 2.0, 9.0, 8.0), np.array([1, 0.5, 1, 0.5]), np.array([0, 0, 1, 1])
    )
    wrong = ranking_loss(logs(9.0, 8.0), np.array([1, 0.5]), np.array([1, 1]))
    assert float(both) == pytest.approx(float(wrong) / 2, rel=1e-3)
