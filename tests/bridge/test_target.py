import platform
from typing import Any

import numpy as np
import pytest

from tvm_cdmpp.bridge import target as target_module
from tvm_cdmpp.bridge.cpu_names import CPU_NAMES, choose_mcpu
from tvm_cdmpp.bridge.cpu_names import KERNEL_FLAGS as USED_FLAGS
from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.bridge.target import (
    check_target_runs_here,
    default_target,
    device_of,
    hardware_params,
    parse_target,
)
from tvm_cdmpp.devices.detect import find_device
from tvm_cdmpp.devices.hardware import Hardware
from tvm_cdmpp.devices.host import HostCPU, read_host_cpu
from tvm_cdmpp.errors import ConfigError, UnknownDeviceError

tvm = load_tvm()

HASWELL = (
    "abm aes avx avx2 bmi1 bmi2 cx16 f16c fma lahf_lm movbe pclmulqdq popcnt sse4_1 sse4_2 ssse3"
)
SKYLAKE = f"{HASWELL} adx"
ZEN2 = f"{SKYLAKE} sha_ni sse4a clzero"
SKYLAKE_SERVER = f"{SKYLAKE} avx512f avx512bw avx512cd avx512dq avx512vl"
CASCADELAKE = f"{SKYLAKE_SERVER} avx512_vnni"
ICELAKE = (
    f"{CASCADELAKE} avx512_bitalg avx512_vbmi2 avx512_vpopcntdq avx512ifma avx512vbmi gfni sha_ni "
    "vaes vpclmulqdq"
)
ZEN4 = f"{ICELAKE} sse4a avx512_bf16"
NEOVERSE_N1 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop "
    "asimddp ssbs"
)

OLD_LLVM, NEW_LLVM = 10, 20


def choose(flags: str, llvm_major: int, architecture: str = "x86_64") -> str | None:
    cpu = HostCPU(
        architecture=architecture, name="", flags=frozenset(flags.split()), physical_cores=1
    )
    known = {c.name for group in CPU_NAMES.values() for c in group if c.since_llvm <= llvm_major}
    return choose_mcpu(cpu, known)


@pytest.mark.parametrize(
    ("flags", "with_old_llvm", "with_new_llvm"),
    [
        ("sse2", "x86-64", "x86-64"),
        ("cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3", "nehalem", "nehalem"),
        (HASWELL.replace(" aes", ""), "core-avx2", "core-avx2"),
        (SKYLAKE, "skylake", "skylake"),
        (ZEN2, "znver2", "znver2"),
        (f"{ZEN2} vaes vpclmulqdq", "znver2", "znver3"),
        (f"{SKYLAKE} avx_vnni gfni sha_ni vaes vpclmulqdq", "skylake", "alderlake"),
        (SKYLAKE_SERVER, "skylake-avx512", "skylake-avx512"),
        (CASCADELAKE, "cascadelake", "cascadelake"),
        (f"{CASCADELAKE} avx512_bf16", "cooperlake", "cooperlake"),
        (ICELAKE, "icelake-server", "icelake-server"),
        (ZEN4, "icelake-server", "znver4"),
        (
            f"{ICELAKE} amx_tile avx512_bf16 avx512_fp16 avx_vnni",
            "icelake-server",
            "sapphirerapids",
        ),
    ],
)
def test_chooses_the_best_name_the_llvm_knows(
    flags: str, with_old_llvm: str, with_new_llvm: str
) -> None:
    assert choose(flags, OLD_LLVM) == with_old_llvm
    assert choose(flags, NEW_LLVM) == with_new_llvm


def test_arm_and_unknown_architectures() -> None:
    assert choose(NEOVERSE_N1, OLD_LLVM, "aarch64") == "neoverse-n1"
    assert choose(f"{NEOVERSE_N1} bf16 i8mm sve", NEW_LLVM, "aarch64") == "neoverse-v1"
    assert choose("fp asimd crc32 aes pmull sha1 sha2", OLD_LLVM, "aarch64") == "cortex-a72"
    assert choose("fp asimd", OLD_LLVM, "aarch64") == "generic"
    assert choose("", OLD_LLVM, "riscv64") is None


