"""What measured programs say of others that are like them, on top of what a network says.

A network learns from a few hundred programs of a device in general; even of a program that was
measured it then says something else. What it is off by there is interpolated by Gaussian process
regression (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 2 and
5). Its covariance has two ranges; how much each of them matters, and how much is a program's own,
is what makes the measured latencies most likely.

What a program is off by may be far from what others are: then it counts as less, as one would
mislead all that are near it. To programs that are the same, all of it is added: they take what was
measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import NUM_FIELDS, CompactASTBatch, program_vectors
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models.checkpoint import check_arrays

Floats = npt.NDArray[np.floating[Any]]

_LENGTHS = (0.4, 0.15)
"""The ranges, by the root mean square distance of the measured programs (on 200 programs measured
on two cores of an EPYC of the third generation, the likeliest were .4 and .14)."""
_SAME = 0.02
"""Range within which programs are the same, so that the measured latency is theirs."""
_DEVIATIONS = (0.0, 0.1, 0.2, 0.4)
"""Of ln latency, that a range may account for."""
_NOISES = (0.05, 0.1, 0.2, 0.4)
"""Standard deviations of what is a program's own, and of noise."""
_FARTHEST = 3.0
"""Standard deviations, by the median absolute one: no residual says more than this of others."""
_OF_MEDIAN = 1.4826
"""Standard deviation of a normal distribution by its median absolute one."""
_MOST = 256
"""Programs that are interpolated between; of more, so many that are spread over them. A prediction
is a comparison with each."""
_LARGEST = 1e6
"""Of all that is saved: the scale of a column that hardly varies comes near it."""
_ABOUT = (None, False, True)
"""Values of `own`, as numbered in files; those of earlier versions have none."""
_RIDGE = 0.01
"""So that a program that was measured twice takes the mean."""


