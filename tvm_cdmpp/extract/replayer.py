"""The fast path: transform steps of one task in, compact ASTs out, without lowering.

Structures are replayed once and kept in a bounded cache, least recently used first out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract.bounds import evaluate
from tvm_cdmpp.extract.features import LeafTable, to_batch
from tvm_cdmpp.extract.stage import TaskGraph
from tvm_cdmpp.extract.steps import StructureKey, split_record_steps
from tvm_cdmpp.extract.structure import Structure, build_structure


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
        Structures to keep.
    """

    def __init__(
        self, graph: TaskGraph, *, rewrites_layout: bool = False, cache_size: int = 4096
    ) -> None:
        self.graph = graph
        self._rewrites_layout = rewrites_layout
        self._cache_size = cache_size
        self._structures: OrderedDict[StructureKey, Structure | RecordError] = OrderedDict()

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
        groups: dict[StructureKey, tuple[list[int], list[list[int]]]] = {}
        errors: dict[int, RecordError] = {}
        for number, steps in enumerate(programs):
            try:
                key, parameters = split_record_steps(steps)
                self.structure(key)
            except RecordError as error:
                errors[number] = error
                continue
            members, rows = groups.setdefault(key, ([], []))
            members.append(number)
            rows.append(parameters)
        structures = {key: self.structure(key) for key in groups}
        leaf_counts = np.zeros(len(programs), dtype=np.int64)
        depth = 1
        for key, (members, _) in groups.items():
            leaf_counts[members] = len(structures[key].leaves)
            depth = max(depth, *(len(stage.path) for stage in structures[key].stages.values()))
        first_rows = np.cumsum(leaf_counts) - leaf_counts
        table = LeafTable(int(leaf_counts.sum()), depth)
        for key, (members, rows) in groups.items():
            values = np.asarray(rows, dtype=np.int64).reshape(len(rows), -1)
            bounds = evaluate(structures[key], values)
            table.fill(structures[key], bounds, values, first_rows[members], self._rewrites_layout)
        return to_batch(table, leaf_counts), errors
