"""The fast path: transform steps of one task in, compact ASTs out, without lowering.

Structures are replayed once and kept in a bounded cache, least recently used first out; so are
finished programs, because a genetic search asks for the same ones again and again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.ast.schema import NUM_FIELDS
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract.bounds import evaluate
from tvm_cdmpp.extract.features import LeafTable
from tvm_cdmpp.extract.stage import TaskGraph
from tvm_cdmpp.extract.steps import StructureKey, split_record_steps
from tvm_cdmpp.extract.structure import Structure, build_structure

_Program: TypeAlias = tuple[StructureKey, tuple[int, ...]]
_Leaves: TypeAlias = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]
_NO_LEAVES: _Leaves = (np.zeros((0, NUM_FIELDS), np.float32), np.zeros(0, np.int32))


class StepReplayer:
    """Compact ASTs of the candidates of one task.

    Parameters
    ----------
    graph
        The analysed DAG of the task.
    rewrites_layout
        Whether programs are measured with layout-free constants rewritten, as `task.tune` does
        for tasks extracted from a network.
    cache_size
        Structures, and programs, to keep.
    """

    def __init__(
        self, graph: TaskGraph, *, rewrites_layout: bool = False, cache_size: int = 8192
    ) -> None:
        self.graph = graph
        self._rewrites_layout = rewrites_layout
        self._cache_size = cache_size
        self._structures: OrderedDict[StructureKey, Structure | RecordError] = OrderedDict()
        self._programs: OrderedDict[_Program, _Leaves] = OrderedDict()

    def structure(self, key: StructureKey) -> Structure:
        """Return the structure of a key, replayed at most once while it stays in the cache.

        Raises
        ------
        RecordError
            If the steps do not fit the task.
        """
        found = self._structures.get(key)
        if found is None:
            try:
                found = build_structure(self.graph, key)
            except RecordError as error:
                found = error
            self._structures[key] = found
            if len(self._structures) > self._cache_size:
                self._structures.popitem(last=False)
        else:
            self._structures.move_to_end(key)
        if isinstance(found, RecordError):
            # Without the frames of earlier calls, which it would keep alive.
            raise found.with_traceback(None)
        return found

    def extract(
        self, programs: Sequence[Sequence[Any]]
    ) -> tuple[CompactASTBatch, dict[int, RecordError]]:
        """Return the compact ASTs of programs given by their transform steps.

        Parameters
        ----------
        programs
            The decoded transform steps of each program.

        Returns
        -------
        batch
            The compact ASTs, in order; a program that failed has no leaves.
        errors
            What went wrong, by program number.
        """
        errors: dict[int, RecordError] = {}
        found: list[_Leaves] = [_NO_LEAVES] * len(programs)
        missing: dict[_Program, list[int]] = {}
        for number, steps in enumerate(programs):
            try:
                key, parameters = split_record_steps(steps)
                self.structure(key)
            except RecordError as error:
                errors[number] = error
                continue
            program = (key, tuple(parameters))
            known = self._programs.get(program)
            if known is None:
                missing.setdefault(program, []).append(number)
            else:
                self._programs.move_to_end(program)
                found[number] = known
        for (program, numbers), leaves in zip(
            missing.items(), self._compute(list(missing)), strict=True
        ):
            for number in numbers:
                found[number] = leaves
            self._programs[program] = leaves
        while len(self._programs) > self._cache_size:
            self._programs.popitem(last=False)
        counts = [len(positions) for _, positions in found]
        batch = CompactASTBatch(
            np.concatenate([_NO_LEAVES[0], *(vectors for vectors, _ in found)]),
            np.concatenate([_NO_LEAVES[1], *(positions for _, positions in found)]),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )
        return batch, errors

    def _compute(self, programs: Sequence[_Program]) -> list[_Leaves]:
        """Compute the leaves of distinct programs, all candidates of a structure at a time."""
        groups: dict[StructureKey, list[int]] = {}
        for number, (key, _) in enumerate(programs):
            groups.setdefault(key, []).append(number)
        structures = {key: self.structure(key) for key in groups}
        leaf_counts = np.zeros(len(programs), dtype=np.int64)
        depth = 1
        for key, members in groups.items():
            leaf_counts[members] = len(structures[key].leaves)
            depth = max(depth, *(len(stage.path) for stage in structures[key].stages.values()))
        first_rows = np.cumsum(leaf_counts) - leaf_counts
        table = LeafTable(int(leaf_counts.sum()), depth)
        for key, members in groups.items():
            rows = [programs[number][1] for number in members]
            values = np.asarray(rows, dtype=np.int64).reshape(len(rows), -1)
            bounds = evaluate(structures[key], values)
            table.fill(structures[key], bounds, values, first_rows[members], self._rewrites_layout)
        vectors = table.computation_vectors()
        # Copies, so that keeping one program does not keep the whole table.
        return [
            (vectors[first : first + n].copy(), table.positions[first : first + n].copy())
            for first, n in zip(first_rows, leaf_counts, strict=True)
        ]
