"""What a collection of measurements tells its caller after each batch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchReport:
    """What one batch did and where the collection stands after it."""

    task: int
    name: str
    kinds: dict[str, int]
    """Programs of the batch by the kind of `SampleMix`."""
    failures: dict[str, int]
    """Those of them that failed, by kind of failure."""
    attempts: int
    """How often the batch was measured."""
    noisy: bool
    """Whether it was noisy to the last, and is marked."""
    calibration_s: float
    """Latency of the calibration program after the batch."""
    excess: float
    """By how much it is above the lowest one of the run, as a share of that."""
    done: int
    """Records of all tasks so far, those found in the log included."""
    wanted: int
    """Records to have in the end; less when a task has no more programs."""
    elapsed_s: float
    eta_s: float

    @property
    def measured(self) -> int:
        """Programs recorded by this batch."""
        return sum(self.kinds.values())
