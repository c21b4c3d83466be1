"""NumPy's global generator, lent to one of several searches at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


class NumpyStream:
    """What a search draws from NumPy's global generator, as TVM's random models do.

    Parameters
    ----------
    seed
        One seed, one stream.
    """

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed).get_state()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let the global generator be this stream; afterwards it is as it was outside."""
        outside = np.random.get_state()  # noqa: NPY002
        np.random.set_state(self._state)  # noqa: NPY002
        try:
            yield
        finally:
            self._state = np.random.get_state()  # noqa: NPY002
            np.random.set_state(outside)  # noqa: NPY002
