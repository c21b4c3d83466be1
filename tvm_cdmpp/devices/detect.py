"""The devices of this machine, and the one that a task's programs run on.

A device that the registry knows has the registry's figures, the same on every machine and every
day, as a predictor needs them that was trained elsewhere. Others are described by Linux's tables
or the CUDA driver; what these do not tell is assumed, and `sources` says so. No figure is a
momentary one. A target that is not this machine's is never described as this machine.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

from tvm_cdmpp.devices.cuda import CudaProperties, describe_gpu, read_cuda_gpus
from tvm_cdmpp.devices.hardware import Hardware
from tvm_cdmpp.devices.host import HostCPU, read_host_cpu
from tvm_cdmpp.devices.registry import Registry, load_registry
from tvm_cdmpp.devices.spec import RANGES, REQUIRED_FIGURES, DeviceSpec, Kind, generic_gpu
from tvm_cdmpp.errors import ConfigError, UnknownDeviceError

_logger = logging.getLogger(__name__)

_KINDS_OF_TARGETS: dict[str, Kind] = {
    **dict.fromkeys(("llvm", "c"), "cpu"),
    **dict.fromkeys(("cuda", "nvptx", "rocm", "metal", "opencl", "vulkan", "webgpu"), "gpu"),
}
_ADVICE = (
    "Name it in the target, as in `-model=t4`, or give it, as in `CDMPPModel(device=find_device("
    '"t4"))`; `tvm-cdmpp device show` lists the known ones, `tvm-cdmpp device add` adds one.'
)
_UNNAMED_MODELS = ("", "unknown")  # what TVM puts into targets on its own
_ASSUMED = "assumed: a common server core"
_CACHES = "/sys/devices/system/cpu/cpu0/cache"


def device_for(
    target_kind: str,
    model: str,
    hardware: Hardware,
    registry: Registry | None = None,
    *,
    elsewhere: str = "",
) -> DeviceSpec:
    """Choose the device that a task's programs run on.

    `tvm_cdmpp.bridge.target.device_of` reads the first arguments and the last from a target.

    Parameters
    ----------
    target_kind
        Kind of the task's target, such as `llvm` or `cuda`.
    model
        The target's `-model`: a device of the registry, this machine's CPU as `detect_cpu` names
        it, or `unknown`.
    hardware
        The task's hardware parameters; a CPU gets its cores and vector width from them.
    registry
        Known devices; the built-in ones and the user's by default.
    elsewhere
        Why the target is not this machine's; empty if it may be.

    Returns
    -------
    device
        The device that the target names; without a name this machine's CPU for CPU targets, its
        first GPU for `cuda`, and for other GPUs a generic one, which is logged.

    Raises
    ------
    UnknownDeviceError
        The target names a device that is not known, or names none and is not this machine's.
    """
    known = registry or load_registry()
    kind = _KINDS_OF_TARGETS.get(target_kind, "accelerator")
    cores, simd_bytes = max(1, hardware.cores), hardware.vector_bytes
    named = known.match(model)
    if named is not None and named.kind == kind:
        return _programmed(named, cores, simd_bytes) if kind == "cpu" else named
    if model not in _UNNAMED_MODELS:
        if kind == "cpu" and (here := _cpu_here(model, known, cores, simd_bytes)):
            return here
        found = f"'{named.name}' is a {named.kind}" if named else "no known device has that name"
        raise UnknownDeviceError(
            f"The target's -model={model} must be that of a known {kind}; {found}. {_ADVICE}"
        )
    if elsewhere or kind == "accelerator":
        reason = elsewhere or f"nothing is assumed about {target_kind}"
        raise UnknownDeviceError(f"The target must name its device: {reason}. {_ADVICE}")
    if kind == "cpu":
        return detect_cpu(cores, simd_bytes, registry=known)
    gpus: tuple[DeviceSpec, ...] = ()
    if target_kind == "cuda":
        try:
            gpus = detect_gpus(known)
        except (UnknownDeviceError, ConfigError) as error:
            _logger.warning("%s", error)
    if gpus:
        _logger.info("predicting for %s", gpus[0].name)
        return gpus[0]
    _logger.info("predicting for a common data-centre GPU, as nothing tells which one. %s", _ADVICE)
    return generic_gpu(target_kind)


def find_device(name: str, registry: Registry | None = None) -> DeviceSpec:
    """Return a built-in device, one of the user's, or this machine's CPU as `detect_cpu` names it.

    Parameters
    ----------
    name
        Name or alias, in any case, with or without spaces, dashes and the vendor's name.
    registry
        Known devices; the built-in ones and the user's by default.

    Raises
    ------
    UnknownDeviceError
        There is no such device; the message names similar ones.
    ConfigError
        The user's file is damaged.
    """
    known = registry or load_registry()
    return known.match(name) or _cpu_here(name, known) or known.find(name)


def _cpu_here(
    name: str, registry: Registry, cores: int | None = None, simd_bytes: int | None = None
) -> DeviceSpec | None:
    """Return this machine's CPU, if that is its name or an alias of it."""
    here = detect_cpu(cores, simd_bytes, registry=registry)
    return here if Registry((here,)).match(name) else None


