"""Measuring in a record store: a program "takes" what it took when it was measured.

So that onboarding a device can be tried on what is known of it, without the device.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.data import RecordStore, add_workloads
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.files import write_atomically
from tvm_cdmpp.models import Ints, TrainingRows


class RecordedBench:
    """A `Bench` whose measurements come from a record store.

    Parameters
    ----------
    store
        The records.
    candidates, rows
        Programs of one device, and their rows in the store; see `read_candidates`.
    log
        Ansor log that "measured" records are written to, with `workloads.jsonl` next to it; one
        that is there is continued. None to write nothing.

    Raises
    ------
    RecordError
        The log has a record that is not one of the candidates.
    """

    def __init__(
        self, store: RecordStore, candidates: TrainingRows, rows: Ints, log: Path | None = None
    ) -> None:
        self._store, self._rows, self._log = store, rows, log
        self._candidates = candidates
        self._order = np.zeros(0, np.int64)
        if log is not None and log.exists():
            self._order = self._places_of(log)

    @property
    def candidates(self) -> TrainingRows:
        """See `Bench`."""
        return self._candidates

    @property
    def open(self) -> npt.NDArray[np.bool_]:
        """See `Bench`."""
        return ~np.isin(np.arange(len(self._rows)), self._order)

    @property
    def own(self) -> npt.NDArray[np.bool_]:
        """See `Bench`; a record store has none."""
        return np.zeros(len(self._rows), bool)

    @property
    def measured(self) -> TrainingRows:
        """See `Bench`."""
        return self._candidates.take(self._order)

    @property
    def calls(self) -> None:
        """See `Bench`; a record store does not tell."""
        return None

    @property
    def wake_s(self) -> None:
        """See `Bench`; nothing is measured."""
        return None

    def measure(self, programs: Ints) -> None:
        """See `Bench`; the log is replaced as a whole.

        Raises
        ------
        OSError
            The log cannot be written.
        """
        self._order = np.concatenate([self._order, programs])
        if self._log is None:
            return
        workloads = np.unique(self._store.tasks["workload"].to_numpy()[self.measured.tasks])
        of_log = self._store.workloads.select(["workload_key", "dag"]).take(workloads).to_pylist()
        add_workloads(self._log, ((w["workload_key"], w["dag"]) for w in of_log))
        write_atomically(self._log, self._store.records(self._rows[self._order]))

    def stop(self) -> None:
        """See `Bench`; nothing is waited for."""

    def _places_of(self, log: Path) -> Ints:
        """Find the candidates that the lines of a log are of."""
        known = self._store.records(self._rows).splitlines()
        places = {line: place for place, line in enumerate(known)}
        found = []
        for number, line in enumerate(log.read_bytes().splitlines(), start=1):
            if line not in places:
                raise RecordError(
                    f"line {number} of {log} is no record of this device in {self._store.path}; "
                    "choose another log, or remove it"
                )
            found.append(places[line])
        return np.array(found, np.int64)