@pytest.mark.parametrize("lacking", ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])
def test_never_avx512_on_a_cpu_that_lacks_part_of_it(lacking: str) -> None:
    flags = " ".join(flag for flag in ZEN4.split() if flag != lacking)
    for major in (OLD_LLVM, NEW_LLVM):
        assert choose(flags, major) in ("znver2", "znver3")


# LLVM's names of the features that its code generator uses by itself, as the kernel calls them.
KERNEL_FLAGS = {
    "adx": "adx",
    "aes": "aes",
    "avx": "avx",
    "avx2": "avx2",
    "avx512bf16": "avx512_bf16",
    "avx512bitalg": "avx512_bitalg",
    "avx512bw": "avx512bw",
    "avx512cd": "avx512cd",
    "avx512dq": "avx512dq",
    "avx512f": "avx512f",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vl": "avx512vl",
    "avx512vnni": "avx512_vnni",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "bmi": "bmi1",
    "bmi2": "bmi2",
    "cx16": "cx16",
    "f16c": "f16c",
    "fma": "fma",
    "gfni": "gfni",
    "lzcnt": "abm",
    "movbe": "movbe",
    "pclmul": "pclmulqdq",
    "popcnt": "popcnt",
    "sha": "sha_ni",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "sse4a": "sse4a",
    "ssse3": "ssse3",
    "vaes": "vaes",
    "vpclmulqdq": "vpclmulqdq",
}


def test_a_name_asks_for_every_instruction_llvm_would_use() -> None:
    if tvm.get_global_func("target.llvm_get_cpu_features", allow_missing=True) is None:
        pytest.skip("this TVM cannot list LLVM's features")
    triple = "x86_64-unknown-linux-gnu"
    base = tvm.target.Target(f"llvm -mtriple={triple}")
    known = {str(name) for name in tvm.target.codegen.llvm_get_cpu_archlist(base)}
    major = int(tvm.target.codegen.llvm_version_major())
    for cpu in CPU_NAMES["x86_64"]:
        assert (cpu.name in known) == (cpu.since_llvm <= major), cpu.name
        if cpu.name in known:
            target = tvm.target.Target(f"llvm -mtriple={triple} -mcpu={cpu.name}")
            used = tvm.target.codegen.llvm_get_cpu_features(target)
            needed = {flag for name, flag in KERNEL_FLAGS.items() if name in used}
            assert needed <= cpu.flags, cpu.name
    assert {name: USED_FLAGS[name] for name in KERNEL_FLAGS if name in USED_FLAGS} == {
        name: flag for name, flag in KERNEL_FLAGS.items() if name in USED_FLAGS
    }


def test_default_target_is_this_machine() -> None:
    cpu, target = read_host_cpu(), default_target()
    assert target.kind.name == "llvm"
    assert int(target.attrs["num-cores"]) == cpu.physical_cores
    assert parse_target(" native ") == target
    # A program for it runs here: an instruction the CPU lacks would end the process.
    x = tvm.te.placeholder((64,), name="x")
    y = tvm.te.compute((64,), lambda i: x[i] * 2.0 + 1.0, name="y")
    schedule = tvm.te.create_schedule(y.op)
    schedule[y].vectorize(y.op.axis[0])
    function = tvm.build(schedule, [x, y], target)
    ones = tvm.nd.array(np.ones(64, "float32"))
    result = tvm.nd.empty((64,))
    function(ones, result)
    assert (result.numpy() == 3).all()


