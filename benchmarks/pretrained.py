"""The predictor as a model of the comparison: trained ahead on the rows that all models get."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.stored import StoredPrograms
from tvm_cdmpp.data import choose_validation
from tvm_cdmpp.models import Prediction
from tvm_cdmpp.train import (
    KINDS,
    Parts,
    PretrainSettings,
    Progress,
    evaluate,
    join_experts,
    operator_of_tasks,
    pretrain_on,
)

_VALIDATION_SHARE = 0.05


class Pretrained:
    """What `tvm-cdmpp train` does, on given rows; see `StoreModel`.

    Of the rows that it is given, those of a twentieth of the workloads say when to stop.
    """

    def __init__(self, settings: PretrainSettings | None = None) -> None:
        self.settings = settings or PretrainSettings()
        self.predictor = join_experts({}, {})
        self.programs_seen = 0

    def fit(self, programs: StoredPrograms, *, seed: int) -> None:
        """Train a network for each kind of device."""
        settings, rows, store = replace(self.settings, seed=seed), programs.rows, programs.store
        names, workloads = np.unique(store.tasks["workload_id"].to_pylist(), return_inverse=True)
        everything = np.ones(len(rows), bool)
        held = choose_validation(names, workloads[rows.tasks], everything, _VALIDATION_SHARE, seed)
        operators = np.array(operator_of_tasks(store))
        is_cpu = np.array([device.kind == "cpu" for device in rows.devices])[rows.machine_of]
        experts, self.programs_seen = {}, 0
        batch = settings.config.groups_per_batch * settings.config.programs_per_group
        for kind in KINDS:
            of_kind = is_cpu == (kind == "cpu")
            train, validation = (rows.take(np.flatnonzero(of_kind & it)) for it in (~held, held))
            if not all(np.isfinite(part.latencies_s).any() for part in (train, validation)):
                continue  # untrained, it predicts the analytic estimate
            parts = Parts(train, validation, operators[train.tasks])
            steps = 0

            def count(progress: Progress) -> None:
                nonlocal steps
                steps = progress.step

            with tempfile.TemporaryDirectory() as folder:
                experts[kind] = pretrain_on(
                    parts, Path(folder), settings, kind=kind, data_hash="", on_progress=count
                )
            self.programs_seen += steps * batch
        self.predictor = join_experts(experts, {})

    def predict(self, programs: StoredPrograms) -> Prediction:
        """Predict latencies, with their spread."""
        return evaluate(self.predictor, programs.rows)

    def save(self, path: Path) -> None:
        """Write the weights."""
        self.predictor.save(path)
