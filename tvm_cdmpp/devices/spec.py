"""What the predictor knows about a device: a few figures with units, and a vector of them.

The float32 peak follows from cores, clock, vector width and multiply-adds, so that it cannot
contradict them. Other peaks and the sizes of shared memory are for reports; where nobody states
them they are None. Vectors hold no figure that may be None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.devices.calibration import DeviceCalibration
from tvm_cdmpp.errors import ConfigError

Kind: TypeAlias = Literal["cpu", "gpu", "accelerator"]
KINDS: tuple[Kind, ...] = ("cpu", "gpu", "accelerator")

DEVICE_FIELDS = (
    "is_gpu",
    "cores",
    "clock_hz",
    "simd_bytes",
    "peak_flops",
    "l1_bytes",
    "l2_bytes",
    "l3_bytes",
    "bandwidth_bytes_per_s",
)
"""Entries of a device vector; all but the first as log2 relative to the default device."""

REQUIRED_FIGURES = (
    "cores",
    "clock_hz",
    "simd_bytes",
    "fused_multiply_adds_per_cycle",
    "l1_bytes",
    "l2_bytes",
    "l3_bytes",
    "bandwidth_bytes_per_s",
)
OPTIONAL_FIGURES = (
    "shared_bytes_per_core",
    "shared_bytes_per_block",
    "float16_flops",
    "int8_ops",
)
FIGURES = (*REQUIRED_FIGURES, *OPTIONAL_FIGURES)
"""All that is known about a device, by the names of `DeviceSpec`; optional ones may be None."""

_BYTES = "bytes (32 KiB are 32768)"
_PER_S = "operations per second (8 TFLOP/s are 8e12)"
RANGES: Mapping[str, tuple[float, float, str]] = {
    "cores": (1, 1e6, "cores, or multiprocessors of a GPU"),
    "clock_hz": (1e7, 1e11, "Hz (2.2 GHz are 2.2e9)"),
    "simd_bytes": (4, 65536, "bytes (256 bits are 32)"),
    "fused_multiply_adds_per_cycle": (1, 65536, "multiply-adds of vectors"),
    "l1_bytes": (512, 2**34, _BYTES),
    "l2_bytes": (512, 2**38, _BYTES),
    "l3_bytes": (512, 2**42, f"{_BYTES}, or 0 where there is none"),
    "bandwidth_bytes_per_s": (1e8, 1e16, "bytes per second (50 GB/s are 50e9)"),
    "shared_bytes_per_core": (512, 2**34, _BYTES),
    "shared_bytes_per_block": (512, 2**34, _BYTES),
    "float16_flops": (1e6, 1e20, _PER_S),
    "int8_ops": (1e6, 1e20, _PER_S),
}
"""What a figure may be, from least to most, and its unit: other values are in other units."""


@dataclass(frozen=True, kw_only=True)
class DeviceSpec:
    """The hardware that programs run on.

    Devices are equal when name, kind, figures and levels are.

    Raises
    ------
    ConfigError
        A figure is out of its range, as one in another unit is.
    """

    name: str
    kind: Kind
    cores: int = 8
    """CPU cores in use, or GPU multiprocessors."""
    clock_hz: float = 3.0e9
    """A CPU's base clock, a GPU's boost clock: what vendors compute peaks from."""
    simd_bytes: int = 32
    """Bytes of one vector register, or of one float32 per lane of a warp."""
    fused_multiply_adds_per_cycle: float = 2.0
    """Vector multiply-adds one core starts in a cycle."""
    l1_bytes: float = 32 * 2**10
    """Data cache of a core; of a multiprocessor its fast memory: the cache and shared memory where
    they are one, else the larger."""
    l2_bytes: float = 1 * 2**20
    """Second-level cache of a core, or its part of one that cores share; all of it on a GPU."""
    l3_bytes: float = 32 * 2**20
    """Last-level cache of the chip; 0 where there is none."""
    bandwidth_bytes_per_s: float = 50e9
    """Main memory."""
    shared_bytes_per_core: float | None = None
    """Shared memory of a multiprocessor, at most."""
    shared_bytes_per_block: float | None = None
    """Shared memory that one block of threads may have, at most."""
    float16_flops: float | None = None
    """Dense operations per second of all cores, tensor units included."""
    int8_ops: float | None = None
    """Dense operations per second of all cores, tensor units included."""
    aliases: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """Further names, such as the one the driver tells."""
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each figure comes from, by its name; empty where nobody said."""
    note: str = field(default="", compare=False, repr=False)
    """What to know about the figures, such as what is assumed."""
    calibration: DeviceCalibration | None = field(default=None, repr=False)
    """What `tvm-cdmpp device calibrate` measured on it; None where it did not."""
    program_level: float = field(default=0.0, repr=False)
    """Of a device as it is for one program: by how much that takes longer than the predictors can
    know, as a natural logarithm, see `networks.OwnFunction`."""
    own_schedule: bool = field(default=False, repr=False)
    """Of a device as it is for one program: whether that has a schedule of TVM's own."""

    def __post_init__(self) -> None:
        """Reject figures that cannot be true, and name their unit."""
        level = self.program_level
        if isinstance(level, bool) or not isinstance(level, int | float) or not abs(level) < 100:
            raise ConfigError(
                f"program_level of device '{self.name}' must be a number within 100 of 0; got "
                f"{level!r}."
            )
        for figure, (least, most, unit) in RANGES.items():
            value = getattr(self, figure)
            absent = (value is None and figure in OPTIONAL_FIGURES) or (
                value == 0 and figure == "l3_bytes"
            )
            if not absent and (value is None or not least <= value <= most):
                raise ConfigError(
                    f"{figure} of device '{self.name}' must be {least:.10g} to {most:.10g} {unit}; "
                    f"got {value}."
                )

    @property
    def simd_lanes(self) -> int:
        """Float32 values per vector register; on a GPU the size of a warp."""
        return self.simd_bytes // 4

    @property
    def peak_flops(self) -> float:
        """Float32 operations per second of all cores, a multiply-add being two.

        Without the tensor units of GPUs, which programs of Ansor do not use.
        """
        per_cycle = 2.0 * self.fused_multiply_adds_per_cycle * self.simd_lanes
        return self.cores * self.clock_hz * per_cycle

    def level(self, weights: str) -> float:
        """Return ln(measured / predicted) for some weights, as far as that is known."""
        found = self.calibration.of(weights) if self.calibration else None
        return self.program_level + (float(found.level) if found else 0.0)

    def for_operator(self, operator: str, *, own: str | None = None) -> DeviceSpec:
        """Return this device as it is for a class of operator: its level is that of the class.

        Parameters
        ----------
        operator
            The class.
        own
            For programs with TVM's own schedules, their class where such are meant
            (`networks.own_operator_of`); None for those of a search.
        """
        known = self.calibration and self.calibration.for_operator(operator, own=own)
        return replace(self, calibration=known, own_schedule=own is not None)

    def vector(self) -> npt.NDArray[np.float32]:
        """Return the device vector, of shape (len(DEVICE_FIELDS),), always finite."""
        values = np.array([float(getattr(self, name)) for name in DEVICE_FIELDS[1:]])
        reference = np.array([float(getattr(_REFERENCE, name)) for name in DEVICE_FIELDS[1:]])
        logs = np.log2(np.maximum(values, 1.0) / reference)
        return np.concatenate([[float(self.kind == "gpu")], logs]).astype(np.float32)


_REFERENCE = DeviceSpec(name="reference", kind="cpu")
_GENERIC_GPU = DeviceSpec(
    name="gpu",
    kind="gpu",
    cores=80,
    clock_hz=1.5e9,
    simd_bytes=128,
    l1_bytes=96 * 2**10,
    l2_bytes=6 * 2**20,
    l3_bytes=0,
    bandwidth_bytes_per_s=600e9,
    sources=dict.fromkeys(REQUIRED_FIGURES, "assumed: a common data-centre GPU"),
)


def generic_gpu(name: str) -> DeviceSpec:
    """Return the figures of a common data-centre GPU, for a GPU about which nothing is known."""
    return replace(_GENERIC_GPU, name=name)
