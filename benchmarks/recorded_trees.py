"""XGBoost that has seen recorded measurements, as a cost model of TVM's search.

The trees are grown on Ansor's features and labels of the training part of the split `networks`, as
far as it was measured on CPUs, a sample of each task, with TVM's parameters (`ansor_trees`). They
are frozen, or go on in the search: whenever something was measured, trees are added to the recorded
ones for all that this search has measured, as TVM grows its own. TVM would grow all of them anew
after every round, from the recorded programs and the new ones, which takes minutes.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ansor_trees import AnsorTrees
from benchmarks.stored import StoredPrograms
from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.data import RecordStore, make_labels, official_split
from tvm_cdmpp.devices import read_host_cpu
from tvm_cdmpp.files import write_atomically
from tvm_cdmpp.train import load_features, rows_of_store, sample_tasks

_tvm = load_tvm()
_XGBModel: Any = _tvm.auto_scheduler.XGBModel
_xgb_model = importlib.import_module("tvm.auto_scheduler.cost_model.xgb_model")
_feature = importlib.import_module("tvm.auto_scheduler.feature")

SPLIT = "networks"
_MOST_TREES, _PATIENCE = 10_000, 50
"""As TVM has it."""


class PretrainedXGB(_XGBModel):
    """TVM's `XGBModel` that starts from recorded measurements.

    Parameters
    ----------
    trees
        The file that `grow_recorded_trees` made.
    seed
        Of the trees that are added.
    frozen
        Whether none are.
    """

    def __init__(self, trees: Path, *, seed: int, frozen: bool) -> None:
        super().__init__(num_warmup_sample=-1, seed=seed)
        self.xgb_params["nthread"] = read_host_cpu().physical_cores
        self._features: list[Any] = []
        self._xgboost = importlib.import_module("xgboost")
        self._recorded = self._xgboost.Booster(self.xgb_params)
        self._recorded.load_model(str(trees))
        self.bst, self._frozen = self._recorded, frozen

    def update(self, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        """Add trees for all that was measured so far."""
        if self._frozen or not len(inputs):
            return
        self.inputs.extend(inputs)
        self.results.extend(results)
        known = len(self._features)
        features, throughputs, tasks = _feature.get_per_store_features_from_measure_pairs(
            self.inputs, self.results, skip_first_n_feature_extraction=known
        )
        self._features += list(features)[known:]
        packs = np.empty(len(self._features), object)
        packs[:] = self._features
        rows = _xgb_model.pack_sum_xgbmatrix(packs, throughputs, tasks, throughputs)
        self.bst = self._xgboost.train(
            self.xgb_params,
            rows,
            num_boost_round=_MOST_TREES,
            obj=_xgb_model.pack_sum_square_error,
            xgb_model=self._recorded,
            callbacks=[
                _xgb_model.CustomCallback(
                    stopping_rounds=_PATIENCE,
                    metric="tr-p-rmse",
                    fevals=[_xgb_model.pack_sum_rmse],
                    evals=[(rows, "tr")],
                    maximize=False,
                    verbose_eval=False,
                )
            ],
        )


def grow_recorded_trees(store: RecordStore, folder: Path, per_task: int) -> Path:
    """Grow trees on recorded measurements of CPUs, or find those that were grown before.

    Parameters
    ----------
    store
        The records.
    folder
        Where features and trees are kept.
    per_task
        Programs of a task at most.
    """
    path = folder / f"trees-{store.content_hash[:16]}-{per_task}.ubj"
    if path.exists():
        return path
    labels, features = make_labels(store), load_features(store)
    task_of = store.columns("task")["task"].to_numpy()
    targets = [str(target) for target in store.tasks["target"].to_pylist()]
    on_cpu = np.array([target.startswith("llvm") for target in targets])[task_of]
    unknown = {t for t in set(targets) if t.startswith("llvm") and not _is_known(t)}
    known = np.array([target not in unknown for target in targets])[task_of]
    usable = on_cpu & np.isfinite(labels.latency_s) & ~labels.impossible & ~labels.contended
    train = official_split(store, SPLIT).train
    train = train[usable[train]]
    chosen = sample_tasks(store, train[known[train]], per_task)
    rows, used = rows_of_store(store, features, chosen, labels=labels)
    print(
        f"growing trees on {len(used):,} recorded programs; {np.count_nonzero(~known[train]):,} "
        "are for targets that this TVM does not know",
        flush=True,
    )
    trees = AnsorTrees("throughput", folder / "ansor-features")
    trees.fit(StoredPrograms(store, used, rows), seed=0)
    write_atomically(path, bytes(trees.booster.save_raw("ubj")))
    return path


def _is_known(target: str) -> bool:
    try:
        _tvm.target.Target(target)
    except (ValueError, _tvm.TVMError):  # an option that later TVMs do not have
        return False
    return True
