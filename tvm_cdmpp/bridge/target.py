"""The compilation target: this machine's CPU, or one that the user names.

LLVM knows a processor by its name, and the LLVM inside TVM is often older than the processor. So
the name is chosen by feature flags: the most capable name that this LLVM knows and whose
instructions this CPU has. Only features the code generator uses on its own count (a missing `sgx`
or `pku` never matters).
"""

import difflib
import functools
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

from tvm_cdmpp.bridge.quiet import reason_of
from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.devices.host import HostCPU, read_host_cpu
from tvm_cdmpp.errors import ConfigError, MissingDependencyError, UnknownDeviceError

tvm = load_tvm()

# TVM carries no types; these names say which of its classes is meant.
Target: TypeAlias = Any
HardwareParams: TypeAlias = Any

_logger = logging.getLogger(__name__)

_CACHE_LINE_BYTES = 64
_INT32_MAX = 2**31 - 1


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

# What Ansor may use on a GPU when no device is here to ask: TVM's own answers for a present
# device where they hold for all devices of the kind (CUDA), what its API guarantees or nearly
# every device has otherwise.
_GPU_PARAMS = {
    "cuda": {"shared_bytes": 49152, "threads": 1024, "vthreads": 8, "warp": 32},
    "rocm": {"shared_bytes": 65536, "threads": 1024, "vthreads": 16, "warp": 64},
    "metal": {"shared_bytes": 32768, "threads": 1024, "vthreads": 2, "warp": 8},
    "opencl": {"shared_bytes": 32768, "threads": 256, "vthreads": 1, "warp": 1},
    "vulkan": {"shared_bytes": 16384, "threads": 256, "vthreads": 8, "warp": 32},
}
_KINDS = ("llvm", *_GPU_PARAMS)


@functools.cache
def default_target() -> Target:
    """Return this machine's CPU as a target, with the best `-mcpu` and the real core count.

    Raises
    ------
    MissingDependencyError
        TVM was built without LLVM.
    """
    major = tvm.target.codegen.llvm_version_major(allow_none=True)
    if major is None:
        raise MissingDependencyError(
            f"Compiling for a CPU needs a TVM with LLVM; TVM {tvm.__version__} here has none. "
            "Build it with USE_LLVM=ON, or name another target."
        )
    cpu = read_host_cpu()
    options = [f"-num-cores={cpu.physical_cores}"]
    name = choose_mcpu(cpu, _known_names(int(major), cpu.architecture))
    if name is not None:
        options.insert(0, f"-mcpu={name}")
    else:
        _logger.warning(
            "No -mcpu for a %s CPU; programs will use its base instructions only. Name a target "
            "with the right -mcpu for better ones.",
            cpu.architecture,
        )
    if cpu.architecture == "aarch64":
        # TVM recognises ARM by the triple only.
        options.insert(0, f"-mtriple={_system_triple()}")
    return tvm.target.Target(" ".join(["llvm", *options]))


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


def parse_target(text: str) -> Target:
    """Turn a target string into a target.

    Parameters
    ----------
    text
        `native` for `default_target()`, else TVM's notation: `llvm -mcpu=znver2`, `cuda`.

    Raises
    ------
    UnknownDeviceError
        The target's kind is not one that Ansor can search for.
    ConfigError
        An option is unknown or malformed, or TVM was built without this kind.
    """
    text = text.strip()
    if text == "native":
        return default_target()
    kind = text.split(maxsplit=1)[0] if text else ""
    if kind not in _KINDS:
        raise UnknownDeviceError(
            f"The target must start with native or one of {', '.join(_KINDS)}; "
            f"got {text!r}{_did_you_mean(kind, ['native', *_KINDS])}."
        )
    try:
        target = tvm.target.Target(text)
    except (tvm.TVMError, ValueError, TypeError, AttributeError) as error:
        reason = reason_of(error).removeprefix("ValueError: ")
        raise ConfigError(
            f"TVM does not accept the target {text!r}: {reason}. Options are written -NAME=VALUE, "
            "as in `llvm -mcpu=znver2 -num-cores=8`."
        ) from error
    if tvm.get_global_func(f"target.build.{kind}", allow_missing=True) is None:
        raise ConfigError(
            f"This TVM ({tvm.__version__}) was built without {kind}, so the target {text!r} "
            "cannot be compiled. Choose another target, or build TVM with it."
        )
    if kind == "llvm":
        _check_mcpu(target)
    return target


