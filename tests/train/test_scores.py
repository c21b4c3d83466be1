"""Figures of predictions, against values made by hand and by other means."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import kendalltau

from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.train.scores import RANKED_PROGRAMS, Scores, bootstrap, score

ORDER = ("within_task", "top1", "top5", "top1_weighted", "top5_weighted", "pairwise_accuracy",
         "tau")  # fmt: skip


def made_up(
    tasks: int = 20, per_task: int = 30, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latencies of tasks that differ by orders of magnitude, and predictions 20 % off."""
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(tasks), per_task)
    measured_s = np.exp(
        generator.normal(-7, 2, tasks)[groups] + generator.normal(0, 1, len(groups))
    )
    predicted_s = measured_s * np.exp(generator.normal(0, 0.2, len(groups)))
    return measured_s, predicted_s, groups


def test_errors_by_hand() -> None:
    measured_s = np.array([1.0, 2.0, 4.0, 8.0, 1.0])
    predicted_s = np.array([1.5, 2.0, 3.0, 8.4, 0.5])
    groups = np.array([7, 7, 7, 7, 3])
    found = score(measured_s, predicted_s, groups)
    assert (found.programs, found.failed, found.tasks, found.ranked_tasks) == (5, 0, 2, 1)
    assert found.mape == pytest.approx((50 + 0 + 25 + 5 + 50) / 5)
    assert found.mape_by_task == pytest.approx(((50 + 0 + 25 + 5) / 4 + 50) / 2)
    assert found.median_ape == pytest.approx(25)
    assert found.within_10_percent == pytest.approx(2 / 5)
    # The middle two of the ratios 1.5, 1, 0.75 and 1.05 are 1 and 1.05; the lone program is left
    # out.
    level = np.sqrt(1.05)
    ratios = np.array([1.5, 1, 0.75, 1.05]) / level
    assert found.within_task == pytest.approx(100 * np.abs(ratios - 1).mean())
    assert found.coverage90 is None


def test_a_wrong_level_does_not_touch_the_order() -> None:
    measured_s, _, groups = made_up()
    factor = np.random.default_rng(1).uniform(2, 3, 20)
    found = score(measured_s, measured_s * factor[groups], groups)
    assert found.mape == pytest.approx(100 * (factor - 1).mean())
    assert found.within_task == pytest.approx(0, abs=1e-9)
    perfect = {"top1": 1, "top5": 1, "top1_weighted": 1, "pairwise_accuracy": 1, "tau": 1}
    assert {name: getattr(found, name) for name in perfect} == pytest.approx(perfect)
    assert score(measured_s, 1 / measured_s, groups).tau == pytest.approx(-1)


def test_top_k_by_hand() -> None:
    measured_s = np.array([1, 2, 3, 4, 5, 6, 7, 100, 400, 800], float)
    predicted_s = np.array([6, 5, 4, 3, 2, 1, 7, 3, 1, 2], float)
    groups = np.array([0] * 7 + [1] * 3)
    found = score(measured_s, predicted_s, groups)
    assert found.top1 == pytest.approx((1 / 6 + 100 / 400) / 2)
    assert found.top5 == pytest.approx((1 / 2 + 1) / 2)
    assert found.top1_weighted == pytest.approx((1 + 100) / (6 + 400))
    weights = np.where(groups == 0, 50.0, 1.0)
    assert score(measured_s, predicted_s, groups, weights=weights).top1_weighted == pytest.approx(
        (50 * 1 + 100) / (50 * 6 + 400)
    )


def test_order_agrees_with_other_means() -> None:
    """With ties on both sides."""
    generator = np.random.default_rng(3)
    measured_s, predicted_s = generator.integers(1, 12, (2, 300)).astype(float)
    groups = generator.integers(0, 10, 300)
    found = score(measured_s, predicted_s, groups)
    taus, accuracies = [], []
    for group in range(10):
        actual, said = measured_s[groups == group], predicted_s[groups == group]
        taus.append(kendalltau(actual, said).statistic)
        right = [
            0.5 if said[i] == said[j] else float((said[i] < said[j]) == (actual[i] < actual[j]))
            for i, j in itertools.combinations(range(len(actual)), 2)
            if actual[i] != actual[j]
        ]
        accuracies.append(np.mean(right))
    assert found.tau == pytest.approx(np.mean(taus))
    assert found.pairwise_accuracy == pytest.approx(np.mean(accuracies))


def test_one_prediction_for_all_is_no_order() -> None:
    """Although the rows are sorted by latency."""
    measured_s = np.tile(np.linspace(1, 10, 40), 50)
    found = score(measured_s, np.ones(2000), np.repeat(np.arange(50), 40))
    assert (found.tau, found.pairwise_accuracy) == (0, 0.5)
    assert found.top1 is not None
    assert 0.15 < found.top1 < 0.5


def test_of_large_groups_a_sample_is_ordered() -> None:
    measured_s, predicted_s, groups = made_up(2, 10 * RANKED_PROGRAMS)
    found = score(measured_s, predicted_s, groups, seed=1)
    assert found == score(measured_s, predicted_s, groups, seed=1)
    taus = [kendalltau(measured_s[g == groups], predicted_s[g == groups])[0] for g in (0, 1)]
    assert found.tau == pytest.approx(np.mean(taus), abs=0.03)
    assert found.tau != score(measured_s, predicted_s, groups, seed=2).tau


def test_rows_may_come_in_any_order() -> None:
    measured_s, predicted_s, groups = made_up()
    order = np.random.default_rng(0).permutation(len(groups))
    found = score(measured_s, predicted_s, groups).to_json()
    shuffled = score(measured_s[order], predicted_s[order], groups[order]).to_json()
    assert shuffled == pytest.approx(found)


