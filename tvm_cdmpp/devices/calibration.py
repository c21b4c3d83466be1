"""What a device's first minute told: how much slower it is than predicted, and by which programs.

Levels are natural logarithms of measured / predicted seconds, kept for the weights that predicted:
other weights, such as those that were fine-tuned on the device, have other levels or none. Programs
that a search finds and those of TVM's own schedules have levels of their own: the weights have
learned from the former only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from tvm_cdmpp.errors import ConfigError

_FARTHEST = 20.0
"""Natural logarithm; nothing is so many times slower than predicted."""
_LONGEST_WAKE_S = 0.1
_NEAREST = dict.fromkeys(("conv1d", "conv3d", "conv2d_transpose", "group_conv2d"), "conv2d")
"""Classes of operator that the calibration has no program of, by the one most like them where a
search schedules both: they sum as many products, which operators in general do not. TVM's own
schedules of them have little in common."""


@dataclass(frozen=True, kw_only=True)
class Levels:
    """How much slower a device is than some weights say: ln(measured / predicted)."""

    weights: str
    """What tells the weights, `TrainedPredictor.origin`."""
    level: float
    """Of all programs such as a search finds."""
    operators: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Of each class of operator that was measured, that of all included."""
    own_level: float | None = None
    """Of all programs with TVM's own schedules; None where none was measured."""
    own_operators: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Of each class of operator with TVM's own schedules."""
    wake_s: float | None = None
    """What waking threads took in the calibration and while the weights learned, in the mean; None
    where the calibration's alone counts."""

    def __post_init__(self) -> None:
        """Reject what no machine can be."""
        _check_kind(str, weights=self.weights)
        _check_kind(Mapping, operators=self.operators, own_operators=self.own_operators)
        own = () if self.own_level is None else (self.own_level,)
        _check_levels((self.level, *self.operators.values(), *own, *self.own_operators.values()))
        _check_wake(self.wake_s)

    def for_operator(self, operator: str, *, own: str | None) -> Levels:
        """Return these with the level of a class of operator, or of the one most like it."""
        if own is not None and self.own_level is not None:
            of_task = self.own_operators.get(operator, self.own_level)
            return replace(self, level=self.own_operators.get(own, of_task))
        nearest = self.operators.get(_NEAREST.get(operator, operator), self.level)
        return replace(self, level=self.operators.get(operator, nearest))


@dataclass(frozen=True, kw_only=True)
class MeasuredProgram:
    """One program of a device's signature."""

    operator: str
    task: str
    measured_s: float
    log_ratio: float
    """ln(measured / predicted), by the first of the levels' weights; of what would have been
    measured on a machine that was not busy."""
    own: bool = False
    """Whether it has a schedule of TVM's own, and not one such as a search finds."""

    def __post_init__(self) -> None:
        """Reject what was not measured."""
        _check_kind(str, operator=self.operator, task=self.task)
        _check_kind(bool, own=self.own)
        if not (0 < self.measured_s < math.inf and math.isfinite(self.log_ratio)):
            raise ConfigError(
                f"a program of {self.task} must have finite seconds above 0 and a finite ratio; "
                f"got {self.measured_s} and {self.log_ratio}"
            )


