"""The devices of this machine, and the one a task gets."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.devices.test_cuda import A100, T4, UNKNOWN
from tvm_cdmpp.devices import detect
from tvm_cdmpp.devices.cuda import CudaProperties
from tvm_cdmpp.devices.detect import detect_cpu, detect_gpus, device_for, find_device
from tvm_cdmpp.devices.hardware import Hardware
from tvm_cdmpp.devices.host import HostCPU
from tvm_cdmpp.devices.jsonform import dump_devices, parse_devices
from tvm_cdmpp.devices.registry import built_in_devices
from tvm_cdmpp.devices.spec import REQUIRED_FIGURES, DeviceSpec
from tvm_cdmpp.errors import UnknownDeviceError

CPU = Hardware(cores=3, vector_bytes=32)
GPU = Hardware(cores=-1, vector_bytes=16, threads=1024, warp=32)


def be(
    monkeypatch: pytest.MonkeyPatch, name: str, cores: int = 4, clock_hz: float | None = None
) -> None:
    host = HostCPU(
        architecture="x86_64",
        name=name,
        flags=frozenset(["avx2"]),
        physical_cores=cores,
        clock_hz=clock_hz,
        clock_source="somebody",
    )
    monkeypatch.setattr(detect, "read_host_cpu", lambda: host)


def have(monkeypatch: pytest.MonkeyPatch, *gpus: CudaProperties) -> None:
    monkeypatch.setattr(detect, "read_cuda_gpus", lambda: gpus)


def test_detected_cpu_is_plausible() -> None:
    device = detect_cpu()
    assert device.kind == "cpu"
    assert device.name
    assert 1 <= device.cores <= 1024
    assert 4e8 <= device.clock_hz <= 1e10
    assert device.simd_bytes in (16, 32, 64)
    assert 2**12 <= device.l1_bytes <= device.l2_bytes
    assert np.isfinite(device.vector()).all()
    assert set(REQUIRED_FIGURES) <= set(device.sources)
    assert parse_devices(dump_devices([device]), "detected") == (replace(device, calibration=None),)


def test_what_the_caller_knows_wins() -> None:
    device = detect_cpu(cores=3, simd_bytes=16)
    assert (device.cores, device.simd_bytes) == (3, 16)


def test_a_known_cpu_has_the_registry_s_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, "Intel(R) Xeon(R) Platinum 8272CL CPU @ 2.60GHz", cores=13)
    entry = find_device("xeon-platinum-8272cl")
    device = detect_cpu()
    assert device.name == entry.name
    assert (device.cores, device.simd_bytes) == (13, 64)
    assert device.peak_flops == entry.peak_flops / 2
    assert device.int8_ops == pytest.approx((entry.int8_ops or 0) / 2)
    assert (device.clock_hz, device.l3_bytes) == (entry.clock_hz, entry.l3_bytes)
    assert device.sources["cores"] == "in use by programs"
    assert device.sources["l3_bytes"] == entry.sources["l3_bytes"]


@pytest.mark.parametrize(
    ("name", "simd_bytes", "flops_per_cycle"),
    [
        ("xeon-platinum-8272cl", 64, 64), ("xeon-platinum-8272cl", 32, 32),
        ("xeon-silver-4210", 64, 32), ("xeon-silver-4210", 32, 32), ("xeon-silver-4210", 16, 16),
        ("epyc-9654", 64, 32), ("epyc-9654", 32, 32), ("epyc-7452", 64, 32),
        ("graviton4", 16, 32), ("graviton3", 16, 32), ("graviton2", 16, 16), ("graviton2", 64, 16),
        ("cortex-a72", 64, 8),
    ],
)  # fmt: skip
def test_peaks_of_narrower_vectors(
    monkeypatch: pytest.MonkeyPatch, name: str, simd_bytes: int, flops_per_cycle: float
) -> None:
    be(monkeypatch, name)
    device = detect_cpu(1, simd_bytes)
    assert device.peak_flops == flops_per_cycle * device.clock_hz


@given(
    st.sampled_from([device for device in built_in_devices() if device.kind == "cpu"]),
    st.integers(-1, 512),
    st.sampled_from([0, 4, 8, 16, 32, 64, 128]),
)
def test_every_known_cpu_fits_every_task(entry: DeviceSpec, cores: int, vector_bytes: int) -> None:
    device = device_for("llvm", entry.name, Hardware(cores=cores, vector_bytes=vector_bytes))
    assert device.name == entry.name
    assert device.cores == max(1, cores)
    assert device.simd_bytes <= entry.simd_bytes
    assert device.peak_flops / device.cores <= entry.peak_flops / entry.cores
    assert np.isfinite(device.vector()).all()


def test_an_unknown_cpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, "Some(R) CPU X-5 @ 3.00GHz")
    device = detect_cpu()
    assert device.name == "some-cpu-x-5"
    assert device.aliases == ("Some(R) CPU X-5 @ 3.00GHz",)
    assert (device.cores, device.simd_bytes) == (4, 32)
    assert device.sources["bandwidth_bytes_per_s"].startswith("assumed")
    be(monkeypatch, "")
    assert detect_cpu().name == "cpu"


def test_this_machine_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, "ACME Chip 9 @ 3.10GHz", cores=4)
    assert find_device("acme-chip-9") == detect_cpu()
    assert device_for("llvm", "acme-chip-9", CPU) == device_for("llvm", "", CPU)
    assert device_for("llvm", "acme-chip-9", CPU, elsewhere="of another").name == "acme-chip-9"
    for kind, name in (("cuda", "acme-chip-9"), ("llvm", "acme-chip-8")):
        with pytest.raises(UnknownDeviceError, match="no known device has that name"):
            device_for(kind, name, CPU)
    with pytest.raises(UnknownDeviceError, match="got 'acme-chip-8'"):
        find_device("acme-chip-8")


def test_the_clock_is_not_the_momentary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """One seed gives one sequence of scores, on a busy day as well."""
    be(monkeypatch, "Some CPU")
    assert detect_cpu().clock_hz == DeviceSpec(name="x", kind="cpu").clock_hz
    assert detect_cpu().sources["clock_hz"].startswith("assumed")
    be(monkeypatch, "Some CPU", clock_hz=2.6e9)
    assert (detect_cpu().clock_hz, detect_cpu().sources["clock_hz"]) == (2.6e9, "somebody")
    be(monkeypatch, "Some CPU", clock_hz=2.6)  # nonsense
    assert detect_cpu().sources["clock_hz"].startswith("assumed")


def test_known_gpus_have_the_registry_s_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, A100, T4)
    assert detect_gpus() == (find_device("a100-40gb"), find_device("t4"))


def test_unknown_gpus_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    slice_of_one = replace(A100, multiprocessors=42)
    have(monkeypatch, UNKNOWN, slice_of_one)
    laptop, part = detect_gpus()
    assert laptop.name == "nvidia-geforce-rtx-3050-laptop-gpu"
    assert (part.cores, part.name) == (42, "nvidia-a100-sxm4-40gb")
    assert parse_devices(dump_devices([laptop, part]), "detected") == (laptop, part)


def test_a_task_s_device_is_the_one_its_target_names(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, T4)
    assert device_for("cuda", "2080ti", GPU) is find_device("rtx-2080-ti")
    assert device_for("rocm", "mi50", GPU) is find_device("mi50")
    named = device_for("llvm", "graviton2", replace(CPU, vector_bytes=16))
    assert named == replace(
        find_device("graviton2"), cores=3, int8_ops=named.int8_ops,
        float16_flops=named.float16_flops,
    )  # fmt: skip


@pytest.mark.parametrize("model", ["unknown", ""])
def test_a_task_without_a_name_gets_what_is_here(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, model: str
) -> None:
    have(monkeypatch, T4, A100)
    be(monkeypatch, "AMD EPYC 7452 32-Core Processor")
    assert device_for("cuda", model, GPU) is find_device("t4")
    cpu = device_for("llvm", model, CPU)
    assert (cpu.name, cpu.cores, cpu.simd_bytes) == ("epyc-7452", 3, 32)
    assert device_for("llvm", model, replace(CPU, cores=-1)).cores == 1
    for kind in ("rocm", "metal", "opencl"):
        assert device_for(kind, model, GPU).name == kind
    have(monkeypatch)
    generic = device_for("cuda", model, GPU)
    assert (generic.kind, generic.name) == ("gpu", "cuda")
    assert caplog.text == ""


@pytest.mark.parametrize(("kind", "model", "found"), [
    ("cuda", "quux", "no known device"), ("cuda", "graviton2", "'graviton2' is a cpu"),
    ("llvm", "t4", "'t4' is a gpu"), ("llvm", "rasp4b", "no known device"),
])  # fmt: skip
def test_a_name_that_does_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, kind: str, model: str, found: str
) -> None:
    have(monkeypatch, T4)
    with pytest.raises(UnknownDeviceError, match=f"-model={model} must be .*{found}.*device add"):
        device_for(kind, model, CPU)


@pytest.mark.parametrize("kind", ["llvm", "opencl", "cuda"])
def test_a_target_of_another_machine_is_not_described_as_this_one(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    have(monkeypatch, T4)
    with pytest.raises(UnknownDeviceError, match=r"it is a board's\. Name it in the target"):
        device_for(kind, "", CPU, elsewhere="it is a board's")
    named = "graviton2" if kind == "llvm" else "mobile-opencl"
    assert device_for(kind, named, CPU, elsewhere="it is a board's").name == find_device(named).name


def test_nothing_is_assumed_about_other_kinds() -> None:
    with pytest.raises(UnknownDeviceError, match="nothing is assumed about hexagon"):
        device_for("hexagon", "unknown", CPU)
    assert device_for("hexagon", "hl-100", CPU) is find_device("hl-100")


def test_a_failing_driver_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> tuple[DeviceSpec, ...]:
        raise UnknownDeviceError("cuInit fails")

    monkeypatch.setattr(detect, "read_cuda_gpus", fail)
    assert device_for("cuda", "", GPU).name == "cuda"
    assert "cuInit fails" in caplog.text


def test_a_gpu_that_cannot_be_described_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    have(monkeypatch, replace(UNKNOWN, memory_clock_khz=0))
    assert device_for("cuda", "", GPU).name == "cuda"
    assert "bandwidth_bytes_per_s" in caplog.text
