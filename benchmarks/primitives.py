"""Schedule primitives as TLP reads them (Zhai et al., ASPLOS 2023): a row of numbers per step.

A step is the one-hot kind of its primitive and the integers among its arguments, in order, lists
spread out; words have numbers of their own. TLP's dictionary has the 11 kinds that occurred in its
data set; here are all that TVM has, so rows are wider by the other three. TLP takes numbers as they
come; here they are cut at 4096, since loops of hundreds of millions of iterations would drown all
else.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from tvm_cdmpp.data import RecordStore
from tvm_cdmpp.models import Ints

KINDS = (
    "AN", "FU", "PR", "RE", "SP", "FSP", "FFSP", "SA", "CA", "CI", "CR", "CHR", "CHW", "RF",
)  # fmt: skip
NUM_NUMBERS = 11
"""Arguments that are kept of a step: TLP crops rows of CPU programs to 22 columns, 11 of them
arguments."""
_UNROLL = "auto_unroll_max_step$"
_WORDS = {"local": 1, "shared": 2, "global": 3}
_LARGEST = 4096
_CHUNK = 1 << 14


@dataclass(frozen=True)
class Primitives:
    """Steps of B programs, one program after the other."""

    kinds: npt.NDArray[np.uint8]
    """Place in `KINDS` of each step; (S,)."""
    numbers: npt.NDArray[np.int32]
    """Arguments, 0 where there are no more; (S, NUM_NUMBERS)."""
    offsets: Ints
    """Program p owns the steps offsets[p] to offsets[p + 1]; (B + 1,)."""

    def __len__(self) -> int:
        """Return the number of programs."""
        return len(self.offsets) - 1

    def take(self, programs: Ints) -> "Primitives":
        """Return the given programs, in the given order."""
        counts = np.diff(self.offsets)[programs]
        steps = np.repeat(self.offsets[programs], counts) + _places(counts)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return Primitives(self.kinds[steps], self.numbers[steps], offsets)

    def padded(self, programs: Ints, num_steps: int, num_numbers: int) -> npt.NDArray[np.float32]:
        """Return the first steps of programs with the first of their arguments, padded with 0.

        Returns
        -------
        steps
            Of shape (len(programs), num_steps, len(KINDS) + num_numbers).
        """
        counts = np.minimum(np.diff(self.offsets)[programs], num_steps)
        program, place = np.repeat(np.arange(len(programs)), counts), _places(counts)
        step = self.offsets[programs][program] + place
        steps = np.zeros((len(programs), num_steps, len(KINDS) + num_numbers), np.float32)
        steps[program, place, self.kinds[step]] = 1.0
        steps[program, place, len(KINDS) :] = self.numbers[step, :num_numbers]
        return steps


def read_primitives(store: RecordStore, rows: Ints) -> Primitives:
    """Read the steps of programs of a store."""
    place_of = {kind: place for place, kind in enumerate(KINDS)}
    kinds: list[int] = []
    counts: list[int] = []
    numbers: list[npt.NDArray[np.int32]] = [np.zeros((0, NUM_NUMBERS), np.int32)]
    for first in range(0, len(rows), _CHUNK):
        arguments: list[list[int]] = []
        for line in store.records(rows[first : first + _CHUNK]).splitlines():
            steps = orjson.loads(line)["i"][1][1]
            counts.append(len(steps))
            kinds += [place_of[step[0]] for step in steps]
            arguments += [numbers_of(step) for step in steps]
        numbers.append(np.array(arguments, np.int32).reshape(-1, NUM_NUMBERS))
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return Primitives(np.array(kinds, np.uint8), np.concatenate(numbers), offsets)


def numbers_of(step: list[Any]) -> list[int]:
    """Return the arguments of a step as numbers, `NUM_NUMBERS` of them."""
    found: list[int] = []
    for argument in step[1:]:
        if isinstance(argument, list):
            found += argument
        elif isinstance(argument, str):
            found.append(_number_of_word(argument))
        else:
            found.append(argument)
    kept = (found + [0] * NUM_NUMBERS)[:NUM_NUMBERS]
    return [min(number, _LARGEST) for number in kept]


def _places(counts: Ints) -> Ints:
    """Return the place of each step in its program."""
    places: Ints = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return places


def _number_of_word(word: str) -> int:
    """Return a number for a memory scope or an unrolling limit: of the latter, one per doubling."""
    if word.startswith(_UNROLL):
        return int(word.removeprefix(_UNROLL)).bit_length() + 1
    return _WORDS[word]
