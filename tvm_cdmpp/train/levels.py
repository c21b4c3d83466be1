"""The first step onto a new device, in closed form: what a predictor gets wrong there as a whole.

A residual is ln(measured latency / predicted latency). Most of what a predictor misses on a device
that it has not seen is a level: everything, or everything of an operator or of a task, takes longer
than it says by some factor. `LevelCorrection` finds these factors from a few measured programs.
What is left varies with the program, and `LastLayer` learns that from features of programs. Neither
changes the predictor, and both give the same answer every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.errors import ConfigError, RecordError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Names = npt.NDArray[Any]

_FREEDOM = 2.0
"""Degrees of freedom of the noise (Student's t): few, as a program in a hundred takes several times
what is predicted. On validation parts of four devices 2 was better than 4 nearly everywhere."""
_WORTH = 1.0
"""Levels, or programs, that what is expected of the variances counts as."""
_MOST_ROUNDS = 100
_CONVERGED = 1e-6
"""Change of a level in a round."""


@dataclass(frozen=True, kw_only=True)
class LevelVariances:
    """How far levels are expected to lie from the level above them: variances of ln latency."""

    device: float = 0.5
    """Of devices, from what the predictor says."""
    operator: float = 0.1
    """Of operators, from their device."""
    task: float = 0.1
    """Of tasks, from their operator."""
    noise: float = 0.1
    """Of programs, from their task."""

    def __post_init__(self) -> None:
        """Reject variances that no level can be estimated with."""
        if min(self.device, self.operator, self.task) < 0 or not self.noise > 0:
            raise ConfigError(
                f"Variances of levels must be at least 0, and that of programs above 0; got {self}."
            )


@dataclass(frozen=True)
class LevelCorrection:
    """What to add to the predicted ln latency of a device, of its operators and of its tasks.

    The model is a hierarchy: the level of the device is drawn around zero, that of an operator
    around the device's, that of a task around the operator's, all from normal distributions, and
    the residual of a program around its task's, from Student's t, so that one absurd residual moves
    little. The corrections are the means of the levels given the residuals. Expectation
    maximisation finds how much each residual counts (Lange, Little and Taylor, Robust Statistical
    Modeling Using the t Distribution, 1989) and, where they are not given, the variances. In a
    round all levels are exact: as they form a tree, one pass up and one pass down it find them
    (Gelman et al., Bayesian Data Analysis, chapter 5). A level without residuals is that of the
    level above it.

    Attributes
    ----------
    device
        Level of the device.
    operators
        Levels of the operators that were measured, by name; each includes the device's.
    tasks
        Levels of the tasks that were measured, by number; each includes the operator's.
    variances
        How far levels lie apart.
    """

    device: float
    operators: Mapping[Any, float]
    tasks: Mapping[int, float]
    variances: LevelVariances

    @staticmethod
    def fit(
        log_residuals: Floats,
        operators: Names,
        tasks: Ints,
        variances: LevelVariances | None = None,
    ) -> LevelCorrection:
        """Estimate the levels of one device.

        Parameters
        ----------
        log_residuals
            ln(measured / predicted) of n measured programs, which may be none; (n,).
        operators
            The operator of each program, strings or numbers; (n,).
        tasks
            The task of each program, which has one operator; (n,).
        variances
            How far levels lie apart; None to find that in the residuals, too.

        Raises
        ------
        RecordError
            A residual is not finite, a task has two operators, or the shapes differ.
        """
        _check(log_residuals, operators, tasks)
        known = variances or LevelVariances()
        if not len(log_residuals):
            return LevelCorrection(0.0, {}, {}, known)
        names, operator_of = np.unique(operators, return_inverse=True)
        numbers, first, task_of = np.unique(tasks, return_index=True, return_inverse=True)
        counts_as, before = np.ones(len(tasks)), np.full(len(numbers), np.inf)
        for _ in range(_MOST_ROUNDS):
            found = _Levels.of(log_residuals, counts_as, task_of, operator_of[first], known)
            counts_as = (_FREEDOM + 1.0) / (_FREEDOM + found.squares["noise"] / known.noise)
            if variances is None:
                known = _likeliest(found.squares, counts_as)
            if np.abs(found.task - before).max() < _CONVERGED:
                break
            before = found.task
        return LevelCorrection(
            found.device,
            dict(zip(names.tolist(), found.operator.tolist(), strict=True)),
            dict(zip(numbers.tolist(), found.task.tolist(), strict=True)),
            known,
        )

    def apply(self, operators: Names, tasks: Ints) -> Floats:
        """Return what to add to the predicted ln latency of m programs; (m,).

        Parameters
        ----------
        operators, tasks
            As in `fit`, known or not; (m,).
        """
        if not len(tasks):
            return np.zeros(0)
        names, operator_of = np.unique(operators, return_inverse=True)
        numbers, task_of = np.unique(tasks, return_inverse=True)
        by_operator = np.array([self.operators.get(n, self.device) for n in names.tolist()])
        by_task = np.array([self.tasks.get(n, np.nan) for n in numbers.tolist()])
        return np.where(np.isnan(by_task)[task_of], by_operator[operator_of], by_task[task_of])


@dataclass(frozen=True)
class LastLayer:
    """Bayesian linear regression of residuals on features (Bishop, PRML, section 3.3).

    Weights are drawn around zero; what is known of them is kept as the precision and the weighted
    sum, to which rows only add. So two updates come to the same as one with all of their rows, and
    nothing is forgotten. Meant for few features, such as those of a last hidden layer: to predict
    takes the cube of their number.

    Attributes
    ----------
    precision
        Inverse covariance of the weights; (d, d).
    weighted
        `precision` times the mean of the weights; (d,).
    noise_variance
        Of a residual around what the weights say.
    clip
        Residuals beyond this count as this.
    """

    precision: Floats
    weighted: Floats
    noise_variance: float
    clip: float

    @staticmethod
    def of_prior(
        prior_precision: npt.ArrayLike, *, noise_variance: float = 0.1, clip: float = 2.0
    ) -> LastLayer:
        """Return a layer that has seen nothing and predicts zero.

        Parameters
        ----------
        prior_precision
            Inverse variance of each feature's weight; (d,).
        noise_variance, clip
            See the class.

        Raises
        ------
        ConfigError
            One of these is not above zero.
        """
        precision = np.array(prior_precision, np.float64)
        if precision.ndim != 1 or not (precision > 0).all() or not min(noise_variance, clip) > 0:
            raise ConfigError(
                "prior_precision must be a list of numbers above 0, noise_variance and clip above "
                f"0; got {precision}, {noise_variance} and {clip}."
            )
        return LastLayer(np.diag(precision), np.zeros(len(precision)), noise_variance, clip)

    def update(self, features: npt.NDArray[np.floating[Any]], residuals: Floats) -> LastLayer:
        """Return the layer that has seen these rows as well.

        Parameters
        ----------
        features
            Of n programs; (n, d).
        residuals
            What is left of ln(measured / predicted); (n,).

        Raises
        ------
        RecordError
            A number is not finite, or the shapes do not fit.
        """
        rows = self._checked(features)
        if residuals.shape != rows.shape[:1] or not np.isfinite(residuals).all():
            raise RecordError(
                f"{len(rows)} programs need as many finite residuals; got shape {residuals.shape}."
            )
        clipped = np.clip(residuals, -self.clip, self.clip)
        return replace(
            self,
            precision=self.precision + rows.T @ rows / self.noise_variance,
            weighted=self.weighted + rows.T @ clipped / self.noise_variance,
        )

    def predict(self, features: npt.NDArray[np.floating[Any]]) -> tuple[Floats, Floats]:
        """Predict the residuals of m programs.

        Parameters
        ----------
        features
            Of shape (m, d).

        Returns
        -------
        mean
            Expected residual; (m,).
        std
            Standard deviation of a measured residual around it, noise included; (m,).

        Raises
        ------
        RecordError
            A feature is not finite, or the shapes do not fit.
        """
        rows = self._checked(features)
        root = np.linalg.cholesky(self.precision)
        whitened = np.linalg.solve(root, rows.T)
        mean = whitened.T @ np.linalg.solve(root, self.weighted)
        return mean, np.sqrt(self.noise_variance + (whitened**2).sum(axis=0))

    def _checked(self, features: npt.NDArray[np.floating[Any]]) -> Floats:
        rows = np.asarray(features, np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self.weighted) or not np.isfinite(rows).all():
            raise RecordError(
                f"Features must be finite and of shape (n, {len(self.weighted)}); got shape "
                f"{rows.shape}."
            )
        return rows


def _check(log_residuals: Floats, operators: Names, tasks: Ints) -> None:
    if not log_residuals.shape == operators.shape == tasks.shape == (len(tasks),):
        raise RecordError(
            "Residuals, operators and tasks must be of one shape (n,); got "
            f"{log_residuals.shape}, {operators.shape} and {tasks.shape}."
        )
    if not np.isfinite(log_residuals).all():
        raise RecordError("Residuals must be finite; leave programs that failed out.")
    _, first, task_of = np.unique(tasks, return_index=True, return_inverse=True)
    if (operators[first][task_of] != operators).any():
        raise RecordError("Every task must have one operator; got a task with two.")


@dataclass(frozen=True)
class _Levels:
    """Means of levels, and expected squared distances of each from the one above, by its name."""

    device: float
    operator: Floats
    task: Floats
    squares: Mapping[str, Floats]

    @staticmethod
    def of(
        residuals: Floats,
        counts_as: Floats,
        task_of: Ints,
        operator_of_task: Ints,
        v: LevelVariances,
    ) -> _Levels:
        """Find them with given variances, each residual counting as so many."""
        # Upwards: what lies below says of each level, and the variance of that.
        count = np.bincount(task_of, counts_as)
        of_task = np.bincount(task_of, counts_as * residuals) / count
        trust_task = 1.0 / (v.task + v.noise / count)
        trust_operator = np.bincount(operator_of_task, trust_task)
        of_operator = np.bincount(operator_of_task, trust_task * of_task) / trust_operator
        trust = 1.0 / (v.operator + 1.0 / trust_operator)
        of_device = trust @ of_operator / trust.sum()
        # Downwards: each level between that and the level above it.
        device = _below(0.0, 0.0, of_device, v.device, 1.0 / trust.sum())
        operator = _below(device[0], device[1], of_operator, v.operator, 1.0 / trust_operator)
        above, variance, _ = (part[operator_of_task] for part in operator)
        task = _below(above, variance, of_task, v.task, v.noise / count)
        mean, variance, _ = (part[task_of] for part in task)
        squares = {
            "device": np.array([device[2]]),
            "operator": operator[2],
            "task": task[2],
            "noise": (residuals - mean) ** 2 + variance,
        }
        return _Levels(float(device[0]), operator[0], task[0], squares)


def _below(
    above: Any, variance_above: Any, said: Any, variance: float, variance_said: Any
) -> tuple[Any, Any, Any]:
    """Weigh what a level above and what lies below say of levels, each by the other's variance.

    Returns their means, their variances, and their expected squared distances from the one above.
    """
    share = variance / (variance + variance_said)
    moved, own = share * (said - above), (1.0 - share) * variance
    square = moved**2 + own + share**2 * variance_above
    return above + moved, own + (1.0 - share) ** 2 * variance_above, square


def _likeliest(squares: Mapping[str, Floats], counts_as: Floats) -> LevelVariances:
    """Return the variances that make distances likeliest, with what is expected beforehand."""
    found = {}
    for name, expected in asdict(LevelVariances()).items():
        total = squares[name] @ counts_as if name == "noise" else squares[name].sum()
        found[name] = float((_WORTH * expected + total) / (_WORTH + len(squares[name])))
    return LevelVariances(**found)
