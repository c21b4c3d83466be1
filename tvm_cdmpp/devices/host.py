"""What the processor of this machine is: architecture, feature flags, usable cores.

Read from Linux's `/proc` and `/sys` with the standard library alone; elsewhere the flags stay empty
and the cores are the logical ones. Cores are counted as a compute-bound program should use them:
one per physical core, of those that affinity and the control group's quota leave to this process.

The clock is one that does not change from day to day: never the momentary `cpu MHz`.
"""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, kw_only=True, slots=True)
class HostCPU:
    """The processor this process runs on."""

    architecture: str
    """`x86_64`, `aarch64`, or what Python's `platform` calls it."""
    name: str
    """Model name, for reports; empty where unknown."""
    flags: frozenset[str]
    """Features under the kernel's names, such as `avx512f` or `asimd`; empty where unknown."""
    physical_cores: int
    """Physical cores this process may use, at least 1."""
    clock_hz: float | None = None
    """The base clock, or what is nearest to it; None where nothing stable tells."""
    clock_source: str = ""
    """What told the clock."""
    generation: str = ""
    """The maker's numbers of the design, such as `family 26 model 2`: virtual machines often hide
    the name. Empty where unknown."""


_DESIGN = {
    "cpu family": "family", "model": "model", "CPU implementer": "implementer", "CPU part": "part",
}  # fmt: skip


def read_host_cpu(root: Path = Path("/")) -> HostCPU:
    """Read the processor's properties.

    Parameters
    ----------
    root
        Folder that holds `proc` and `sys`.
    """
    machine = platform.machine().lower()
    info = _first_block(root / "proc/cpuinfo")
    clock_hz, clock_source = _stable_clock(root, info)
    return HostCPU(
        architecture=_ARCHITECTURES.get(machine, machine),
        name=info.get("model name", ""),
        flags=frozenset(info.get("flags", info.get("Features", "")).split()),
        physical_cores=_physical_cores(root),
        clock_hz=clock_hz,
        clock_source=clock_source,
        generation=" ".join(f"{word} {info[key]}" for key, word in _DESIGN.items() if key in info),
    )


def _stable_clock(root: Path, info: dict[str, str]) -> tuple[float | None, str]:
    """Return the CPU's clock in Hz and what told it, the nearest to the base clock first."""
    frequencies = root / "sys/devices/system/cpu/cpu0"
    if base := _number(frequencies / "cpufreq/base_frequency"):
        return base * 1e3, "/sys, base_frequency"
    if nominal := _number(frequencies / "acpi_cppc/nominal_freq"):
        return nominal * 1e6, "/sys, nominal_freq"
    if told := re.search(r"@ *([\d.]+) *GHz", info.get("model name", "")):
        return float(told[1]) * 1e9, "the CPU's name"
    # A time stamp counter that is constant runs at the base clock; bogomips are twice that, and
    # are calibrated at boot, to less than a percent.
    if "constant_tsc" in info.get("flags", "").split() and (bogo := info.get("bogomips")):
        return round(float(bogo) / 2, -1) * 1e6, "/proc/cpuinfo, bogomips"
    if most := _number(frequencies / "cpufreq/cpuinfo_max_freq"):
        return most * 1e3, "/sys, cpuinfo_max_freq"
    return None, ""


def _first_block(file: Path) -> dict[str, str]:
    """Read the fields of the first processor in `/proc/cpuinfo`."""
    fields = {}
    for line in (_read(file) or "").splitlines():
        key, colon, value = line.partition(":")
        if not colon:
            break
        fields[key.strip()] = value.strip()
    return fields


def _physical_cores(root: Path) -> int:
    allowed = _allowed_cpus()
    topology = root / "sys/devices/system/cpu"
    # Hyper-threads of one core name the same siblings; a machine that tells none has none.
    cores = {
        _read(topology / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in allowed
    }
    quota = _cgroup_quota(root)
    return max(1, len(cores) if quota is None else min(len(cores), int(quota)))


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _cgroup_quota(root: Path) -> float | None:
    """Processors' worth of time the control groups grant; None without a limit."""
    quotas = []
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", maxsplit=2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        group = mount / path.lstrip("/")
        # A container may see its own group at the mount point instead of under `path`.
        quotas += [
            _quota_of(folder) for folder in {mount, group, *group.parents} if folder.is_dir()
        ]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_of(group: Path) -> float | None:
    text = _read(group / "cpu.max")  # version 2: "QUOTA PERIOD" or "max PERIOD"
    if text is None:
        quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        text = f"{quota} {period}" if quota and period else ""
    numbers = text.split()
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        return None
    return int(numbers[0]) / int(numbers[1])


def _number(file: Path) -> int:
    text = _read(file) or ""
    return int(text) if text.isdigit() else 0


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
