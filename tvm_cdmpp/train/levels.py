"""The first step onto a new device, in closed form: what a predictor gets wrong there as a whole.

A residual is ln(measured latency / predicted latency). Most of what a predictor misses on a device
that it has not seen is a level: everything, or everything of an operator or of a task, takes longer
than it says by some factor. `LevelCorrection` finds these factors from a few measured programs.
What is left varies with the program, and `LastLayer` learns that from features of programs. Neither
changes the predictor, and both give the same answer every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.errors import ConfigError, RecordError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Names = npt.NDArray[Any]

_CLIP_DEVIATIONS = 3.0
_ENOUGH_FOR_MEDIAN = 3
"""Residuals of a task; of fewer, a single one may move the median anywhere."""


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

    @staticmethod
    def of_residuals(
        log_residuals: Floats, devices: Names, operators: Names, tasks: Ints
    ) -> LevelVariances:
        """Estimate the variances from devices that the predictor was not trained on.

        At each level from below, the variance of the means around that of their group, less what
        the levels below it account for (Searle et al., Variance Components, chapter 3).

        Parameters
        ----------
        log_residuals
            ln(measured / predicted) of n programs; (n,).
        devices, operators, tasks
            Of each program; a task is of one device and has one operator; (n,).

        Raises
        ------
        RecordError
            No task has two programs that differ, or the rows are not fit for `LevelCorrection.fit`.
        """
        _check(log_residuals, operators, tasks)
        _, device_of = np.unique(devices, return_inverse=True)
        names, kind = np.unique(operators, return_inverse=True)
        groups = [tasks, device_of * len(names) + kind, device_of]
        values, errors, found = log_residuals, np.zeros(len(tasks)), []
        while groups:
            group, *above = groups
            _, first, place, counts = np.unique(
                group, return_index=True, return_inverse=True, return_counts=True
            )
            means = np.bincount(place, values) / counts
            freedom = len(values) - len(counts)
            squares = ((values - means[place]) ** 2).sum()
            variance = max(0.0, float(squares / freedom - errors.mean())) if freedom else 0.0
            found.append(variance)
            errors = (variance + np.bincount(place, errors) / counts) / counts
            values, groups = means, [numbers[first] for numbers in above]
        noise, task, operator = found
        if not noise > 0:
            raise RecordError("Variances need a task with several programs of unequal residuals.")
        device = max(0.0, float((values**2 - errors).mean()))
        return LevelVariances(device=device, operator=operator, task=task, noise=noise)


@dataclass(frozen=True)
class LevelCorrection:
    """What to add to the predicted ln latency of a device, of its operators and of its tasks.

    The model is a hierarchy of Gaussians: the level of the device is drawn around zero, that of an
    operator around the device's, that of a task around the operator's, the residual of a program
    around its task's. The corrections are the means of the levels given the residuals, exactly; as
    levels form a tree, one pass up and one pass down it find them (Gelman et al., Bayesian Data
    Analysis, chapter 5). A level without residuals is that of the level above it.

    Attributes
    ----------
    device
        Level of the device.
    operators
        Levels of the operators that were measured, by name; each includes the device's.
    tasks
        Levels of the tasks that were measured, by number; each includes the operator's.
    """

    device: float
    operators: Mapping[Any, float]
    tasks: Mapping[int, float]

    @staticmethod
    def fit(
        log_residuals: Floats,
        operators: Names,
        tasks: Ints,
        variances: LevelVariances | None = None,
    ) -> LevelCorrection:
        """Estimate the levels of one device.

        A residual more than three standard deviations of the noise from the median of its task is
        moved to that distance; where a task has fewer than three, three deviations of all levels
        below the device's from the median of all.

        Parameters
        ----------
        log_residuals
            ln(measured / predicted) of n measured programs, which may be none; (n,).
        operators
            The operator of each program, strings or numbers; (n,).
        tasks
            The task of each program, which has one operator; (n,).
        variances
            How far levels lie apart.

        Raises
        ------
        RecordError
            A residual is not finite, a task has two operators, or the shapes differ.
        """
        _check(log_residuals, operators, tasks)
        known = variances or LevelVariances()
        if not len(log_residuals):
            return LevelCorrection(0.0, {}, {})
        names, operator_of = np.unique(operators, return_inverse=True)
        numbers, first, task_of, counts = np.unique(
            tasks, return_index=True, return_inverse=True, return_counts=True
        )
        operator_of_task = operator_of[first]
        residuals = _clipped(log_residuals, task_of, counts, known)

        # Upwards: what lies below says of each level, and how surely.
        of_task = np.bincount(task_of, residuals) / counts
        trust_task = 1.0 / (known.task + known.noise / counts)
        trust_operator = np.bincount(operator_of_task, trust_task)
        of_operator = np.bincount(operator_of_task, trust_task * of_task) / trust_operator
        trust = 1.0 / (known.operator + 1.0 / trust_operator)
        of_device = float(trust @ of_operator / trust.sum())
        # Downwards: each level between that and the level above it.
        device = float(_between(0.0, of_device, known.device, 1.0 / trust.sum()))
        operator = _between(device, of_operator, known.operator, 1.0 / trust_operator)
        task = _between(operator[operator_of_task], of_task, known.task, known.noise / counts)
        return LevelCorrection(
            device,
            dict(zip(names.tolist(), operator.tolist(), strict=True)),
            dict(zip(numbers.tolist(), task.tolist(), strict=True)),
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


def _clipped(residuals: Floats, task_of: Ints, counts: Ints, variances: LevelVariances) -> Floats:
    """Limit how far single residuals lie from the others."""
    centre = np.full(len(counts), np.median(residuals))
    reach = np.full(len(counts), variances.operator + variances.task + variances.noise)
    ends = np.cumsum(counts)
    by_task = np.split(residuals[np.argsort(task_of, kind="stable")], ends[:-1])
    for task in np.flatnonzero(counts >= _ENOUGH_FOR_MEDIAN):
        centre[task] = np.median(by_task[task])
        reach[task] = variances.noise
    allowed = _CLIP_DEVIATIONS * np.sqrt(reach)
    return np.clip(residuals, (centre - allowed)[task_of], (centre + allowed)[task_of])


def _between(above: Any, below: Any, variance_above: float, variance_below: Any) -> Any:
    """Weigh what the level above and the level below say, each by the other's variance."""
    share = variance_above / (variance_above + variance_below)
    return above + share * (below - above)