@dataclass(frozen=True)
class Neighbours:
    """Interpolates residuals of ln latency.

    Attributes
    ----------
    level
        Added to all programs that it is of.
    centre, scale
        Of program vectors, in units of the root mean square distance; (columns,).
    places
        Vectors of the measured programs, centred and scaled; (n, columns).
    weights
        Of each one, for each range and for being the same; (n, 3).
    own
        Whether it is of programs with schedules of TVM's own, or of those of a search; None where
        it is of both.
    """

    level: float
    centre: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    places: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    own: bool | None = None

    @staticmethod
    def fit(
        batch: CompactASTBatch,
        residuals: Floats,
        *,
        interpolate: bool = True,
        level: float = 0.0,
        share: float = 1.0,
        own: bool | None = None,
    ) -> Neighbours:
        """Learn from measured programs.

        Parameters
        ----------
        batch
            Compact ASTs of n programs, at least one.
        residuals
            ln(measured / predicted), finite; (n,).
        interpolate
            Whether they say something of other programs; else of themselves alone.
        level
            Added to what others take.
        share
            Of the level of all, what others take; the programs themselves take all of it.
        own
            Which programs these are, and it is of.
        """
        if len(batch) > _MOST:
            chosen = np.linspace(0, len(batch) - 1, _MOST).round().astype(np.int64)
            batch, residuals = batch.take(chosen), residuals[chosen]
        median = float(np.median(residuals)) if interpolate else 0.0
        off = (residuals - median).astype(np.float64)
        limit = _FARTHEST * _OF_MEDIAN * float(np.median(np.abs(off)))
        vectors = program_vectors(batch).astype(np.float64)
        centre, deviation = vectors.mean(axis=0), vectors.std(axis=0)
        varies = deviation > 1e-6  # what rounding leaves of a constant column is no variation
        unit = max(1.0, float(np.sqrt(2.0 * varies.sum())))
        scale = 1.0 / np.where(varies, deviation, 1.0) / unit
        places = (vectors - centre) * scale
        weights: Floats = np.zeros((len(off), len(_LENGTHS)))
        if interpolate:
            weights = _likeliest(places, np.clip(off, -limit, limit))
        of_others = share * (median + level)
        left = residuals - of_others - _sum(places, places, weights, _LENGTHS)
        same = np.exp(-_distances(places, places) / (2.0 * _SAME**2))
        left = np.linalg.solve(same + _RIDGE * np.eye(len(left)), left)
        weights = np.column_stack([weights, left])
        return Neighbours(
            level=float(np.float32(of_others)),
            centre=centre.astype(np.float32),
            scale=scale.astype(np.float32),
            places=places.astype(np.float32),
            weights=weights.astype(np.float32),
            own=own,
        )

    @staticmethod
    def of_level(level: float, own: bool | None = None) -> Neighbours:
        """Return what adds a level to all programs that it is of."""
        columns = np.zeros(2 * NUM_FIELDS, np.float32)
        return Neighbours(
            level=float(np.float32(level)),
            centre=columns,
            scale=columns,
            places=np.zeros((0, len(columns)), np.float32),
            weights=np.zeros((0, len(_LENGTHS) + 1), np.float32),
            own=own,
        )

    def counts_for(self, device: DeviceSpec) -> bool:
        """Tell whether it is of programs of a device that is as it is for these."""
        return self.own in (None, device.own_schedule)

    def offsets(self, batch: CompactASTBatch) -> npt.NDArray[np.float64]:
        """Return what to add to the predicted ln latency of m programs; (m,)."""
        found = np.full(len(batch), self.level)
        described = np.flatnonzero(batch.leaf_counts)
        places = (program_vectors(batch.take(described)) - self.centre) * self.scale
        found[described] += _sum(places, self.places, self.weights, (*_LENGTHS, _SAME))
        return found

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return what `of_arrays` takes."""
        level = np.array([self.level], np.float32)
        return {
            "level": level,
            "centre": self.centre,
            "scale": self.scale,
            "places": self.places,
            "weights": self.weights,
            "own": np.array([_ABOUT.index(self.own)], np.int8),
        }

    @staticmethod
    def of_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> Neighbours:
        """Return what was written.

        Raises
        ------
        KeyError
            Something is missing.
        ValueError
            Shapes do not fit each other or program vectors, or values are none that can be.
        """
        names = ("level", "centre", "scale", "places", "weights")
        check_arrays(arrays, _LARGEST)
        level, centre, scale, places, weights = (arrays[n].astype(np.float32) for n in names)
        columns, number = (2 * NUM_FIELDS,), places.shape[:1]
        about = np.asarray(arrays.get("own", np.zeros(1, np.int8)))
        if about.shape != (1,) or about[0] not in range(len(_ABOUT)):
            raise ValueError(f"own of neighbours must be one of 0, 1 and 2; got {about.tolist()}")
        expected = (1,), columns, columns, number + columns, (*number, len(_LENGTHS) + 1)
        if tuple(array.shape for array in (level, centre, scale, places, weights)) != expected:
            raise ValueError(
                "the shapes of what neighbours of programs say do not fit each other and the "
                f"{columns[0]} columns of program vectors"
            )
        own = _ABOUT[int(about[0])]
        return Neighbours(float(level[0]), centre, scale, places, weights, own)


def _distances(first: Floats, second: Floats) -> Floats:
    """Return squared distances; (first, second)."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)
    found: Floats = np.maximum(squares - 2.0 * first @ second.T, 0.0)
    return found


def _sum(first: Floats, second: Floats, weights: Floats, lengths: Sequence[float]) -> Floats:
    """Return what the second say of the first, by weights for each range; (first,)."""
    distances, found = _distances(first, second), np.zeros(len(first))
    for length, of_range in zip(lengths, weights.T, strict=True):
        found += np.exp(-distances / (2.0 * length**2)) @ of_range
    return found


def _likeliest(places: Floats, off: Floats) -> Floats:
    """Return the weights by the deviations and the noise of the largest likelihood; (n, 2)."""
    distances = _distances(places, places)
    ranges = [np.exp(-distances / (2.0 * length**2)) for length in _LENGTHS]
    best, found = np.inf, np.zeros((len(off), len(ranges)))
    for *deviations, noise in itertools.product(*[_DEVIATIONS] * len(ranges), _NOISES):
        variances = np.square(deviations)
        covariance = sum(v * part for v, part in zip(variances, ranges, strict=True))
        root = np.linalg.cholesky(covariance + noise**2 * np.eye(len(off)))
        whitened = np.linalg.solve(root, off)
        unlikely = 0.5 * whitened @ whitened + np.log(np.diag(root)).sum()
        if unlikely < best:
            best = unlikely
            found = np.linalg.solve(root.T, whitened)[:, None] * variances
    return found
