"""The programs of one task: described and checked without TVM, made into states by TVM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from tvm_cdmpp.ast import COUNTED, CompactASTBatch
from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.devices import Hardware
from tvm_cdmpp.extract import LayoutRewrite, StepExtractor, analyse, dump_records
from tvm_cdmpp.models import Content
from tvm_cdmpp.search.evolve.mutation import MAX_INNERMOST
from tvm_cdmpp.search.evolve.programs import Programs, Skeletons, Step
from tvm_cdmpp.search.evolve.structure import neighbours

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler

_MOST_SKELETONS = 4096
"""No more are looked for around those known."""
_LANES, _BYTES = COUNTED.index("vector_extent"), COUNTED.index("write_element_bytes")


class ProgramSpace:
    """What evolution knows of a task.

    Parameters
    ----------
    task
        The `SearchTask`.

    Attributes
    ----------
    kind
        "cpu" or "gpu".
    skeletons
        All that were seen so far.
    """

    def __init__(self, task: Any) -> None:
        self.kind = "cpu" if task.target.kind.name in ("llvm", "c") else "gpu"
        self.skeletons = Skeletons()
        self._task = task
        self._extractor = StepExtractor(
            analyse(task.compute_dag),
            Hardware.of(task.hardware_params),
            LayoutRewrite(int(task.layout_rewrite_option)),
        )
        self._neighbours: dict[int, list[int]] = {}
        self._line: Any = None

    def read(self, records: bytes) -> Programs:
        """Return the programs of the lines of a log, in order.

        Lines of programs that the extractor cannot take apart are programs all the same; `describe`
        finds them.
        """
        added = [self.add(orjson.loads(line)["i"][1][1]) for line in records.splitlines()]
        return self.programs([s for s, _ in added], [numbers for _, numbers in added])

    def read_states(self, states: Sequence[Any]) -> Programs:
        """Return the programs of TVM's states, in order."""
        return self.read(dump_records(self._task, states))

    def add(self, steps: Sequence[Step]) -> tuple[int, list[int]]:
        """Return the skeleton and the numbers of a program."""
        before = len(self.skeletons)
        skeleton, numbers = self.skeletons.add(steps)
        if len(self.skeletons) > before:
            assert self._extractor.add_skeleton(orjson.dumps(list(steps))) == skeleton
        return skeleton, numbers

    def programs(self, skeletons: Sequence[int], numbers: Sequence[Sequence[int]]) -> Programs:
        """Return programs, given by their skeletons and numbers."""
        width = max(map(len, numbers), default=0)
        table = np.zeros((len(skeletons), width), np.int64)
        for row, of_program in zip(table, numbers, strict=True):
            row[: len(of_program)] = of_program
        return Programs(np.array(skeletons, np.int64), table)

    def describe(self, programs: Programs) -> tuple[CompactASTBatch, npt.NDArray[np.bool_]]:
        """Describe programs, and tell which of them can run.

        Those cannot that do not fit the task or are beyond a limit of its GPU. Vectors may not be
        longer than the innermost loops that TVM makes, and on a GPU not wider than it allows even
        where guards would take them apart again.

        Returns
        -------
        batch
            The compact ASTs of those that can.
        usable
            Which these are; (n,).
        """
        every, _, _ = self._extractor.extract_numbers(programs.skeletons, programs.numbers)
        usable = every.leaf_counts > 0
        batch = every.without_empty()
        counts = batch.unscaled_fields()
        too_wide = counts[:, _LANES] > MAX_INNERMOST
        if self.kind == "gpu":
            widest = int(self._task.hardware_params.vector_unit_bytes)
            too_wide |= counts[:, _LANES] * counts[:, _BYTES] > widest
        if too_wide.any():
            fits = ~np.logical_or.reduceat(too_wide, batch.offsets[:-1])
            batch = batch.take(np.flatnonzero(fits))
            usable[usable] = fits
        return batch, usable

    def neighbours(self, skeleton: int, *, look: bool = True) -> list[int]:
        """Return the skeletons that differ in one place, mark or vector; none on a GPU.

        With `look` false only if they are known, as looking for them takes as long as scoring some
        dozens of programs.
        """
        if self.kind == "gpu" or (not look and skeleton not in self._neighbours):
            return []
        if skeleton not in self._neighbours:
            found: list[list[Step]] = []
            if len(self.skeletons) < _MOST_SKELETONS:
                found = neighbours(self.skeletons.steps[skeleton], self._extractor)
            self._neighbours[skeleton] = [self.add(steps)[0] for steps in found]
        return self._neighbours[skeleton]

    def content(self) -> Content:
        """Return what a checkpoint holds: all skeletons, in order, and neighbours of some."""
        neighbours_of = [[skeleton, *found] for skeleton, found in self._neighbours.items()]
        return Content({"skeletons": self.skeletons.steps, "neighbours": neighbours_of}, {})

    def restore(self, content: Content) -> None:
        """Take in the skeletons of a checkpoint, before any other."""
        for steps in content.settings["skeletons"]:
            self.add(steps)
        neighbours_of = content.settings["neighbours"]
        self._neighbours = {int(skeleton): found for skeleton, *found in neighbours_of}

    def steps(self, programs: Programs) -> list[list[Step]]:
        """Return the transform steps of programs."""
        return [
            self.skeletons.steps_of(skeleton, numbers)
            for skeleton, numbers in zip(
                programs.skeletons.tolist(), programs.numbers.tolist(), strict=True
            )
        ]

    def states(self, programs: Programs) -> list[Any | None]:
        """Let TVM apply the steps of programs and infer their bounds; None where it refuses."""
        return [self._state(steps) for steps in self.steps(programs)]

    def _state(self, steps: Sequence[Step]) -> Any | None:
        if self._line is None:
            initial = self._task.compute_dag.get_init_state()
            self._line = orjson.loads(dump_records(self._task, [initial]))
        self._line["i"][1][1] = list(steps)
        try:
            text = orjson.dumps(self._line).decode()
            measured, _ = auto_scheduler.measure_record.load_record_from_string(text)
            return self._task.compute_dag.infer_bound_from_state(measured.state).state_object
        except tvm.TVMError:
            return None


def fingerprints(batch: CompactASTBatch) -> npt.NDArray[np.uint64]:
    """Return a hash of each program's description; (programs,). Each has at least one leaf.

    Different steps often make the same program, as when a stage is computed in a loop that runs
    once.
    """
    if not len(batch):
        return np.zeros(0, np.uint64)
    factors = np.random.default_rng(0).integers(1, 2**63, batch.vectors.shape[1], np.uint64)
    values = batch.vectors.view(np.uint32)
    hashes = np.einsum("ij,j->i", values, factors | np.uint64(1), dtype=np.uint64, casting="unsafe")
    hashes ^= hashes >> np.uint64(29)
    place = np.arange(len(hashes)) - np.repeat(batch.offsets[:-1], batch.leaf_counts)
    hashes *= 2 * place.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    return np.add.reduceat(hashes, batch.offsets[:-1])
