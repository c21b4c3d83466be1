"""Labels that are half measured and half what trees say that have not seen the workload."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from tvm_cdmpp.models import CostPredictor, Ints, TrainingRows
from tvm_cdmpp.models.baselines import TreeOptions, TreePredictor
from tvm_cdmpp.train import evaluate

FOLDS = 4
TEACHER_WEIGHT = 0.5
"""What the teacher's logarithm counts in the mean; the measurement's counts the rest."""


def make_trees() -> TreePredictor:
    """Return the trees of `benchmarks.accuracy`, untrained, on as many threads as PyTorch's."""
    return TreePredictor(TreeOptions(num_threads=torch.get_num_threads()))


def distil(
    rows: TrainingRows,
    workloads: Ints,
    seed: int,
    make_teacher: Callable[[], CostPredictor] = make_trees,
) -> npt.NDArray[np.float64]:
    """Return the geometric mean of what was measured and what an out-of-fold teacher predicts.

    Folds are of whole workloads, so no program teaches the label of another of its workload, be it
    on another device.

    Parameters
    ----------
    rows
        n programs; those that failed keep their infinite latency.
    workloads
        Number of each program's workload; (n,).
    seed
        Draws the folds, and is the teachers'.
    make_teacher
        Makes a teacher anew, for each fold.

    Returns
    -------
    latencies_s
        Labels in seconds; (n,).
    """
    numbers, workload_of = np.unique(workloads, return_inverse=True)
    fold_of_workload = np.random.default_rng(seed).permutation(len(numbers)) % FOLDS
    fold_of = fold_of_workload[workload_of]
    taught_s = np.empty(len(rows))
    for fold in range(FOLDS):
        inside = np.flatnonzero(fold_of == fold)
        teacher = make_teacher()
        teacher.fit(rows.take(np.flatnonzero(fold_of != fold)), seed=seed)
        taught_s[inside] = evaluate(teacher, rows.take(inside)).latency_s
    logs = (1 - TEACHER_WEIGHT) * np.log(rows.latencies_s) + TEACHER_WEIGHT * np.log(taught_s)
    latencies_s: npt.NDArray[np.float64] = np.exp(logs)
    return latencies_s
