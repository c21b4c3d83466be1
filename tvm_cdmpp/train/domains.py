"""How far apart two sets of latent vectors lie, such as those of two networks or two devices.

Both distances are differentiable, so that training can keep domains together by adding one of them
to its loss, and both are zero for sets with the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tvm_cdmpp.errors import ConfigError


def central_moment_discrepancy(
    x: Tensor, y: Tensor, *, moments: int = 5, bound: float = 1.0
) -> Tensor:
    """Compare the means and the central moments of two sets.

    CMD, definition 2 of Zellinger et al., "Central Moment Discrepancy (CMD) for Domain-Invariant
    Representation Learning", ICLR 2017, with expectations taken over the rows::

        |E[X] - E[Y]| / bound + sum over k = 2..moments of |C_k(X) - C_k(Y)| / bound^k

    C_k(X) = E[(X - E[X])^k], of each column by itself.

    Parameters
    ----------
    x, y
        One row per sample; (n, d) and (m, d).
    moments
        Highest moment, at least 1; the mean is the first.
    bound
        Length of the interval that the activations lie in, above 0: 1 for a sigmoid, 2 for a tanh.

    Returns
    -------
    distance
        At least 0; a scalar.

    Raises
    ------
    ConfigError
        The sets are empty or of different widths, or a setting is out of its range.
    """
    _check(x, y)
    if moments < 1 or not bound > 0:
        raise ConfigError(
            f"moments must be at least 1 and bound above 0; got moments={moments}, bound={bound}."
        )
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    distance: Tensor = torch.linalg.vector_norm(mean_x - mean_y) / bound
    centred_x, centred_y = x - mean_x, y - mean_y
    for k in range(2, moments + 1):
        difference = (centred_x**k).mean(dim=0) - (centred_y**k).mean(dim=0)
        distance = distance + torch.linalg.vector_norm(difference) / bound**k
    return distance


def maximum_mean_discrepancy(
    x: Tensor, y: Tensor, *, scales: Sequence[float] = (1.0, 0.1, 0.001)
) -> Tensor:
    """Compare two sets by how alike their rows are, within each set and between the two.

    The squared MMD of Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, equation 5: the biased
    estimate, in which a row is compared with itself as well, so that it is never negative::

        mean k(X, X) - 2 mean k(X, Y) + mean k(Y, Y),    k(u, v) = sum of exp(-scale |u - v|^2)

    Parameters
    ----------
    x, y
        One row per sample; (n, d) and (m, d).
    scales
        Of the Gaussian kernels, each above 0; the default is CDMPP's.

    Returns
    -------
    distance
        At least 0, up to rounding; a scalar.

    Raises
    ------
    ConfigError
        The sets are empty or of different widths, or a scale is not above 0.
    """
    _check(x, y)
    if not scales or not min(scales) > 0:
        raise ConfigError(f"scales must be numbers above 0, at least one; got {tuple(scales)}.")

    def likeness(u: Tensor, v: Tensor) -> Tensor:
        # The way over a matrix product is faster but leaves equal rows at a distance.
        mode = "donot_use_mm_for_euclid_dist"
        squared = torch.cdist(u, v, compute_mode=mode).square()
        return torch.stack([torch.exp(-scale * squared).mean() for scale in scales]).sum()

    return likeness(x, x) - 2 * likeness(x, y) + likeness(y, y)


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ConfigError(
            "The sets must have shapes (n, d) and (m, d), with n and m at least 1; got "
            f"{tuple(x.shape)} and {tuple(y.shape)}."
        )
