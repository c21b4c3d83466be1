import os
import platform
from pathlib import Path

import pytest

from tvm_cdmpp.devices.host import read_host_cpu

CPUINFO = """\
processor\t: 0
cpu family\t: 26
model\t\t: 2
model name\t: Some CPU
flags\t\t: fpu avx2 fma

processor\t: 1
flags\t\t: only the first block counts
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with four CPUs on two cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    write(tmp_path / "proc/cpuinfo", CPUINFO)
    for cpu in range(4):
        siblings = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        write(siblings, f"{cpu % 2},{cpu % 2 + 2}\n")
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_reads_name_flags_and_physical_cores(root: Path) -> None:
    cpu = read_host_cpu(root)
    assert cpu.architecture == "x86_64"
    assert cpu.name == "Some CPU"
    assert cpu.generation == "family 26 model 2"
    assert cpu.flags == {"fpu", "avx2", "fma"}
    assert cpu.physical_cores == 2


@pytest.mark.parametrize(
    ("files", "clock_hz"),
    [
        ({"cpufreq/base_frequency": "2100000", "cpufreq/cpuinfo_max_freq": "4000000"}, 2.1e9),
        ({"acpi_cppc/nominal_freq": "2450", "cpufreq/cpuinfo_max_freq": "3700000"}, 2.45e9),
        ({"name": "Some CPU @ 2.60GHz", "cpufreq/cpuinfo_max_freq": "3700000"}, 2.6e9),
        ({"bogomips": "5192.24", "flags": "constant_tsc"}, 2.6e9),
        ({"bogomips": "5192.24", "flags": "avx"}, None),
        ({"cpufreq/cpuinfo_max_freq": "1500000"}, 1.5e9),
        ({}, None),
    ],
)
@pytest.mark.parametrize("momentary", ["800.000", "3700.123"])
def test_the_clock_is_a_stable_one(
    root: Path, files: dict[str, str], clock_hz: float | None, momentary: str
) -> None:
    fields = {"model name": files.get("name", "Some CPU"), "cpu MHz": momentary}
    fields |= {key: files[key] for key in ("bogomips", "flags") if key in files}
    write(root / "proc/cpuinfo", "".join(f"{key}\t: {text}\n" for key, text in fields.items()))
    for name, text in files.items():
        write(root / "sys/devices/system/cpu/cpu0" / name, f"{text}\n")
    assert read_host_cpu(root).clock_hz == clock_hz


def test_counts_only_cores_of_the_affinity_mask(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    assert read_host_cpu(root).physical_cores == 1


@pytest.mark.parametrize(
    ("limit", "cores"), [("150000 100000", 1), ("50000 100000", 1), ("max 100000", 2)]
)
def test_respects_the_quota_of_any_parent_group(root: Path, limit: str, cores: int) -> None:
    write(root / "proc/self/cgroup", "0::/outer/inner\n")
    write(root / "sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n")
    write(root / "sys/fs/cgroup/outer/cpu.max", limit)
    assert read_host_cpu(root).physical_cores == cores


def test_respects_the_quota_of_version_1(root: Path) -> None:
    write(root / "proc/self/cgroup", "4:memory:/box\n2:cpu,cpuacct:/box\n")
    write(root / "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "100000\n")
    write(root / "sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n")
    assert read_host_cpu(root).physical_cores == 1


def test_a_machine_that_tells_nothing_has_its_allowed_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    cpu = read_host_cpu(tmp_path)
    assert cpu.flags == frozenset()
    assert cpu.physical_cores == 3
