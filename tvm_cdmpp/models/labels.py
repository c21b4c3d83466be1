"""The label space: latencies in seconds to a normalised Box-Cox scale and back.

Box and Cox (1964), as CDMPP uses it: y(λ) = (y^λ - 1) / λ, or ln y for λ = 0, with λ by maximum
likelihood (SciPy), then zero mean and unit variance. Fitted on training rows only.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import boxcox

from tvm_cdmpp.errors import RecordError

FloatArray = npt.NDArray[np.float64]

_MIN_FOR_LAMBDA = 32
_LAMBDA_LIMIT = 0.5


@dataclass(frozen=True)
class LabelTransform:
    """A fitted transform; `low` and `high` bound the labels it was fitted on."""

    power: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    low: float = -np.inf
    high: float = np.inf

    @staticmethod
    def fit(latencies_s: FloatArray) -> LabelTransform:
        """Fit on training latencies.

        Below 32 samples, or where the best λ is beyond ±0.5 (a sign of outliers), λ is 0 or the
        limit: the inverse would otherwise blow up a small error of the predictor.

        Raises
        ------
        RecordError
            If there is no latency or one is not finite and positive.
        """
        if latencies_s.size == 0 or not (np.isfinite(latencies_s) & (latencies_s > 0)).all():
            raise RecordError(
                "Label transforms need latencies that are finite and positive; got "
                f"{latencies_s.size} values, {latencies_s[:5]}..."
            )
        logs = np.log(latencies_s)
        spread = float(logs.std())
        power = 0.0
        if latencies_s.size >= _MIN_FOR_LAMBDA and spread > 1e-3:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = float(boxcox(latencies_s)[1])
            power = float(np.clip(found, -_LAMBDA_LIMIT, _LAMBDA_LIMIT)) if found == found else 0.0
        labels = _box_cox(logs, power)
        std = float(labels.std())
        std = std if std > 1e-9 * max(1.0, abs(float(labels.mean()))) else 1.0
        normal = (labels - labels.mean()) / std
        return LabelTransform(
            power, float(labels.mean()), std, float(normal.min()), float(normal.max())
        )

    def forward(self, latencies_s: FloatArray) -> FloatArray:
        """Transform latencies in seconds to labels."""
        return (_box_cox(np.log(latencies_s), self.power) - self.mean) / self.std

    def inverse(self, labels: FloatArray) -> FloatArray:
        """Transform labels to latencies in seconds, all finite and positive, in the same order.

        Labels outside of the fitted range, where Box-Cox may have no inverse, continue
        exponentially, as steeply as at its end but at most by a factor of e per label.
        """
        inside = np.clip(labels, self.low, self.high)
        raw = inside * self.std + self.mean
        base = np.maximum(1.0 + self.power * raw, 1e-12)
        logs = raw if self.power == 0.0 else np.log(base) / self.power
        beyond = (labels - inside) * np.minimum(self.std / base, 1.0)
        latencies: FloatArray = np.exp(np.clip(logs + beyond, -80.0, 80.0))
        return latencies


def _box_cox(logs: FloatArray, power: float) -> FloatArray:
    return logs if power == 0.0 else np.expm1(power * logs) / power
