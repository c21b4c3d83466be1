"""LLVM's names of processors, and the instructions that each stands for.

LLVM knows a processor by its name, and the LLVM inside TVM is often older than the processor. So
the name is chosen by feature flags: the most capable name that this LLVM knows and whose
instructions this CPU has. Only features the code generator uses on its own count (a missing `sgx`
or `pku` never matters).
"""

from collections.abc import Collection
from dataclasses import dataclass

from tvm_cdmpp.devices import HostCPU


@dataclass(frozen=True, slots=True)
class CPUName:
    """A processor name of LLVM's."""

    name: str
    """What `-mcpu` takes."""
    since_llvm: int
    """First major version of LLVM that knows it."""
    flags: frozenset[str]
    """What a CPU must have, under the kernel's names."""


def _cpu(name: str, since_llvm: int, *flags: frozenset[str] | str) -> CPUName:
    groups = (_flags(group) if isinstance(group, str) else group for group in flags)
    return CPUName(name, since_llvm, frozenset().union(*groups))


def _flags(text: str) -> frozenset[str]:
    return frozenset(text.split())


_X86_V2 = _flags("cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3")
_X86_V3 = _X86_V2 | _flags("abm avx avx2 bmi1 bmi2 f16c fma movbe pclmulqdq")
_SKYLAKE = _X86_V3 | _flags("adx aes")
_ZEN = _SKYLAKE | _flags("sha_ni sse4a")
_AVX512 = _SKYLAKE | _flags("avx512f avx512bw avx512cd avx512dq avx512vl")
_ICELAKE = _AVX512 | _flags(
    "avx512_bitalg avx512_vbmi2 avx512_vnni avx512_vpopcntdq avx512ifma avx512vbmi "
    "gfni sha_ni vaes vpclmulqdq"
)
_ARM_V8_2 = _flags("asimd asimddp asimdhp asimdrdm atomics crc32 lrcpc")

# Per architecture, the most capable name first.
CPU_NAMES = {
    "x86_64": (
        _cpu("znver5", 20, _ICELAKE, _ZEN, "avx512_bf16 avx512_vp2intersect avx_vnni"),
        _cpu("sapphirerapids", 12, _ICELAKE, "amx_tile avx512_bf16 avx512_fp16 avx_vnni"),
        _cpu("znver4", 16, _ICELAKE, _ZEN, "avx512_bf16"),
        _cpu("icelake-server", 7, _ICELAKE),
        _cpu("cooperlake", 9, _AVX512, "avx512_bf16 avx512_vnni"),
        _cpu("cascadelake", 8, _AVX512, "avx512_vnni"),
        _cpu("skylake-avx512", 4, _AVX512),
        _cpu("znver3", 12, _ZEN, "vaes vpclmulqdq"),
        _cpu("znver2", 9, _ZEN),
        _cpu("alderlake", 12, _SKYLAKE, "avx_vnni gfni sha_ni vaes vpclmulqdq"),
        _cpu("skylake", 4, _SKYLAKE),
        _cpu("core-avx2", 4, _X86_V3),
        _cpu("corei7-avx", 4, _X86_V2, "avx pclmulqdq"),
        _cpu("nehalem", 4, _X86_V2),
        _cpu("x86-64", 4),
    ),
    "aarch64": (
        _cpu("neoverse-n2", 12, _ARM_V8_2, "bf16 i8mm sve sve2"),
        _cpu("neoverse-v1", 12, _ARM_V8_2, "bf16 i8mm sve"),
        _cpu("neoverse-n1", 10, _ARM_V8_2),
        _cpu("cortex-a72", 4, "aes asimd crc32 pmull sha1 sha2"),
        _cpu("generic", 4),
    ),
}

# What LLVM's code generator may use in any program, as LLVM and as the kernel call it. Without what
# only special functions use, such as `aes`: a CPU that hides them runs the programs all the same.
KERNEL_FLAGS = {
    "avx": "avx",
    "avx2": "avx2",
    "avx512bf16": "avx512_bf16",
    "avx512bitalg": "avx512_bitalg",
    "avx512bw": "avx512bw",
    "avx512cd": "avx512cd",
    "avx512dq": "avx512dq",
    "avx512f": "avx512f",
    "avx512fp16": "avx512_fp16",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vl": "avx512vl",
    "avx512vnni": "avx512_vnni",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "bmi": "bmi1",
    "bmi2": "bmi2",
    "f16c": "f16c",
    "fma": "fma",
    "gfni": "gfni",
    "lzcnt": "abm",
    "movbe": "movbe",
    "popcnt": "popcnt",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "sse4a": "sse4a",
    "ssse3": "ssse3",
}


def choose_mcpu(cpu: HostCPU, known: Collection[str]) -> str | None:
    """Choose the most capable processor name that runs on a CPU.

    Parameters
    ----------
    cpu
        The CPU; without flags only the architecture's base qualifies.
    known
        Names that LLVM knows.

    Returns
    -------
    name
        None when the architecture is not in `CPU_NAMES`.
    """
    candidates = CPU_NAMES.get(cpu.architecture, ())
    fitting = (c.name for c in candidates if c.flags <= cpu.flags and c.name in known)
    return next(fitting, None)


def known_names(llvm_major: int, architecture: str) -> set[str]:
    """Return the names that this LLVM takes; an older TVM cannot list them itself."""
    return {c.name for c in CPU_NAMES.get(architecture, ()) if c.since_llvm <= llvm_major}
