"""Which programs of a new device, or of a new network, to measure when only a few can be.

Nothing but compact ASTs is asked of the programs: they are chosen before anything is measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.cluster.vq import kmeans2

from tvm_cdmpp.ast import CompactASTBatch, program_vectors
from tvm_cdmpp.errors import ConfigError, RecordError

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
SelectionMethod = Literal["random", "kmeans", "center", "uncertain"]

_DIMENSIONS = 16
"""Directions that distances are taken in; what SciPy's k-means++ costs grows with them."""
_CLUSTERED = 4096
"""Programs that clusters of tasks are found from."""


def program_features(batch: CompactASTBatch) -> npt.NDArray[np.float32]:
    """Describe each program by one vector, to tell which programs are alike.

    Those of `ast.program_vectors`, each column with zero mean and unit variance over the given
    programs; constant ones are 0.

    Parameters
    ----------
    batch
        Compact ASTs of n programs.

    Returns
    -------
    features
        Of shape (n, 2 * NUM_FIELDS).

    Raises
    ------
    RecordError
        A program has no leaf.
    """
    features = program_vectors(batch).astype(np.float64)
    if not len(batch):
        return features.astype(np.float32)
    features -= features.mean(axis=0)
    scale = features.std(axis=0)
    # What rounding leaves of a constant column is no variation.
    is_constant = scale <= 1e-6
    features /= np.where(is_constant, 1.0, scale)
    features[:, is_constant] = 0.0
    return features.astype(np.float32)


def principal_components(features: Floats, count: int) -> npt.NDArray[np.float64]:
    """Return programs in the directions in which they differ most.

    Parameters
    ----------
    features
        Of n programs; (n, d).
    count
        Directions to keep.

    Returns
    -------
    components
        Zero on average, uncorrelated, the most varying first; (n, min(count, d)).
    """
    centred = np.asarray(features, np.float64)
    centred = centred - centred.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    components: npt.NDArray[np.float64] = centred @ directions[:, ::-1][:, :count]
    return components


def select_programs(
    features: Floats,
    tasks: Ints,
    budget: int,
    method: SelectionMethod,
    seed: int,
    spread: Floats | None = None,
    *,
    programs_per_task: int = 4,
) -> Ints:
    """Choose the programs to measure.

    - `random`: all programs are as likely.
    - `kmeans`: the tasks, and then programs of each, that stand for all others (section 5 of CDMPP,
      Hu et al., EuroSys 2024, which measures whole tasks). Programs are clustered, one cluster for
      every `programs_per_task` programs to measure; clusters are visited from the largest to the
      smallest, and each takes the task whose programs are nearest to its centre on average. The
      budget is shared out among these tasks, and within each, programs are chosen from clusters in
      the same way.
    - `center`: the programs nearest to the mean of all.
    - `uncertain`: one after the other, the program with the largest spread, as a share of the
      largest of all, minus its similarity to the most similar one chosen before: exp(-s), with s
      the squared distance over its mean among all programs.

    Parameters
    ----------
    features
        One row per program, columns of comparable scale such as `program_features` gives; (n, d).
    tasks
        Number of the task of each program; (n,).
    budget
        How many programs may be measured.
    method
        How to choose.
    seed
        One seed and the same programs give the same choice.
    spread
        For `uncertain`: how unsure a predictor is of each program, at least 0; (n,).
    programs_per_task
        For `kmeans`: so many of each task, where there is room for them.

    Returns
    -------
    rows
        Numbers of the chosen programs, ascending and distinct; (min(budget, n),).

    Raises
    ------
    ConfigError
        The budget is negative, the method unknown, or its spread missing or unfit.
    RecordError
        Features and tasks do not fit each other, or a feature is not finite.
    """
    _check(features, tasks, budget, method, spread)
    if budget >= len(features):
        return np.arange(len(features))
    if budget == 0:
        return np.zeros(0, np.int64)
    generator = np.random.default_rng(seed)
    if method == "random":
        chosen = generator.choice(len(features), budget, replace=False)
    elif method == "center":
        from_mean = np.linalg.norm(features - features.mean(axis=0), axis=1)
        chosen = np.argsort(from_mean, kind="stable")[:budget]
    elif method == "kmeans":
        reduced = principal_components(features, _DIMENSIONS)
        chosen = _representative(reduced, tasks, budget, programs_per_task, generator)
    else:
        assert spread is not None
        reduced = principal_components(features, _DIMENSIONS)
        chosen = _uncertain(reduced, np.asarray(spread, np.float64), budget)
    return np.sort(chosen)


