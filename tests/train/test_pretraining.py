"""Training on a store: which rows, a run that goes on after a kill, and bad data."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.logs import book, import_all, log_file, records, write_log
from tests.models.programs import random_batch
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.devices.detect import find_device
from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.models.additive import AdditiveConfig
from tvm_cdmpp.models.rows import TrainingRows
from tvm_cdmpp.models.trained import Expert, TrainedPredictor
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.pretraining import (
    PretrainSettings,
    Progress,
    choose_rows,
    describe_training,
    join_experts,
    known_devices,
    pretrain,
)

SETTINGS = PretrainSettings(
    split=None,
    network=AdditiveConfig(width=16, heads=1, layers=1, hidden=16),
    config=TrainConfig(steps=40, groups_per_batch=2, programs_per_group=8, window_batches=10),
    evaluate_every=10,
)


def test_devices_are_known_by_their_tasks_and_references_by_their_programs() -> None:
    programs_and_tasks = {
        "x86-24t": (200, 30), "x86-8t": (40, 5), "x86-16t": (39, 20), "x86-4t": (39, 19),
    }  # fmt: skip
    rows = TrainingRows.join(
        [
            TrainingRows.on(
                find_device(name), random_batch(count), np.ones(count), np.arange(count) % tasks
            )
            for name, (count, tasks) in programs_and_tasks.items()
        ]
    )
    known, references = ({device.name for device in some} for some in known_devices(rows))
    assert known == {"x86-24t", "x86-8t", "x86-16t"}
    assert references == {"x86-24t", "x86-8t"}


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    made = [*records(12), *records(12, 80)]
    import_all(
        tmp_path / "store",
        log_file(write_log(tmp_path / "a.json", made), "x86-8t"),
        known=book(37, 80),
    )
    return RecordStore.open(tmp_path / "store")


def weights(expert: Expert) -> torch.Tensor:
    return torch.cat([value.flatten() for value in expert.network.state_dict().values()])


def test_a_killed_run_goes_on(store: RecordStore, tmp_path: Path) -> None:
    straight = pretrain(store, tmp_path / "a", SETTINGS, kind="cpu")

    def kill(progress: Progress) -> None:
        if progress.step == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(store, tmp_path / "b", SETTINGS, kind="cpu", on_progress=kill)
    steps: list[int] = []
    again = pretrain(
        store, tmp_path / "b", SETTINGS, kind="cpu", on_progress=lambda p: steps.append(p.step)
    )
    assert steps == [30, 40]
    assert torch.equal(weights(again), weights(straight))
    assert again.spread_factor == straight.spread_factor > 0


def test_another_run_is_not_gone_on_with(store: RecordStore, tmp_path: Path) -> None:
    pretrain(store, tmp_path, SETTINGS, kind="cpu")
    other = PretrainSettings(**{**vars(SETTINGS), "seed": 1})
    with pytest.raises(ConfigError, match="other settings or other data"):
        pretrain(store, tmp_path, other, kind="cpu")


def test_nothing_to_train_on_is_named(store: RecordStore, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="nothing to train a predictor of gpus on"):
        pretrain(store, tmp_path, SETTINGS, kind="gpu")
    with pytest.raises(ConfigError, match="kind must be one of cpu, gpu"):
        pretrain(store, tmp_path, SETTINGS, kind="tpu")


def test_only_failures(tmp_path: Path) -> None:
    made = [*records(6), *records(6, 80)]
    for record in made:
        record["r"] = [[1e10], 4, 0, 0]
    import_all(
        tmp_path / "store",
        log_file(write_log(tmp_path / "a.json", made), "x86-8t"),
        known=book(37, 80),
    )
    with pytest.raises(RecordError, match="none of which ran"):
        pretrain(RecordStore.open(tmp_path / "store"), tmp_path, SETTINGS, kind="cpu")


def test_rows_of_each_group_are_limited() -> None:
    groups = np.repeat([4, 9, 2], [10, 3, 50])
    chosen = choose_rows(groups, 5, seed=0)
    values, counts = np.unique(groups[chosen], return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {2: 5, 4: 5, 9: 3}
    assert (np.diff(chosen) > 0).all()
    assert chosen.tolist() == choose_rows(groups, 5, seed=0).tolist()
    assert chosen.tolist() != choose_rows(groups, 5, seed=1).tolist()


def test_the_weights_say_how_they_were_made(store: RecordStore, tmp_path: Path) -> None:
    expert = pretrain(store, tmp_path, SETTINGS, kind="cpu")
    about = describe_training(store, {"cpu": SETTINGS}, "tvm-cdmpp train")
    join_experts({"cpu": expert}, about).save(tmp_path / "w.safetensors")
    loaded = TrainedPredictor.load(tmp_path / "w.safetensors")
    assert loaded.about["data_hash"] == store.content_hash
    assert loaded.about["kinds"]["cpu"]["settings"]["config"]["steps"] == 40
    assert torch.equal(weights(loaded.experts["cpu"]), weights(expert))