def hardware_params(target: Target) -> HardwareParams | None:
    """Return what Ansor must know about the hardware, without asking a device for it.

    Parameters
    ----------
    target
        From `default_target` or `parse_target`.

    Returns
    -------
    params
        None for Mali and Adreno GPUs, for which TVM has fixed values.

    Raises
    ------
    UnknownDeviceError
        Nothing is known about targets of this kind.
    """
    make_params = tvm.auto_scheduler.HardwareParams
    kind = str(target.kind.name)
    if kind == "llvm":
        cores = int(target.attrs.get("num-cores", 0)) or read_host_cpu().physical_cores
        return make_params(cores, _vector_bytes(target), _CACHE_LINE_BYTES, 0, 0, 0, 0, 0)
    if str(target.attrs.get("device", "")) in ("mali", "adreno"):
        return None
    if kind not in _GPU_PARAMS:
        raise UnknownDeviceError(
            f"Ansor's hardware parameters are known for {', '.join(_KINDS)}; got {target}."
        )
    gpu = _GPU_PARAMS[kind]
    return make_params(
        -1,  # number of cores: unused on GPUs
        16,  # vector bytes: four floats per load
        _CACHE_LINE_BYTES,
        gpu["shared_bytes"],
        _INT32_MAX,  # local memory: unlimited, as TVM has it
        gpu["threads"],
        gpu["vthreads"],
        gpu["warp"],
    )


# ---------------------------------------------------------------- what LLVM knows


def _known_names(llvm_major: int, architecture: str) -> set[str]:
    """Names in `CPU_NAMES` that this LLVM takes; an older TVM cannot list them itself."""
    return {c.name for c in CPU_NAMES.get(architecture, ()) if c.since_llvm <= llvm_major}


def _system_triple() -> str:
    ask = tvm.get_global_func("target.llvm_get_system_triple", allow_missing=True)
    return "aarch64-linux-gnu" if ask is None else str(ask())


def _check_mcpu(target: Target) -> None:
    """Refuse a name LLVM does not know; it would otherwise compile for its base, in silence."""
    ask = tvm.get_global_func("target.llvm_get_cpu_archlist", allow_missing=True)
    mcpu, triple = str(target.attrs.get("mcpu", "")), str(target.attrs.get("mtriple", ""))
    if ask is None or not mcpu:
        return
    base = tvm.target.Target(f"llvm -mtriple={triple}" if triple else "llvm")
    known = [str(name) for name in ask(base)]
    if mcpu not in known:
        version = tvm.target.codegen.llvm_version_major(allow_none=True)
        raise ConfigError(
            f"LLVM {version} inside TVM does not know -mcpu={mcpu}"
            f"{_did_you_mean(mcpu, known)}; it knows {', '.join(known)}."
        )


def _vector_bytes(target: Target) -> int:
    """Width of the CPU's vector registers."""
    ask = tvm.get_global_func("target.llvm_get_cpu_features", allow_missing=True)
    if ask is not None:
        features = {str(feature) for feature in ask(target)}
    else:
        names = {c.name: c.flags for group in CPU_NAMES.values() for c in group}
        features = set(names.get(str(target.attrs.get("mcpu", "")), ()))
    if "avx512f" in features:
        return 64
    return 32 if "avx" in features else 16


def _did_you_mean(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=3)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
