"""What the CUDA driver tells about its GPUs.

The driver's own library is asked through `ctypes`: it is there whenever a GPU can be used, needs
neither a CUDA build of torch nor `nvidia-smi`, and tells figures of GPUs that no registry knows.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from tvm_cdmpp.devices.spec import REQUIRED_FIGURES, DeviceSpec
from tvm_cdmpp.errors import UnknownDeviceError

_DRIVER = "libcuda.so.1"
_NO_DEVICE = 100
_NAME_BYTES = 256

# Float32 lanes of a multiprocessor, by compute capability or its major number, as in the CUDA
# programming guide's table of arithmetic throughput. Later ones have had as many as the last.
_LANES = {
    (3,): 192,
    (5,): 128,
    (6, 0): 64,
    (6,): 128,
    (7,): 64,
    (8, 0): 64,
    (8,): 128,
    (9,): 128,
}
_LATER_LANES = 128


@dataclass(frozen=True, kw_only=True)
class CudaProperties:
    """Properties of one GPU, in the units of the driver."""

    name: str
    major: int
    """Compute capability, before the point."""
    minor: int
    multiprocessors: int
    warp_size: int
    clock_khz: int
    memory_clock_khz: int
    bus_bits: int
    l2_bytes: int
    shared_bytes_per_core: int
    shared_bytes_per_block: int
    """What a block may have at most, if it asks for it."""


_ATTRIBUTES = {
    "major": 75,
    "minor": 76,
    "multiprocessors": 16,
    "warp_size": 10,
    "clock_khz": 13,
    "memory_clock_khz": 36,
    "bus_bits": 37,
    "l2_bytes": 38,
    "shared_bytes_per_core": 81,
    "shared_bytes_per_block": 97,
}
"""Numbers of `CUdevice_attribute`, which never change."""


def read_cuda_gpus(driver: str = _DRIVER) -> tuple[CudaProperties, ...]:
    """Ask the CUDA driver for the GPUs it shows to this process, in its order.

    Parameters
    ----------
    driver
        Name or path of the driver's library.

    Returns
    -------
    gpus
        None of them where there is no driver or no GPU.

    Raises
    ------
    UnknownDeviceError
        There is a driver, but it fails.
    """
    try:
        cuda = ctypes.CDLL(driver)
        start = cuda.cuInit
    except (OSError, AttributeError):
        return ()  # no driver, or the stub that only satisfies TVM's loader
    status = start(0)
    if status == _NO_DEVICE:
        return ()
    _check(status, "cuInit")
    count = ctypes.c_int()
    _check(cuda.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    return tuple(_read_gpu(cuda, number) for number in range(count.value))


def describe_gpu(properties: CudaProperties) -> DeviceSpec:
    """Make a device of what the driver tells; its name is that of the driver.

    Raises
    ------
    ConfigError
        A property is 0, as some virtual GPUs have it.
    """
    capability = (properties.major, properties.minor)
    lanes = _LANES.get(capability) or _LANES.get(capability[:1], _LATER_LANES)
    # Memory moves data on both edges of its clock.
    bandwidth = 2.0 * properties.memory_clock_khz * 1e3 * properties.bus_bits / 8
    shared = ("shared_bytes_per_core", "shared_bytes_per_block")
    sources = dict.fromkeys((*REQUIRED_FIGURES, *shared), "CUDA driver")
    sources["fused_multiply_adds_per_cycle"] = (
        f"{lanes} lanes of compute capability {properties.major}.{properties.minor}, CUDA "
        "programming guide"
    )
    sources["l1_bytes"] = "estimated: as much as shared memory"
    sources["bandwidth_bytes_per_s"] = "computed from the CUDA driver's memory clock and bus width"
    return DeviceSpec(
        name=properties.name,
        kind="gpu",
        cores=properties.multiprocessors,
        clock_hz=properties.clock_khz * 1e3,
        simd_bytes=4 * properties.warp_size,
        fused_multiply_adds_per_cycle=lanes / max(1, properties.warp_size),
        l1_bytes=properties.shared_bytes_per_core,
        l2_bytes=properties.l2_bytes,
        l3_bytes=0,
        bandwidth_bytes_per_s=bandwidth,
        shared_bytes_per_core=properties.shared_bytes_per_core,
        shared_bytes_per_block=properties.shared_bytes_per_block,
        aliases=(properties.name,),
        sources=sources,
    )


def _read_gpu(cuda: ctypes.CDLL, number: int) -> CudaProperties:
    device, value = ctypes.c_int(), ctypes.c_int()
    _check(cuda.cuDeviceGet(ctypes.byref(device), number), "cuDeviceGet")
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _check(cuda.cuDeviceGetName(name, _NAME_BYTES, device), "cuDeviceGetName")
    figures = {}
    for attribute, code in _ATTRIBUTES.items():
        _check(cuda.cuDeviceGetAttribute(ctypes.byref(value), code, device), "cuDeviceGetAttribute")
        figures[attribute] = value.value
    return CudaProperties(name=name.value.decode(errors="replace"), **figures)


def _check(status: int, function: str) -> None:
    if status != 0:
        raise UnknownDeviceError(
            f"The CUDA driver should tell which GPUs there are; {function} fails with error "
            f"{status}. Repair the driver, or name the GPU in the target, as in `cuda -model=t4`."
        )
