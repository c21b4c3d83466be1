"""The compilation target: this machine's CPU, or one that the user names, and its device."""

import difflib
import functools
import logging
import platform
import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any, TypeAlias

from tvm_cdmpp.bridge.cpu_names import CPU_NAMES, KERNEL_FLAGS, choose_mcpu, known_names
from tvm_cdmpp.bridge.quiet import reason_of
from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.devices import DeviceSpec, Hardware, HostCPU, device_for, read_host_cpu
from tvm_cdmpp.errors import ConfigError, MissingDependencyError, UnknownDeviceError

tvm = load_tvm()

# TVM carries no types; these names say which of its classes is meant.
Target: TypeAlias = Any
HardwareParams: TypeAlias = Any

_logger = logging.getLogger(__name__)

_CACHE_LINE_BYTES = 64
_INT32_MAX = 2**31 - 1


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
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
_LINUX_SYSTEMS = {"linux", "gnu", "musl"}


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
    name = choose_mcpu(cpu, known_names(int(major), cpu.architecture))
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


def device_of(
    target: Target, hardware: Hardware | None = None, *, model: str | None = None
) -> DeviceSpec:
    """Choose the device that a target's programs run on.

    Parameters
    ----------
    target
        A task's target.
    hardware
        The task's hardware parameters; those of `hardware_params` by default.
    model
        A known device; the one of the target's `-model` by default.

    Returns
    -------
    device
        The device that has the name; without a name this machine, for targets that are its own,
        and a generic GPU for others' GPUs.

    Raises
    ------
    UnknownDeviceError
        The device has a name that is not known, or none and is not this machine's.
    """
    if hardware is None:
        parameters = hardware_params(target)
        hardware = Hardware() if parameters is None else Hardware.of(parameters)
    kind, board = str(target.kind.name), str(target.attrs.get("device", ""))
    elsewhere = _why_other_cpu(target, read_host_cpu()) if kind == "llvm" else ""
    if board and kind in _GPU_PARAMS:
        elsewhere = f"-device={board} is one of many"
    elif kind == "cuda" and tvm.cuda(0).exist:
        elsewhere = _why_other_gpu(target)
    name = str(target.attrs.get("model", "")) if model is None else model
    if kind != "llvm":
        return device_for(kind, name, hardware, elsewhere=elsewhere)
    # TVM's own hardware parameters claim 64 bytes for every CPU.
    width = min(hardware.vector_bytes, _vector_bytes(target)) or _vector_bytes(target)
    device = device_for(kind, name, replace(hardware, vector_bytes=width), elsewhere=elsewhere)
    if _is_x86(target) and "fma" not in _cpu_features(target):
        per_cycle = max(1.0, device.fused_multiply_adds_per_cycle / 2.0)
        device = replace(device, fused_multiply_adds_per_cycle=per_cycle)
    return device


def check_target_runs_here(target: Target) -> None:
    """Refuse a target whose programs this machine cannot run; every trial would fail.

    Raises
    ------
    ConfigError
        There is no such GPU, or the CPU is of another kind or lacks instructions.
    """
    kind = str(target.kind.name)
    if kind == "llvm":
        reason = _why_other_cpu(target, read_host_cpu())
    elif not tvm.device(kind, 0).exist:
        reason = f"TVM finds no {kind} device here"
    else:
        reason = _why_other_gpu(target)
    if reason:
        raise ConfigError(
            f"Programs for the target {target} cannot run on this machine: {reason}. Choose "
            "another target (`native` is this machine's CPU), or measure on devices that have a "
            "TVM RPC server, with `tvm-cdmpp data collect --rpc`."
        )


# ---------------------------------------------------------------- whether it is this machine


def _why_other_cpu(target: Target, host: HostCPU) -> str:
    """Say what tells that a CPU target is not this machine's; empty where nothing does."""
    triple, mcpu = (str(target.attrs.get(name, "")) for name in ("mtriple", "mcpu"))
    architecture, *system = triple.lower().split("-")
    architecture = _ARCHITECTURES.get(architecture, architecture)
    groups = {group for group, names in CPU_NAMES.items() if mcpu in {c.name for c in names}}
    if triple and architecture != host.architecture:
        return f"-mtriple={triple} is not for {host.architecture}"
    if system and platform.system() == "Linux" and not {*system} & _LINUX_SYSTEMS:
        return f"-mtriple={triple} is not for Linux"
    if groups and host.architecture not in groups:
        return f"-mcpu={mcpu} is not {host.architecture}"
    if "arm_cpu" in str(target.attrs.get("device", "")) and host.architecture == "x86_64":
        return "-device=arm_cpu is not x86_64"
    missing = sorted(_needed_flags(target, host.architecture) - host.flags)
    if host.flags and missing:
        return f"-mcpu={mcpu} needs {', '.join(missing)}, which {host.name or 'this CPU'} lacks"
    return ""


def _needed_flags(target: Target, architecture: str) -> set[str]:
    """Return what a CPU must have to run a target's programs, under the kernel's names."""
    ask = tvm.get_global_func("target.llvm_get_cpu_features", allow_missing=True)
    if ask is None or architecture != "x86_64":
        mcpu = str(target.attrs.get("mcpu", ""))
        names = CPU_NAMES.get(architecture, ())
        return {flag for cpu in names if cpu.name == mcpu for flag in cpu.flags}
    added = (str(option) for option in target.attrs.get("mattr", ()))
    features = {str(f) for f in ask(target)} | {a[1:] for a in added if a.startswith("+")}
    return {flag for feature, flag in KERNEL_FLAGS.items() if feature in features}


def _why_other_gpu(target: Target) -> str:
    """Say why this machine's GPU is too old for a CUDA target; empty if it is not."""
    wanted = re.fullmatch(r"sm_(\d+)[a-z]?", str(target.attrs.get("arch", "")))
    if str(target.kind.name) != "cuda" or wanted is None:
        return ""
    here = str(tvm.cuda(0).compute_version).replace(".", "")
    return (
        f"-arch={wanted[0]} is newer than its GPU, sm_{here}" if int(wanted[1]) > int(here) else ""
    )


# ---------------------------------------------------------------- what LLVM knows


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


def _is_x86(target: Target) -> bool:
    machine = str(target.attrs.get("mtriple", "")).split("-")[0] or platform.machine()
    architecture = _ARCHITECTURES.get(machine.lower(), machine.lower())
    return architecture == "x86_64" and "arm_cpu" not in str(target.attrs.get("device", ""))


def _cpu_features(target: Target) -> set[str]:
    """Return the instructions that programs may use, under LLVM's names."""
    ask = tvm.get_global_func("target.llvm_get_cpu_features", allow_missing=True)
    if ask is not None:
        return {str(feature) for feature in ask(target)}
    names = {c.name: c.flags for group in CPU_NAMES.values() for c in group}
    return set(names.get(str(target.attrs.get("mcpu", "")), ()))


def _vector_bytes(target: Target) -> int:
    """Width of the CPU's vector registers."""
    features = _cpu_features(target)
    if "avx512f" in features:
        return 64
    return 32 if "avx" in features else 16


def _did_you_mean(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=3)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