@pytest.mark.parametrize(
    ("text", "num_cores", "vector_bytes"),
    [
        ("llvm -mcpu=skylake-avx512 -num-cores=7", 7, 64),
        ("llvm -mcpu=znver2 -num-cores=3", 3, 32),
        ("llvm -mcpu=nehalem -num-cores=1", 1, 16),
        ("llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a72 -num-cores=4", 4, 16),
    ],
)
def test_hardware_params_of_cpus(text: str, num_cores: int, vector_bytes: int) -> None:
    params = hardware_params(parse_target(text))
    assert params is not None
    assert params.num_cores == num_cores
    assert params.vector_unit_bytes == vector_bytes
    assert params.cache_line_bytes == 64


def test_hardware_params_without_a_core_count_take_this_machines() -> None:
    params = hardware_params(parse_target("llvm"))
    assert params is not None
    assert params.num_cores == read_host_cpu().physical_cores


def test_hardware_params_of_cuda_need_no_gpu() -> None:
    params = hardware_params(tvm.target.Target("cuda -arch=sm_70"))
    assert params is not None
    assert params.max_shared_memory_per_block == 49152
    assert params.max_threads_per_block == 1024
    assert params.max_vthread_extent == 8
    assert params.warp_size == 32


def test_hardware_params_of_an_unknown_kind() -> None:
    with pytest.raises(UnknownDeviceError, match="hexagon"):
        hardware_params(tvm.target.Target("hexagon"))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", UnknownDeviceError, "must start with native or one of llvm"),
        ("lvm -mcpu=znver2", UnknownDeviceError, "did you mean llvm"),
        ("c", UnknownDeviceError, "got 'c'"),
        ("llvm --speed=3", ConfigError, "Cannot recognize 'speed'"),
        ("llvm mcpu=znver2", ConfigError, "should start with '-'"),
        ("llvm -num-cores=many", ConfigError, "num-cores"),
        ("llvm -mcpu=zen2", ConfigError, "did you mean znver2"),
    ],
)
def test_bad_targets(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_target(text)


def test_a_kind_that_this_tvm_cannot_compile_for() -> None:
    if tvm.get_global_func("target.build.vulkan", allow_missing=True) is not None:
        pytest.skip("this TVM has Vulkan")
    with pytest.raises(ConfigError, match="built without vulkan"):
        parse_target("vulkan")


# ---------------------------------------------------------------- whether it is this machine

HARDWARE = Hardware(cores=2, vector_bytes=32)
FOREIGN = [
    ("llvm -mtriple=aarch64-linux-gnu", "is not for x86_64"),
    ("llvm -device=arm_cpu -mtriple=aarch64-linux-gnu", "is not for x86_64"),
    ("llvm -device=arm_cpu", "-device=arm_cpu is not x86_64"),
    ("llvm -mcpu=cortex-a72", "-mcpu=cortex-a72 is not x86_64"),
    ("llvm -mtriple=x86_64-apple-darwin", "is not for Linux"),
    ("llvm -mcpu=skylake-avx512", "needs avx512bw, .*, which Zen 2 lacks"),
    ("llvm -mcpu=skx", "needs avx512bw"),
    ("llvm -mcpu=core-avx2 -mattr=+avx512f", "needs avx512f"),
]


def be_zen2(monkeypatch: pytest.MonkeyPatch) -> None:
    host = HostCPU(
        architecture="x86_64", name="Zen 2", flags=frozenset(ZEN2.split()), physical_cores=4
    )
    monkeypatch.setattr(target_module, "read_host_cpu", lambda: host)
    monkeypatch.setattr(platform, "system", lambda: "Linux")


@pytest.mark.parametrize(("text", "reason"), FOREIGN)
def test_another_machine_s_cpu(monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    be_zen2(monkeypatch)
    target = tvm.target.Target(text)
    with pytest.raises(ConfigError, match=reason):
        check_target_runs_here(target)
    with pytest.raises(UnknownDeviceError, match=reason):
        device_of(target, HARDWARE)
    named = tvm.target.Target(f"{text} -model=graviton2")
    assert device_of(named, HARDWARE).name == "graviton2"


@pytest.mark.parametrize(
    "text",
    ["llvm", "llvm -mcpu=znver2", "llvm -mcpu=nehalem", "llvm -mtriple=x86_64-unknown-linux-gnu",
     "llvm -mcpu=core-avx2 -num-cores=64", "llvm -mtriple=x86_64-conda-linux-gnu -mattr=+fma"],
)  # fmt: skip
def test_this_machine_s_cpu(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    be_zen2(monkeypatch)
    check_target_runs_here(tvm.target.Target(text))
    assert device_of(tvm.target.Target(text), HARDWARE).kind == "cpu"


def test_the_default_target_is_this_machine_s() -> None:
    check_target_runs_here(default_target())


def test_a_board_of_unknown_name_is_refused() -> None:
    board = tvm.target.Target("llvm -device=arm_cpu -model=rasp4b -mtriple=aarch64-linux-gnu")
    with pytest.raises(UnknownDeviceError, match="-model=rasp4b must be that of a known cpu"):
        device_of(board, HARDWARE)
    with pytest.raises(UnknownDeviceError, match="-device=mali is one of many"):
        device_of(tvm.target.Target("opencl -device=mali"), HARDWARE)


@pytest.mark.parametrize("kind", ["cuda", "opencl", "rocm", "metal", "vulkan"])
def test_a_gpu_that_is_not_here(kind: str) -> None:
    if tvm.device(kind, 0).exist:
        pytest.skip(f"there is a {kind} device")
    target = tvm.target.Target(kind)
    with pytest.raises(ConfigError, match=f"TVM finds no {kind} device here"):
        check_target_runs_here(target)
    # Its programs can be scored all the same.
    assert device_of(target, HARDWARE).kind == "gpu"
    assert device_of(tvm.target.Target(f"{kind} -model=t4"), HARDWARE) is find_device("t4")


class FakeGPU:
    exist = True
    compute_version = "7.5"


def test_a_gpu_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = lambda *_: FakeGPU  # noqa: E731
    monkeypatch.setattr(target_module.tvm, "device", fake)
    monkeypatch.setattr(target_module.tvm, "cuda", fake)
    check_target_runs_here(tvm.target.Target("cuda -arch=sm_75"))
    check_target_runs_here(tvm.target.Target("cuda -arch=sm_70"))
    newer = tvm.target.Target("cuda -arch=sm_90")
    with pytest.raises(ConfigError, match="sm_90 is newer than its GPU, sm_75"):
        check_target_runs_here(newer)
    with pytest.raises(UnknownDeviceError, match="sm_90 is newer"):
        device_of(newer, HARDWARE)


@pytest.mark.parametrize(
    ("text", "simd_bytes", "fused"),
    [
        ("llvm -mtriple=x86_64-linux-gnu", 16, False),
        ("llvm -mtriple=x86_64-linux-gnu -mcpu=haswell", 32, True),
        ("llvm -mtriple=x86_64-linux-gnu -mcpu=skylake-avx512", 64, True),
    ],
)
def test_a_cpu_is_what_the_target_lets_programs_use(
    text: str, simd_bytes: int, fused: bool
) -> None:
    """TVM's own hardware parameters claim 64 bytes for every CPU."""
    target = tvm.target.Target(text)
    claimed = Hardware(cores=8, vector_bytes=64)
    device = device_of(target, claimed, model="xeon-platinum-8375c")
    most = device_of(
        tvm.target.Target("llvm -mtriple=x86_64-linux-gnu -mcpu=icelake-server"),
        claimed,
        model="xeon-platinum-8375c",
    )
    assert device.simd_bytes == simd_bytes
    share = device.fused_multiply_adds_per_cycle / most.fused_multiply_adds_per_cycle
    assert share == (1.0 if fused else 0.5)
