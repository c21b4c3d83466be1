"""Inputs to try a network with, and how far two of its results are apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.networks.network import Network

tvm = load_tvm()
relay = tvm.relay

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

RELATIVE_TOLERANCE = 1e-3
"""Largest difference between two compilations of a network that float32 rounding explains, as a
part of the output's range. Rounding makes some 1e-6, another input 3e-2 and more."""

_HALF_TOLERANCE = 2e-2
"""The same where outputs have half precision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How far two results are apart."""

    max_absolute_difference: float
    max_relative_difference: float
    """Largest difference over the range of the reference's values; infinite where only one of the
    two is a finite number."""
    agree: bool
    """Whether the relative difference is within the tolerance."""


def compare_outputs(
    reference: Sequence[Array], other: Sequence[Array], *, tolerance: float = RELATIVE_TOLERANCE
) -> Comparison:
    """Compare two results of the same network.

    Differences count relative to the range of the reference's values, not to each value: sums of
    products lose digits to the largest term. And not to the largest value: class probabilities of
    a random network are all alike, and only their range tells them apart.

    Parameters
    ----------
    reference, other
        The outputs, in the same order.
    tolerance
        Largest relative difference at which the two agree.

    Raises
    ------
    ConfigError
        Number or shapes of the outputs differ.
    """
    if [a.shape for a in reference] != [b.shape for b in other]:
        raise ConfigError(
            f"Outputs to compare must have the same shapes; got {[a.shape for a in reference]} "
            f"and {[b.shape for b in other]}."
        )
    pairs = [_difference(a, b) for a, b in zip(reference, other, strict=True)]
    relative = max((pair[1] for pair in pairs), default=0.0)
    return Comparison(
        max_absolute_difference=max((pair[0] for pair in pairs), default=0.0),
        max_relative_difference=relative,
        agree=relative <= tolerance,
    )


def check_outputs(
    network: Network, inputs: Mapping[str, Array], untuned: Sequence[Array], tuned: Sequence[Array]
) -> tuple[Comparison, str]:
    """Compare the tuned network's outputs with what is most to be trusted.

    Parameters
    ----------
    network, inputs
        What was run.
    untuned, tuned
        Its outputs.

    Returns
    -------
    comparison, reference
        With the outputs of the framework that the network comes from, and that framework's name;
        where it is not installed, or cannot run the network, with those of the untuned network,
        and why.
    """
    halves = any(output.dtype == np.float16 for output in tuned)
    tolerance = _HALF_TOLERANCE if halves else RELATIVE_TOLERANCE
    reason = ""
    if network.reference is not None:
        try:
            # TVM may drop or add an axis of size 1.
            found = [
                array.reshape(output.shape)
                for array, output in zip(network.reference.run(inputs), tuned, strict=True)
            ]
            return compare_outputs(found, tuned, tolerance=tolerance), network.reference.name
        except (RuntimeError, TypeError, ValueError) as error:
            reason = f" (not with {network.reference.name}: {error})"
    return compare_outputs(untuned, tuned, tolerance=tolerance), f"the untuned network{reason}"


def random_inputs(network: Network, *, seed: int) -> dict[str, Array]:
    """Draw an input for a network: normal floats, and integers that are valid as indices.

    Parameters
    ----------
    network
        Its `inputs` say what to draw; integers stay below the size of the table they look up, or
        are 0 and 1 if they look up none.
    seed
        Same seed, same inputs.
    """
    rng = np.random.default_rng(seed)
    sizes = _table_sizes(network)
    drawn: dict[str, Array] = {}
    for name, (shape, dtype) in network.inputs.items():
        if np.issubdtype(np.dtype(dtype), np.floating):
            drawn[name] = rng.standard_normal(shape).astype(dtype)
        else:
            drawn[name] = rng.integers(0, sizes.get(name, 2), size=shape).astype(dtype)
    return drawn


def _difference(reference: Array, other: Array) -> tuple[float, float]:
    """Largest absolute difference, and largest relative to the reference's range."""
    a, b = reference.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(a)
    if (
        not np.array_equal(a[~finite], b[~finite], equal_nan=True)
        or not np.isfinite(b[finite]).all()
    ):
        return float("inf"), float("inf")
    if not finite.any():
        return 0.0, 0.0
    absolute = float(np.abs(a[finite] - b[finite]).max())
    # A constant output has no range; then its size is what counts.
    scale = float(np.ptp(a[finite])) or float(np.abs(a[finite]).max()) or 1.0
    return absolute, absolute / scale


def _table_sizes(network: Network) -> dict[str, int]:
    """Find the rows of the tables that integer inputs look up."""
    sizes: dict[str, int] = {}

    def visit(node: Any) -> None:
        if not isinstance(node, relay.Call) or not isinstance(node.op, tvm.ir.Op):
            return
        if node.op.name not in ("take", "embedding"):
            return
        indices = node.args[1]
        while isinstance(indices, relay.Call) and len(indices.args) == 1:  # casts and reshapes
            indices = indices.args[0]
        if isinstance(indices, relay.Var) and indices.name_hint in network.inputs:
            rows = int(node.args[0].checked_type.shape[0])
            sizes[str(indices.name_hint)] = min(rows, sizes.get(str(indices.name_hint), rows))

    relay.analysis.post_order_visit(network.mod["main"], visit)
    return sizes
