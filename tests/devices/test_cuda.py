"""GPUs as the driver's library tells them: a library of recorded answers stands in for it."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tvm_cdmpp.bridge.libcuda_stub import ensure_stub
from tvm_cdmpp.devices.cuda import CudaProperties, describe_gpu, read_cuda_gpus
from tvm_cdmpp.devices.detect import find_device
from tvm_cdmpp.errors import ConfigError, UnknownDeviceError

T4 = CudaProperties(
    name="Tesla T4", major=7, minor=5, multiprocessors=40, warp_size=32, clock_khz=1590000,
    memory_clock_khz=5001000, bus_bits=256, l2_bytes=4194304, shared_bytes_per_core=65536,
    shared_bytes_per_block=65536,
)  # fmt: skip
A100 = CudaProperties(
    name="NVIDIA A100-SXM4-40GB", major=8, minor=0, multiprocessors=108, warp_size=32,
    clock_khz=1410000, memory_clock_khz=1215000, bus_bits=5120, l2_bytes=41943040,
    shared_bytes_per_core=167936, shared_bytes_per_block=166912,
)  # fmt: skip
UNKNOWN = CudaProperties(
    name="NVIDIA GeForce RTX 3050 Laptop GPU", major=8, minor=6, multiprocessors=16, warp_size=32,
    clock_khz=1500000, memory_clock_khz=6001000, bus_bits=128, l2_bytes=2097152,
    shared_bytes_per_core=102400, shared_bytes_per_block=101376,
)  # fmt: skip

# Numbers of the attributes, from cuda.h.
NUMBERS = {
    "warp_size": 10, "clock_khz": 13, "multiprocessors": 16, "memory_clock_khz": 36, "bus_bits": 37,
    "l2_bytes": 38, "major": 75, "minor": 76, "shared_bytes_per_core": 81,
    "shared_bytes_per_block": 97,
}  # fmt: skip


def build_driver(folder: Path, *gpus: CudaProperties, status: int = 0, later: int = 0) -> str:
    """Compile a driver with these GPUs; `later` is the status of all but `cuInit`."""
    cases = "".join(
        f"if (device == {n} && code == {code}) *value = {getattr(gpu, name)};\n"
        for n, gpu in enumerate(gpus)
        for name, code in NUMBERS.items()
    )
    names = ", ".join(f'"{gpu.name}"' for gpu in gpus) or '""'
    source = folder / "driver.c"
    source.write_text(
        "#include <string.h>\n"
        f"static const char *names[] = {{{names}}};\n"
        f"int cuInit(unsigned flags) {{ return {status}; }}\n"
        f"int cuDeviceGetCount(int *count) {{ *count = {len(gpus)}; return {later}; }}\n"
        "int cuDeviceGet(int *device, int n) { *device = n; return 0; }\n"
        "int cuDeviceGetName(char *name, int size, int device) {\n"
        "  strncpy(name, names[device], size); return 0; }\n"
        "int cuDeviceGetAttribute(int *value, int code, int device) {\n"
        f"  {cases} return 0; }}\n"
    )
    library = folder / "driver.so"
    compiler = shutil.which("gcc") or shutil.which("g++")
    assert compiler, "the package needs a compiler"
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", library], check=True)
    return str(library)


def test_reads_every_gpu_in_order(tmp_path: Path) -> None:
    assert read_cuda_gpus(build_driver(tmp_path, T4, A100, UNKNOWN)) == (T4, A100, UNKNOWN)


def test_no_driver_is_no_gpu(tmp_path: Path) -> None:
    assert read_cuda_gpus(str(tmp_path / "missing.so")) == ()


def test_the_stub_of_the_driver_is_no_gpu(tmp_path: Path) -> None:
    assert read_cuda_gpus(str(ensure_stub(tmp_path))) == ()


def test_a_driver_without_gpus(tmp_path: Path) -> None:
    assert read_cuda_gpus(build_driver(tmp_path, status=100)) == ()


def test_a_driver_that_shows_none(tmp_path: Path) -> None:
    assert read_cuda_gpus(build_driver(tmp_path)) == ()


def test_a_driver_that_fails(tmp_path: Path) -> None:
    with pytest.raises(UnknownDeviceError, match=r"cuInit fails with error 803\. Repair"):
        read_cuda_gpus(build_driver(tmp_path, status=803))


def test_a_driver_that_fails_later(tmp_path: Path) -> None:
    with pytest.raises(UnknownDeviceError, match="cuDeviceGetCount fails with error 999"):
        read_cuda_gpus(build_driver(tmp_path, later=999))


@pytest.mark.parametrize("properties", [T4, A100], ids=lambda gpu: gpu.name)
def test_the_driver_and_the_registry_agree(properties: CudaProperties) -> None:
    told, known = describe_gpu(properties), find_device(properties.name)
    for figure in ("cores", "clock_hz", "simd_bytes", "peak_flops", "l2_bytes", "l3_bytes",
                   "bandwidth_bytes_per_s", "shared_bytes_per_core",
                   "shared_bytes_per_block"):  # fmt: skip
        assert getattr(told, figure) == pytest.approx(getattr(known, figure), rel=0.01), figure


def test_every_figure_that_is_told_has_a_source() -> None:
    device = describe_gpu(UNKNOWN)
    assert {n for n in device.sources if getattr(device, n) is None} == set()
    assert device.float16_flops is None
    assert device.peak_flops == 16 * 1.5e9 * 128 * 2


def test_a_gpu_that_hides_its_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"bandwidth_bytes_per_s.*got 0"):
        describe_gpu(replace(T4, memory_clock_khz=0))
    with pytest.raises(ConfigError, match="simd_bytes"):
        describe_gpu(replace(T4, warp_size=0))
