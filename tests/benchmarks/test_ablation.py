"""The programs that the ablation trains on."""

from pathlib import Path

import numpy as np

from benchmarks.ablation import SOURCES, sample
from tests.data.logs import book, import_all, log_file, records, write_log
from tvm_cdmpp.data.quality import make_labels
from tvm_cdmpp.data.splits import official_split
from tvm_cdmpp.data.store import RecordStore


def test_every_record_is_drawn_or_accounted_for(tmp_path: Path) -> None:
    made = [*records(12), *records(9, 80), *records(7, 96)]
    made[2]["r"] = [[1e10], 1, 0, 0]
    logs = [
        log_file(write_log(tmp_path / "a.json", made[:12]), "x86-24t", network="alexnet"),
        log_file(write_log(tmp_path / "b.json", made[12:21]), "x86-24t", network="vgg_16"),
        log_file(write_log(tmp_path / "c.json", made[21:]), "x86-24t", network="resnet_50"),
        log_file(write_log(tmp_path / "d.json", made[:3]), "nvidia-t4"),
    ]
    import_all(tmp_path / "store", *logs, known=book(37, 80, 96))
    store = RecordStore.open(tmp_path / "store")
    rows, workloads, not_used = sample(store, "x86-24t", SOURCES["cpu"].spec, 10)
    assert not_used == {
        "held out by the split": 7, "failed": 1, "not drawn": 1, "not analysed": 0,
    }  # fmt: skip
    assert np.bincount(rows.tasks).tolist() == [10, 9]
    assert len(rows.asts) == len(rows.latencies_s) == 19
    assert len(set(workloads)) == 2
    split = official_split(store, "networks")
    labels = make_labels(store).latency_s
    assert set(rows.latencies_s) <= set(labels[[*split.train, *split.validation]])
