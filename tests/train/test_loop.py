"""The training loop: what is drawn, what is learned, and that a run can be taken up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.models.programs import random_batch
from tvm_cdmpp.ast.schema import COLUMN
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models.additive import AdditiveConfig, AdditiveNetwork
from tvm_cdmpp.models.leaves import make_leaves
from tvm_cdmpp.models.rows import TrainingRows
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.loop import Trainer, learning_share, loss_of, predict
from tvm_cdmpp.train.windows import Windows, prepare

HERE = DeviceSpec(name="here", kind="cpu", cores=4)
THERE = DeviceSpec(name="there", kind="cpu", cores=16, l2_bytes=2**21)
SMALL = AdditiveConfig(width=16, heads=1, layers=1, hidden=16)
CONFIG = TrainConfig(steps=60, groups_per_batch=4, programs_per_group=8, window_batches=10)


def some_rows(num_programs: int = 120, seed: int = 0) -> TrainingRows:
    """Programs of three tasks on two machines, slower by what the estimate does not know."""
    parts = []
    for number, device in enumerate((HERE, THERE)):
        batch = random_batch(num_programs, seed=seed + number)
        generator = np.random.default_rng(number)
        latencies_s = 1e-5 * batch.leaf_counts**2 * generator.lognormal(0, 0.05, num_programs)
        tasks = np.arange(num_programs) % 3
        parts.append(TrainingRows.on(device, batch, latencies_s, tasks))
    return TrainingRows.join(parts)


def operators_of(rows: TrainingRows) -> np.ndarray:
    return np.where(rows.tasks == 0, "rare", "common")


def trainer(rows: TrainingRows, seed: int = 0, config: TrainConfig = CONFIG) -> Trainer:
    torch.manual_seed(5)
    network = AdditiveNetwork(SMALL)
    windows = Windows(rows, operators_of(rows), config, seed)
    network.fit_inputs(windows.draw(0).all()[0])
    return Trainer(network, windows, config)


def train(run: Trainer) -> Trainer:
    while not run.done:
        run.train_window()
    return run


def weights(run: Trainer) -> torch.Tensor:
    return torch.cat([value.flatten() for value in run.averaged.state_dict().values()])


def test_it_learns() -> None:
    rows = some_rows()
    run = trainer(rows, config=TrainConfig(
        steps=300, groups_per_batch=4, programs_per_group=8, window_batches=10
    ))  # fmt: skip

    def error() -> float:
        return float(np.median(np.abs(predict(run.averaged, rows)[0] - np.log(rows.latencies_s))))

    before = error()
    train(run)
    assert error() < 0.15 < before


def test_prepared_rows_are_those_asked_for() -> None:
    rows = some_rows(20)
    chosen = np.array([33, 2, 2, 25, 7])
    devices = torch.from_numpy(np.stack([d.vector() for d in rows.devices]))
    window = prepare(rows, chosen, devices, chosen[None])
    leaves, log_latency = window.take(torch.arange(5))
    begin = 0
    for row, count in zip(chosen, leaves.counts.tolist(), strict=True):
        device = rows.machines[rows.machine_of[row]].device
        expected = make_leaves(rows.asts.take(np.array([row])), device)
        assert torch.equal(leaves.inputs[begin : begin + count], expected.inputs)
        assert torch.equal(leaves.positions[begin : begin + count], expected.positions)
        begin += count
    np.testing.assert_allclose(log_latency, np.log(rows.latencies_s[chosen]), rtol=1e-6)
    assert torch.equal(leaves.device[0], devices[1])


def test_a_batch_holds_several_programs_of_each_group() -> None:
    rows = some_rows()
    windows = Windows(rows, operators_of(rows), CONFIG, 0)
    window = windows.draw(3)
    assert window.batches.shape == (10, 4 * 8)
    again = windows.draw(3)
    assert torch.equal(window.leaves.inputs, again.leaves.inputs)
    assert not torch.equal(window.log_latency, windows.draw(4).log_latency)


def test_rows_that_are_kept_give_the_same_batches() -> None:
    rows = some_rows()
    each = [
        Windows(rows, operators_of(rows), CONFIG, 0, keep_on=keep_on).draw(3)
        for keep_on in (None, "cpu")
    ]
    assert each[1].leaves.inputs.shape[0] == sum(rows.asts.leaf_counts)
    for (read, read_s), (kept, kept_s) in zip(*each, strict=True):
        for name in ("inputs", "positions", "counts", "device"):
            assert torch.equal(getattr(read, name), getattr(kept, name)), name
        assert torch.equal(read_s, kept_s)


def test_rare_operators_are_drawn_more_often() -> None:
    rows = some_rows()
    shares = []
    for exponent in (0.0, 1.0):
        config = TrainConfig(
            steps=60, groups_per_batch=4, programs_per_group=8, window_batches=10,
            rare_exponent=exponent,
        )  # fmt: skip
        shares.append(Windows(rows, operators_of(rows), config, 0)._shares)
    # Groups are numbered by task, then machine: two of the rare operator, four of the common one.
    assert shares[0][:2].sum() == pytest.approx(1 / 3)
    assert shares[1][:2].sum() == pytest.approx(1 / 2)


def test_a_run_that_is_taken_up_is_as_if_never_left() -> None:
    rows = some_rows()
    straight = train(trainer(rows))
    first = trainer(rows)
    for _ in range(3):
        first.train_window()
    second = trainer(rows)
    second.restore(first.content())
    assert second.step == 30
    assert torch.equal(weights(train(second)), weights(straight))


def test_seeds() -> None:
    rows = some_rows()
    first, again, other = (train(trainer(rows, seed)) for seed in (1, 1, 2))
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_failures_teach_only_what_runs() -> None:
    rows = some_rows()
    failed = rows.latencies_s.copy()
    batch = rows.batch()
    product = batch.vectors[batch.offsets[:-1] + 1]
    failed[product[:, COLUMN["is_vectorized"]] > 0.5] = np.inf
    some = TrainingRows(rows.asts, failed, rows.tasks, rows.machines, rows.machine_of)
    run = train(trainer(some, config=TrainConfig(
        steps=600, groups_per_batch=4, programs_per_group=8, window_batches=10, failure_weight=1.0,
        learning_rate=1e-2,
    )))  # fmt: skip
    assert torch.isfinite(weights(run)).all()
    with torch.inference_mode():
        here = batch.take(np.arange(120))
        runs = torch.sigmoid(run.averaged(make_leaves(here, HERE)).runs).numpy()
    assert runs[np.isinf(failed[:120])].mean() < 0.3 < 0.7 < runs[np.isfinite(failed[:120])].mean()


def test_a_batch_of_failures_alone() -> None:
    rows = some_rows(8)
    leaves = make_leaves(rows.batch().take(np.arange(8)), HERE)
    loss = loss_of(AdditiveNetwork(SMALL), leaves, torch.full((8,), torch.inf), CONFIG)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)


def test_the_learning_rate_rises_and_falls() -> None:
    config = TrainConfig(steps=100, warm_up=0.2)
    shares = [learning_share(step, config) for step in range(100)]
    assert max(shares) == shares[19] == pytest.approx(1.0)
    assert shares[0] == pytest.approx(0.05)
    assert shares[-1] < 1e-3


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"programs_per_group": 1},
        {"ranking": "best"},
        {"domain": "x"},
        {"label_power": 2},
    ],
)
def test_config_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainConfig(**wrong)


@pytest.mark.parametrize("choice", [{"ranking": "listmle"}, {"label_power": 0.3}])
def test_other_losses_and_labels_learn_as_well(choice: dict[str, Any]) -> None:
    rows = some_rows()
    run = trainer(rows, config=TrainConfig(**{**vars(CONFIG), "steps": 200, **choice}))
    train(run)
    off = predict(run.averaged, rows)[0] - np.log(rows.latencies_s)
    assert np.median(np.abs(off)) < 0.2
    assert not torch.equal(weights(run), weights(train(trainer(
        rows, config=TrainConfig(**{**vars(CONFIG), "steps": 200})
    ))))  # fmt: skip


def test_a_small_power_is_nearly_the_logarithm() -> None:
    rows = some_rows()
    leaves = make_leaves(rows.batch().take(np.arange(8)), HERE)
    measured = torch.from_numpy(np.log(rows.latencies_s[:8]).astype(np.float32))
    configs = [TrainConfig(label_power=power, programs_per_group=8) for power in (0.0, 1e-3, 1.0)]
    found = [float(loss_of(AdditiveNetwork(SMALL), leaves, measured, c).detach()) for c in configs]
    assert found[1] == pytest.approx(found[0], rel=0.02)
    assert found[2] != pytest.approx(found[0], rel=0.02)
