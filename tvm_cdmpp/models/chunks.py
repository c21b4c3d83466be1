"""Scoring in chunks, on one thread or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

T = TypeVar("T")

_CHUNK_LEAVES = 2048
"""Leaves to score at once: enough to forget what a call costs, few enough for a core's cache."""


def chunks(leaf_counts: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Divide programs into chunks of one leaf count each, so that nothing is padded."""
    for count in np.unique(leaf_counts):
        programs = np.flatnonzero(leaf_counts == count)
        size = max(1, _CHUNK_LEAVES // max(1, int(count)))
        for first in range(0, len(programs), size):
            yield programs[first : first + size]


def mixed_chunks(leaf_counts: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Divide programs into chunks of about as many leaves each, those with few leaves first."""
    programs = np.argsort(leaf_counts, kind="stable")
    before = np.cumsum(leaf_counts[programs]) - leaf_counts[programs]
    firsts = np.flatnonzero(np.diff(before // _CHUNK_LEAVES)) + 1
    return np.split(programs, firsts)


def on_threads(
    num_threads: int,
    score: Callable[[T], None],
    parts: Sequence[T],
) -> None:
    """Score parts that have nothing to do with each other, on one thread each.

    PyTorch's own threads wait for each other in every operation of a network that is this small.
    """
    num_threads = min(num_threads, len(parts))
    if num_threads <= 1:
        for part in parts:
            score(part)
        return
    with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(score, parts))  # errors come out here
