"""What stays of more measured programs than there is room for."""

import numpy as np
import pytest

from tests.models.programs import random_batch
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.models.rows import TrainingRows
from tvm_cdmpp.search.thinning import rows_to_keep

DEVICES = [DeviceSpec(name=name, kind="cpu", cores=4) for name in ("a", "b")]
PROGRAMS = random_batch(64)


def rows_of(task: int, count: int, seed: int = 0, device: DeviceSpec = DEVICES[0]) -> TrainingRows:
    generator = np.random.default_rng((seed, task))
    latencies_s = generator.lognormal(-7, 1, count)
    latencies_s[: count // 10] = np.inf
    batch = PROGRAMS.take(generator.integers(0, 64, count))
    return TrainingRows.on(device, batch, latencies_s, np.full(count, task))


def draws_of(rows: TrainingRows, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).random(len(rows))


@pytest.mark.parametrize("max_leaves", [100, 1000, 5000])
def test_room_is_kept_and_used(max_leaves: int) -> None:
    rows = TrainingRows.join([rows_of(0, 700), rows_of(1, 900), rows_of(2, 3)])
    kept = rows_to_keep(rows, draws_of(rows), max_leaves)
    assert (np.diff(kept) > 0).all()
    leaves = rows.take(kept).asts.leaf_counts.sum()
    assert 0.85 * max_leaves < leaves <= max_leaves


def test_the_fastest_of_each_task_stay_and_some_of_the_others() -> None:
    rows = TrainingRows.join([rows_of(0, 800), rows_of(1, 800)])
    kept = rows.take(rows_to_keep(rows, draws_of(rows), 1200))
    for task in (0, 1):
        all_s, kept_s = (np.sort(r.latencies_s[r.tasks == task]) for r in (rows, kept))
        np.testing.assert_array_equal(kept_s[:60], all_s[:60])
        assert np.isinf(kept_s).any(), "failures among them"
        assert np.median(kept_s[90:]) > np.median(all_s[np.isfinite(all_s)])


def test_small_tasks_stay_whole_and_devices_are_apart() -> None:
    parts = [rows_of(0, 20), rows_of(1, 900), rows_of(1, 900, device=DEVICES[1])]
    rows = TrainingRows.join(parts)
    kept = rows.take(rows_to_keep(rows, draws_of(rows), 1000))
    assert (kept.tasks == 0).sum() == 20
    of_first, of_second = (kept.asts.leaf_counts[(kept.tasks == 1) & (kept.machine_of == m)].sum()
                           for m in (0, 1))  # fmt: skip
    assert abs(int(of_first) - int(of_second)) < 20


def test_a_task_that_is_no_longer_searched_is_not_forgotten() -> None:
    """However often others are thinned out, and its old rows are as likely as its new ones."""
    rows, seen = rows_of(0, 500), 0
    draws = draws_of(rows)
    for round_ in range(60):
        new = rows_of(1, 100, seed=round_)
        rows, draws = TrainingRows.join([rows, new]), np.append(draws, draws_of(new, round_))
        kept = rows_to_keep(rows, draws, 1500)
        rows, draws = rows.take(kept), draws[kept]
        seen += 100
    of_early = rows.tasks == 0
    assert rows.asts.leaf_counts[of_early].sum() > 0.45 * 1500
    assert rows.latencies_s[of_early].min() == rows_of(0, 500).latencies_s.min()


def test_more_tasks_than_room() -> None:
    rows = TrainingRows.join([rows_of(task, 5) for task in range(30)])
    kept = rows.take(rows_to_keep(rows, draws_of(rows), 10))
    assert kept.tasks.tolist() == list(range(30))
    fastest = [rows_of(task, 5).latencies_s.min() for task in range(30)]
    assert kept.latencies_s.tolist() == fastest
