"""What the predictor knows about a device: a few figures with units, and a vector of them.

CPUs are detected from Linux's own tables; what a table does not tell falls back to figures of a
common server core, listed in one place below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.devices.host import read_host_cpu
from tvm_cdmpp.errors import ConfigError

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


@dataclass(frozen=True, kw_only=True)
class DeviceSpec:
    """The hardware that programs run on."""

    name: str
    kind: Literal["cpu", "gpu"]
    cores: int = 8
    """CPU cores in use, or GPU multiprocessors."""
    clock_hz: float = 3.0e9
    simd_bytes: int = 32
    """Bytes of one vector register, or of one float32 per lane of a warp."""
    fused_multiply_adds_per_cycle: float = 2.0
    """Vector multiply-adds one core starts in a cycle."""
    l1_bytes: float = 32 * 2**10
    """Data cache of a core, or shared memory of a multiprocessor."""
    l2_bytes: float = 1 * 2**20
    """Second-level cache of a core, or of the GPU."""
    l3_bytes: float = 32 * 2**20
    """Last-level cache of the chip; 0 where there is none."""
    bandwidth_bytes_per_s: float = 50e9
    """Main memory."""

    def __post_init__(self) -> None:
        """Reject figures that would give a device vector that is not finite."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                continue
            least = 0 if field.name == "l3_bytes" else 1
            if not np.isfinite(value) or value < least:
                raise ConfigError(
                    f"{field.name} of device '{self.name}' must be a finite number of at least "
                    f"{least}; got {value}."
                )

    @property
    def simd_lanes(self) -> int:
        """Float32 values per vector register."""
        return self.simd_bytes // 4

    @property
    def peak_flops(self) -> float:
        """Float32 operations per second of all cores, a multiply-add being two."""
        per_cycle = 2.0 * self.fused_multiply_adds_per_cycle * self.simd_lanes
        return self.cores * self.clock_hz * per_cycle

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
)


def generic_gpu(name: str) -> DeviceSpec:
    """Return the figures of a common data-centre GPU, for a GPU about which nothing is known."""
    return replace(_GENERIC_GPU, name=name)


def detect_cpu(cores: int | None = None, simd_bytes: int | None = None) -> DeviceSpec:
    """Describe this machine's CPU.

    Parameters
    ----------
    cores
        Cores that programs may use; those this process may run on by default.
    simd_bytes
        Vector register size that the compiler uses; the CPU's largest by default.

    Returns
    -------
    device
        Figures from /proc/cpuinfo and /sys/devices/system/cpu where these exist.
    """
    host = read_host_cpu()
    clock = re.search(r"^cpu MHz\s*:\s*([\d.]+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    spec = DeviceSpec(
        name=host.name or "cpu",
        kind="cpu",
        cores=cores or host.physical_cores,
        clock_hz=float(clock.group(1)) * 1e6 if clock else _REFERENCE.clock_hz,
        simd_bytes=simd_bytes or _widest_vector(host.flags),
    )
    caches = _cache_bytes()
    return replace(
        spec,
        l1_bytes=caches.get("1", spec.l1_bytes),
        l2_bytes=caches.get("2", spec.l2_bytes),
        l3_bytes=caches.get("3", spec.l3_bytes),
    )


def _widest_vector(flags: frozenset[str]) -> int:
    if "avx512f" in flags:
        return 64
    return 32 if "avx2" in flags or "avx" in flags else 16


def _cache_bytes() -> dict[str, float]:
    """Read the sizes of the first core's data caches, by level."""
    sizes: dict[str, float] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind = _read(index / "level").strip(), _read(index / "type").strip()
        size = re.fullmatch(r"(\d+)([KMG]?)", _read(index / "size").strip())
        if size and kind in ("Data", "Unified") and level in ("1", "2", "3"):
            unit = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[size.group(2)]
            sizes[level] = float(size.group(1)) * unit
    return sizes


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