@dataclass(frozen=True, kw_only=True)
class DeviceCalibration:
    """What was measured on a device once, for every later prediction for it."""

    levels: tuple[Levels, ...]
    wake_s: float | None = None
    """Seconds in which a CPU hands a parallel loop to all of its cores, and sees that it has ended;
    None where that was not measured."""
    plain_level: float | None = None
    """Of functions that Ansor does not tune, which move data or are elementwise: ln(measured /
    estimated) of their work; None where that was not measured."""
    library_level: float | None = None
    """The same of those that call the C library for each element."""
    kept_level: float | None = None
    """Of programs whose work caches shorten in a network, as they hold what it waits for by itself:
    ln(measured / estimated) of what is left where next to nothing stays."""
    untold: tuple[str, ...] = field(default=(), compare=False)
    """Functions measured for these three that do not count, each with why."""
    programs: tuple[MeasuredProgram, ...] = field(default=(), compare=False, repr=False)
    date: str = field(default="", compare=False)
    """When, in UTC, as ISO 8601."""
    tvm: str = field(default="", compare=False)
    """Version of TVM that built the programs."""
    commit: str | None = field(default=None, compare=False)
    """Of this package, where it ran from a git checkout."""
    disturbed: bool = field(default=False, compare=False)
    """Whether something else was running on the machine meanwhile."""

    def __post_init__(self) -> None:
        """Reject what no machine can take."""
        _check_kind(str, date=self.date, tvm=self.tvm, commit=self.commit or "")
        _check_kind(bool, disturbed=self.disturbed)
        _check_kind(tuple, untold=self.untold)
        for text in self.untold:
            _check_kind(str, untold=text)
        _check_wake(self.wake_s)
        known = (self.plain_level, self.library_level, self.kept_level)
        _check_levels([level for level in known if level is not None])

    def of(self, weights: str) -> Levels | None:
        """Return the levels for some weights; None where there are none."""
        return next((found for found in self.levels if found.weights == weights), None)

    def mean_wake_s(self, since_s: float | None) -> float | None:
        """Return the mean of what waking threads took in the calibration, and what it took since.

        A virtual machine has two figures, each for half a minute at a time: the more moments count,
        the less it matters which. None where nothing was measured since.
        """
        if since_s is None or self.wake_s is None:
            return since_s
        return (self.wake_s + since_s) / 2

    def while_learned(self, weights: str) -> DeviceCalibration:
        """Return this with what waking threads took by when some weights had learned, if known."""
        levels = self.of(weights)
        wake_s = None if levels is None else levels.wake_s
        return self if wake_s is None else replace(self, wake_s=wake_s)

    def for_operator(self, operator: str, *, own: str | None = None) -> DeviceCalibration:
        """Return this with the levels of one class of operator, where they were measured.

        Parameters
        ----------
        operator, own
            As of `DeviceSpec.for_operator`.
        """
        levels = (found.for_operator(operator, own=own) for found in self.levels)
        return replace(self, levels=tuple(levels))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; `from_json` reads them back."""
        content = asdict(self)
        return content | {key: list(content[key]) for key in ("levels", "programs", "untold")}

    @staticmethod
    def from_json(content: Any, where: str) -> DeviceCalibration:
        """Read what `to_json` wrote.

        Parameters
        ----------
        content
            JSON values.
        where
            What to call them in errors.

        Raises
        ------
        ConfigError
            They are something else.
        """
        try:
            levels = tuple(Levels(**entry) for entry in content["levels"])
            programs = tuple(MeasuredProgram(**entry) for entry in content.get("programs", ()))
            rest = {k: v for k, v in content.items() if k not in ("levels", "programs")}
            untold = rest.pop("untold", [])
            if isinstance(untold, (int, list)):  # earlier versions kept how many, not which
                untold = tuple(untold) if isinstance(untold, list) else ()
            return DeviceCalibration(levels=levels, programs=programs, untold=untold, **rest)
        except (ConfigError, KeyError, TypeError, AttributeError, OverflowError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ConfigError(
                f"{where} must be a calibration with {', '.join(_names(DeviceCalibration))}: "
                f"{reason}. `tvm-cdmpp device calibrate` makes a new one, and with --forget "
                "removes it; name another device than this machine's with --device."
            ) from error


_KINDS: Mapping[type, str] = {
    str: "a text",
    bool: "true or false",
    tuple: "a list",
    Mapping: "an object",
}


def _check_kind(kind: type, **values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, kind):
            raise ConfigError(f"{name} must be {_KINDS[kind]}; got {value!r}")


def _check_levels(levels: Sequence[float]) -> None:
    for value in levels:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"a level must be a number; got {value!r}")
        if not abs(value) <= _FARTHEST:
            raise ConfigError(f"a level must be within {_FARTHEST:g} of 0; got {value}")


def _check_wake(wake_s: float | None) -> None:
    if wake_s is not None and (isinstance(wake_s, bool) or not 0 < wake_s < _LONGEST_WAKE_S):
        raise ConfigError(f"wake_s must be above 0 and below {_LONGEST_WAKE_S:g} s; got {wake_s}")


def _names(kind: Any) -> list[str]:
    return [entry.name for entry in fields(kind)]