def _representative(
    features: npt.NDArray[np.float64],
    tasks: Ints,
    budget: int,
    programs_per_task: int,
    generator: np.random.Generator,
) -> Ints:
    """Choose tasks by clusters of programs, and programs by clusters within each task."""
    _, task_of, counts = np.unique(tasks, return_inverse=True, return_counts=True)
    number = min(len(counts), -(-budget // programs_per_task))
    sample = generator.permutation(len(features))[: max(_CLUSTERED, number)]
    centres, sizes = _cluster(features[sample], number, generator)
    distances = np.stack(
        [np.bincount(task_of, np.linalg.norm(features - c, axis=1)) / counts for c in centres]
    )
    picked: list[int] = []
    for task in _visit(distances, sizes):
        picked.append(task)
        if len(picked) >= number and counts[picked].sum() >= budget:
            break
    chosen = []
    for task, share in zip(picked, _shares(counts[picked], budget).tolist(), strict=True):
        programs = np.flatnonzero(task_of == task)
        centres, sizes = _cluster(features[programs], share, generator)
        distances = np.stack([np.linalg.norm(features[programs] - c, axis=1) for c in centres])
        chosen.append(programs[list(islice(_visit(distances, sizes), share))])
    return np.concatenate(chosen)


def _cluster(
    points: npt.NDArray[np.float64], number: int, generator: np.random.Generator
) -> tuple[npt.NDArray[np.float64], Ints]:
    """Return the centres of clusters and how many points each has."""
    # Where fewer points differ than there are clusters, some are empty: they are visited last.
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore")
        centres, labels = kmeans2(points, number, minit="++", seed=generator)
    return centres, np.bincount(labels, minlength=number)


def _visit(distances: npt.NDArray[np.float64], sizes: Ints) -> Iterator[int]:
    """Yield every item once: the largest cluster's nearest, the next one's, round and round.

    Parameters
    ----------
    distances
        Of m items from k centres; (k, m).
    sizes
        Of the clusters; (k,).
    """
    left = distances.copy()
    order = np.argsort(-sizes, kind="stable")
    for turn in range(distances.shape[1]):
        nearest = int(np.argmin(left[order[turn % len(order)]]))
        left[:, nearest] = np.inf
        yield nearest


def _shares(room: Ints, budget: int) -> Ints:
    """Share a budget out as evenly as there is room; all of it, since there is room for it."""
    shares = np.zeros(len(room), np.int64)
    for done, place in enumerate(np.argsort(room, kind="stable")):
        shares[place] = min(int(room[place]), budget // (len(room) - done))
        budget -= int(shares[place])
    return shares


def _uncertain(
    features: npt.NDArray[np.float64], spread: npt.NDArray[np.float64], budget: int
) -> Ints:
    """Choose where the spread is large and nothing similar was chosen."""
    mean_squared = 2.0 * features.var(axis=0).sum() or 1.0
    worth = spread / (spread.max() or 1.0)
    squared = np.full(len(features), np.inf)  # to the nearest of those chosen
    chosen = np.zeros(budget, np.int64)
    for place in range(budget):
        chosen[place] = np.argmax(worth - np.exp(-squared / mean_squared))
        worth[chosen[place]] = -np.inf
        difference = features - features[chosen[place]]
        np.minimum(squared, np.einsum("nd,nd->n", difference, difference), out=squared)
    return chosen


def _check(features: Floats, tasks: Ints, budget: int, method: str, spread: Floats | None) -> None:
    if features.ndim != 2 or tasks.shape != features.shape[:1]:
        raise RecordError(
            "Features must be of shape (n, d) and tasks of shape (n,); got "
            f"{features.shape} and {tasks.shape}."
        )
    if not np.isfinite(features).all():
        raise RecordError("Features must be finite.")
    if budget < 0:
        raise ConfigError(f"budget must be at least 0; got {budget}.")
    if method not in get_args(SelectionMethod):
        raise ConfigError(
            f"method must be one of {', '.join(get_args(SelectionMethod))}; got '{method}'."
        )
    if method != "uncertain":
        return
    if spread is None or spread.shape != tasks.shape or not (spread >= 0).all():
        raise ConfigError(
            "The method 'uncertain' needs the predictor's spread of each program, at least 0 and "
            f"of shape ({len(tasks)},); got {None if spread is None else spread.shape}. Use "
            "another method for predictors without."
        )
    if not np.isfinite(spread).all():
        raise ConfigError("spread must be finite.")
