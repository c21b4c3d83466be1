"""The fast path: records of one task in, compact ASTs out, without lowering.

A candidate is fully described by its task, which is analysed once, and its transform steps. The
compiled code in `native` applies the steps as numbers and computes the leaves from them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import CompactASTBatch, Leaf
from tvm_cdmpp.devices import Hardware
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract.limits import ExceededLimit
from tvm_cdmpp.extract.native import NativeExtractor, NativeResult, StageLoops
from tvm_cdmpp.extract.stage import LayoutRewrite, TaskGraph

# Of a line, nothing but the steps matters here.
_BEFORE_STEPS, _AFTER_STEPS = b'{"i":[["","",[],"",0,[]],[[],', b']],"r":[[0],0,0,0],"v":"v0.6"}\n'


def records_of_steps(programs: Iterable[bytes]) -> bytes:
    """Return a line for `StepExtractor.extract` per program, given by its steps as JSON."""
    return b"".join([_BEFORE_STEPS + steps + _AFTER_STEPS for steps in programs])


class StepExtractor:
    """Compact ASTs of the candidates of one task.

    Not for use by several threads at once.

    Parameters
    ----------
    graph
        The analysed DAG of the task.
    hardware
        The task's hardware parameters.
    layout
        What the measured programs do with layout-free constants.
    """

    def __init__(
        self,
        graph: TaskGraph,
        hardware: Hardware | None = None,
        layout: LayoutRewrite = LayoutRewrite.AS_GIVEN,
    ) -> None:
        self.graph = graph
        self._native = NativeExtractor(graph, hardware or Hardware(), layout)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent so far on "parse", "apply" and "features"."""
        return self._native.seconds

    def extract(self, records: bytes) -> tuple[CompactASTBatch, dict[int, RecordError]]:
        """Return the compact ASTs of programs given by lines of an Ansor log.

        Parameters
        ----------
        records
            Lines of this task; only their transform steps matter.

        Returns
        -------
        batch
            The compact ASTs, in order; a program that failed has no leaves.
        errors
            What went wrong, by line.
        """
        return self.extract_checked(records)[:2]

    def extract_checked(
        self, records: bytes
    ) -> tuple[CompactASTBatch, dict[int, RecordError], dict[int, ExceededLimit]]:
        """Do what `extract` does, and find the programs that exceed a limit of the GPU.

        Parameters
        ----------
        records
            As for `extract`.

        Returns
        -------
        batch, errors
            As from `extract`.
        exceeded
            By line, the limit in the task's hardware parameters that a program exceeds, where TVM
            would refuse it (`VerifyGPUCode`, for which `XGBModel` scores minus infinity). Such a
            program has its leaves. Always empty where the hardware has no GPU threads.
        """
        return _checked(self._native.extract(records))

    def add_skeleton(self, steps: bytes) -> int:
        """Keep a program, given by its steps as JSON, to extract it with other numbers.

        Its numbers are, step by step: of each split, the extent that is written in it and the
        lengths; of each `auto_unroll_max_step` pragma, its limit.

        Returns
        -------
        number
            For `extract_numbers`; 0 for the first skeleton, and so on.
        """
        return self._native.add_skeleton(records_of_steps([steps]))

    def extract_numbers(
        self, skeletons: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]
    ) -> tuple[CompactASTBatch, dict[int, RecordError], dict[int, ExceededLimit]]:
        """Do what `extract_checked` does for skeletons with other numbers.

        A program that exceeds a limit has no leaves here, as it takes time to find them.

        Parameters
        ----------
        skeletons
            Which skeleton each of n programs has; (n,).
        numbers
            The numbers of each, from the first column on; (n, at least those of the longest).
        """
        return _checked(self._native.extract_numbers(skeletons, numbers))

    def loops(self, steps: bytes) -> list[StageLoops]:
        """Return the loops of every stage after transform steps, given as JSON.

        Raises
        ------
        RecordError
            The steps do not fit the task.
        """
        return self._native.loops(records_of_steps([steps]))

    def leaves(self, records: bytes) -> list[list[Leaf] | RecordError]:
        """Return the leaves of programs before they become vectors, or what went wrong."""
        names = [stage.name for stage in self.graph.stages]
        lines = records.removesuffix(b"\n").split(b"\n") if records else []
        return [self._native.leaves(line, names) for line in lines]


def _checked(
    found: NativeResult,
) -> tuple[CompactASTBatch, dict[int, RecordError], dict[int, ExceededLimit]]:
    batch = CompactASTBatch.of_counts(
        found.vectors, found.positions, found.leaf_counts, found.unscaled
    )
    return batch, found.errors, found.exceeded