def detect_gpus(registry: Registry | None = None) -> tuple[DeviceSpec, ...]:
    """Describe the GPUs that the CUDA driver shows, in its order; none without a driver.

    Raises
    ------
    UnknownDeviceError
        There is a driver, but it fails.
    ConfigError
        The driver tells an impossible figure about a GPU that the registry does not know.
    """
    known = registry or load_registry()
    return tuple(_known_gpu(properties, known) for properties in read_cuda_gpus())


def _known_gpu(properties: CudaProperties, registry: Registry) -> DeviceSpec:
    """Return the registry's device of this name, unless this is another one of that name.

    Laptops have other chips under the name of a card, and a part of a divided GPU has its name.
    """
    entry = registry.match(properties.name)
    if entry is not None and entry.cores == properties.multiprocessors:
        return entry
    return registry.calibrated(replace(describe_gpu(properties), name=_dashed(properties.name)))


def detect_cpu(
    cores: int | None = None, simd_bytes: int | None = None, *, registry: Registry | None = None
) -> DeviceSpec:
    """Describe this machine's CPU.

    Parameters
    ----------
    cores
        Cores that programs may use; those this process may run on by default.
    simd_bytes
        Vector register size that the compiler uses; the CPU's largest by default.
    registry
        Known devices; the built-in ones and the user's by default.

    Returns
    -------
    device
        Figures from the registry where it knows the CPU, else from Linux's tables.
    """
    host = read_host_cpu()
    known = registry or load_registry()
    entry = known.match(host.name)
    cores = cores or host.physical_cores
    if entry is not None and entry.kind == "cpu":
        return _programmed(entry, cores, simd_bytes)
    return known.calibrated(_described(host, cores, simd_bytes))


def _programmed(entry: DeviceSpec, cores: int, simd_bytes: int | None) -> DeviceSpec:
    """Return a CPU as programs use it: some of its cores, vectors of some width."""
    # TVM's own hardware parameters claim 64 bytes for every CPU.
    simd_bytes = min(simd_bytes or entry.simd_bytes, entry.simd_bytes)
    # One unit for wide vectors is two for narrow ones, on all cores that have such a thing.
    most = max(2.0, entry.fused_multiply_adds_per_cycle)
    lanes_per_cycle = entry.fused_multiply_adds_per_cycle * entry.simd_bytes
    share = cores / entry.cores
    return replace(
        entry,
        cores=cores,
        simd_bytes=simd_bytes,
        fused_multiply_adds_per_cycle=min(lanes_per_cycle / simd_bytes, most),
        float16_flops=None if entry.float16_flops is None else share * entry.float16_flops,
        int8_ops=None if entry.int8_ops is None else share * entry.int8_ops,
        sources={**entry.sources, **dict.fromkeys(("cores", "simd_bytes"), "in use by programs")},
    )


def _described(host: HostCPU, cores: int, simd_bytes: int | None) -> DeviceSpec:
    """Describe a CPU by Linux's tables."""
    figures: dict[str, float] = {}
    sources = {
        **dict.fromkeys(REQUIRED_FIGURES, _ASSUMED),
        "cores": "in use by programs",
        "simd_bytes": "in use by programs" if simd_bytes else "/proc/cpuinfo",
    }
    found = {f"l{level}_bytes": (size, _CACHES) for level, size in _cache_bytes().items()}
    if host.clock_hz is not None:
        found["clock_hz"] = host.clock_hz, host.clock_source
    for name, (value, source) in found.items():
        least, most, _ = RANGES[name]
        if least <= value <= most:  # some virtual machines tell nonsense
            figures[name], sources[name] = value, source
    return DeviceSpec(
        name=_dashed(host.name) or "cpu",
        kind="cpu",
        cores=cores,
        simd_bytes=simd_bytes or _widest_vector(host.flags),
        aliases=(host.name,) if host.name else (),
        sources=sources,
        **figures,  # type: ignore[arg-type]  # none of them is an integer's
    )


def _dashed(name: str) -> str:
    """Turn a name into one as files of devices have it."""
    words = re.findall(r"[a-z0-9][a-z0-9.+]*", re.sub(r"\((r|tm)\)|@.*", " ", name.casefold()))
    return "-".join(words)


def _widest_vector(flags: frozenset[str]) -> int:
    if "avx512f" in flags:
        return 64
    return 32 if "avx2" in flags or "avx" in flags else 16


def _cache_bytes() -> dict[str, float]:
    """Read the sizes of the first core's data caches, by level."""
    sizes: dict[str, float] = {}
    for index in sorted(Path(_CACHES).glob("index*")):
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
