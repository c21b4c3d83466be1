"""Scoring in chunks of programs with as many leaves, so that nothing is padded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

_CHUNK_LEAVES = 2048
"""Leaves to score at once: enough to forget what a call costs, few enough for a core's cache."""


def chunks(leaf_counts: npt.NDArray[np.int64], times: int = 1) -> Iterator[npt.NDArray[np.int64]]:
    """Divide programs into parts of `times` chunks of one leaf count, so that nothing is padded."""
    for count in np.unique(leaf_counts):
        programs = np.flatnonzero(leaf_counts == count)
        size = times * per_chunk(int(count))
        for first in range(0, len(programs), size):
            yield programs[first : first + size]


def per_chunk(leaf_count: int) -> int:
    """Return how many programs of so many leaves make a chunk."""
    return max(1, _CHUNK_LEAVES // max(1, leaf_count))


def on_threads(
    num_threads: int,
    score: Callable[[npt.NDArray[np.int64]], None],
    parts: Iterator[npt.NDArray[np.int64]],
) -> None:
    """Score parts that have nothing to do with each other, on one thread each.

    PyTorch's own threads wait for each other in every operation of a network that is this small.
    """
    every = list(parts)
    num_threads = min(num_threads, len(every))
    if num_threads <= 1:
        for part in every:
            score(part)
        return
    with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(score, every))  # errors come out here
