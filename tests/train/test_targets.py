"""What fine-tuning is given: programs of the target, and of nothing that must not be known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.data.logs import book, import_all, log_file, records, write_log
from tests.models.contract import MeanOfLeafCount
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models.additive import AdditiveConfig
from tvm_cdmpp.models.trained import TrainedPredictor
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.features import load_features
from tvm_cdmpp.train.selection import SelectionMethod
from tvm_cdmpp.train.targets import Target, TargetSettings, describe_finetuning, read_targets

DEVICE = TargetSettings(device="cortex-a72", records=5)
PREDICTOR = TrainedPredictor.untrained(AdditiveConfig(width=16, layers=1), 0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    """Three networks on one device, one of them on another as well, where two programs failed."""
    folder = tmp_path_factory.mktemp("targets")
    elsewhere = records(12)
    for record in elsewhere[:2]:
        record["r"] = [[1e10], 4, 0, 0]
    logs = [
        log_file(write_log(folder / f"{name}.json", records(30, size)), "x86-24t", network=name)
        for name, size in (("resnet_50", 37), ("vgg_16", 80), ("alexnet", 96))
    ]
    there = log_file(write_log(folder / "there.json", elsewhere), "cortex-a72", network="resnet_50")
    import_all(folder / "store", *logs, there, known=book(37, 80, 96))
    return RecordStore.open(folder / "store")


def targets(store: RecordStore, settings: TargetSettings) -> list[Target]:
    return read_targets(store, load_features(store), PREDICTOR, settings)


@pytest.mark.parametrize("select", ["random", "kmeans", "center", "uncertain"])
def test_programs_of_a_device(store: RecordStore, select: SelectionMethod) -> None:
    settings = replace(DEVICE, select=select)
    (found,) = targets(store, settings)
    assert found.kind == "cpu"
    assert (len(found.measured), len(found.unlabelled)) == (5, 7)
    latencies_s = np.concatenate([found.measured.latencies_s, found.unlabelled.latencies_s])
    assert np.isinf(latencies_s).sum() == 2, "what failed is known only once it was measured"
    assert {device.name for device in found.measured.devices} == {"cortex-a72"}
    of_sources = {found.sources.devices[n].name for n in np.unique(found.sources.machine_of)}
    assert of_sources == {"x86-24t"}
    assert np.unique(found.sources.tasks, return_counts=True)[1].tolist() == [20] * 3
    (again,) = targets(store, settings)
    np.testing.assert_array_equal(again.measured.latencies_s, found.measured.latencies_s)


def test_programs_of_a_network(store: RecordStore) -> None:
    (found,) = targets(store, TargetSettings(network="resnet_50", records=0))
    assert (len(found.measured), len(found.unlabelled)) == (0, 42)
    assert len(np.unique(found.unlabelled.groups)) == 2, "on both devices"
    both = TargetSettings(network="resnet_50", device="cortex-a72", records=99)
    (found,) = targets(store, both)
    assert (len(found.measured), len(found.unlabelled)) == (12, 0)


def test_sources_are_of_the_training_part_of_a_split(store: RecordStore) -> None:
    (found,) = targets(store, replace(DEVICE, split="networks"))
    tasks = list(store.iter_tasks())
    networks = {name for task in np.unique(found.sources.tasks) for name in tasks[task]["networks"]}
    assert len(networks) == 1, "one is for validation, and resnet_50 is held out"
    assert "resnet_50" not in networks


def test_what_is_not_there_is_named(store: RecordStore) -> None:
    with pytest.raises(ConfigError, match="no device 'x'; it has cortex-a72, x86-24t"):
        targets(store, TargetSettings(device="x"))
    with pytest.raises(ConfigError, match="no network 'x'; it has alexnet, resnet_50, vgg_16"):
        targets(store, TargetSettings(network="x"))
    with pytest.raises(ConfigError, match="no program of the target is of use"):
        targets(store, TargetSettings(network="alexnet", device="cortex-a72"))
    with pytest.raises(ConfigError, match="got neither"):
        TargetSettings()
    with pytest.raises(ConfigError, match="records must be at least 0"):
        replace(DEVICE, records=-1)
    with pytest.raises(ConfigError, match="needs the predictor's spread"):
        read_targets(
            store, load_features(store), MeanOfLeafCount(), replace(DEVICE, select="uncertain")
        )


def test_weights_say_what_they_were_made_of(store: RecordStore) -> None:
    found = targets(store, DEVICE)
    about = describe_finetuning(store, {"seed": 7}, DEVICE, TrainConfig(), found, "tvm-cdmpp x")
    assert about["programs"] == {"cpu": {"measured": 5, "unlabelled": 7, "sources": 60}}
    assert about["from"] == {"seed": 7}
    assert about["settings"]["target"]["device"] == "cortex-a72"
    assert about["data_hash"] == store.content_hash