def test_failed_programs_are_counted_and_left_out() -> None:
    measured_s, predicted_s, groups = made_up()
    expected = score(measured_s, predicted_s, groups).to_json()
    failed = [np.inf, np.nan, np.inf]
    found = score(
        np.append(measured_s, failed), np.append(predicted_s, [1, np.nan, -1]),
        np.append(groups, [0, 0, 99]), spread=np.append(np.ones(600), [np.nan] * 3),
    )  # fmt: skip
    assert found.failed == 3
    assert {**found.to_json(), "failed": 0, "coverage90": None} == pytest.approx(expected)


@pytest.mark.parametrize("groups", [np.arange(4), np.zeros(4, int)])
def test_programs_that_cannot_be_ordered(groups: np.ndarray) -> None:
    """Tasks of one program each, and one of programs that are equally fast."""
    found = score(np.ones(4), np.array([1.0, 1.1, 1.2, 1.3]), groups)
    assert found.ranked_tasks == 0
    assert [getattr(found, name) for name in ORDER] == [None] * len(ORDER)
    assert found.mape == pytest.approx(15)
    assert "tau" not in bootstrap(np.ones(4), np.ones(4), groups)


def test_coverage() -> None:
    generator = np.random.default_rng(0)
    spread = generator.uniform(0.05, 0.5, 20_000)
    measured_s = np.exp(generator.normal(0, spread))
    groups = np.arange(20_000) % 50
    found = score(measured_s, np.ones(20_000), groups, spread=spread)
    assert found.coverage90 == pytest.approx(0.9, abs=0.01)
    sure = score(measured_s, np.ones(20_000), groups, spread=np.zeros(20_000))
    assert sure.coverage90 == 0
    low, high = bootstrap(
        measured_s, np.ones(20_000), groups, spread=spread, resamples=50
    )["coverage90"]  # fmt: skip
    assert low < 0.9 < high


def test_intervals() -> None:
    measured_s, predicted_s, groups = made_up(40)
    found = score(measured_s, predicted_s, groups).to_json()
    intervals = bootstrap(measured_s, predicted_s, groups, seed=1)
    assert intervals == bootstrap(measured_s, predicted_s, groups, seed=1)
    assert intervals.keys() == {
        name for name in found if name not in ("programs", "failed", "tasks", "ranked_tasks")
        and found[name] is not None
    }  # fmt: skip
    for name, (low, high) in intervals.items():
        assert low < found[name] < high
    few = bootstrap(*made_up(10), seed=1)
    assert np.ptp(few["mape"]) > np.ptp(intervals["mape"])
    one = groups == 0
    low, high = bootstrap(measured_s[one], predicted_s[one], groups[one])["median_ape"]
    assert low == high == score(measured_s[one], predicted_s[one], groups[one]).median_ape


def test_intervals_hold_what_they_say() -> None:
    """Of 100 sets of tasks, about 90 intervals hold the mean over all tasks."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        error = generator.gamma(2.0, 0.05, 60)
        groups = np.repeat(np.arange(60), 3)
        intervals = bootstrap(np.ones(180), 1 + error[groups], groups, resamples=200)
        low, high = intervals["mape"]
        held += low < 10 < high
    assert 80 <= held <= 97


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted_s": np.ones(3)}, r"got shapes .*'predicted_s': \(3,\)"),
        ({"spread": np.ones((4, 2))}, "spread"),
        ({"measured_s": np.full(4, np.inf)}, "none of 4 programs"),
        ({"measured_s": np.array([1.0, -1.0, 1.0, 1.0])}, "measured_s .* got -1.0 for program 1"),
        ({"predicted_s": np.array([1.0, 1.0, 0.0, np.nan])}, "got 0.0 for program 2, and 2 such"),
        ({"spread": np.array([0.1, 0.1, 0.1, -0.1])}, "spread must be finite and at least 0"),
        ({"weights": np.array([1, 1, 1, np.nan])}, "weights must be finite"),
    ],
)
def test_what_cannot_be_scored(change: dict[str, np.ndarray], message: str) -> None:
    given = {"measured_s": np.ones(4), "predicted_s": np.ones(4), "groups": np.zeros(4, int)}
    for function in (score, bootstrap):
        with pytest.raises(ConfigError, match=message):
            function(**(given | change))


def test_nothing() -> None:
    none = np.zeros(0)
    with pytest.raises(ConfigError, match="none of 0 programs"):
        score(none, none, none.astype(int))


def test_figures_are_plain() -> None:
    assert isinstance(score(*made_up()), Scores)
    assert all(
        type(value) in (int, float, type(None)) for value in score(*made_up()).to_json().values()
    )


def test_an_order_of_its_own_changes_the_figures_of_order_alone() -> None:
    measured_s, predicted_s, groups = made_up()
    plain, ordered = (
        score(measured_s, predicted_s, groups, order_s=order_s) for order_s in (None, measured_s)
    )
    assert (ordered.mape, ordered.within_task) == (plain.mape, plain.within_task)
    assert (ordered.top1, ordered.top5, ordered.tau) == (1.0, 1.0, 1.0)
    assert plain.top1 is not None and plain.top1 < 1.0
    intervals = bootstrap(measured_s, predicted_s, groups, order_s=measured_s, resamples=20)
    assert intervals["top1"] == (1.0, 1.0)
    with pytest.raises(ConfigError, match="order_s must be finite and positive"):
        score(measured_s, predicted_s, groups, order_s=0.0 * measured_s)
