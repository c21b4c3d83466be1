"""Sizes of the networks: which there can be, and whether weights are of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tvm_cdmpp.errors import ConfigError

_LAYER = re.compile(r"layers\.\d+\.norm1\.weight")
_MOST_DROPPED = 0.99
"""Share; with all dropped nothing would be learned."""


def check_sizes(sizes: Mapping[str, Any]) -> None:
    """Reject what no network can have; users' files and saved ones may say anything.

    Parameters
    ----------
    sizes
        `width`, `heads`, `layers`, `hidden` and `dropout`.

    Raises
    ------
    ConfigError
        A size is no integer or too small, the heads do not divide the width, or the dropout
        is no share below 1.
    """
    for name, least in (("width", 1), ("heads", 1), ("layers", 0), ("hidden", 1)):
        size = sizes[name]
        if isinstance(size, bool) or not isinstance(size, int) or size < least:
            raise ConfigError(f"{name} must be an integer of at least {least}; got {size!r}.")
    width, heads = sizes["width"], sizes["heads"]
    if width % (2 * heads) != 0:
        raise ConfigError(
            f"width must be a multiple of 2 * heads; got width={width}, heads={heads}."
        )
    check_numbers({"dropout": sizes["dropout"]}, 0.0, _MOST_DROPPED)


def check_numbers(values: Mapping[str, Any], least: float, most: float) -> None:
    """Reject what is no number, or out of a range.

    Parameters
    ----------
    values
        By what a message calls them.
    least, most
        The range, both included.

    Raises
    ------
    ConfigError
        There is such a value; NaN is one.
    """
    for name, value in values.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (is_number and least <= value <= most):
            shown = repr(value)
            shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
            raise ConfigError(f"{name} must be a number of {least:g} to {most:g}; got {shown}.")


def check_weights(
    sizes: Mapping[str, Any], shapes: Mapping[str, Iterable[int]], hidden: str
) -> None:
    """Reject weights of another size before a network of the size is made.

    Parameters
    ----------
    sizes
        What the settings say.
    shapes
        Of the weights, by name.
    hidden
        Name of the weight whose first size is that of `hidden`.

    Raises
    ------
    ValueError
        A size is another one by the weights.
    KeyError
        A weight is missing.
    """
    found = {
        "width": next(iter(shapes["embed.weight"]), 0),
        "hidden": next(iter(shapes[hidden]), 0),
        "layers": sum(1 for name in shapes if _LAYER.fullmatch(name)),
    }
    for name, size in found.items():
        if sizes[name] != size:
            raise ValueError(f"{name} is {sizes[name]} by its settings and {size} by its weights")
