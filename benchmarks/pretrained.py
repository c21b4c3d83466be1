"""The predictor as a model of the comparison: trained ahead on the rows that all models get."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.stored import StoredPrograms
from tvm_cdmpp.data import choose_validation
from tvm_cdmpp.models import Ints, Prediction, TrainingRows
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

Relabel = Callable[[TrainingRows, Ints, int], npt.NDArray[np.float64]]
"""Gives rows other latencies, from the number of each one's workload, and the seed."""


class Pretrained:
    """What `tvm-cdmpp train` does, on given rows; see `StoreModel`.

    Of the rows that it is given, those of a twentieth of the workloads say when to stop.
    """

    def __init__(self, settings: PretrainSettings | None = None) -> None:
        self.settings = settings or PretrainSettings()
        self.predictor = join_experts({}, {})
        self.programs_seen = 0

    def fit(
        self,
        programs: StoredPrograms,
        *,
        seed: int,
        torch_device: str = "cpu",
        unlabelled: TrainingRows | None = None,
        relabel: Relabel | None = None,
    ) -> None:
        """Train a network for each kind of device.

        `unlabelled` is as in `Parts`. `relabel` sees and changes the rows trained on, not those
        that say when to stop.
        """
        settings, rows, store = replace(self.settings, seed=seed), programs.rows, programs.store
        names, workloads = np.unique(store.tasks["workload_id"].to_pylist(), return_inverse=True)
        everything = np.ones(len(rows), bool)
        held = choose_validation(names, workloads[rows.tasks], everything, _VALIDATION_SHARE, seed)
        if relabel is not None:
            trained_on, latencies_s = np.flatnonzero(~held), rows.latencies_s.copy()
            part = rows.take(trained_on)
            latencies_s[trained_on] = relabel(part, workloads[part.tasks], seed)
            rows = replace(rows, latencies_s=latencies_s)
        operators = np.array(operator_of_tasks(store))
        experts, self.programs_seen = {}, 0
        batch = settings.config.groups_per_batch * settings.config.programs_per_group
        for kind in KINDS:
            train, validation = (_of_kind(rows, kind, it) for it in (~held, held))
            if not all(np.isfinite(part.latencies_s).any() for part in (train, validation)):
                continue  # untrained, it predicts the analytic estimate
            others = None if unlabelled is None else _of_kind(unlabelled, kind)
            parts = Parts(train, validation, operators[train.tasks], others)
            steps = 0

            def count(progress: Progress) -> None:
                nonlocal steps
                steps = progress.step

            with tempfile.TemporaryDirectory() as folder:
                experts[kind] = pretrain_on(
                    parts,
                    Path(folder),
                    settings,
                    kind=kind,
                    data_hash="",
                    torch_device=torch_device,
                    on_progress=count,
                )
            self.programs_seen += steps * batch
        self.predictor = join_experts(experts, {})

    def predict(self, programs: StoredPrograms) -> Prediction:
        """Predict latencies, with their spread."""
        return evaluate(self.predictor, programs.rows)

    def save(self, path: Path) -> None:
        """Write the weights."""
        self.predictor.save(path)


def _of_kind(
    rows: TrainingRows, kind: str, chosen: npt.NDArray[np.bool_] | bool = True
) -> TrainingRows:
    """Return those of some rows that were measured on one kind of device, in memory."""
    is_cpu = np.array([device.kind == "cpu" for device in rows.devices])[rows.machine_of]
    return rows.take(np.flatnonzero((is_cpu == (kind == "cpu")) & chosen))
