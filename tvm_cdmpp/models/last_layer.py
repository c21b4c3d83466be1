"""What a network gets wrong in one place, regressed on the features of its last layer.

A residual is ln(measured latency / predicted latency).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.errors import ConfigError, RecordError

Floats = npt.NDArray[np.float64]


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

    def weights(self) -> Floats:
        """Return the mean of the weights; (d,)."""
        mean: Floats = np.linalg.solve(self.precision, self.weighted)
        return mean

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
