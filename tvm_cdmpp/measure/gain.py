"""What tuning gained: two compilations of a network, timed in turns, and how sure that is.

On a machine that others use, too, a latency is off by what they do at that moment. Hence:

- The two take turns, so that a slow minute meets both, and who comes first alternates.
- The calibration program (see `calibration`) is measured between the rounds. A round next to a
  noisy one is left out.
- A latency is the median over the rounds, with the range that the median is in with 95 %
  confidence. Where the two ranges overlap nothing is claimed.
- They run in a process of their own (see `networks.isolated`).
"""

import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.measure.calibration import CalibrationConfig, matmul_timer
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession
from tvm_cdmpp.networks import Deployed, NetworkProcess, check_outputs, random_inputs

_LEAST_ROUNDS = 3  # with fewer, there is no range
_CONFIDENCE = 0.95
_ROUNDS_TO_TELL = 6  # with fewer, no range holds the median with that confidence


@dataclass(frozen=True, kw_only=True, slots=True)
class GainConfig:
    """How long two compilations are timed."""

    rounds: int = 10
    """Quiet rounds to time."""
    most_rounds: int = 30
    """Rounds in all; on a busy machine many are noisy."""
    budget_s: float = 60.0
    """Time after which three rounds are enough, noisy or not."""

    def __post_init__(self) -> None:
        """Reject what cannot be meant."""
        if not _LEAST_ROUNDS <= self.rounds <= self.most_rounds or self.budget_s < 0:
            raise ConfigError(
                f"expected {_LEAST_ROUNDS} <= rounds <= most_rounds and a budget >= 0; got {self}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """How long a network takes."""

    latency_s: float
    """Median over the rounds."""
    low_s: float
    """Lower end of the range that the median is in with 95 % confidence."""
    high_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """What tuning gained."""

    untuned: Timing
    tuned: Timing
    speedup: float
    """Untuned over tuned latency."""
    verdict: str
    """"faster", "slower", or "no significant difference" where the two ranges overlap, or where
    there are too few quiet rounds to tell."""
    rounds: int
    """Rounds that count; each timed both."""
    noisy_rounds: int
    """Rounds next to a noisy calibration. They are left out, unless too few are quiet."""
    quiet: bool
    """False when too few rounds were quiet, so that the noisy ones had to count, too."""
    max_relative_difference: float
    outputs_agree: bool
    """Whether the tuned network computes what the reference does."""
    reference: str
    """What its outputs were compared with: the framework that the network comes from, where that is
    installed, or the untuned network."""
    num_tasks_without_record: int
    """Tasks that run with a fallback schedule, for want of a record."""


def measure_gain(
    untuned: Deployed,
    tuned: Deployed,
    config: GainConfig | None = None,
    *,
    seed: int = 0,
    measure_calibration: Callable[[], float] | None = None,
) -> Gain:
    """Time two compilations of a network in turns, and compare their outputs.

    Parameters
    ----------
    untuned, tuned
        From `deploy`, for one target.
    config
        How many rounds.
    seed
        Seed of the inputs.
    measure_calibration
        Returns the latency of the calibration program in seconds; TVM's measurement of it by
        default.

    Raises
    ------
    MeasureError
        A network does not run here, or crashed; or the calibration program does not run.
    """
    config, target = config or GainConfig(), tuned.target
    options = MeasureOptions()
    with (
        tempfile.TemporaryDirectory(prefix="tvm-cdmpp-") as folder,
        MeasureSession(),
    ):
        calibrate = measure_calibration or matmul_timer(
            options.builder(),
            options.runner(on_cpu=str(target.kind.name) == "llvm"),
            target,
            num_devices=1,
        )
        libraries = [Path(folder, "untuned.so"), Path(folder, "tuned.so")]
        for deployed, library in zip((untuned, tuned), libraries, strict=True):
            deployed.export(library)
        inputs = random_inputs(tuned.network, seed=seed)
        with NetworkProcess(libraries, str(target.kind.name), inputs) as process:
            comparison, reference = check_outputs(
                tuned.network, inputs, process.run(0), process.run(1)
            )
            rounds, noisy = _time_in_turns(process, calibrate, config)
    quiet = [pair for pair, bad in zip(rounds, noisy, strict=True) if not bad]
    counted = quiet if len(quiet) >= min(_ROUNDS_TO_TELL, len(rounds)) else rounds
    can_tell = len(quiet) >= _ROUNDS_TO_TELL
    before, after = (_timing(column) for column in zip(*counted, strict=True))
    return Gain(
        untuned=before,
        tuned=after,
        speedup=before.latency_s / after.latency_s,
        verdict=_verdict(before, after) if can_tell else "no significant difference",
        rounds=len(counted),
        noisy_rounds=sum(noisy),
        quiet=counted is quiet,
        max_relative_difference=comparison.max_relative_difference,
        outputs_agree=comparison.agree,
        reference=reference,
        num_tasks_without_record=tuned.num_tasks_without_record,
    )


def measure_latency(deployed: Deployed, *, rounds: int = 5, seed: int = 0) -> Timing:
    """Time one compilation of a network, by itself and without a guard.

    Raises
    ------
    MeasureError
        The network does not run here, or crashed.
    """
    with tempfile.TemporaryDirectory(prefix="tvm-cdmpp-") as folder:
        library = Path(folder, "network.so")
        deployed.export(library)
        inputs = random_inputs(deployed.network, seed=seed)
        with NetworkProcess([library], str(deployed.target.kind.name), inputs) as process:
            return _timing([process.time(0) for _ in range(rounds)])


def _time_in_turns(
    process: NetworkProcess, calibrate: Callable[[], float], config: GainConfig
) -> tuple[list[tuple[float, float]], list[bool]]:
    """Return the two latencies of each round, and whether the machine was noisy around it."""
    calibrate()  # the first program of a process is slower
    begin, calibrations_s = time.perf_counter(), [calibrate()]
    rounds: list[tuple[float, float]] = []
    while True:
        if len(rounds) % 2:
            tuned_s, untuned_s = process.time(1), process.time(0)
        else:
            untuned_s, tuned_s = process.time(0), process.time(1)
        rounds.append((untuned_s, tuned_s))
        calibrations_s.append(calibrate())
        noisy = _noisy_rounds(calibrations_s)
        late = time.perf_counter() - begin > config.budget_s
        enough = noisy.count(False) >= config.rounds or len(rounds) >= config.most_rounds
        if enough or (late and len(rounds) >= _LEAST_ROUNDS):
            return rounds, noisy


def _noisy_rounds(calibrations_s: Sequence[float]) -> list[bool]:
    """Tell for each round whether the calibration before or after it was above the bound."""
    bound_s = (1 + CalibrationConfig().bound) * min(calibrations_s)
    noisy = [latency_s > bound_s for latency_s in calibrations_s]
    return [before or after for before, after in itertools.pairwise(noisy)]


def _timing(samples_s: Sequence[float]) -> Timing:
    """Return the median, and its range from the order of the samples.

    The k-th lowest and k-th highest of n samples hold the median between them with probability
    1 - 2 P(B < k), where B is binomial with n draws of 1/2 (any textbook on order statistics). Of
    fewer than six, all are within the range.
    """
    ordered = sorted(samples_s)
    n, outside, k = len(ordered), 0.0, 0
    while k < (n - 1) // 2:
        outside += 2 * math.comb(n, k) / 2**n
        if outside > 1 - _CONFIDENCE:
            break
        k += 1
    k = max(k, 1)
    return Timing(latency_s=statistics.median(ordered), low_s=ordered[k - 1], high_s=ordered[n - k])


def _verdict(untuned: Timing, tuned: Timing) -> str:
    if tuned.high_s < untuned.low_s:
        return "faster"
    return "slower" if untuned.high_s < tuned.low_s else "no significant difference"
