"""Takes measured batches: first to the disk, then into the counts of their tasks."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tvm_cdmpp.bridge import failed_to_run, load_tvm
from tvm_cdmpp.errors import CDMPPError, MeasureError
from tvm_cdmpp.measure import Failures, RemoteDevices, check_disk, record_batch
from tvm_cdmpp.models import Content

_PythonBasedMeasureCallback: Any = load_tvm().auto_scheduler.measure.PythonBasedMeasureCallback


@dataclass(kw_only=True, slots=True)
class Progress:
    """What is known of a task so far."""

    trials: int = 0
    latency_s: float | None = None

    def add(self, result: Any) -> None:
        """Take the `MeasureResult` of a trial in."""
        self.trials += 1
        self.see(result)

    def see(self, result: Any) -> None:
        """Take the latency of a program in."""
        if int(result.error_no) == 0:
            latency_s = float(np.mean([cost.value for cost in result.costs]))
            self.latency_s = min(latency_s, self.latency_s or latency_s)


class Recorder(_PythonBasedMeasureCallback):
    """Takes each measured batch: first to the disk, then into the count.

    Parameters
    ----------
    log
        Where batches go.
    progress
        The counts, by workload key.
    remote
        Where programs run, if not here. When these devices are lost, what did not run does not get
        into the log, as it says nothing about the programs.
    """

    def __init__(
        self, log: Path, progress: dict[str, Progress], remote: RemoteDevices | None = None
    ) -> None:
        super().__init__()
        self.error: CDMPPError | None = None
        self.all_failures = Failures()
        self.measured = 0
        self.on_batch: Callable[[], None] = lambda: None
        self._before: Counter[str] = Counter()
        self._log = log
        self._progress = progress
        self._remote = remote

    def callback(self, policy: Any, inputs: Any, results: Any) -> None:
        """Take a measured batch, from TVM."""
        try:
            lost = self._why_lost(results)
            pairs = [
                pair
                for pair in zip(inputs, results, strict=True)
                if lost is None or not failed_to_run(pair[1])
            ]
            recorded = record_batch(self._log, *zip(*pairs, strict=True)) if pairs else []
            for measured, result in recorded:
                self.count(measured, result)
            check_disk(self._log, len(recorded), len(pairs))
            self.on_batch()
            if lost is not None:
                raise lost
        except CDMPPError as error:
            # Kept, because older TVMs turn what passes through their C++ part into a TVMError.
            self.error = error
            raise

    def again(self, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        """Take programs that were measured again: they are no trials.

        Raises
        ------
        RecordError
            The log could not be written.
        """
        for measured, result in record_batch(self._log, inputs, results):
            self._progress[str(measured.task.workload_key)].see(result)

    def _why_lost(self, results: Any) -> CDMPPError | None:
        """Ask, when programs of a batch did not run, whether the devices are still there."""
        if self._remote is None or not any(map(failed_to_run, results)):
            return None
        try:
            self._remote.count()
        except MeasureError as error:
            missing = sum(map(failed_to_run, results))
            return MeasureError(
                f"the devices were lost: {missing} of the last {len(results)} programs did not "
                f"run, and {error} All that was measured before is in the log {self._log}; run "
                "the same command again to go on."
            )
        return None

    def count(self, measured: Any, result: Any) -> None:
        """Take one record into the count."""
        self._progress[str(measured.task.workload_key)].add(result)
        self.measured += 1
        self.all_failures.count(result)

    def start_round(self) -> None:
        """Count from zero, except for the sum of all failures."""
        self.measured, self._before = 0, self.all_failures.counts.copy()

    def content(self) -> Content:
        """Return what a checkpoint holds of the counts."""
        progress = {key: asdict(found) for key, found in self._progress.items() if found.trials}
        failures = {"counts": self.all_failures.counts, "example": self.all_failures.example}
        return Content({"progress": progress, "failures": failures}, {})

    def restore(self, content: Content) -> None:
        """Take the counts of a checkpoint; tasks that are not tuned now are left out."""
        for key, found in content.settings["progress"].items():
            if key in self._progress:
                self._progress[key].trials = int(found["trials"])
                self._progress[key].latency_s = found["latency_s"]
        self.all_failures.counts = Counter(content.settings["failures"]["counts"])
        self.all_failures.example = str(content.settings["failures"]["example"])

    @property
    def failures(self) -> Counter[str]:
        """The failures of this round, by kind."""
        return self.all_failures.counts - self._before
